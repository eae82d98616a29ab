//! `GetCluster` and `ListClusters`: what there is, what is to be said of how it is set up, and what puts it right.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;

use std::time::Duration;

use aks_access_broker::grpc::proto::{
    Cluster, GetClusterRequest, ListClustersRequest, ListClustersResponse, finding::Severity,
};
use azure_emulator::{Fault, FaultEffect, Operation, Settings};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World};
use tonic::Code;
use uuid::Uuid;

const DEVELOPMENT: &str = "00000000-0000-4000-8000-000000000002";

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

async fn get(client: &mut Client, cluster: String) -> Cluster {
    let found = client.get_cluster(GetClusterRequest { cluster }).await;
    let found = found.expect("the cluster").into_inner();
    found.cluster.expect("a cluster")
}

async fn list(client: &mut Client, request: ListClustersRequest) -> ListClustersResponse {
    client
        .list_clusters(request)
        .await
        .expect("a page")
        .into_inner()
}

fn first(page_size: i32) -> ListClustersRequest {
    ListClustersRequest {
        page_size,
        ..ListClustersRequest::default()
    }
}

fn named(name: &str) -> ListClustersRequest {
    ListClustersRequest {
        name: Some(name.to_owned()),
        ..ListClustersRequest::default()
    }
}

fn names(page: &ListClustersResponse) -> Vec<&str> {
    page.clusters.iter().map(|it| it.name.as_str()).collect()
}

/// Reason, severity, and what the remedy is to contain.
type Expected = (&'static str, Severity, &'static str);

const NO_ENTRA: Expected = (
    "ENTRA_INTEGRATION_REQUIRED",
    Severity::Error,
    "--enable-aad --enable-azure-rbac",
);
const LOCAL_ACCOUNTS: Expected = (
    "LOCAL_ACCOUNTS_ENABLED",
    Severity::Warning,
    "--disable-local-accounts",
);
const ADMIN_GROUPS: Expected = (
    "ADMIN_GROUPS",
    Severity::Warning,
    "--aad-admin-group-object-ids \"\"",
);

const fn no_azure_rbac(remedy: &'static str) -> Expected {
    ("AZURE_RBAC_DISABLED", Severity::Error, remedy)
}

fn has_findings(cluster: &Cluster, expected: &[Expected]) {
    let found: Vec<_> = cluster
        .findings
        .iter()
        .map(|it| it.reason.as_str())
        .collect();
    let reasons: Vec<_> = expected.iter().map(|it| it.0).collect();
    assert_eq!(found, reasons, "{}", cluster.name);
    for (finding, (reason, severity, remedy)) in cluster.findings.iter().zip(expected) {
        assert_eq!(finding.severity(), *severity, "{reason}");
        assert!(finding.message.contains(&cluster.name), "{finding:?}");
        let command = &finding.remediation;
        assert!(command.starts_with("az aks "), "{command}");
        assert!(command.ends_with(remedy), "{command}");
        let subscription = cluster.id.split('/').nth(2).expect("a subscription");
        for part in [
            format!("--subscription {subscription} "),
            format!("--name {} ", cluster.name),
        ] {
            assert!(format!("{command} ").contains(&part), "{command}");
        }
    }
}

#[tokio::test]
async fn each_cluster_is_told_with_what_is_to_be_said_of_it_and_what_puts_it_right() {
    let (world, _broker, mut client) = world().await;
    let rbac = "--enable-azure-rbac";
    for (name, expected) in [
        ("aks-production", &[][..]),
        ("aks-development", &[]),
        ("aks-local-accounts", &[LOCAL_ACCOUNTS]),
        ("aks-kubernetes-rbac", &[no_azure_rbac(rbac), ADMIN_GROUPS]),
        (
            "aks-no-entra",
            &[NO_ENTRA, no_azure_rbac(NO_ENTRA.2), LOCAL_ACCOUNTS],
        ),
    ] {
        let asked = world.cluster(name);
        let cluster = get(&mut client, asked.to_uppercase()).await;
        has_findings(&cluster, expected);
        assert_eq!(cluster.id, asked.to_lowercase());
        assert_eq!(cluster.name, name);
        assert_eq!(cluster.power_state, "Running");
        let has = |reason| !cluster.findings.iter().any(|it| it.reason == reason);
        assert_eq!(cluster.entra_integration, has(NO_ENTRA.0));
        assert_eq!(cluster.azure_rbac, has("AZURE_RBAC_DISABLED"));
        assert_eq!(cluster.local_accounts_disabled, has(LOCAL_ACCOUNTS.0));
    }
    // A list says the same of each.
    for cluster in list(&mut client, first(0)).await.clusters {
        let alone = get(&mut client, cluster.id.clone()).await;
        assert_eq!(cluster, alone);
    }
}

