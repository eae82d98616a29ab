//! Callers that go away in mid-call, that wait for no longer, or that send too much: what they asked for was accepted
//! or was not, never half, and the same request again tells which.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]
#![allow(
    clippy::print_stdout,
    reason = "the seed is for whoever has to repeat the run"
)]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    AzureRole, GetClusterRequest, GetJobRequest, GrantRequest, job,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::ask::{access, permanent, revocation};
use support::broker::{BrokerProcess, Client};
use support::proxy::{Held, Proxy, Trigger};
use support::raw::{RawClient, SERVED, framed};
use support::refusal::Refusal;
use support::{Timing, World, ask, weather};
use tonic::Code;
use uuid::Uuid;

fn reader(world: &World) -> GrantRequest {
    let access = access(AzureRole::RbacReader, &[]);
    permanent(Uuid::new_v4(), &world.cluster("aks-production"), access)
}

/// How many grants and how many jobs are kept.
async fn kept(world: &World) -> (usize, usize) {
    let kept = world.redis.everything().await;
    let of = |kind: &str| {
        let record = |key: &&String| {
            let id = key.rsplit(':').next().unwrap_or_default();
            **key == format!("{{aab:main}}:{kind}:{id}") && Uuid::try_parse(id).is_ok()
        };
        kept.keys().filter(record).count()
    };
    (of("grant"), of("job"))
}

/// A broker that reaches Redis through a proxy, which holds the answer to the next grant's script once it is armed.
async fn behind_a_proxy(world: &World) -> (BrokerProcess, Proxy) {
    let redis: SocketAddr = ([127, 0, 0, 1], world.redis.port()).into();
    let accepts: Trigger = Arc::new(|bytes| String::from_utf8_lossy(bytes).contains("grant_body"));
    let proxy = Proxy::start(redis, Held::Answers, accepts).await;
    let url = format!("redis://{}", proxy.address());
    let config = world.config(&Timing::default(), &url, &world.emulator.urls().arm);
    let broker = BrokerProcess::start(&config).await;
    // Once, so that Redis knows the script, and has done with it when its answer is held.
    ask::active(&mut broker.client(), reader(world)).await;
    world.at_rest().await;
    (broker, proxy)
}

fn hold_the_look_at_the_cluster(world: &World) {
    let hold = FaultEffect::Hold {
        name: "look".to_owned(),
    };
    let fault = Fault::once(Operation::ManagedClusterRead, hold);
    world.emulator.add_fault(fault);
}

/// The same request, now waited for, leads to access once.
async fn the_same_again_is_done_once(world: &World, client: &mut Client, request: GrantRequest) {
    let before = world.truth().len();
    let (first, job) = ask::grant(client, request.clone()).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    let again = client.grant(request).await.expect("accepted").into_inner();
    assert_eq!(
        again.grant.expect("a grant").grant_id,
        first.grant.expect("a grant").grant_id
    );
    assert_eq!(world.truth().len(), before + 2);
}

#[tokio::test]
async fn i3_a_caller_that_goes_away_before_its_grant_is_accepted_leaves_nothing() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let mut client = broker.client();
    hold_the_look_at_the_cluster(&world);
    let request = reader(&world);
    let call = {
        let (mut client, request) = (client.clone(), request.clone());
        tokio::spawn(async move { client.grant(request).await })
    };
    world.emulator.until_held("look", 1).await;
    call.abort();
    call.await.expect_err("it was told to go");
    // Down the same connection: what is answered here was sent after the news that the caller has gone.
    let job_id = Uuid::now_v7().to_string();
    let nobodys = client.get_job(GetJobRequest { job_id }).await;
    assert_eq!(Refusal::from(nobodys).code, Code::NotFound);
    assert_eq!(world.emulator.release("look"), 1);
    world.emulator.quiesce().await;
    assert_eq!(kept(&world).await, (0, 0));
    the_same_again_is_done_once(&world, &mut client, request).await;
    assert_eq!(kept(&world).await, (1, 1));
}

