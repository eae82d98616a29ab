//! `BatchCheckAccess` and `ListAccess`: many questions at once, and who has what.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::batch_check_access_response::item::Result as Outcome;
use aks_access_broker::grpc::proto::{
    AccessPath, AzureRole, BatchCheckAccessRequest, CheckAccessRequest, CheckAccessResponse,
    Decision, Failure, KubernetesRequest, ListAccessRequest, ListAccessResponse, PrincipalRef,
    list_access_response,
};
use azure_emulator::{DenyAssignment, Fault, FaultEffect, Operation, Scope};
use support::ask::{access, active, lasting, now, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const JUDY: Uuid = uuid!("10000000-0000-4000-8000-00000000000a");
const ENGINEERING: Uuid = uuid!("20000000-0000-4000-8000-000000000001");
const PAYMENTS: Uuid = uuid!("20000000-0000-4000-8000-000000000004");
const READER: Uuid = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");
const WRITER: Uuid = uuid!("a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb");
/// *Reader*: of everything, at the control plane.
const GENERAL_READER: Uuid = uuid!("acdd72a7-3385-48ef-bd42-f606fba81ae7");

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

fn secrets(namespace: &str) -> KubernetesRequest {
    KubernetesRequest {
        verb: "get".to_owned(),
        resource: "secrets".to_owned(),
        namespace: namespace.to_owned(),
        ..KubernetesRequest::default()
    }
}

/// The batch's results, in its order.
async fn outcomes(client: &mut Client, requests: Vec<CheckAccessRequest>) -> Vec<Outcome> {
    let asked = BatchCheckAccessRequest {
        requests,
        consistency: Some(now()),
        explain: false,
    };
    let answered = client.batch_check_access(asked).await.expect("answers");
    let items = answered.into_inner().items.into_iter();
    items.map(|item| item.result.expect("a result")).collect()
}

fn response(outcome: &Outcome) -> &CheckAccessResponse {
    match outcome {
        Outcome::Response(response) => response,
        Outcome::Error(error) => panic!("{error:?}"),
    }
}

fn failure(outcome: &Outcome) -> &Failure {
    match outcome {
        Outcome::Error(failure) => failure,
        Outcome::Response(response) => panic!("{response:?}"),
    }
}

#[tokio::test]
async fn each_check_of_a_batch_has_a_result_of_its_own_in_its_order() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let reader = access(AzureRole::RbacReader, &["web"]);
    let hour = Duration::from_hours(1);
    active(&mut client, lasting(ALICE, &cluster, reader.clone(), hour)).await;
    let of = |principal: PrincipalRef| CheckAccessRequest {
        principal: Some(principal),
        cluster: cluster.clone(),
        access: Some(reader.clone()),
        ..CheckAccessRequest::default()
    };
    let mut requests = vec![
        of(user(ALICE)),
        of(PrincipalRef::default()),
        CheckAccessRequest {
            cluster: cluster.replace("aks-production", "nowhere"),
            ..of(user(ALICE))
        },
        CheckAccessRequest {
            consistency: Some(now()),
            ..of(user(ALICE))
        },
        CheckAccessRequest {
            access: None,
            request: Some(secrets("web")),
            explain: true,
            ..of(user(ALICE))
        },
    ];
    requests.extend(std::iter::repeat_n(of(user(BOB)), 995));
    let before = world.count(Operation::RoleAssignmentList);
    let outcomes = outcomes(&mut client, requests).await;
    // A thousand who ask now ask Azure together.
    let lists = world.count(Operation::RoleAssignmentList) - before;
    assert!(lists <= 4, "{lists} lists");
    assert_eq!(outcomes.len(), 1_000);
    assert_eq!(response(&outcomes[0]).decision(), Decision::Allowed);
    let invalid = failure(&outcomes[1]);
    assert_eq!(
        (invalid.code, invalid.reason.as_str()),
        (Code::InvalidArgument as i32, "INVALID_REQUEST")
    );
    assert!(invalid.metadata.contains_key("principal"), "{invalid:?}");
    let nowhere = failure(&outcomes[2]);
    assert_eq!(
        (nowhere.code, nowhere.reason.as_str()),
        (Code::NotFound as i32, "CLUSTER_NOT_FOUND")
    );
    assert!(!nowhere.retryable && nowhere.metadata.contains_key("cluster"));
    assert!(failure(&outcomes[3]).metadata.contains_key("consistency"));
    let findings = |outcome: &Outcome| {
        let permission = response(outcome).permission.clone();
        permission.expect("a layer").findings.len()
    };
    assert_eq!(response(&outcomes[4]).decision(), Decision::Denied);
    assert!(findings(&outcomes[4]) > 0, "it was to be explained");
    for outcome in &outcomes[5..] {
        assert_eq!(response(outcome).decision(), Decision::Denied);
        assert_eq!(findings(outcome), 0);
    }
}

