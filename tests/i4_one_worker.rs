//! I4, one worker per target, and no unknown outcome is forgotten: calls that take effect late, and workers
//! that are stopped at the worst moment.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, GrantRequest, job};
use azure_emulator::{Event, Fault, FaultEffect, Operation};
use support::ask::{access, permanent, revocation};
use support::broker::BrokerProcess;
use support::proxy::{Held, Proxy, Trigger};
use support::{Timing, World, ask};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");

fn reader(principal: Uuid, cluster: &str) -> GrantRequest {
    permanent(principal, cluster, access(AzureRole::RbacReader, &[]))
}

fn writes(events: &[Event]) -> usize {
    let write = |event: &&Event| {
        event
            .as_call()
            .is_some_and(|call| call.operation == Operation::RoleAssignmentWrite)
    };
    events.iter().filter(write).count()
}

#[tokio::test]
async fn i4_a_put_that_commits_after_its_revocation_was_asked_for_leaves_nothing_behind() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let timing = Timing {
        call_timeout: Duration::from_millis(500),
        ..Timing::default()
    };
    let broker = world.broker(&timing).await;
    let mut client = broker.client();
    let late = FaultEffect::CommitLate {
        delay: Duration::from_millis(1_500),
        hang: true,
    };
    world
        .emulator
        .add_fault(Fault::once(Operation::RoleAssignmentWrite, late));

    let accepted = client
        .grant(reader(ALICE, &cluster))
        .await
        .expect("accepted")
        .into_inner();
    world.emulator.until(|events| writes(events) > 0).await;
    let grant_id = accepted.grant.expect("a grant").grant_id;
    let job = ask::revoke(&mut client, &grant_id).await;

    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(
        world.truth(),
        BTreeSet::new(),
        "when the revocation is over, nothing is left"
    );
    world.emulator.quiesce().await;
    assert_eq!(world.truth(), BTreeSet::new(), "and nothing comes back");
    let grant = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
    assert_eq!(grant.state(), job::State::Superseded, "{grant:?}");
}

/// A worker is stopped when its intent is written and its call is not yet made: the answer to begin is held.
#[tokio::test]
async fn i4_a_worker_stopped_between_begin_and_its_call_does_no_harm_when_it_wakes() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let timing = Timing::default();
    let redis: SocketAddr = ([127, 0, 0, 1], world.redis.port()).into();
    let begins: Trigger = Arc::new(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        text.contains("\"rows\":[{\"name\":") && !text.contains("\"claimed\":")
    });
    let proxy = Proxy::start(redis, Held::Answers, begins).await;
    let config = world.config(
        &timing,
        &format!("redis://{}", proxy.address()),
        &world.emulator.urls().arm,
    );
    let first = BrokerProcess::start(&config).await;
    proxy.arm();
    // Not waited for: its answer comes over the connection that is held, behind the answer to begin or before it.
    let (mut client, request) = (first.client(), reader(ALICE, &cluster));
    tokio::spawn(async move { client.grant(request).await });
    proxy.until_held().await;
    first.signal("STOP").await;

    another_takes_over(&world, &timing, &cluster, || proxy.release(), &first).await;
}

/// A worker is stopped when its call has left it and not yet arrived.
#[tokio::test]
async fn i4_a_call_that_arrives_when_its_worker_has_lost_the_lease_does_no_harm() {
    let world = World::start().await;
    let cluster = world.cluster("aks-production");
    let timing = Timing::default();
    let arm: SocketAddr = world
        .emulator
        .urls()
        .arm
        .trim_start_matches("https://")
        .parse()
        .expect("an address");
    let proxy = Proxy::start(arm, Held::Requests, Arc::new(|_| true)).await;
    let config = world.config(
        &timing,
        &world.redis.url(),
        &format!("https://{}", proxy.address()),
    );
    let first = BrokerProcess::start(&config).await;
    // Once, so that its connection to ARM stands and the next call is sent at once.
    let mut client = first.client();
    let (warm, _) = ask::grant(&mut client, reader(BOB, &cluster)).await;
    ask::revoke(&mut client, &warm.grant.expect("a grant").grant_id).await;
    world.at_rest().await;
    proxy.arm();
    client
        .grant(reader(ALICE, &cluster))
        .await
        .expect("accepted");
    proxy.until_held().await;
    first.signal("STOP").await;

    another_takes_over(&world, &timing, &cluster, || proxy.release(), &first).await;
}

/// A second broker takes the stopped one's target over, and carries out a revocation; then the first wakes up.
async fn another_takes_over(
    world: &World,
    timing: &Timing,
    cluster: &str,
    release: impl Fn(),
    first: &BrokerProcess,
) {
    let second = world.broker(timing).await;
    let mut client = second.client();
    let (mine, job) = ask::grant(&mut client, reader(ALICE, cluster)).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(
        world.truth().len(),
        2,
        "the second has done what the first was to do"
    );
    let theirs = grant_of_the_first(world, &mine.grant.as_ref().expect("a grant").grant_id).await;
    for grant in [mine.grant.expect("a grant").grant_id, theirs] {
        let accepted = client
            .revoke(revocation(&grant))
            .await
            .expect("accepted")
            .into_inner();
        let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    }
    assert_eq!(world.truth(), BTreeSet::new());

    release();
    first.signal("CONT").await;
    // The first one's calls are over when it has taken up new work and finished it.
    let (after, _) = ask::grant(&mut first.client(), reader(BOB, cluster)).await;
    ask::revoke(&mut first.client(), &after.grant.expect("a grant").grant_id).await;
    world.at_rest().await;
    world.emulator.quiesce().await;
    world.at_rest().await;
    assert_eq!(
        world.truth(),
        BTreeSet::new(),
        "whatever the first one's calls did has been undone"
    );
}

/// The other live grant on the target: the one that the first broker accepted.
async fn grant_of_the_first(world: &World, mine: &str) -> String {
    let mut connection = world.redis.connection().await;
    let grants: Vec<String> = redis::cmd("KEYS")
        .arg("{aab:main}:grant:*")
        .query_async(&mut connection)
        .await
        .unwrap();
    for key in grants {
        let state: String = redis::cmd("HGET")
            .arg(&key)
            .arg("state")
            .query_async(&mut connection)
            .await
            .expect("a state");
        let id = key.rsplit(':').next().expect("an id").to_owned();
        if id != mine && state != "ENDED" {
            return id;
        }
    }
    panic!("the first broker's grant is not kept");
}
