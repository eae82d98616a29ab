//! I5 for callers that ask again: no job says that access is gone while it still stands, whatever made the grant
//! REVOKING, and however the caller asks.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

#[path = "store_transitions/bench.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "of the bench, this needs what it accepts"
)]
mod bench;
#[path = "i5_asked_again/damaged.rs"]
mod damaged;
#[path = "i5_asked_again/limited.rs"]
mod limited;
#[path = "i5_asked_again/many.rs"]
mod many;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    AzureRole, Grant, GrantRequest, GrantSelector, Job, RevokeRequest, RevokeResponse, grant, job,
};
use azure_emulator::{Event, Fault, FaultEffect, Operation};
use support::ask::{
    self, access, active, lasting, permanent, revocation, revocation_of, revoked, user,
};
use support::broker::{BrokerProcess, Client};
use support::redis as redis_server;
use support::{Timing, World};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const READER: Uuid = uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db");

async fn world() -> (World, BrokerProcess, Client) {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    (world, broker, client)
}

fn reader(whom: Uuid, cluster: &str) -> GrantRequest {
    permanent(whom, cluster, access(AzureRole::RbacReader, &[]))
}

fn everything_of(whom: Uuid) -> RevokeRequest {
    revocation_of(GrantSelector {
        principal: Some(user(whom)),
        ..GrantSelector::default()
    })
}

/// Makes ARM refuse every DELETE of a role assignment from now on.
fn nothing_is_deleted(world: &World) {
    let fault = Fault::always(Operation::RoleAssignmentDelete, busy());
    world.emulator.add_fault(fault);
}

fn busy() -> FaultEffect {
    FaultEffect::Status {
        status: 503,
        code: "ServerTimeout".to_owned(),
        message: "busy".to_owned(),
        retry_after: None,
    }
}

fn a_delete_was_refused(events: &[Event]) -> bool {
    let mut calls = events.iter().filter_map(Event::as_call);
    calls.any(|call| call.operation == Operation::RoleAssignmentDelete && call.status == Some(503))
}

/// Checks that a job is not over, although its request has ended no live grant.
fn waits(answer: &RevokeResponse) -> Job {
    let job = answer.job.clone().expect("a job");
    assert!(job.finish_time.is_none(), "the access stands: {job:?}");
    assert_eq!((answer.matched_grants, answer.left_grants), (0, 0));
    job
}

/// Lets DELETEs work again, and checks that each of these jobs is over only when none of our assignments is left.
async fn over_when_it_is_gone(world: &World, client: &mut Client, jobs: &[Job]) {
    assert!(!world.truth().is_empty(), "it still stands");
    for job in jobs {
        let now = ask::job(client, &job.job_id).await;
        assert!(now.finish_time.is_none(), "it still stands: {now:?}");
    }
    world.emulator.clear_faults();
    for job in jobs {
        let over = ask::over(client, &job.job_id).await;
        assert_eq!(over.state(), job::State::Succeeded, "{over:?}");
        assert_eq!(world.truth(), BTreeSet::new());
    }
}

#[tokio::test]
async fn a_selector_that_is_sent_again_under_another_request_id_waits_for_what_still_stands() {
    let (world, _broker, mut client) = world().await;
    for cluster in ["aks-production", "aks-development"] {
        active(&mut client, reader(ALICE, &world.cluster(cluster))).await;
    }
    nothing_is_deleted(&world);
    let first = revoked(&mut client, everything_of(ALICE)).await;
    assert_eq!(first.matched_grants, 2);
    let first = first.job.unwrap();
    ask::until(&mut client, &first.job_id, job::State::Retrying).await;

    let second = waits(&revoked(&mut client, everything_of(ALICE)).await);
    assert_ne!(second.job_id, first.job_id);
    assert_eq!(second.total_targets, 2);
    assert_eq!(world.truth().len(), 4, "not one of them is gone");
    over_when_it_is_gone(&world, &mut client, &[second, first]).await;

    let last = revoked(&mut client, everything_of(ALICE)).await;
    let job = last.job.unwrap();
    assert_eq!((last.matched_grants, job.total_targets), (0, 0));
    assert_eq!(job.state(), job::State::Succeeded, "nothing is left");
}

/// The ways to REVOKING: a caller revoked the grant, its time was up, or the broker could not give it whole.
#[derive(Clone, Copy, Debug)]
enum Way {
    Revoked,
    Expired,
    Failed,
}

