//! I1, accepted means durable, on Redis's side: one that can forget is refused, and one that goes away and comes back
//! finds the broker where it was.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::fs;
use std::path::PathBuf;

use aks_access_broker::grpc::proto::{
    AzureRole, CheckAccessRequest, GetClusterRequest, GetGrantRequest, GetJobRequest, GrantRequest,
    WatchJobRequest, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{access, now, permanent, revocation};
use support::broker::BrokerProcess;
use support::redis::RedisServer;
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::Code;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");

fn reader(world: &World, principal: Uuid) -> GrantRequest {
    let access = access(AzureRole::RbacReader, &[]);
    permanent(principal, &world.cluster("aks-production"), access)
}

/// A configuration that keeps its things in `redis`, and takes what is missing there for granted.
fn config(world: &World, redis: &RedisServer, exceptions: &str) -> PathBuf {
    let arm = &world.emulator.urls().arm;
    let path = world.config(&Timing::default(), &redis.url(), arm);
    let text = fs::read_to_string(&path).expect("the file");
    let section = format!("redis:\n  allow_weaker_durability: [{exceptions}]\n");
    fs::write(&path, text.replacen("redis:\n", &section, 1)).expect("the file");
    path
}

async fn redis(world: &World, settings: &[&str]) -> RedisServer {
    let dir = world.dir.path().join(Uuid::new_v4().to_string());
    RedisServer::start(&dir, settings).await
}

/// A broker that is there, and that the store is not.
fn is_away(refusal: &Refusal) {
    let expected = (Code::Unavailable, "STORE_UNAVAILABLE");
    assert_eq!(refusal.kind(), expected, "{refusal:?}");
    assert!(refusal.retry_after.is_some(), "{refusal:?}");
}

#[tokio::test]
async fn i1_a_redis_that_can_forget_is_refused_with_each_setting_and_its_remedy() {
    let world = World::start().await;
    for (setting, value, exceptions) in [
        ("appendonly", "no", ""),
        ("appendonly", "no", "everysec, managed"),
        ("appendfsync", "no", ""),
        ("appendfsync", "no", "everysec"),
        ("appendfsync", "everysec", ""),
        ("no-appendfsync-on-rewrite", "yes", ""),
        ("maxmemory-policy", "allkeys-lru", ""),
        ("maxmemory-policy", "volatile-ttl", "everysec, managed"),
    ] {
        let redis = redis(&world, &[&format!("--{setting}"), value]).await;
        let told = BrokerProcess::start_in_vain(&config(&world, &redis, exceptions)).await;
        assert!(
            told.contains(&format!("{setting} is \"{value}\"")),
            "{told}"
        );
        assert!(told.contains(&format!("CONFIG SET {setting} ")), "{told}");
        assert_eq!(
            redis.everything().await.len(),
            0,
            "nothing was written there"
        );
    }
    let all = [
        "--appendonly",
        "no",
        "--appendfsync",
        "no",
        "--maxmemory-policy",
        "allkeys-random",
    ];
    let redis = redis(&world, &all).await;
    let told = BrokerProcess::start_in_vain(&config(&world, &redis, "")).await;
    for setting in all.into_iter().step_by(2) {
        let setting = setting.trim_start_matches('-');
        assert!(told.contains(&format!("CONFIG SET {setting} ")), "{told}");
    }
}

#[tokio::test]
async fn i1_a_replica_is_refused_whatever_it_promises() {
    let world = World::start().await;
    let master = world.redis.port().to_string();
    let replica = redis(&world, &["--replicaof", "127.0.0.1", &master]).await;
    let told = BrokerProcess::start_in_vain(&config(&world, &replica, "everysec, managed")).await;
    assert!(told.contains("connect to the master"), "{told}");
}

#[tokio::test]
async fn i1_a_second_may_be_lost_where_the_operator_has_said_so() {
    let world = World::start().await;
    let redis = redis(&world, &["--appendfsync", "everysec"]).await;
    let broker = BrokerProcess::start(&config(&world, &redis, "everysec")).await;
    let (_, job) = ask::grant(&mut broker.client(), reader(&world, ALICE)).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth().len(), 2);
}