/// As it is now: what an operator has just put right is not said any more.
#[tokio::test]
async fn a_stopped_cluster_is_told_until_it_has_been_started() {
    let (world, _broker, mut client) = world().await;
    let id = world.cluster("aks-production");
    has_findings(&get(&mut client, id.clone()).await, &[]);
    let running = world.emulator.world().clusters;
    let running = running.into_iter().find(|it| it.name == "aks-production");
    let running = running.expect("the cluster");
    let stopped = azure_emulator::Cluster {
        power_state: "Stopped".to_owned(),
        ..running.clone()
    };
    world.emulator.put_cluster(stopped).expect("a cluster");
    let found = get(&mut client, id.clone()).await;
    has_findings(
        &found,
        &[(
            "CLUSTER_STOPPED",
            Severity::Warning,
            "--name aks-production",
        )],
    );
    assert!(found.findings[0].remediation.starts_with("az aks start "));
    assert_eq!(found.power_state, "Stopped");
    world.emulator.put_cluster(running).expect("a cluster");
    has_findings(&get(&mut client, id).await, &[]);
}

#[tokio::test]
async fn a_cluster_that_cannot_be_read_is_an_error_and_never_a_guess() {
    let (world, _broker, mut client) = world().await;
    let id = world.cluster("aks-production");
    get(&mut client, id.clone()).await;
    for (status, code, expected) in [
        (
            403,
            "AuthorizationFailed",
            (Code::FailedPrecondition, "CLUSTER_NOT_READABLE"),
        ),
        (
            404,
            "SubscriptionNotFound",
            (Code::FailedPrecondition, "CLUSTER_NOT_READABLE"),
        ),
        (
            404,
            "ResourceGroupNotFound",
            (Code::NotFound, "CLUSTER_NOT_FOUND"),
        ),
        (
            503,
            "ServerTimeout",
            (Code::Unavailable, "AZURE_UNAVAILABLE"),
        ),
        (418, "Teapot", (Code::Unavailable, "AZURE_ERROR")),
    ] {
        let effect = FaultEffect::Status {
            status,
            code: code.to_owned(),
            message: "bad weather".to_owned(),
            retry_after: None,
        };
        let fault = Fault::once(Operation::ManagedClusterRead, effect);
        world.emulator.add_fault(fault);
        let cluster = id.clone();
        let answer = client.get_cluster(GetClusterRequest { cluster }).await;
        let refusal = Refusal::from(answer);
        assert_eq!(refusal.kind(), expected, "{refusal:?}");
        let may_pass = refusal.code == Code::Unavailable;
        assert_eq!(refusal.retry_after.is_some(), may_pass);
        assert_eq!(refusal.metadata.contains_key("cluster"), !may_pass);
    }
    // Of a failure nothing is remembered.
    get(&mut client, id).await;
}

