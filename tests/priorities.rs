//! What goes first where much waits: revocations before grants, one claim in eight a grant all the same, and no
//! subscription behind another.
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
mod support;

use std::time::Duration;

use aks_access_broker::config;
use aks_access_broker::domain::ids::ClusterId;
use aks_access_broker::grpc::proto::{AzureRole, job};
use aks_access_broker::store::{NewGrant, Store};
use azure_emulator::{Event, Fault, FaultEffect, Operation};
use bench::reader;
use futures::{StreamExt, stream};
use support::ask::{access, permanent, revocation};
use support::broker::Client;
use support::redis as redis_server;
use support::{Timing, World, ask, told_to_wait};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const PRODUCTION: &str = "00000000-0000-4000-8000-000000000001";

/// One worker, so that whatever is ready competes for it; and no call that is held runs out of time.
fn one_worker() -> Timing {
    Timing {
        workers: 1,
        call_timeout: Duration::from_secs(30),
        lease: Duration::from_mins(1),
        ..Timing::default()
    }
}

fn hold(name: &str) -> FaultEffect {
    FaultEffect::Hold {
        name: name.to_owned(),
    }
}

/// Asks for so many grants, each for somebody else; the ids of their jobs.
async fn queue_grants(client: &mut Client, cluster: &str, count: usize) -> Vec<String> {
    let reader = access(AzureRole::RbacReader, &[]);
    let mut jobs = Vec::new();
    for _ in 0..count {
        let request = permanent(Uuid::new_v4(), cluster, reader.clone());
        let accepted = client.grant(request).await.expect("accepted").into_inner();
        jobs.push(accepted.job.expect("a job").job_id);
    }
    jobs
}

/// The PUTs and DELETEs so far, in order.
fn changes(events: &[Event]) -> Vec<Operation> {
    let operations = events
        .iter()
        .filter_map(|event| Some(event.as_call()?.operation));
    operations
        .filter(|operation| {
            matches!(
                operation,
                Operation::RoleAssignmentWrite | Operation::RoleAssignmentDelete
            )
        })
        .collect()
}

#[tokio::test]
async fn i5_a_revocation_overtakes_the_grants_that_were_queued_before_it() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let broker = world.broker(&one_worker()).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let (alices, _) = ask::grant(&mut client, permanent(ALICE, &cluster, reader.clone())).await;

    // The worker stands in Bob's grant while all the others are queued.
    world
        .emulator
        .add_fault(Fault::once(Operation::RoleAssignmentWrite, hold("bob")));
    let bobs = client.grant(permanent(BOB, &cluster, reader)).await;
    let mut jobs = vec![
        bobs.expect("accepted")
            .into_inner()
            .job
            .expect("a job")
            .job_id,
    ];
    world.emulator.until_held("bob", 1).await;
    jobs.extend(queue_grants(&mut client, &cluster, 30).await);
    let alices = alices.grant.expect("a grant").grant_id;
    let revoked = client.revoke(revocation(&alices)).await.expect("accepted");
    jobs.push(revoked.into_inner().job.expect("a job").job_id);
    assert_eq!(world.emulator.release("bob"), 1);
    for job in &jobs {
        let job = ask::over(&mut client, job).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    }

    let changes = changes(&world.emulator.history());
    assert_eq!(changes.len(), 2 + 2 * 31 + 2);
    let first = changes
        .iter()
        .position(|operation| *operation == Operation::RoleAssignmentDelete);
    let first = first.expect("a DELETE");
    assert!(
        first <= 4 + 2,
        "{first} writes went first, where Alice's, Bob's and at most one other grant's may"
    );
    assert_eq!(changes[first + 1], Operation::RoleAssignmentDelete);
}