/// After a failover the next server may be one that evicts: each connection is looked at before it is used.
#[tokio::test]
async fn i1_a_redis_that_begins_to_forget_is_found_out_at_the_next_connection() {
    let world = World::start().await;
    let log = world.dir.path().join("broker.log");
    let config = world.config_with(&Timing::default(), &[]);
    let broker = BrokerProcess::start_with_log(&config, &log).await;
    let mut client = broker.client();
    ask::grant(&mut client, reader(&world, ALICE)).await;
    world.at_rest().await;
    let before = world.redis.everything().await;

    let forgetful = "CONFIG SET maxmemory-policy allkeys-lru";
    world.redis.tell(forgetful).await;
    world.redis.tell("CLIENT KILL TYPE normal").await;
    let request = reader(&world, BOB);
    let refusal = Refusal::from(client.grant(request.clone()).await);
    is_away(&refusal);
    assert!(refusal.message.contains("operator"), "{refusal:?}");
    assert!(!refusal.message.contains("maxmemory"), "{refusal:?}");
    let remedy = "CONFIG SET maxmemory-policy noeviction";
    let log = fs::read_to_string(&log).expect("the log");
    assert!(log.contains(remedy), "the operator reads of it: {log}");
    assert_eq!(world.redis.everything().await, before);

    world.redis.tell(remedy).await;
    let (_, job) = ask::grant(&mut client, request).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth().len(), 4);
}

#[tokio::test]
async fn i1_while_redis_is_away_callers_are_told_so_and_what_was_accepted_goes_on_afterwards() {
    let mut world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let hold = FaultEffect::HoldAfterCommit {
        name: "put".to_owned(),
    };
    let fault = Fault::once(Operation::RoleAssignmentWrite, hold);
    world.emulator.add_fault(fault);
    let accepted = client.grant(reader(&world, ALICE)).await.expect("accepted");
    let accepted = accepted.into_inner();
    let (grant_id, job_id) = (
        accepted.grant.expect("a grant").grant_id,
        accepted.job.expect("a job").job_id,
    );
    world.emulator.until_held("put", 1).await;
    world.redis.kill().await;

    let request = reader(&world, BOB);
    is_away(&Refusal::from(client.grant(request.clone()).await));
    is_away(&Refusal::from(client.revoke(revocation(&grant_id)).await));
    let asked = GetGrantRequest {
        grant_id: grant_id.clone(),
    };
    is_away(&Refusal::from(client.get_grant(asked).await));
    let asked = GetJobRequest {
        job_id: job_id.clone(),
    };
    is_away(&Refusal::from(client.get_job(asked).await));
    let asked = CheckAccessRequest {
        principal: request.principal.clone(),
        cluster: request.cluster.clone(),
        access: request.access.clone(),
        consistency: Some(now()),
        ..CheckAccessRequest::default()
    };
    is_away(&Refusal::from(client.check_access(asked).await));
    let asked = WatchJobRequest {
        job_id: job_id.clone(),
    };
    let mut watch = client
        .watch_job(asked)
        .await
        .expect("a stream")
        .into_inner();
    is_away(&Refusal::of(&watch.message().await.expect_err("no job")));
    // What needs no Redis is answered.
    let asked = GetClusterRequest {
        cluster: request.cluster.clone(),
    };
    client.get_cluster(asked).await.expect("the cluster");

    assert_eq!(world.emulator.release("put"), 1);
    world.redis.start_again().await;
    let job = ask::over(&mut client, &job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let (_, job) = ask::grant(&mut client, request).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth().len(), 4);
    let job = ask::revoke(&mut client, &grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    world.at_rest().await;
    assert_eq!(world.truth().len(), 2);
}
