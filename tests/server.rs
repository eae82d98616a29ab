//! The server as its callers, its load balancer and its operator meet it, when things are not as they
//! should be.
#![cfg(feature = "dev")]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use aks_access_broker::grpc::proto::{AzureRole, GetClusterRequest, GrantRequest, WatchJobRequest};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{access, permanent};
use support::broker::BrokerProcess;
use support::raw::{RawClient, framed};
use support::redis::RedisServer;
use support::{Timing, World};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const SERVICE: &str = "aks.access.v1.AccessBrokerService";

/// A configuration of the world's own with lines of its section `server` besides.
fn config(world: &World, server: &[&str]) -> std::path::PathBuf {
    let path = world.config(
        &Timing::default(),
        &world.redis.url(),
        &world.emulator.urls().arm,
    );
    let text = fs::read_to_string(&path).unwrap();
    let lines = server.join("\n  ");
    fs::write(
        &path,
        text.replacen("server:\n", &format!("server:\n  {lines}\n"), 1),
    )
    .unwrap();
    path
}

async fn health(broker: &BrokerProcess) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(broker.address().to_owned()).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn is_serving(health: &mut HealthClient<Channel>, service: &str) -> bool {
    let told = health.check(of(service)).await.unwrap().into_inner();
    told.status() == ServingStatus::Serving
}

async fn until_serving(health: &mut HealthClient<Channel>, service: &str) {
    let mut told = health.watch(of(service)).await.unwrap().into_inner();
    while told.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
}

/// Code and reason of a refusal, and whether it says when to come back.
fn refusal(status: &Status) -> (Code, String, bool) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no details: {status:?}"));
    assert_eq!(info.domain, "aks.access.v1");
    (
        status.code(),
        info.reason.clone(),
        details.retry_info().is_some(),
    )
}

fn reader(world: &World) -> GrantRequest {
    let access = access(AzureRole::RbacReader, &[]);
    permanent(ALICE, &world.cluster("aks-production"), access)
}

fn get_cluster(world: &World) -> GetClusterRequest {
    GetClusterRequest {
        cluster: world.cluster("aks-production"),
    }
}

/// Runs `serve` until it ends by itself.
fn serve_in_vain(config: &Path) -> Output {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_aks-access-broker"));
    serve
        .arg("serve")
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

#[tokio::test]
async fn health_waits_for_redis_and_for_a_first_token() {
    let mut world = World::start().await;
    world.redis.kill().await;
    world.emulator.add_fault(Fault::always(
        Operation::Token,
        FaultEffect::Hold {
            name: "token".to_owned(),
        },
    ));
    let broker = BrokerProcess::start_unready(&config(&world, &[])).await;
    let mut health = health(&broker).await;
    for service in ["", SERVICE] {
        assert!(!is_serving(&mut health, service).await, "{service:?}");
    }
    // A restart would mend nothing.
    assert!(is_serving(&mut health, "live").await);
    let refused = broker.client().grant(reader(&world)).await.unwrap_err();
    let expected = (Code::Unavailable, "STORE_UNAVAILABLE".to_owned(), true);
    assert_eq!(refusal(&refused), expected);

    world.redis.start_again().await;
    world.emulator.until_held("token", 1).await;
    assert!(!is_serving(&mut health, SERVICE).await);
    assert!(is_serving(&mut health, "live").await);
    // Lets go of what is held as well.
    world.emulator.clear_faults();
    for service in ["", SERVICE] {
        until_serving(&mut health, service).await;
    }
}

#[tokio::test]
async fn i1_a_redis_that_can_forget_ends_serve_with_the_setting_and_its_remedy() {
    let mut world = World::start().await;
    for (setting, value) in [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")] {
        let dir = world.dir.path().join(setting);
        world.redis = RedisServer::start(&dir, &[&format!("--{setting}"), value]).await;
        let ended = serve_in_vain(&config(&world, &[]));
        assert!(!ended.status.success());
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(told.contains(setting), "{told}");
    }
}

#[tokio::test]
async fn the_end_of_the_server_ends_streams_in_words_and_the_process_cleanly() {
    let world = World::start().await;
    world.emulator.add_fault(Fault::always(
        Operation::RoleAssignmentWrite,
        FaultEffect::Status {
            status: 503,
            code: "ServiceUnavailable".to_owned(),
            message: "later".to_owned(),
            retry_after: None,
        },
    ));
    let broker = BrokerProcess::start(&config(&world, &[])).await;
    let mut client = broker.client();
    let accepted = client.grant(reader(&world)).await.unwrap().into_inner();
    let request = WatchJobRequest {
        job_id: accepted.job.unwrap().job_id,
    };
    let mut told = client.watch_job(request).await.unwrap().into_inner();
    told.message().await.unwrap().unwrap();
    let mut health = health(&broker).await;
    let mut states = health.watch(of("")).await.unwrap().into_inner();
    states.message().await.unwrap().unwrap();

    broker.signal("TERM").await;
    let ended = loop {
        match told.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended as if its job were over"),
            Err(refused) => break refused,
        }
    };
    let expected = (Code::Unavailable, "SHUTTING_DOWN".to_owned(), true);
    assert_eq!(refusal(&ended), expected);
    let state = states.message().await.unwrap().unwrap();
    assert_eq!(state.status(), ServingStatus::NotServing);
    assert!(states.message().await.unwrap().is_none());
    // Connections that stay open do not hold it up either.
    assert!(broker.ended().await.success());
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_answered_and_one_too_many_is_refused() {
    let world = World::start().await;
    let hold = FaultEffect::Hold {
        name: "read".to_owned(),
    };
    world
        .emulator
        .add_fault(Fault::once(Operation::ManagedClusterRead, hold));
    let limits = ["max_in_flight: 1", "max_deadline: 1s"];
    let broker = BrokerProcess::start(&config(&world, &limits)).await;

    let mut client = broker.client();
    let request = get_cluster(&world);
    let slow = tokio::spawn(async move { client.get_cluster(request).await });
    world.emulator.until_held("read", 1).await;
    let refused = broker
        .client()
        .get_cluster(get_cluster(&world))
        .await
        .unwrap_err();
    let expected = (Code::ResourceExhausted, "OVERLOADED".to_owned(), true);
    assert_eq!(refusal(&refused), expected);
    // Whoever asks for health is not refused, or a busy broker would be taken for a dead one.
    assert!(is_serving(&mut health(&broker).await, SERVICE).await);

    let answered = slow.await.unwrap().unwrap_err();
    let expected = (
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED".to_owned(),
        false,
    );
    assert_eq!(refusal(&answered), expected);
    assert_eq!(world.emulator.release("read"), 1);
    broker
        .client()
        .get_cluster(get_cluster(&world))
        .await
        .unwrap();
}

#[tokio::test]
async fn more_streams_than_the_server_keeps_are_refused() {
    let world = World::start().await;
    let cut = FaultEffect::CutBeforeCommit;
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleAssignmentWrite, cut));
    let broker = BrokerProcess::start(&config(&world, &["max_streams: 1"])).await;
    let mut client = broker.client();
    let accepted = client.grant(reader(&world)).await.unwrap().into_inner();
    let request = WatchJobRequest {
        job_id: accepted.job.unwrap().job_id,
    };
    let first = client.watch_job(request.clone()).await.unwrap();
    let refused = client.watch_job(request.clone()).await.unwrap_err();
    let expected = (Code::ResourceExhausted, "OVERLOADED".to_owned(), true);
    assert_eq!(refusal(&refused), expected);

    // A caller that stops listening makes room, with the answer to its reset at the latest.
    drop(first);
    while let Err(status) = client.watch_job(request.clone()).await {
        assert_eq!(refusal(&status), expected);
    }
}

