//! The main job: what is granted comes to be in Azure, ends by itself, and is taken away again.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, Decision, grant, job};
use azure_emulator::{ChangeKind, Event, Operation};
use support::ask::{access, check, lasting, permanent};
use support::{Assignment, Timing, World, ask};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const CLUSTER_USER: Uuid = uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f");
const READER: Uuid = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");

fn assignments(cluster: &str, roles: &[Uuid]) -> BTreeSet<Assignment> {
    let at = |role: &Uuid| Assignment {
        scope: cluster.to_lowercase(),
        role: *role,
        principal: ALICE,
    };
    roles.iter().map(at).collect()
}

#[tokio::test]
async fn what_is_granted_is_in_azure_and_what_is_revoked_is_not() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);

    let (accepted, job) = ask::grant(&mut client, permanent(ALICE, &cluster, reader.clone())).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(
        world.truth(),
        assignments(&cluster, &[CLUSTER_USER, READER])
    );
    let answer = check(&mut client, ALICE, &cluster, reader.clone()).await;
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let job = ask::revoke(&mut client, &grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth(), BTreeSet::new());
    let answer = check(&mut client, ALICE, &cluster, reader).await;
    assert_eq!(answer.decision(), Decision::Denied, "{answer:?}");
}

/// The two assignments of one grant have been taken away.
fn both_are_deleted(events: &[Event]) -> bool {
    let deleted = |event: &&Event| {
        event
            .as_change()
            .is_some_and(|change| change.kind == ChangeKind::Deleted)
    };
    events.iter().filter(deleted).count() == 2
}

#[tokio::test]
async fn i6_what_cannot_be_read_of_one_grant_keeps_no_other_from_ending() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let damaged = Uuid::new_v4().to_string();
    redis::pipe()
        .set(format!("{{aab:main}}:grant:{damaged}"), "not a hash")
        .zadd("{aab:main}:expiries", "not a grant", 1)
        .zadd("{aab:main}:expiries", damaged, 2)
        .query_async::<()>(&mut world.redis.connection().await)
        .await
        .expect("it is damaged");
    let request = lasting(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &[]),
        Duration::from_secs(1),
    );

    ask::grant(&mut broker.client(), request).await;
    world.emulator.until(both_are_deleted).await;
    assert_eq!(world.truth(), BTreeSet::new());
}

#[tokio::test]
async fn i6_a_grant_ends_by_itself_when_its_time_is_up() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let request = lasting(
        ALICE,
        &cluster,
        access(AzureRole::RbacReader, &[]),
        Duration::from_secs(2),
    );

    let (accepted, _) = ask::grant(&mut client, request).await;
    assert_eq!(world.truth().len(), 2);
    world.emulator.until(both_are_deleted).await;
    assert_eq!(world.truth(), BTreeSet::new());

    let grant_id = accepted.grant.expect("a grant").grant_id;
    let expired = ask::the_grant(&mut client, &grant_id).await;
    let job = ask::over(&mut client, &expired.job_id).await;
    assert_eq!(
        (job.kind(), job.state()),
        (job::Kind::Expire, job::State::Succeeded)
    );
    let expired = ask::the_grant(&mut client, &grant_id).await;
    assert_eq!(expired.state(), grant::State::Expired);
}

#[tokio::test]
async fn a_grant_costs_two_writes_and_no_read_and_its_revocation_two_deletes() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let writer = access(AzureRole::RbacWriter, &[]);
    // The first one makes the cluster known.
    let (first, _) = ask::grant(
        &mut client,
        permanent(Uuid::new_v4(), &cluster, writer.clone()),
    )
    .await;
    ask::revoke(&mut client, &first.grant.expect("a grant").grant_id).await;
    world.emulator.clear_history();

    let (second, _) = ask::grant(&mut client, permanent(ALICE, &cluster, writer)).await;
    let calls = world.emulator.calls();
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 2, "{calls:#?}");
    assert_eq!(calls.len(), 2, "{calls:#?}");

    world.emulator.clear_history();
    ask::revoke(&mut client, &second.grant.expect("a grant").grant_id).await;
    let calls = world.emulator.calls();
    assert_eq!(
        world.count(Operation::RoleAssignmentDelete),
        2,
        "{calls:#?}"
    );
    assert_eq!(calls.len(), 2, "{calls:#?}");
}
