//! A subscription that is told to wait: nothing is sent that would be refused, and revocations go on.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, job};
use azure_emulator::{Call, Fault, Operation, Settings};
use jiff::Timestamp;
use support::ask::{access, permanent};
use support::replicas::Replica;
use support::{Timing, World, ask, told_to_wait};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");

/// Far less than the lane is closed for.
const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_lane_learns_from_azure_how_little_is_left() {
    let mut settings = Settings::immediate();
    settings.throttling.enabled = true;
    settings.throttling.writes.capacity = 5;
    let world = World::start_with(settings, 0).await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    ask::grant(&mut client, permanent(ALICE, &cluster, reader)).await;

    let mut connection = world.redis.connection().await;
    let lane = "{aab:main}:lane:00000000-0000-4000-8000-000000000001";
    let tokens: f64 = redis::cmd("HGET")
        .arg(lane)
        .arg("writes:tokens")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(
        tokens <= 5.0,
        "{tokens} calls left, where Azure allows 5 at once"
    );
}

#[tokio::test]
async fn i5_a_revocation_does_not_wait_for_the_writes_that_its_target_needs_as_well() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let writer = access(AzureRole::RbacWriter, &["team-a"]);
    let (first, _) = ask::grant(&mut client, permanent(ALICE, &cluster, reader.clone())).await;

    world.emulator.add_fault(Fault::once(
        Operation::RoleAssignmentWrite,
        told_to_wait("600"),
    ));
    let bobs = permanent(BOB, &cluster, reader);
    let bobs = client.grant(bobs).await.expect("accepted").into_inner();
    let bobs = bobs.job.expect("a job").job_id;
    ask::until(&mut client, &bobs, job::State::Retrying).await;
    let written = world.count(Operation::RoleAssignmentWrite);
    assert_eq!(
        written, 3,
        "Alice's two, and one of Bob's, which was refused"
    );

    client
        .grant(permanent(ALICE, &cluster, writer))
        .await
        .expect("accepted");
    let first = first.grant.expect("a grant").grant_id;
    let revoked = tokio::time::timeout(SOON, ask::revoke(&mut client, &first)).await;
    let revoked = revoked.expect("the revocation waits for the writes' lane");
    assert_eq!(revoked.state(), job::State::Succeeded, "{revoked:?}");
    assert_eq!(world.count(Operation::RoleAssignmentWrite), written);
    assert_eq!(
        world.truth().len(),
        1,
        "what the pending grant calls for stays"
    );
}

/// A pass of 21 writes in a lane that holds four: it goes in parts, and small ones do not starve it.
#[tokio::test]
async fn a_large_grant_gets_its_share_of_a_small_budget() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let timing = Timing {
        writes: (4, 40),
        ..Timing::default()
    };
    let broker = world.broker(&timing).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let mut small = Vec::new();
    for _ in 0..20 {
        let request = permanent(Uuid::new_v4(), &cluster, reader.clone());
        small.push(client.grant(request).await.expect("accepted").into_inner());
    }
    let names: Vec<String> = (0..20).map(|n| format!("team-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let large = permanent(ALICE, &cluster, access(AzureRole::RbacWriter, &names));
    let large = client.grant(large).await.expect("accepted").into_inner();
    let large = large.job.expect("a job").job_id;
    let job = tokio::time::timeout(SOON, ask::over(&mut client, &large)).await;
    assert_eq!(
        job.expect("it gets its share").state(),
        job::State::Succeeded
    );
    for accepted in small {
        let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
        assert_eq!(job.state(), job::State::Succeeded);
    }
    assert_eq!(world.truth().len(), 21 + 2 * 20);
    assert_eq!(
        world.count(Operation::RoleAssignmentWrite),
        21 + 2 * 20,
        "no call is made twice"
    );
}

/// Each call is received after it was taken out of the budget, so by no moment may more have come than the budget had
/// given out: what it holds at once, and what came back since before the first.
#[tokio::test]
async fn three_replicas_together_keep_to_one_budget() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let timing = Timing {
        writes: (5, 20),
        ..Timing::default()
    };
    let replicas = Replica::three(&world, &timing).await;
    let reader = access(AzureRole::RbacReader, &[]);
    let begun = Timestamp::now();
    // At least 60 writes, and until every replica has had its part.
    let mut had_a_part = BTreeSet::new();
    let mut jobs = Vec::new();
    while jobs.len() < 30 || had_a_part.len() < replicas.len() {
        let before = jobs.len();
        for replica in replicas.iter().cycle().take(15) {
            let request = permanent(Uuid::new_v4(), &cluster, reader.clone());
            let accepted = replica.client().grant(request).await.expect("accepted");
            jobs.push(accepted.into_inner().job.expect("a job").job_id);
        }
        for job in &jobs[before..] {
            let job = ask::over(&mut replicas[0].client(), job).await;
            assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
        }
        had_a_part = writes(&world)
            .iter()
            .filter_map(|call| call.principal)
            .collect();
    }

    let writes = writes(&world);
    assert_eq!(writes.len(), 2 * jobs.len());
    for (n, write) in (1_u32..).zip(&writes) {
        let since = write.received.wall.duration_since(begun);
        let given_out = 5.0 + 20.0 * since.as_secs_f64();
        assert!(
            f64::from(n) <= given_out,
            "{n} writes within {since:?}, where the budget allows {given_out:.2}"
        );
    }
}

/// A replica is told to wait and dies; the others have not been told by Azure, and wait.
#[tokio::test]
async fn a_lane_that_one_replica_was_told_to_close_is_closed_for_all() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let mut replicas: Vec<_> = Replica::three(&world, &Timing::default()).await.into();
    let reader = access(AzureRole::RbacReader, &[]);
    world.emulator.add_fault(Fault::once(
        Operation::RoleAssignmentWrite,
        told_to_wait("3"),
    ));
    let first = permanent(ALICE, &cluster, reader.clone());
    let mut client = replicas[0].client();
    let first = client.grant(first).await.expect("accepted").into_inner();
    let mut jobs = vec![first.job.expect("a job").job_id];
    ask::until(&mut client, &jobs[0], job::State::Retrying).await;
    let told = writes(&world).pop().expect("a write");
    let told_to = replicas
        .iter()
        .position(|replica| Some(replica.principal) == told.principal)
        .expect("one of the three");
    replicas.swap_remove(told_to).process.kill().await;

    for replica in replicas.iter().cycle().take(6) {
        let request = permanent(Uuid::new_v4(), &cluster, reader.clone());
        let accepted = replica.client().grant(request).await.expect("accepted");
        jobs.push(accepted.into_inner().job.expect("a job").job_id);
    }
    for job in &jobs {
        let job = ask::over(&mut replicas[0].client(), job).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    }
    let open_again = told.closed.expect("an answer").wall + Duration::from_secs(3);
    let writes = writes(&world);
    assert_eq!(writes.len(), 1 + 2 * jobs.len());
    for write in &writes[1..] {
        assert!(
            write.received.wall >= open_again,
            "{write:?} came before {open_again}"
        );
    }
}

/// The PUTs so far.
fn writes(world: &World) -> Vec<Call> {
    let mut calls = world.emulator.calls();
    calls.retain(|call| call.operation == Operation::RoleAssignmentWrite);
    calls
}