#[tokio::test]
async fn i1_i3_a_caller_that_goes_away_when_its_grant_has_been_accepted_finds_it_done() {
    let world = World::start().await;
    let (broker, proxy) = behind_a_proxy(&world).await;
    let mut client = broker.client();
    let request = reader(&world);
    proxy.arm();
    let call = {
        let (mut client, request) = (client.clone(), request.clone());
        tokio::spawn(async move { client.grant(request).await })
    };
    proxy.until_held().await;
    call.abort();
    call.await.expect_err("it was told to go");
    proxy.release();
    // Nobody has to ask again for it to happen.
    while kept(&world).await != (2, 2) || world.truth().len() < 4 {
        tokio::task::yield_now().await;
    }
    let accepted = client.grant(request).await.expect("accepted").into_inner();
    let job = ask::over(&mut client, &accepted.job.expect("a job").job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    world.at_rest().await;
    assert_eq!(kept(&world).await, (2, 2));
    assert_eq!(world.truth().len(), 4);
}

/// Sixty grants and their revocations, each sent once and left alone at a moment that is drawn, then sent again.
#[tokio::test]
async fn i3_whenever_callers_go_away_each_request_takes_effect_once() {
    let seed = weather::seed();
    println!("KILL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let client = broker.client();
    let mut patience = || Duration::from_micros(random.random_range(0..6_000));
    let mut grants = Vec::new();
    for _ in 0..60 {
        let request = reader(&world);
        let mut left = client.clone();
        let _ = tokio::time::timeout(patience(), left.grant(request.clone())).await;
        let accepted = client
            .clone()
            .grant(request)
            .await
            .expect("accepted")
            .into_inner();
        grants.push((
            accepted.grant.expect("a grant").grant_id,
            accepted.job.expect("a job").job_id,
        ));
    }
    let mut client = client;
    for (_, job_id) in &grants {
        let job = ask::over(&mut client, job_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    }
    assert_eq!(kept(&world).await, (60, 60));
    assert_eq!(world.truth().len(), 120);
    let mut jobs = Vec::new();
    for (grant_id, _) in &grants {
        let request = revocation(grant_id);
        let mut left = client.clone();
        let _ = tokio::time::timeout(patience(), left.revoke(request.clone())).await;
        let accepted = client.revoke(request).await.expect("accepted").into_inner();
        assert_eq!(
            accepted.matched_grants, 1,
            "a repeat tells what the first did"
        );
        jobs.push(accepted.job.expect("a job").job_id);
    }
    for job_id in &jobs {
        let job = ask::over(&mut client, job_id).await;
        assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    }
    world.at_rest().await;
    assert_eq!(kept(&world).await, (60, 120));
    assert_eq!(world.truth(), BTreeSet::new());
}

/// A caller's own deadline, as the server keeps it.
async fn passes(raw: &RawClient, rpc: &str, message: Vec<u8>, deadline: &str) {
    let deadline = [("grpc-timeout", deadline)];
    let status = raw.refusal(rpc, framed(&message), &deadline).await;
    let refusal = Refusal::of(&status.expect("it cannot be done in time"));
    let expected = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    assert_eq!(refusal.kind(), expected, "{refusal:?}");
    assert!(refusal.message.contains("request_id"), "{refusal:?}");
}

#[tokio::test]
async fn i3_a_deadline_that_passes_before_a_grant_is_accepted_is_told_and_the_same_again_is_done_once()
 {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let raw = RawClient::new(&broker);
    hold_the_look_at_the_cluster(&world);
    let request = reader(&world);
    passes(&raw, "Grant", request.encode_to_vec(), "1S").await;
    hold_the_look_at_the_cluster(&world);
    let look = GetClusterRequest {
        cluster: request.cluster.clone(),
    };
    passes(&raw, "GetCluster", look.encode_to_vec(), "1S").await;
    assert_eq!(kept(&world).await, (0, 0));
    assert!(world.emulator.release("look") > 0);
    the_same_again_is_done_once(&world, &mut broker.client(), request).await;
    assert_eq!(kept(&world).await, (1, 1));
}

#[tokio::test]
async fn i3_a_deadline_that_passes_when_a_grant_has_been_accepted_is_told_and_the_same_again_is_the_same()
 {
    let world = World::start().await;
    let (broker, proxy) = behind_a_proxy(&world).await;
    let request = reader(&world);
    proxy.arm();
    let raw = RawClient::new(&broker);
    passes(&raw, "Grant", request.encode_to_vec(), "2S").await;
    proxy.until_held().await;
    proxy.release();
    let mut client = broker.client();
    let (_, job) = ask::grant(&mut client, request).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    world.at_rest().await;
    assert_eq!(kept(&world).await, (2, 2));
    assert_eq!(world.truth().len(), 4);
}

/// By what it says of its own length, before the rest of it has come.
#[tokio::test]
async fn a_message_that_is_too_large_is_refused_whatever_it_is_for() {
    const MOST: u32 = 128 * 1024;
    const MOST_OF_A_BATCH: u32 = 1024 * 1024;
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    let raw = RawClient::new(&broker);
    for rpc in SERVED {
        let most = if rpc == "BatchCheckAccess" {
            MOST_OF_A_BATCH
        } else {
            MOST
        };
        for length in [most + 1, u32::MAX] {
            let head = [&[0][..], &length.to_be_bytes(), &[0; 100]].concat();
            let status = raw.refusal(rpc, head, &[]).await.expect("a refusal");
            let refusal = Refusal::of(&status);
            let expected = (Code::InvalidArgument, "INVALID_REQUEST");
            assert_eq!(refusal.kind(), expected, "{rpc}: {refusal:?}");
            assert!(refusal.message.contains(&most.to_string()), "{refusal:?}");
        }
    }
    // One byte less is read, and found to be too long in another way.
    let mut request = GrantRequest {
        justification: "j".repeat(MOST as usize),
        ..reader(&world)
    };
    let over = request.encoded_len() - MOST as usize;
    request.justification.truncate(MOST as usize - over);
    assert_eq!(request.encoded_len(), MOST as usize);
    Refusal::from(broker.client().grant(request).await).names(&["justification"]);
}