#[tokio::test]
async fn azure_that_says_to_wait_is_not_asked_by_each_who_asks() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let effect = FaultEffect::Status {
        status: 429,
        code: "TooManyRequests".to_owned(),
        message: "bad weather".to_owned(),
        retry_after: None,
    };
    let fault = Fault::once(Operation::ManagedClusterRead, effect);
    world.emulator.add_fault(fault);
    let asked = GetClusterRequest {
        cluster: cluster.clone(),
    };
    for _ in 0..3 {
        let refusal = Refusal::from(client.get_cluster(asked.clone()).await);
        assert_eq!(refusal.kind(), (Code::Unavailable, "AZURE_THROTTLED"));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
    }
    assert_eq!(world.count(Operation::ManagedClusterRead), 1);
    while client.get_cluster(asked.clone()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn pages_follow_each_other_until_every_cluster_was_told_once() {
    let (world, _broker, mut client) = world().await;
    let mut request = first(2);
    let mut told = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let page = list(&mut client, request.clone()).await;
        assert_eq!(page.unreachable, Vec::<String>::new());
        sizes.push(page.clusters.len());
        told.extend(page.clusters.into_iter().map(|it| it.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(sizes, [2, 2, 1]);
    assert!(told.is_sorted(), "{told:?}");
    let all: BTreeSet<String> = world
        .emulator
        .world()
        .clusters
        .iter()
        .map(|it| it.id().key().to_owned())
        .collect();
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), all);

    let whole = list(&mut client, first(0)).await;
    assert_eq!(
        (whole.clusters.len(), whole.next_page_token.as_str()),
        (5, "")
    );
}

#[tokio::test]
async fn a_name_finds_a_cluster_in_any_case_and_nothing_that_only_begins_like_it() {
    let (_world, _broker, mut client) = world().await;
    for name in ["aks-production", "AKS-Production", "AKS-PRODUCTION"] {
        let found = list(&mut client, named(name)).await;
        assert_eq!(names(&found), ["aks-production"], "{name}");
    }
    for name in [
        "aks",
        "aks-productio",
        "aks-production2",
        "*",
        " aks-production",
    ] {
        let found = list(&mut client, named(name)).await;
        assert_eq!(names(&found), Vec::<&str>::new(), "{name}");
    }
}

#[tokio::test]
async fn a_page_token_that_this_list_did_not_give_is_refused() {
    let (world, _broker, mut client) = world().await;
    let given = list(&mut client, first(2)).await.next_page_token;
    assert!(!given.is_empty());
    let made_up = [
        "1".to_owned(),
        "next".to_owned(),
        given[1..].to_owned(),
        format!("{given}0"),
        world.cluster("aks-production"),
        Uuid::new_v4().to_string(),
    ];
    for page_token in made_up {
        let request = ListClustersRequest {
            page_token,
            ..first(2)
        };
        Refusal::from(client.list_clusters(request).await).names(&["page_token"]);
    }
    // Neither is one that was given for another filter.
    let request = ListClustersRequest {
        page_token: given,
        ..named("aks-production")
    };
    Refusal::from(client.list_clusters(request).await).names(&["page_token"]);
    for page_size in [-1, 1_001, i32::MIN, i32::MAX] {
        Refusal::from(client.list_clusters(first(page_size)).await).names(&["page_size"]);
    }
}

/// One subscription that cannot be listed does not hide the others.
#[tokio::test]
async fn a_subscription_that_cannot_be_listed_is_named_and_the_others_are_told() {
    let (world, _broker, mut client) = world().await;
    let refused = FaultEffect::Status {
        status: 403,
        code: "AuthorizationFailed".to_owned(),
        message: "not yours".to_owned(),
        retry_after: None,
    };
    world.emulator.add_fault(Fault {
        path_contains: Some(DEVELOPMENT.to_owned()),
        ..Fault::always(Operation::ManagedClusterList, refused)
    });
    let page = list(&mut client, first(0)).await;
    assert_eq!(page.unreachable, [format!("/subscriptions/{DEVELOPMENT}")]);
    assert_eq!(names(&page), ["aks-local-accounts", "aks-production"]);
    // A name that is not found is then no proof that there is no such cluster, and the page says so.
    let page = list(&mut client, named("aks-development")).await;
    assert_eq!((page.clusters.len(), page.unreachable.len()), (0, 1));

    world.emulator.clear_faults();
    let page = list(&mut client, first(0)).await;
    assert_eq!((page.clusters.len(), page.unreachable.len()), (5, 0));
}

/// Azure answers lists by pages of its own.
#[tokio::test]
async fn a_list_is_read_to_its_end_however_small_azures_own_pages_are() {
    let settings = Settings {
        page_size: 1,
        ..Settings::immediate()
    };
    let world = World::start_with(settings, 0).await;
    let broker = world.broker(&Timing::default()).await;
    let page = list(&mut broker.client(), first(1_000)).await;
    assert_eq!(page.clusters.len(), 5);
    assert_eq!(world.count(Operation::ManagedClusterList), 5);
}
