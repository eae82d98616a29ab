//! Redis at its memory limit: what gives access is refused first; everything that takes it away or tells of it goes on.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, GrantRequest, grant, job};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{access, active, extension, lasting, permanent};
use support::broker::{BrokerProcess, Client};
use support::every_rpc::EveryRpc;
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::{Code, Status};
use uuid::Uuid;

fn reader(world: &World, cluster: &str) -> GrantRequest {
    let access = access(AzureRole::RbacReader, &[]);
    permanent(Uuid::new_v4(), &world.cluster(cluster), access)
}

async fn is_full(redis: &support::redis::RedisServer) {
    redis.tell("CONFIG SET maxmemory 1").await;
}

async fn has_room(redis: &support::redis::RedisServer) {
    redis.tell("CONFIG SET maxmemory 0").await;
}

/// A refusal that says when to come back, and nothing of the store's own.
fn is_refused(status: &Status) {
    let refusal = Refusal::of(status);
    let expected = (Code::ResourceExhausted, "STORE_FULL");
    assert_eq!(refusal.kind(), expected, "{refusal:?}");
    assert!(refusal.retry_after.is_some(), "{refusal:?}");
    for word in ["maxmemory", "Redis", "OOM"] {
        assert!(!refusal.message.contains(word), "{refusal:?}");
    }
}

/// Follows the job of a call that was accepted to its end.
async fn succeeds(client: &mut Client, job_id: &str) {
    let job = ask::over(client, job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
}

#[tokio::test]
async fn i5_when_redis_is_full_what_gives_access_is_refused_and_every_other_rpc_is_answered() {
    let world = World::start().await;
    let log = world.dir.path().join("broker.log");
    let config = world.config_with(&Timing::default(), &[]);
    let broker = BrokerProcess::start_with_log(&config, &log).await;
    let mut client = broker.client();
    let requests = EveryRpc::prepare(&world, &mut client).await;
    world.at_rest_but_for_expiries().await;
    is_full(&world.redis).await;

    for (rpc, answer) in requests.with_the_store(&client).await {
        match (rpc, answer) {
            ("Grant" | "ExtendGrant", answer) => is_refused(&answer.expect_err(rpc)),
            (_, answer) => answer.unwrap_or_else(|status| panic!("{rpc}: {status:?}")),
        }
    }
    let told = fs::read_to_string(&log).expect("the log");
    assert!(
        told.contains("memory limit"),
        "the operator is told: {told}"
    );
    world.at_rest_but_for_expiries().await;
    assert_eq!(world.truth().len(), 2, "one of three grants is left");

    has_room(&world.redis).await;
    let answers = requests.with_the_store(&client).await;
    for (rpc, answer) in answers {
        answer.unwrap_or_else(|status| panic!("{rpc}: {status:?}"));
    }
    world.at_rest_but_for_expiries().await;
    assert_eq!(
        world.truth().len(),
        4,
        "nothing of what was refused was kept"
    );
}

#[tokio::test]
async fn i5_i6_when_redis_is_full_the_workers_go_on_with_what_was_accepted_and_with_what_ends() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    let ending = lasting(
        Uuid::new_v4(),
        &world.cluster("aks-development"),
        access(AzureRole::RbacReader, &[]),
        Duration::from_secs(3),
    );
    let ending = active(&mut client, ending).await;
    let going = active(&mut client, reader(&world, "aks-development")).await;
    // One that is under way by then.
    let hold = FaultEffect::Hold {
        name: "put".to_owned(),
    };
    let fault = Fault::once(Operation::RoleAssignmentWrite, hold);
    world.emulator.add_fault(fault);
    let coming = client.grant(reader(&world, "aks-production")).await;
    let coming = coming.expect("accepted").into_inner();
    world.emulator.until_held("put", 1).await;

    is_full(&world.redis).await;
    assert_eq!(world.emulator.release("put"), 1);
    succeeds(&mut client, &coming.job.expect("a job").job_id).await;
    let coming = coming.grant.expect("a grant").grant_id;
    let job = ask::revoke(&mut client, &going.grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    is_refused(
        &client
            .grant(reader(&world, "aks-production"))
            .await
            .expect_err("full"),
    );
    let longer = extension(&ending.grant_id, Duration::from_hours(1));
    is_refused(&client.extend_grant(longer).await.expect_err("full"));
    world.at_rest().await;
    let ended = ask::the_grant(&mut client, &ending.grant_id).await;
    assert_eq!(ended.state(), grant::State::Expired, "{ended:?}");
    let stays = ask::the_grant(&mut client, &coming).await;
    assert_eq!(stays.state(), grant::State::Active, "{stays:?}");
    assert_eq!(world.truth().len(), 2);

    // A broker that is started now carries on where the other was.
    let fresh = world.broker(&Timing::default()).await;
    let mut fresh_client = fresh.client();
    assert_eq!(ask::job(&mut fresh_client, &job.job_id).await, job);
    let job = ask::revoke(&mut fresh_client, &coming).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth(), BTreeSet::new());

    has_room(&world.redis).await;
    active(&mut client, reader(&world, "aks-production")).await;
    assert_eq!(world.truth().len(), 2);
}