#[tokio::test]
async fn what_tonic_cannot_take_is_refused_with_details_as_well() {
    let world = World::start().await;
    let broker = BrokerProcess::start(&config(&world, &["max_message_bytes: 65536"])).await;
    let request = GrantRequest {
        justification: "j".repeat(70_000),
        ..reader(&world)
    };
    let refused = broker.client().grant(request).await.unwrap_err();
    let expected = (Code::InvalidArgument, "INVALID_REQUEST".to_owned(), false);
    assert_eq!(refusal(&refused), expected);
    assert!(refused.message().contains("65536"), "{refused}");
}

#[tokio::test]
async fn a_callers_own_deadline_ends_a_stream() {
    let world = World::start().await;
    let cut = FaultEffect::CutBeforeCommit;
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleAssignmentWrite, cut));
    // Shorter than the caller's: streams are exempt from it.
    let broker = BrokerProcess::start(&config(&world, &["max_deadline: 1s"])).await;
    let mut client = broker.client();
    let accepted = client.grant(reader(&world)).await.unwrap().into_inner();
    let mut request = tonic::Request::new(WatchJobRequest {
        job_id: accepted.job.unwrap().job_id,
    });
    request.set_timeout(Duration::from_millis(1500));
    let mut told = client.watch_job(request).await.unwrap().into_inner();
    let ended = loop {
        match told.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended as if its job were over"),
            Err(refused) => break refused,
        }
    };
    let expected = (
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED".to_owned(),
        false,
    );
    assert_eq!(refusal(&ended), expected);
}

#[tokio::test]
async fn reflection_is_open_or_closed_as_the_operator_says_and_health_is_open() {
    let world = World::start().await;
    for (line, closed) in [
        ("reflection: true", None),
        ("reflection: false", Some(Code::Unimplemented)),
    ] {
        let broker = BrokerProcess::start(&config(&world, &[line])).await;
        let raw = RawClient::new(&broker).with_token(None);
        for version in ["v1", "v1alpha"] {
            let method = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            let refusal = raw.refusal_of(&method, framed(&[]), &[]).await;
            assert_eq!(refusal.map(|status| status.code()), closed, "{line}");
        }
        assert!(broker.is_serving().await);
    }
}
