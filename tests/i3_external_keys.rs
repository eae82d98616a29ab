//! I3 for those who keep no ids of ours: while a live grant has an external key, the same again is that grant.
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
    Access, AzureRole, Effect, GrantRequest, GrantResponse, GrantSelector, ListJobsRequest,
    effect::Change, grant, job,
};
use azure_emulator::{CustomRole, Operation, Permissions, Scope};
use support::ask::{access, active, end_of, lasting, permanent};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const POD_READER: Uuid = uuid!("60000000-0000-4000-8000-000000000001");
const HOUR: Duration = Duration::from_hours(1);

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

/// A request of its own each time, for what the platform calls by this name.
fn order(world: &World, ttl: Duration) -> GrantRequest {
    let reader = access(AzureRole::RbacReader, &["shop", "till"]);
    GrantRequest {
        external_key: "order 66".to_owned(),
        ..lasting(ALICE, &world.cluster("aks-production"), reader, ttl)
    }
}

async fn sent(client: &mut Client, request: GrantRequest) -> GrantResponse {
    client.grant(request).await.expect("accepted").into_inner()
}

async fn jobs(client: &mut Client) -> usize {
    let request = ListJobsRequest::default();
    client
        .list_jobs(request)
        .await
        .unwrap()
        .into_inner()
        .jobs
        .len()
}

#[tokio::test]
async fn i3_the_same_again_is_the_same_grant_whose_end_becomes_the_later_of_the_two() {
    let (world, _broker, mut client) = world().await;
    let first = active(&mut client, order(&world, HOUR)).await;
    let sooner = sent(&mut client, order(&world, HOUR / 2)).await;
    assert_eq!(sooner.grant.unwrap().expire_time, first.expire_time);
    assert_eq!(
        sooner.job.unwrap().job_id,
        first.job_id,
        "nothing changes: no new job"
    );
    assert_eq!(jobs(&mut client).await, 1);

    let later = sent(&mut client, order(&world, HOUR * 2)).await;
    let later_job = later.job.unwrap();
    assert_eq!(later_job.kind(), job::Kind::Grant);
    let over = ask::over(&mut client, &later_job.job_id).await;
    assert_eq!(over.state(), job::State::Succeeded, "{over:?}");
    let now = ask::the_grant(&mut client, &first.grant_id).await;
    assert!(end_of(&now) > end_of(&first));
    assert_eq!(later.grant.unwrap().grant_id, first.grant_id);
    assert_eq!(world.described_ends(), BTreeSet::from([end_of(&now)]));

    let forever = GrantRequest {
        ttl: None,
        permanent: true,
        ..order(&world, HOUR)
    };
    let forever = active(&mut client, forever).await;
    assert_eq!(
        (forever.grant_id, forever.expire_time),
        (first.grant_id, None)
    );
    assert_eq!(world.described_ends(), BTreeSet::from(["never".to_owned()]));
}

#[tokio::test]
async fn i3_the_same_again_waits_for_the_first_and_has_its_own_request_answered_again() {
    let (world, _broker, mut client) = world().await;
    let first = sent(&mut client, order(&world, HOUR)).await;
    let request = order(&world, HOUR / 2);
    let second = sent(&mut client, request.clone()).await;
    let [first, second] =
        [first, second].map(|answer| (answer.grant.unwrap(), answer.job.unwrap()));
    assert_eq!(first.0.grant_id, second.0.grant_id);
    assert_eq!(first.1.job_id, second.1.job_id);
    let over = ask::over(&mut client, &second.1.job_id).await;
    assert_eq!(over.state(), job::State::Succeeded);
    let again = sent(&mut client, request.clone()).await;
    assert_eq!(again.job.unwrap().job_id, second.1.job_id);
    let other = GrantRequest {
        justification: "another".to_owned(),
        ..request
    };
    let refusal = Refusal::from(client.grant(other).await);
    assert_eq!(
        refusal.kind(),
        (Code::FailedPrecondition, "REQUEST_ID_REUSED")
    );
}

#[tokio::test]
async fn i3_anything_else_under_the_same_key_is_refused_and_changes_nothing() {
    let (world, _broker, mut client) = world().await;
    let first = active(&mut client, order(&world, HOUR)).await;
    world.at_rest_but_for_expiries().await;
    let before = world.redis.everything().await;
    let whole = order(&world, HOUR * 5);
    let cluster = world.cluster("aks-development");
    for (what, request) in [
        (
            "another role",
            GrantRequest {
                access: Some(access(AzureRole::RbacWriter, &["shop", "till"])),
                ..whole.clone()
            },
        ),
        (
            "fewer namespaces",
            GrantRequest {
                access: Some(access(AzureRole::RbacReader, &["shop"])),
                ..whole.clone()
            },
        ),
        (
            "the whole cluster",
            GrantRequest {
                access: Some(access(AzureRole::RbacReader, &[])),
                ..whole.clone()
            },
        ),
        (
            "somebody else",
            GrantRequest {
                principal: Some(ask::user(BOB)),
                ..whole.clone()
            },
        ),
        (
            "somewhere else",
            GrantRequest {
                cluster,
                ..whole.clone()
            },
        ),
    ] {
        for validate_only in [true, false] {
            let request = GrantRequest {
                validate_only,
                ..request.clone()
            };
            let refusal = Refusal::from(client.grant(request).await);
            let expected = (Code::FailedPrecondition, "EXTERNAL_KEY_IN_USE");
            assert_eq!(refusal.kind(), expected, "{what}: {refusal:?}");
            assert_eq!(refusal.metadata["grant_id"], first.grant_id);
            assert_eq!(refusal.metadata["external_key"], "order 66");
            let message = &refusal.message;
            assert!(
                message.starts_with("external_key \"order 66\" names"),
                "{message}"
            );
        }
    }
    assert_eq!(world.redis.everything().await, before);
    assert_eq!(world.count(Operation::RoleAssignmentDelete), 0);
}

