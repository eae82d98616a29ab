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

use aks_access_broker::grpc::proto::{AzureRole, Decision, GetGrantRequest, grant, job};
use azure_emulator::Operation;
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
    let gone = |events: &[azure_emulator::Event]| {
        let deleted = |event: &&azure_emulator::Event| {
            event
                .as_change()
                .is_some_and(|change| change.kind == azure_emulator::ChangeKind::Deleted)
        };
        events.iter().filter(deleted).count() == 2
    };
    world.emulator.until(gone).await;
    assert_eq!(world.truth(), BTreeSet::new());

    let grant_id = accepted.grant.expect("a grant").grant_id;
    let expired = client
        .get_grant(GetGrantRequest { grant_id })
        .await
        .expect("the grant")
        .into_inner();
    let expired = expired.grant.expect("a grant");
    let job = ask::over(&mut client, &expired.job_id).await;
    assert_eq!(
        (job.kind(), job.state()),
        (job::Kind::Expire, job::State::Succeeded)
    );
    let request = GetGrantRequest {
        grant_id: expired.grant_id,
    };
    let expired = client
        .get_grant(request)
        .await
        .expect("the grant")
        .into_inner()
        .grant;
    assert_eq!(expired.expect("a grant").state(), grant::State::Expired);
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