#[tokio::test]
async fn a_batch_of_none_or_of_too_many_is_refused_whole() {
    let (_world, _broker, mut client) = world().await;
    for count in [0, 1_001] {
        let asked = BatchCheckAccessRequest {
            requests: vec![CheckAccessRequest::default(); count],
            ..BatchCheckAccessRequest::default()
        };
        Refusal::from(client.batch_check_access(asked).await).names(&["requests"]);
    }
}

/// All pages, each of `size` entries at most.
async fn listed(
    client: &mut Client,
    request: &ListAccessRequest,
    size: i32,
) -> Vec<ListAccessResponse> {
    let mut pages: Vec<ListAccessResponse> = Vec::new();
    loop {
        let token = pages
            .last()
            .map(|page| page.next_page_token.clone())
            .unwrap_or_default();
        let asked = ListAccessRequest {
            page_size: size,
            page_token: token,
            consistency: Some(now()),
            ..request.clone()
        };
        let page = client
            .list_access(asked)
            .await
            .expect("a page")
            .into_inner();
        assert!(
            page.entries.len() <= usize::try_from(size).expect("a size"),
            "{page:?}"
        );
        let is_last = page.next_page_token.is_empty();
        pages.push(page);
        if is_last {
            return pages;
        }
    }
}

fn entries(pages: Vec<ListAccessResponse>) -> Vec<list_access_response::Entry> {
    pages.into_iter().flat_map(|page| page.entries).collect()
}

/// Who has which role where, below `/subscriptions/{id}`.
fn told(entries: &[list_access_response::Entry]) -> BTreeSet<(String, String, String)> {
    let told = entries.iter().map(|entry| {
        let path = entry.path.as_ref().expect("a path");
        let holder = entry
            .principal
            .as_ref()
            .expect("a principal")
            .object_id
            .clone();
        let scope = path.scope.rsplit('/').next().unwrap_or_default().to_owned();
        (holder, path.role.clone(), scope)
    });
    told.collect()
}