#[tokio::test]
async fn i3_a_key_is_free_again_when_its_grant_is_live_no_more() {
    let (world, _broker, mut client) = world().await;
    let first = active(&mut client, order(&world, HOUR)).await;
    ask::revoke(&mut client, &first.grant_id).await;
    let writer = GrantRequest {
        access: Some(access(AzureRole::RbacWriter, &[])),
        ..order(&world, HOUR)
    };
    let second = active(&mut client, writer).await;
    assert_ne!(second.grant_id, first.grant_id);
    assert_eq!(second.external_key, "order 66");
    let named = GrantSelector {
        external_key: Some("order 66".to_owned()),
        ..GrantSelector::default()
    };
    let revoked = client
        .revoke(ask::revocation_of(named))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(revoked.matched_grants, 1);
    ask::over(&mut client, &revoked.job.unwrap().job_id).await;
    let second = ask::the_grant(&mut client, &second.grant_id).await;
    assert_eq!(second.state(), grant::State::Revoked);
    assert_eq!(world.truth(), BTreeSet::new());
}

#[tokio::test]
async fn i3_a_key_that_two_brokers_get_twenty_times_at_once_names_one_grant() {
    let world = World::start().await;
    let brokers = [
        world.broker(&Timing::default()).await,
        world.broker(&Timing::default()).await,
    ];
    let calls = (0..20).map(|n| {
        let mut client = brokers[n % 2].client();
        let request = order(&world, HOUR);
        async move { sent(&mut client, request).await.grant.unwrap().grant_id }
    });
    let ids: BTreeSet<String> = futures::future::join_all(calls).await.into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    world.at_rest_but_for_expiries().await;
    assert_eq!(world.truth().len(), 3);
}

/// The key of one grant is nothing to another one's without.
#[tokio::test]
async fn a_grant_without_a_key_is_one_of_its_own() {
    let (world, _broker, mut client) = world().await;
    let named = active(&mut client, order(&world, HOUR)).await;
    let nameless = GrantRequest {
        external_key: String::new(),
        ..order(&world, HOUR)
    };
    let nameless = active(&mut client, nameless).await;
    assert_ne!(named.grant_id, nameless.grant_id);
    let forever = permanent(
        BOB,
        &world.cluster("aks-production"),
        access(AzureRole::ClusterUser, &[]),
    );
    assert!(active(&mut client, forever).await.external_key.is_empty());
}

fn keyed(cluster: &str, access: Access) -> GrantRequest {
    GrantRequest {
        external_key: "order 66".to_owned(),
        ..permanent(ALICE, cluster, access)
    }
}

/// Another cluster under the same id ends what the key names: the same request is then a new grant, whatever it asks for.
#[tokio::test]
async fn what_a_key_names_on_a_cluster_that_was_replaced_is_nothing_to_what_is_only_looked_at() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    active(
        &mut client,
        keyed(&cluster, access(AzureRole::RbacReader, &[])),
    )
    .await;
    let clusters = world.emulator.world().clusters;
    let mut again = clusters
        .into_iter()
        .find(|it| it.name == "aks-production")
        .expect("the cluster");
    again.resource_uid = None;
    assert!(world.emulator.delete_cluster(&cluster).unwrap());
    world.emulator.put_cluster(again).unwrap();

    let newcomer = world.broker(&Timing::default()).await;
    let mut client = newcomer.client();
    for role in [AzureRole::RbacReader, AzureRole::RbacWriter] {
        let request = GrantRequest {
            validate_only: true,
            ..keyed(&cluster, access(role, &[]))
        };
        let answer = client.grant(request).await.expect("an answer").into_inner();
        assert_eq!(answer.grant.unwrap().grant_id, "", "{role:?}");
        let planned = answer.planned_effects.iter();
        let changes: BTreeSet<Change> = planned.map(Effect::change).collect();
        assert_eq!(changes, BTreeSet::from([Change::Create]), "{role:?}");
    }
    let accepted = client
        .grant(keyed(&cluster, access(AzureRole::RbacWriter, &[])))
        .await;
    accepted.expect("as it was said");
}

/// A role is known by its id: whoever renames it makes no other of it.
#[tokio::test]
async fn a_key_names_the_same_grant_when_its_role_has_been_renamed() {
    let (world, _broker, mut client) = world().await;
    let role = |name: &str| CustomRole {
        id: POD_READER,
        name: name.to_owned(),
        description: String::new(),
        assignable_scopes: vec![
            Scope::parse("/providers/Microsoft.Management/managementGroups/contoso").unwrap(),
        ],
        permissions: vec![Permissions {
            data_actions: vec!["Microsoft.ContainerService/managedClusters/pods/read".to_owned()],
            ..Permissions::default()
        }],
    };
    world.emulator.add_custom_role(role("Pod reader")).unwrap();
    let cluster = world.cluster("aks-production");
    let pods = Access {
        role_definition_id: POD_READER.to_string(),
        ..access(AzureRole::Unspecified, &[])
    };
    let named = active(&mut client, keyed(&cluster, pods.clone())).await;
    world.emulator.add_custom_role(role("Pod watcher")).unwrap();
    let newcomer = world.broker(&Timing::default()).await;
    for validate_only in [true, false] {
        let request = GrantRequest {
            validate_only,
            ..keyed(&cluster, pods.clone())
        };
        let answer = newcomer.client().grant(request).await.expect("the same");
        assert_eq!(answer.into_inner().grant.unwrap().grant_id, named.grant_id);
    }
}
