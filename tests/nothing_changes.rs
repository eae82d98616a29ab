//! A request that changes nothing leaves next to nothing behind, however often it comes.
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
    AzureRole, ExtendGrantRequest, GrantRequest, GrantSelector, RevokeRequest, grant, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{self, access, active, lasting, over, revocation, revocation_of, revoked, user};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const DAY: Duration = Duration::from_hours(24);
const TIMES: usize = 20;
/// The most that one record of a request takes in Redis, in bytes, its key included.
const SMALL: u64 = 600;

async fn world() -> (World, BrokerProcess) {
    let world = World::start().await;
    let config = world.config_of_policies(&Timing::default(), None);
    let broker = BrokerProcess::start(&config).await;
    (world, broker)
}

fn bob(world: &World, broker: &BrokerProcess) -> Client {
    broker.client_with(Some(&token(&world.emulator, BOB)))
}

fn reader(world: &World, whom: Uuid, cluster: &str) -> GrantRequest {
    let reader = access(AzureRole::RbacReader, &[]);
    lasting(whom, &world.cluster(cluster), reader, DAY)
}

/// As long a justification as is taken.
fn wordy(grant_id: &str) -> RevokeRequest {
    RevokeRequest {
        justification: "j".repeat(1_000),
        ..revocation(grant_id)
    }
}

/// What is kept: the names of all keys but the audit trail's, and how many events that has.
async fn kept(world: &World) -> (BTreeSet<String>, usize) {
    let keys = world.redis.everything().await.into_keys().collect();
    (keys, world.trail().await.len())
}

async fn bytes(world: &World, key: &str) -> u64 {
    let mut raw = world.redis.connection().await;
    let usage = redis::cmd("MEMORY").arg("USAGE").arg(key).to_owned();
    usage.query_async(&mut raw).await.unwrap()
}

/// Sends so many revocations of an ended grant, all answered with `job`: each leaves its request's record alone.
async fn leaves_records_only(world: &World, client: &mut Client, grant_id: &str, job: &str) {
    let (before, events) = kept(world).await;
    for _ in 0..TIMES {
        let answer = revoked(client, wordy(grant_id)).await;
        assert_eq!((answer.matched_grants, answer.left_grants), (0, 0));
        let answered = answer.job.unwrap();
        assert_eq!(answered.job_id, job);
        assert_eq!(answered.state(), job::State::Succeeded);
    }
    let (after, events_after) = kept(world).await;
    assert_eq!(events, events_after, "what changes nothing is no event");
    let new = after.difference(&before);
    let (records, others): (Vec<&String>, Vec<&String>) =
        new.partition(|key| key.starts_with("{aab:main}:req:"));
    assert_eq!(records.len(), TIMES);
    assert!(
        others.iter().all(|key| key.contains(":idle:")),
        "{others:?}"
    );
    for record in records {
        let bytes = bytes(world, record).await;
        assert!(bytes <= SMALL, "{record} takes {bytes} bytes");
    }
}

#[tokio::test]
async fn the_revocation_of_ones_own_ended_grant_is_answered_with_the_job_that_ended_it() {
    let (world, broker) = world().await;
    let (mut platform, mut bob) = (broker.client(), bob(&world, &broker));
    let revoked_one = active(&mut platform, reader(&world, BOB, "aks-production")).await;
    let ended = ask::revoke(&mut platform, &revoked_one.grant_id).await;
    leaves_records_only(&world, &mut bob, &revoked_one.grant_id, &ended.job_id).await;

    // One whose time was up.
    let reading = access(AzureRole::RbacReader, &[]);
    let ttl = Duration::from_secs(1);
    let cluster = world.cluster("aks-production");
    let accepted = ask::accepted(&mut platform, lasting(BOB, &cluster, reading, ttl)).await;
    over(&mut platform, &accepted.1).await;
    world.at_rest().await;
    let expired = ask::the_grant(&mut platform, &accepted.0).await;
    assert_eq!(expired.state(), grant::State::Expired);
    leaves_records_only(&world, &mut bob, &accepted.0, &expired.job_id).await;
}

/// The job ended others' grants as well, or is no revocation: then the caller has one of its own, once.
#[tokio::test]
async fn a_job_that_the_caller_may_not_see_is_replaced_once() {
    let (world, broker) = world().await;
    let (mut platform, mut bob) = (broker.client(), bob(&world, &broker));
    let bobs = active(&mut platform, reader(&world, BOB, "aks-production")).await;
    active(&mut platform, reader(&world, ALICE, "aks-production")).await;
    let all = revocation_of(GrantSelector {
        cluster: Some(world.cluster("aks-production")),
        ..GrantSelector::default()
    });
    let ended = revoked(&mut platform, all).await.job.unwrap();
    over(&mut platform, &ended.job_id).await;

    let answer = revoked(&mut bob, wordy(&bobs.grant_id)).await;
    let own = answer.job.unwrap();
    assert_ne!(own.job_id, ended.job_id);
    assert_eq!((answer.matched_grants, own.total_targets), (0, 1));
    leaves_records_only(&world, &mut bob, &bobs.grant_id, &own.job_id).await;
    // Nobody else is told of Bob's reasons by that.
    let platforms = revoked(&mut platform, wordy(&bobs.grant_id)).await;
    assert_ne!(platforms.job.unwrap().job_id, own.job_id);
}