/// A grant that is REVOKING, has lost nothing yet, and cannot lose anything.
async fn stuck(world: &World, client: &mut Client, way: Way) -> Grant {
    let cluster = world.cluster("aks-production");
    let grant_id = match way {
        Way::Revoked => {
            let grant = active(client, reader(ALICE, &cluster)).await;
            nothing_is_deleted(world);
            revoked(client, revocation(&grant.grant_id)).await;
            grant.grant_id
        }
        Way::Expired => {
            let ttl = Duration::from_secs(1);
            let short = lasting(ALICE, &cluster, access(AzureRole::RbacReader, &[]), ttl);
            nothing_is_deleted(world);
            let accepted = client.grant(short).await.expect("accepted").into_inner();
            accepted.grant.expect("a grant").grant_id
        }
        Way::Failed => {
            // An unmanaged role assignment blocks ours. The access to the cluster itself is given, and has to be
            // removed.
            let condition = Some("@Resource[x] StringEquals 'y'");
            world.somebody_else_gives(&cluster, READER, ALICE, condition);
            nothing_is_deleted(world);
            let request = reader(ALICE, &cluster);
            let accepted = client.grant(request).await.expect("accepted").into_inner();
            accepted.grant.expect("a grant").grant_id
        }
    };
    world.emulator.until(a_delete_was_refused).await;
    let grant = ask::the_grant(client, &grant_id).await;
    assert_eq!(grant.state(), grant::State::Revoking, "{way:?}: {grant:?}");
    grant
}

#[tokio::test]
async fn a_grant_that_is_revoking_is_waited_for_by_its_id_and_by_a_selector() {
    for (way, ends) in [
        (Way::Revoked, grant::State::Revoked),
        (Way::Expired, grant::State::Expired),
        (Way::Failed, grant::State::Failed),
    ] {
        let (world, _broker, mut client) = world().await;
        let going = stuck(&world, &mut client, way).await;
        let named = revocation(&going.grant_id);
        let by_id = waits(&revoked(&mut client, named.clone()).await);
        let by_selector = waits(&revoked(&mut client, everything_of(ALICE)).await);
        // The caller lost the answer and sends the request again. It gets the same job, which still waits.
        let again = waits(&revoked(&mut client, named).await);
        assert_eq!(again.job_id, by_id.job_id, "{way:?}");

        over_when_it_is_gone(&world, &mut client, &[by_selector, by_id]).await;
        let ended = ask::the_grant(&mut client, &going.grant_id).await;
        assert_eq!(ended.state(), ends, "how it ends is decided already");
    }
}

/// A key is free again once its grant is REVOKING. Then two grants have it, and one of them is live.
#[tokio::test]
async fn a_revocation_by_external_key_waits_for_the_grant_that_had_the_key_before() {
    let (world, _broker, mut client) = world().await;
    let named = |cluster: &str| GrantRequest {
        external_key: "order 66".to_owned(),
        ..reader(ALICE, &world.cluster(cluster))
    };
    let before = active(&mut client, named("aks-production")).await;
    nothing_is_deleted(&world);
    revoked(&mut client, revocation(&before.grant_id)).await;
    let after = active(&mut client, named("aks-development")).await;
    assert_ne!(after.grant_id, before.grant_id);

    let selector = GrantSelector {
        external_key: Some("order 66".to_owned()),
        ..GrantSelector::default()
    };
    let answer = revoked(&mut client, revocation_of(selector)).await;
    let job = answer.job.unwrap();
    assert_eq!((answer.matched_grants, job.total_targets), (1, 2));
    over_when_it_is_gone(&world, &mut client, &[job]).await;
}

/// On one target one grant is REVOKING, and another one is live: the job waits for both.
#[tokio::test]
async fn a_selector_that_means_live_grants_too_ends_them_and_waits_for_all() {
    let (world, _broker, mut client) = world().await;
    let cluster = world.cluster("aks-production");
    let going = active(&mut client, reader(ALICE, &cluster)).await;
    let writer = access(AzureRole::RbacWriter, &["shop"]);
    let live = active(&mut client, permanent(ALICE, &cluster, writer)).await;
    active(&mut client, reader(BOB, &cluster)).await;
    // Only the assignment that the first grant alone called for cannot be removed.
    let mut assignments = world.emulator.role_assignments().into_iter();
    let readers = assignments.find(|it| it.role == READER && it.principal == ALICE);
    world.emulator.add_fault(Fault {
        path_contains: Some(readers.expect("Alice's role").name.to_string()),
        ..Fault::always(Operation::RoleAssignmentDelete, busy())
    });
    revoked(&mut client, revocation(&going.grant_id)).await;
    world.emulator.until(a_delete_was_refused).await;

    let here = GrantSelector {
        cluster: Some(cluster.clone()),
        ..GrantSelector::default()
    };
    // The one that is REVOKING does not count: the caller is ready to end two.
    let request = RevokeRequest {
        max_grants: 2,
        ..revocation_of(here)
    };
    let answer = revoked(&mut client, request).await;
    let job = answer.job.unwrap();
    assert_eq!((answer.matched_grants, job.total_targets), (2, 2));
    let live = revoked(&mut client, revocation(&live.grant_id)).await;
    ask::over(&mut client, &live.job.unwrap().job_id).await;
    over_when_it_is_gone(&world, &mut client, &[job]).await;
}