#[tokio::test]
async fn i5_a_revocation_is_carried_out_while_grants_wait_for_their_lanes_budget() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let timing = Timing {
        writes: (4, 1),
        ..one_worker()
    };
    let broker = world.broker(&timing).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let (alices, _) = ask::grant(&mut client, permanent(ALICE, &cluster, reader)).await;
    // Twenty seconds' worth.
    let jobs = queue_grants(&mut client, &cluster, 10).await;
    let job = ask::revoke(&mut client, &alices.grant.expect("a grant").grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let last = ask::job(&mut client, jobs.last().expect("a job")).await;
    assert!(
        last.finish_time.is_none(),
        "the grants did not have to wait: {last:?}"
    );
    assert!(world.count(Operation::RoleAssignmentWrite) < 2 + 2 * jobs.len());
}

/// The one worker is never kept by the subscription that Azure has told to wait.
#[tokio::test]
async fn no_subscription_waits_for_the_one_that_azure_has_told_to_wait() {
    let world = World::start().await;
    let broker = world.broker(&one_worker()).await;
    let mut client = broker.client();
    world.emulator.add_fault(Fault {
        operation: Some(Operation::RoleAssignmentWrite.as_str().to_owned()),
        path_contains: Some(PRODUCTION.to_owned()),
        effect: told_to_wait("600"),
        times: None,
        probability: None,
    });
    let told = queue_grants(&mut client, &world.cluster("aks-production"), 20).await;
    ask::until(&mut client, &told[0], job::State::Retrying).await;
    let cluster = world.cluster("aks-development");
    for job in queue_grants(&mut client, &cluster, 10).await {
        let job = ask::over(&mut client, &job).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    }
    let calls = world.emulator.calls();
    let refused = calls.iter().filter(|call| call.status == Some(429)).count();
    assert_eq!(refused, 1, "nothing is sent that would be refused");
    assert_eq!(world.truth().len(), 2 * 10);
}

const REVOCATIONS: u128 = 10_000;

/// Revocations that need no call, because nothing was begun, are the worst that a grant can stand behind: no budget
/// ever holds them up.
#[tokio::test]
async fn a_grant_among_ten_thousand_revocations_waits_for_seven_of_them_at_most() {
    let world = World::start().await;
    let cluster = ClusterId::parse(&world.cluster("aks-production")).unwrap();
    let settings = config::Redis {
        url: world.redis.url().parse().unwrap(),
        ..config::Redis::default()
    };
    let store = Store::new(&settings, bench::RETENTION).unwrap();
    let revoke = async |n: u128| {
        let granted = accept(&store, &cluster, n).await;
        let revocation = bench::revocation(granted.grant);
        store.accept_revocation(&revocation).await.unwrap();
    };
    let half = REVOCATIONS / 2;
    stream::iter(1..=half)
        .for_each_concurrent(64, &revoke)
        .await;
    let alices = accept(&store, &cluster, ALICE.as_u128()).await;
    stream::iter(half + 1..=REVOCATIONS)
        .for_each_concurrent(64, &revoke)
        .await;

    world
        .emulator
        .add_fault(Fault::once(Operation::RoleAssignmentWrite, hold("alice")));
    let broker = world.broker(&one_worker()).await;
    world.emulator.until_held("alice", 1).await;
    let left = revocations_left(&world).await;
    assert!(
        left >= REVOCATIONS - 7,
        "{left} of {REVOCATIONS} revocations are left"
    );

    assert_eq!(world.emulator.release("alice"), 1);
    let job = ask::over(&mut broker.client(), &alices.job.to_string()).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let left = revocations_left(&world).await;
    assert!(
        left > REVOCATIONS / 2,
        "{left} of {REVOCATIONS} revocations are left"
    );
}

async fn revocations_left(world: &World) -> u128 {
    let mut connection = world.redis.connection().await;
    let left: u64 = redis::cmd("ZCARD")
        .arg(format!("{{aab:main}}:ready:{PRODUCTION}:deletes"))
        .query_async(&mut connection)
        .await
        .expect("Redis answers");
    u128::from(left)
}

/// Accepts a grant as a broker would.
async fn accept(store: &Store, cluster: &ClusterId, principal: u128) -> NewGrant {
    let mut new = reader(principal);
    new.target.cluster = cluster.clone();
    // Unknown, as where Azure did not tell: the broker will not take the cluster for another one.
    new.cluster_uid = String::new();
    store.accept_grant(&new).await.unwrap();
    new
}