#[tokio::test]
async fn everybody_who_has_something_on_a_cluster_is_listed_page_by_page() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let subscription = cluster
        .split("/resourceGroups")
        .next()
        .expect("it")
        .to_owned();
    let hour = Duration::from_hours(1);
    let granted = active(
        &mut client,
        lasting(
            ALICE,
            &cluster,
            access(AzureRole::RbacReader, &["web"]),
            hour,
        ),
    )
    .await;
    world.somebody_else_gives(&format!("{cluster}/namespaces/web"), WRITER, BOB, None);
    world.somebody_else_gives(&subscription, READER, ENGINEERING, None);
    let of_cluster = ListAccessRequest {
        cluster: Some(cluster.clone()),
        ..ListAccessRequest::default()
    };
    let all = entries(listed(&mut client, &of_cluster, 1_000).await);
    let by_two = entries(listed(&mut client, &of_cluster, 2).await);
    let paths = |entries: &[list_access_response::Entry]| -> Vec<AccessPath> {
        let paths = entries.iter().map(|it| it.path.clone().expect("a path"));
        paths.collect()
    };
    assert_eq!(paths(&all), paths(&by_two));
    let told = told(&all);
    for (who, role, place) in [
        (ALICE, "Azure Kubernetes Service RBAC Reader", "web"),
        (
            ALICE,
            "Azure Kubernetes Service Cluster User Role",
            "aks-production",
        ),
        (BOB, "Azure Kubernetes Service RBAC Writer", "web"),
        (
            ENGINEERING,
            "Azure Kubernetes Service RBAC Reader",
            "00000000-0000-4000-8000-000000000001",
        ),
    ] {
        assert!(
            told.contains(&(who.to_string(), role.to_owned(), place.to_owned())),
            "{who} {role} {place}: {told:?}"
        );
    }
    let of_alice = all
        .iter()
        .filter(|entry| entry.principal.as_ref().expect("it").object_id == ALICE.to_string());
    for entry in of_alice {
        let path = entry.path.as_ref().expect("a path");
        assert!(path.managed && !path.inherited, "{path:?}");
        assert_eq!(
            (path.grant_id.as_str(), path.expire_time),
            (granted.grant_id.as_str(), granted.expire_time)
        );
    }

    // Who may read secrets in web? The writer, and whoever may do more; none of the readers.
    let who_may = ListAccessRequest {
        request: Some(secrets("web")),
        ..of_cluster.clone()
    };
    let who_may: BTreeSet<String> = entries(listed(&mut client, &who_may, 1_000).await)
        .into_iter()
        .map(|entry| entry.principal.expect("a principal").object_id)
        .collect();
    assert!(who_may.contains(&BOB.to_string()), "{who_may:?}");
    for nobody in [ALICE, ENGINEERING] {
        assert!(!who_may.contains(&nobody.to_string()), "{who_may:?}");
    }
    // A token goes with its own question.
    let asked = ListAccessRequest {
        page_size: 1,
        ..of_cluster.clone()
    };
    let token = client
        .list_access(asked)
        .await
        .expect("a page")
        .into_inner()
        .next_page_token;
    let another = ListAccessRequest {
        request: Some(secrets("web")),
        page_token: token,
        ..of_cluster
    };
    Refusal::from(client.list_access(another).await).names(&["page_token"]);
}

#[tokio::test]
async fn all_that_somebody_has_is_listed_on_every_cluster_and_what_is_out_of_reach_is_named() {
    let (world, _broker, mut client) = world().await;
    let production = world.cluster("aks-production");
    let development = world.cluster("aks-development");
    world.somebody_else_gives(&format!("{production}/namespaces/web"), WRITER, ALICE, None);
    world.somebody_else_gives(&development, READER, ENGINEERING, None);
    // It opens no cluster, and is not listed.
    world.somebody_else_gives(&development, GENERAL_READER, ALICE, None);
    let of_alice = ListAccessRequest {
        principal: Some(user(ALICE)),
        ..ListAccessRequest::default()
    };
    let found = entries(listed(&mut client, &of_alice, 1).await);
    let paths: Vec<_> = found
        .iter()
        .map(|entry| entry.path.clone().expect("a path"))
        .collect();
    let places: BTreeSet<&str> = paths.iter().map(|path| path.scope.as_str()).collect();
    let expected = [
        format!("{production}/namespaces/web").to_lowercase(),
        development.to_lowercase(),
    ];
    assert!(
        places.is_superset(&expected.iter().map(String::as_str).collect()),
        "{paths:?}"
    );
    let through_group = paths
        .iter()
        .find(|path| path.scope == development.to_lowercase())
        .expect("it");
    assert_eq!(through_group.via.len(), 1, "{through_group:?}");
    assert_eq!(through_group.via[0].object_id, ENGINEERING.to_string());
    assert_eq!(through_group.cluster, development.to_lowercase());

    let subscription = production.split("/resourceGroups").next().expect("it");
    world.emulator.add_fault(Fault {
        path_contains: Some(subscription.to_owned()),
        ..Fault::always(Operation::DenyAssignmentList, FaultEffect::CutBeforeCommit)
    });
    let asked = ListAccessRequest {
        consistency: Some(now()),
        ..of_alice.clone()
    };
    let page = client
        .list_access(asked)
        .await
        .expect("a page")
        .into_inner();
    assert!(!page.unreachable.is_empty(), "{page:?}");

    // Somebody who was deleted leaves something behind.
    world.emulator.clear_faults();
    world.somebody_else_gives(&development, READER, JUDY, None);
    world
        .emulator
        .delete_principal(JUDY)
        .expect("she was there");
    let asked = ListAccessRequest {
        principal: Some(user(JUDY)),
        ..ListAccessRequest::default()
    };
    assert_eq!(entries(listed(&mut client, &asked, 50).await).len(), 1);
    let nothing = ListAccessRequest::default();
    Refusal::from(client.list_access(nothing).await).names(&["cluster"]);
}

