//! Which grants are meant: what a list shows is what a revocation by the same selector ends, all of it or nothing.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "selectors/empty.rs"]
mod empty;
mod support;

use std::collections::BTreeSet;

use aks_access_broker::grpc::proto::{
    AzureRole, Grant, GrantRequest, GrantSelector, ListGrantsRequest, RevokeRequest,
    WatchJobRequest, grant, job,
};
use support::ask::{access, active, permanent, revocation_of, revoked, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const READER: &str = "7f6c6a51-bcf8-42ba-9220-52d62157d7db";

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

fn labelled(request: GrantRequest, labels: &[(&str, &str)]) -> GrantRequest {
    let labels = labels.iter();
    GrantRequest {
        labels: labels
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..request
    }
}

fn by_labels(labels: &[(&str, &str)]) -> GrantSelector {
    let labels = labels.iter();
    GrantSelector {
        labels: labels
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..GrantSelector::default()
    }
}

/// Six grants that differ in everything a selector can say.
async fn six(client: &mut Client, world: &World) -> Vec<Grant> {
    let [production, development] =
        ["aks-production", "aks-development"].map(|name| world.cluster(name));
    let reader = |namespaces: &[&str]| access(AzureRole::RbacReader, namespaces);
    let writer = access(AzureRole::RbacWriter, &["shop"]);
    let requests = [
        labelled(
            permanent(ALICE, &production, reader(&[])),
            &[("team", "a"), ("ticket", "1")],
        ),
        labelled(
            permanent(ALICE, &production, reader(&["shop"])),
            &[("team", "a"), ("ticket", "2")],
        ),
        labelled(
            permanent(ALICE, &development, reader(&["shop", "till"])),
            &[("team", "b")],
        ),
        permanent(BOB, &production, writer),
        GrantRequest {
            external_key: "order 66".to_owned(),
            ..permanent(BOB, &development, access(AzureRole::ClusterUser, &[]))
        },
        permanent(BOB, &development, reader(&[])),
    ];
    let mut grants = Vec::new();
    for request in requests {
        grants.push(active(client, request).await);
    }
    grants
}

async fn listed(
    client: &mut Client,
    selector: GrantSelector,
    states: &[grant::State],
) -> Vec<String> {
    let request = ListGrantsRequest {
        selector: Some(selector),
        states: states.iter().map(|state| i32::from(*state)).collect(),
        ..ListGrantsRequest::default()
    };
    let answer = client
        .list_grants(request)
        .await
        .expect("a page")
        .into_inner();
    assert!(answer.next_page_token.is_empty());
    answer
        .grants
        .into_iter()
        .map(|grant| grant.grant_id)
        .collect()
}

/// Each selector, and which of the six it means.
fn selectors(world: &World) -> Vec<(&'static str, GrantSelector, Vec<usize>)> {
    let cluster = |name: &str| GrantSelector {
        cluster: Some(world.cluster(name).to_uppercase()),
        ..GrantSelector::default()
    };
    let namespaces = |names: &[&str]| GrantSelector {
        namespaces: names.iter().map(ToString::to_string).collect(),
        ..GrantSelector::default()
    };
    vec![
        (
            "a principal",
            GrantSelector {
                principal: Some(user(ALICE)),
                ..GrantSelector::default()
            },
            vec![0, 1, 2],
        ),
        (
            "a cluster in any case",
            cluster("aks-development"),
            vec![2, 4, 5],
        ),
        (
            "a built-in role",
            GrantSelector {
                azure_role: Some(AzureRole::RbacWriter.into()),
                ..GrantSelector::default()
            },
            vec![3],
        ),
        (
            "a role by its GUID",
            GrantSelector {
                role_definition_id: Some(READER.to_uppercase()),
                ..GrantSelector::default()
            },
            vec![0, 1, 2, 5],
        ),
        ("one namespace", namespaces(&["shop"]), vec![1, 3]),
        (
            "two namespaces",
            namespaces(&["shop", "till"]),
            vec![1, 2, 3],
        ),
        ("a label", by_labels(&[("team", "a")]), vec![0, 1]),
        (
            "two labels",
            by_labels(&[("team", "a"), ("ticket", "2")]),
            vec![1],
        ),
        (
            "labels of which one is nobody's",
            by_labels(&[("team", "a"), ("ticket", "3")]),
            vec![],
        ),
        (
            "an external key",
            GrantSelector {
                external_key: Some("order 66".to_owned()),
                ..GrantSelector::default()
            },
            vec![4],
        ),
        (
            "a caller",
            GrantSelector {
                requested_by: Some(world.platform_name()),
                ..GrantSelector::default()
            },
            vec![0, 1, 2, 3, 4, 5],
        ),
        (
            "nobody",
            GrantSelector {
                requested_by: Some("nobody".to_owned()),
                ..GrantSelector::default()
            },
            vec![],
        ),
        (
            "several parts",
            GrantSelector {
                principal: Some(user(ALICE)),
                azure_role: Some(AzureRole::RbacReader.into()),
                ..cluster("aks-production")
            },
            vec![0, 1],
        ),
    ]
}

#[tokio::test]
async fn a_list_shows_what_a_revocation_would_end() {
    let (world, _broker, mut client) = world().await;
    let six = six(&mut client, &world).await;
    for (what, selector, meant) in selectors(&world) {
        let expected: Vec<&str> = meant
            .iter()
            .rev()
            .map(|n| six[*n].grant_id.as_str())
            .collect();
        let listed = listed(&mut client, selector.clone(), &[]).await;
        assert_eq!(listed, expected, "{what}, newest first");
        let seen = RevokeRequest {
            validate_only: true,
            ..revocation_of(selector)
        };
        let seen = revoked(&mut client, seen).await;
        assert_eq!(
            usize::try_from(seen.matched_grants),
            Ok(meant.len()),
            "{what}"
        );
        assert!(seen.job.is_none());
    }
}

#[tokio::test]
async fn each_selector_ends_what_it_means_and_nothing_else() {
    for of in [0, 1, 4, 5, 7, 12] {
        let (world, _broker, mut client) = world().await;
        let six = six(&mut client, &world).await;
        let (what, selector, meant) = selectors(&world).swap_remove(of);
        let accepted = revoked(&mut client, revocation_of(selector.clone())).await;
        assert_eq!(
            usize::try_from(accepted.matched_grants),
            Ok(meant.len()),
            "{what}"
        );
        let job = ask::over(&mut client, &accepted.job.unwrap().job_id).await;
        assert_eq!(
            (job.kind(), job.state()),
            (job::Kind::Revoke, job::State::Succeeded)
        );
        for (n, grant) in six.iter().enumerate() {
            let now = ask::the_grant(&mut client, &grant.grant_id).await;
            let expected = if meant.contains(&n) {
                grant::State::Revoked
            } else {
                grant::State::Active
            };
            assert_eq!(now.state(), expected, "{what}: {now:?}");
        }
        let ended: BTreeSet<String> = listed(&mut client, selector, &[grant::State::Revoked])
            .await
            .into_iter()
            .collect();
        assert_eq!(
            ended.len(),
            meant.len(),
            "{what}: what has ended is found by the same selector"
        );
    }
}

#[tokio::test]
async fn where_more_match_than_the_caller_is_ready_to_end_none_is_ended() {
    let (world, _broker, mut client) = world().await;
    six(&mut client, &world).await;
    world.at_rest().await;
    let before = world.redis.everything().await;
    let alices = revocation_of(GrantSelector {
        principal: Some(user(ALICE)),
        ..GrantSelector::default()
    });
    for validate_only in [true, false] {
        let request = RevokeRequest {
            max_grants: 2,
            validate_only,
            ..alices.clone()
        };
        let refusal = Refusal::from(client.revoke(request).await);
        assert_eq!(
            refusal.kind(),
            (Code::FailedPrecondition, "TOO_MANY_MATCHES")
        );
        assert_eq!(refusal.metadata["max_grants"], "2");
    }
    assert_eq!(world.redis.everything().await, before);
    let enough = RevokeRequest {
        max_grants: 3,
        ..alices
    };
    let accepted = revoked(&mut client, enough.clone()).await;
    assert_eq!(accepted.matched_grants, 3);
    let job = accepted.job.unwrap();
    ask::over(&mut client, &job.job_id).await;
    let again = revoked(&mut client, enough).await;
    assert_eq!(
        again.job.unwrap().job_id,
        job.job_id,
        "the same request is the same job"
    );
    assert_eq!(again.matched_grants, 3);
}

#[tokio::test]
async fn what_matches_nothing_is_over_at_once() {
    let (_world, _broker, mut client) = world().await;
    let accepted = revoked(&mut client, revocation_of(by_labels(&[("team", "nobody")]))).await;
    let job = accepted.job.unwrap();
    assert_eq!(job.state(), job::State::Succeeded);
    assert_eq!((job.total_targets, accepted.matched_grants), (0, 0));
    assert!(job.finish_time.is_some() && !job.consistency_token.is_empty());
    assert_eq!(ask::over(&mut client, &job.job_id).await.job_id, job.job_id);
}

/// Everybody's of one cluster, with one of them stuck: the others do not wait for it.
#[tokio::test]
async fn i5_a_revocation_of_many_is_over_when_the_last_of_them_is_gone() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let mut grants = Vec::new();
    for n in 0..25 {
        let user = if n == 0 { ALICE } else { Uuid::new_v4() };
        let request = permanent(user, &cluster, access(AzureRole::RbacReader, &[]));
        grants.push(
            client
                .grant(request)
                .await
                .unwrap()
                .into_inner()
                .grant
                .unwrap(),
        );
    }
    world.at_rest().await;
    let alices = world
        .emulator
        .role_assignments()
        .into_iter()
        .find(|found| found.principal == ALICE && found.description.is_some())
        .expect("Alice's");
    world.emulator.add_fault(azure_emulator::Fault {
        path_contains: Some(alices.name.to_string()),
        ..azure_emulator::Fault::always(
            azure_emulator::Operation::RoleAssignmentDelete,
            azure_emulator::FaultEffect::Status {
                status: 409,
                code: "ScopeLocked".to_owned(),
                message: "locked".to_owned(),
                retry_after: None,
            },
        )
    });
    let everybodys = GrantSelector {
        cluster: Some(cluster.clone()),
        ..GrantSelector::default()
    };
    let accepted = revoked(&mut client, revocation_of(everybodys)).await;
    let job = accepted.job.unwrap();
    assert_eq!((job.total_targets, accepted.matched_grants), (25, 25));
    assert_eq!(job.cluster, cluster.to_lowercase());
    assert!(job.principal.is_none(), "they differ");
    let request = WatchJobRequest {
        job_id: job.job_id.clone(),
    };
    let mut told = client.watch_job(request).await.unwrap().into_inner();
    while let Some(response) = told.message().await.unwrap() {
        let now = response.job.unwrap();
        assert!(now.finish_time.is_none(), "Alice's cannot be gone: {now:?}");
        // Where only hers is left, the job waits as she does.
        if now.completed_targets == 24 && now.state() == job::State::Retrying {
            assert_eq!(now.last_error.unwrap().reason, "SCOPE_LOCKED");
            assert!(now.next_attempt_time.is_some());
            break;
        }
    }
    world.emulator.clear_faults();
    let over = ask::over(&mut client, &job.job_id).await;
    assert_eq!(
        (over.state(), over.completed_targets),
        (job::State::Succeeded, 25)
    );
    assert_eq!(world.truth(), BTreeSet::new());
}
