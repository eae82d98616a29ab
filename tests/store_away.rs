//! Redis goes away and comes back: every RPC says so while it lasts, in words for callers; nothing is half-done; and
//! what was under way goes on.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;

use aks_access_broker::grpc::proto::{
    AzureRole, GetGrantRequest, Job, WatchJobRequest, WatchJobResponse, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{access, active, permanent};
use support::broker::{BrokerProcess, Client};
use support::every_rpc::{Answers, EveryRpc};
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::{Code, Status, Streaming};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
/// The three grants that were there, and the one that every RPC's own is for: two role assignments each; two of the
/// four are revoked by then.
const LEFT: usize = 4;

/// Each says that the store is away, when to come back, and nothing of the store's own.
fn all_are_away(answers: Answers) {
    for (rpc, answer) in answers {
        let status = answer.expect_err(rpc);
        is_away(&status, rpc);
    }
}

fn is_away(status: &Status, told: &str) {
    let refusal = Refusal::of(status);
    let expected = (Code::Unavailable, "STORE_UNAVAILABLE");
    assert_eq!(refusal.kind(), expected, "{told}: {refusal:?}");
    assert!(refusal.retry_after.is_some(), "{told}: {refusal:?}");
    is_for_callers(&refusal);
}

/// How the broker keeps things is nothing to its callers.
fn is_for_callers(refusal: &Refusal) {
    for word in ["aab", "redis", "CONFIG", "127.0.0.1"] {
        let message = refusal.message.to_lowercase();
        assert!(!message.contains(&word.to_lowercase()), "{refusal:?}");
    }
}

fn all_are_answered(answers: Answers) {
    for (rpc, answer) in answers {
        answer.unwrap_or_else(|status| panic!("{rpc}: {status:?}"));
    }
}

/// How much is kept under each key, less the traces of claims, which go by themselves. Not what: a Redis that was
/// started again writes the fields of a hash in another order.
async fn kept(world: &World) -> BTreeMap<String, usize> {
    let kept = world.redis.everything().await.into_iter();
    kept.filter(|(key, _)| !key.contains(":claim:"))
        .map(|(key, value)| (key, value.len()))
        .collect()
}

/// How many grants are kept, ended ones too.
async fn grants(world: &World) -> usize {
    let kept = world.redis.everything().await;
    kept.keys().filter(|key| key.contains(":grant:")).count()
}

async fn watch(client: &mut Client, job_id: &str) -> Streaming<WatchJobResponse> {
    let request = WatchJobRequest {
        job_id: job_id.to_owned(),
    };
    client
        .watch_job(request)
        .await
        .expect("a watch")
        .into_inner()
}

/// A grant whose first call to Azure is under way, its job's id, and a watch that has told so.
async fn under_way(world: &World, client: &mut Client) -> (String, Streaming<WatchJobResponse>) {
    let hold = FaultEffect::Hold {
        name: "put".to_owned(),
    };
    let fault = Fault::once(Operation::RoleAssignmentWrite, hold);
    world.emulator.add_fault(fault);
    let reader = access(AzureRole::RbacReader, &[]);
    let request = permanent(ALICE, &world.cluster("aks-production"), reader);
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    let job_id = accepted.job.expect("a job").job_id;
    world.emulator.until_held("put", 1).await;
    let mut told = watch(client, &job_id).await;
    let first = told.message().await.expect("a state").expect("a state");
    assert_eq!(first.job.expect("a job").state(), job::State::Running);
    (job_id, told)
}

/// Follows a watch to its end.
async fn last(mut told: Streaming<WatchJobResponse>) -> Result<Job, Status> {
    let mut last = None;
    while let Some(message) = told.message().await? {
        last = message.job;
    }
    Ok(last.expect("a state"))
}

#[tokio::test]
async fn i1_a_broker_that_starts_before_its_redis_says_so_and_comes_up_by_itself() {
    let mut world = World::start().await;
    let requests = {
        let broker = world.broker(&Timing::default()).await;
        EveryRpc::prepare(&world, &mut broker.client()).await
    };
    world.redis.kill().await;
    let config = world.config_with(&Timing::default(), &[]);
    let broker = BrokerProcess::start_unready(&config).await;
    assert!(!broker.is_serving().await);
    assert!(broker.is_live().await);
    all_are_away(requests.with_the_store(&broker.client()).await);
    all_are_answered(requests.without_the_store(&broker.client()).await);

    world.redis.start_again().await;
    broker.until_serving().await;
    all_are_answered(requests.with_the_store(&broker.client()).await);
    world.at_rest_but_for_expiries().await;
    assert_eq!(world.truth().len(), LEFT);
}

#[tokio::test]
async fn i1_i3_what_is_asked_while_redis_is_away_is_not_half_done_and_is_done_once_when_it_is_back()
{
    let mut world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    let requests = EveryRpc::prepare(&world, &mut broker.client()).await;
    world.at_rest_but_for_expiries().await;
    let before = kept(&world).await;

    world.redis.kill().await;
    for _ in 0..2 {
        all_are_away(requests.with_the_store(&client).await);
    }
    all_are_answered(requests.without_the_store(&client).await);
    broker.until_not_serving().await;
    assert!(broker.is_live().await, "a restart would mend nothing");

    world.redis.start_again().await;
    broker.until_serving().await;
    assert_eq!(kept(&world).await, before);
    for _ in 0..2 {
        all_are_answered(requests.with_the_store(&client).await);
    }
    world.at_rest_but_for_expiries().await;
    assert_eq!(grants(&world).await, 4, "each request took effect once");
    assert_eq!(world.truth().len(), LEFT);
}

/// It takes connections and answers nothing: what was sent may be carried out when it wakes.
#[tokio::test]
async fn i1_i3_a_redis_that_hangs_holds_no_call_up_for_longer_than_a_call_may_take() {
    let world = World::start().await;
    let patient = world.broker(&Timing::default()).await;
    let config = world.config_with(&Timing::default(), &["max_deadline: 1s"]);
    let hasty = BrokerProcess::start(&config).await;
    let requests = EveryRpc::prepare(&world, &mut patient.client()).await;
    all_are_answered(requests.without_the_store(&hasty.client()).await);
    let (_, told) = under_way(&world, &mut patient.client()).await;

    world.redis.signal("STOP").await;
    let clients = (patient.client(), hasty.client());
    let (unavailable, late) = tokio::join!(
        requests.with_the_store(&clients.0),
        requests.with_the_store(&clients.1),
    );
    all_are_away(unavailable);
    for (rpc, answer) in late {
        // A stream has been answered once it begins, and ends like the patient broker's.
        let refusal = Refusal::of(&answer.expect_err(rpc));
        let expected = match rpc {
            "WatchJob" => (Code::Unavailable, "STORE_UNAVAILABLE"),
            _ => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        };
        assert_eq!(refusal.kind(), expected, "{rpc}: {refusal:?}");
    }
    all_are_answered(requests.without_the_store(&hasty.client()).await);

    world.redis.signal("CONT").await;
    assert_eq!(world.emulator.release("put"), 1);
    all_are_answered(requests.with_the_store(&patient.client()).await);
    all_are_answered(requests.with_the_store(&hasty.client()).await);
    let job = last(told).await.expect("the watch goes on");
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    world.at_rest_but_for_expiries().await;
    assert_eq!(grants(&world).await, 5, "each request took effect once");
    assert_eq!(world.truth().len(), LEFT + 2);
}

#[tokio::test]
async fn i1_a_watch_goes_on_when_redis_is_back() {
    let mut world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let (job_id, told) = under_way(&world, &mut client).await;
    world.redis.kill().await;
    // Whoever begins to watch now learns at once that there is nothing to be told.
    let status = last(watch(&mut client, &job_id).await).await;
    is_away(&status.expect_err("nobody can know"), "a new watch");
    world.redis.start_again().await;
    assert_eq!(world.emulator.release("put"), 1);
    let job = last(told).await.expect("the watch goes on");
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
}

/// A stream never ends as if its job were over.
#[tokio::test]
async fn i1_a_watch_that_has_waited_for_too_long_says_so_and_the_next_one_tells_the_end() {
    let mut world = World::start().await;
    let config = world.config_with(&Timing::default(), &["max_deadline: 1s"]);
    let broker = BrokerProcess::start(&config).await;
    let mut client = broker.client();
    let (job_id, told) = under_way(&world, &mut client).await;
    world.redis.kill().await;
    is_away(&last(told).await.expect_err("Redis is away"), "the watch");

    world.redis.start_again().await;
    assert_eq!(world.emulator.release("put"), 1);
    let job = ask::over(&mut client, &job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
}

/// The key and the command that help are for whoever runs the broker; callers learn the reason and what to do.
#[tokio::test]
async fn what_is_damaged_is_told_to_callers_in_their_words_and_to_the_operator_by_its_key() {
    let world = World::start().await;
    let log = world.dir.path().join("broker.log");
    let config = world.config_with(&Timing::default(), &[]);
    let broker = BrokerProcess::start_with_log(&config, &log).await;
    let mut client = broker.client();
    let reader = access(AzureRole::RbacReader, &[]);
    let request = permanent(ALICE, &world.cluster("aks-production"), reader);
    let grant_id = active(&mut client, request).await.grant_id;
    world.at_rest().await;
    let key = format!("{{aab:main}}:grant:{grant_id}");
    for (damage, named) in [
        (format!("HSET {key} v 99"), key.as_str()),
        (format!("SET {key} nothing"), "WRONGTYPE"),
    ] {
        world.redis.tell(&damage).await;
        let asked = GetGrantRequest {
            grant_id: grant_id.clone(),
        };
        let refusal = Refusal::from(client.get_grant(asked).await);
        let expected = (Code::Internal, "STORE_UNREADABLE");
        assert_eq!(refusal.kind(), expected, "{refusal:?}");
        assert!(refusal.message.contains("operator"), "{refusal:?}");
        is_for_callers(&refusal);
        let log = fs::read_to_string(&log).expect("the log");
        assert!(log.contains(named), "{named} is not in {log}");
    }
}