/// Somebody is judged by all that it is: what is denied to its group is denied to it, whatever it holds in person, and
/// the list of what permits something to it says what a check says.
#[tokio::test]
async fn what_permits_something_to_somebody_is_what_a_check_goes_by() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    for (role, holder) in [(WRITER, ALICE), (READER, ENGINEERING), (WRITER, JUDY)] {
        let scope = format!("{cluster}/namespaces/web");
        world.somebody_else_gives(&scope, role, holder, None);
    }
    let deny = DenyAssignment {
        principals: vec![ENGINEERING],
        ..DenyAssignment::for_everyone(
            Scope::parse(&cluster).expect("a scope"),
            "engineers read no secrets",
            &["Microsoft.ContainerService/managedClusters/secrets/*"],
        )
    };
    world
        .emulator
        .put_deny_assignment(deny)
        .expect("it is made");
    let pods = KubernetesRequest {
        resource: "pods".to_owned(),
        ..secrets("web")
    };
    for (who, request, expected) in [
        (ALICE, secrets("web"), vec![]),
        (JUDY, secrets("web"), vec![JUDY]),
        (ALICE, pods, vec![ALICE, ENGINEERING]),
    ] {
        let asked = ListAccessRequest {
            cluster: Some(cluster.clone()),
            principal: Some(user(who)),
            request: Some(request.clone()),
            ..ListAccessRequest::default()
        };
        let entries = entries(listed(&mut client, &asked, 1_000).await);
        let holders: BTreeSet<String> = told(&entries).into_iter().map(|(who, ..)| who).collect();
        let expected: BTreeSet<String> = expected.iter().map(Uuid::to_string).collect();
        assert_eq!(holders, expected, "{who} {request:?}");
        let check = CheckAccessRequest {
            principal: Some(user(who)),
            cluster: cluster.clone(),
            request: Some(request),
            consistency: Some(now()),
            ..CheckAccessRequest::default()
        };
        let checked = client.check_access(check).await.expect("an answer");
        let permission = checked.into_inner().permission.expect("a layer");
        let is_allowed = permission.decision() == Decision::Allowed;
        assert_eq!(is_allowed, !expected.is_empty(), "{permission:?}");
    }
}

/// The names of one holder among these entries.
fn names_of(holder: Uuid, entries: &[list_access_response::Entry]) -> BTreeSet<(String, String)> {
    let holders = entries.iter().map(|it| it.principal.clone().expect("it"));
    let of_it = holders.filter(|it| it.object_id == holder.to_string());
    let names = of_it.map(|it| (it.display_name, it.user_principal_name));
    names.collect()
}

#[tokio::test]
async fn holders_are_listed_with_their_names_where_the_directory_tells_them_in_good_time() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    world.somebody_else_gives(&cluster, WRITER, BOB, None);
    let of_cluster = ListAccessRequest {
        cluster: Some(cluster.clone()),
        ..ListAccessRequest::default()
    };
    let bob = ("Bob Brown".to_owned(), "bob@contoso.example".to_owned());
    let bob = BTreeSet::from([bob]);
    let mut all = Vec::new();
    // A list does not wait long for them, and a busy machine may have to.
    for _ in 0..10 {
        all = entries(listed(&mut client, &of_cluster, 1_000).await);
        if names_of(BOB, &all) == bob {
            break;
        }
    }
    assert_eq!(names_of(BOB, &all), bob);

    let silent = FaultEffect::Hold {
        name: "names".to_owned(),
    };
    let silent = Fault::always(Operation::GetByIds, silent);
    world.emulator.add_fault(silent);
    world.somebody_else_gives(&cluster, READER, PAYMENTS, None);
    let unnamed = entries(listed(&mut client, &of_cluster, 1_000).await);
    assert_eq!(unnamed.len(), all.len() + 1);
    let nothing = BTreeSet::from([(String::new(), String::new())]);
    assert_eq!(names_of(BOB, &unnamed), nothing);
}