/// I3 as for any other request.
#[tokio::test]
async fn i3_a_revocation_that_changes_nothing_is_one_by_its_request_id() {
    let (world, broker) = world().await;
    let (mut platform, mut bob) = (broker.client(), bob(&world, &broker));
    let ended = active(&mut platform, reader(&world, BOB, "aks-production")).await;
    ask::revoke(&mut platform, &ended.grant_id).await;
    let request = wordy(&ended.grant_id);
    let first = revoked(&mut bob, request.clone()).await;
    let (before, _) = kept(&world).await;
    assert_eq!(revoked(&mut bob, request.clone()).await, first);
    assert_eq!(kept(&world).await.0, before);
    let other = RevokeRequest {
        justification: "another".to_owned(),
        ..request
    };
    let refusal = Refusal::from(bob.revoke(other).await);
    assert_eq!(
        refusal.kind(),
        (Code::FailedPrecondition, "REQUEST_ID_REUSED")
    );
}

/// However often a caller asks, and with whatever room Redis has.
#[tokio::test]
async fn of_one_caller_a_thousand_records_are_kept_past_the_limit_of_memory() {
    let (world, broker) = world().await;
    let (mut platform, mut bob) = (broker.client(), bob(&world, &broker));
    let ended = active(&mut platform, reader(&world, BOB, "aks-production")).await;
    ask::revoke(&mut platform, &ended.grant_id).await;
    world.redis.tell("CONFIG SET maxmemory 1mb").await;
    for _ in 0..1_050 {
        revoked(&mut bob, wordy(&ended.grant_id)).await;
    }
    let keys = world.redis.everything().await.into_keys();
    let keys: Vec<String> = keys.collect();
    let name = format!(":req:user/{BOB}@");
    let records = keys.iter().filter(|key| key.contains(&name)).count();
    assert_eq!(records, 1_000);
}

/// A grant that is going already: the caller waits for what is under way.
#[tokio::test]
async fn whoever_asks_again_while_a_grant_is_going_waits_for_the_same_job() {
    let (world, broker) = world().await;
    let (mut platform, mut bob) = (broker.client(), bob(&world, &broker));
    let going = active(&mut platform, reader(&world, BOB, "aks-production")).await;
    let busy = FaultEffect::Status {
        status: 503,
        code: "ServerTimeout".to_owned(),
        message: "busy".to_owned(),
        retry_after: None,
    };
    let fault = Fault::always(Operation::RoleAssignmentDelete, busy);
    world.emulator.add_fault(fault);
    let first = revoked(&mut bob, wordy(&going.grant_id)).await.job.unwrap();
    let (_, events) = kept(&world).await;
    for _ in 0..TIMES {
        let answer = revoked(&mut bob, wordy(&going.grant_id)).await;
        let job = answer.job.unwrap();
        assert_eq!((answer.matched_grants, &job.job_id), (0, &first.job_id));
        assert!(job.finish_time.is_none());
    }
    let of_bob = world.trail().await;
    let of_bob = of_bob.iter().filter(|event| {
        let actor = event["actor"].as_str().unwrap_or_default();
        actor.starts_with("user/")
    });
    assert_eq!(of_bob.count(), 1, "of {events} events");
    world.emulator.clear_faults();
    let over = over(&mut bob, &first.job_id).await;
    assert_eq!(over.state(), job::State::Succeeded);
}

/// The rest of the kind: each of these is sent once, and after that it makes no job.
#[tokio::test]
async fn what_changes_nothing_makes_no_job_a_second_time() {
    let (world, broker) = world().await;
    let mut platform = broker.client();
    let named = GrantRequest {
        external_key: "order 66".to_owned(),
        ..reader(&world, BOB, "aks-production")
    };
    let standing = active(&mut platform, named.clone()).await;
    let nothing = || {
        revocation_of(GrantSelector {
            principal: Some(user(ALICE)),
            ..GrantSelector::default()
        })
    };
    let same_end = || ExtendGrantRequest {
        request_id: Uuid::new_v4().to_string(),
        grant_id: standing.grant_id.clone(),
        expire_time: standing.expire_time,
        ..ExtendGrantRequest::default()
    };
    let same_grant = || GrantRequest {
        request_id: Uuid::new_v4().to_string(),
        ttl: None,
        expire_time: standing.expire_time,
        ..named.clone()
    };
    let mut once = async || {
        let emptied = revoked(&mut platform, nothing()).await.job.unwrap();
        let extended = platform
            .extend_grant(same_end())
            .await
            .unwrap()
            .into_inner();
        let granted = platform.grant(same_grant()).await.unwrap().into_inner();
        let jobs = [Some(emptied), extended.job, granted.job];
        jobs.map(|job| {
            let job = job.unwrap();
            assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
            job.job_id
        })
    };
    let first = once().await;
    let jobs = |keys: &BTreeSet<String>| keys.iter().filter(|key| key.contains(":job:")).count();
    let (before, _) = kept(&world).await;
    for _ in 0..TIMES {
        assert_eq!(once().await, first);
    }
    let (after, _) = kept(&world).await;
    assert_eq!(jobs(&after), jobs(&before));
}
