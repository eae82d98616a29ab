//! One caller asks as often as it may, and no caller takes the room of all; whatever is refused for that, access can be
//! taken away.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    AzureRole, BatchCheckAccessRequest, CheckAccessRequest, GetClusterRequest, GetGrantRequest,
    GrantRequest, ListGrantsRequest, WatchJobRequest,
};
use azure_emulator::{Fault, FaultEffect, Operation};
use support::ask::{access, active, permanent, reads, revocation};
use support::broker::{BrokerProcess, Client};
use support::refusal::Refusal;
use support::{Timing, World, token};
use tonic::{Code, Response, Status};
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const BOB: Uuid = uuid!("10000000-0000-4000-8000-000000000002");
const HR: Uuid = uuid!("30000000-0000-4000-8000-000000000004");

/// Calls to Azure wait for longer than a test holds them up.
fn patient() -> Timing {
    Timing {
        call_timeout: Duration::from_secs(20),
        lease: Duration::from_mins(1),
        settle_time: Duration::from_secs(25),
        ..Timing::default()
    }
}

/// As many reads as a test likes.
const PLENTY: &str = "  reads: {capacity: 1000000, per_second: 1000000}\n";

/// A broker with these limits instead of those of most tests.
async fn broker(world: &World, limits: &str, server: &[&str]) -> BrokerProcess {
    let path: PathBuf = world.config_with(&patient(), server);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("limits:\n").unwrap();
    let (_, after) = rest.split_once("policy:\n").unwrap();
    fs::write(&path, format!("{before}limits:\n{limits}policy:\n{after}")).unwrap();
    BrokerProcess::start(&path).await
}

fn wish(world: &World, whom: Uuid) -> GrantRequest {
    permanent(
        whom,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &[]),
    )
}

fn check(world: &World) -> CheckAccessRequest {
    reads(ALICE, &world.cluster("aks-production"))
}

/// Told to wait, and how long.
fn is_to_wait(refusal: &Refusal) -> Duration {
    assert_eq!(refusal.kind(), (Code::ResourceExhausted, "RATE_LIMITED"));
    let wait = refusal.retry_after.expect("when to ask again");
    assert!(wait > Duration::ZERO, "{refusal:?}");
    wait
}

/// Asks until it is refused: on a slow machine the bucket fills meanwhile.
async fn until_refused<T>(mut ask: impl AsyncFnMut() -> Result<Response<T>, Status>) -> Refusal {
    for _ in 0..100 {
        if let Err(status) = ask().await {
            return Refusal::of(&status);
        }
    }
    panic!("it may ask as often as it likes");
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_told_when_to_ask_again() {
    let world = World::start().await;
    let limits = "  grants: {capacity: 2, per_second: 1}\n  reads: {capacity: 3, per_second: 1}\n";
    let broker = broker(&world, limits, &[]).await;
    let mut platform = broker.client();
    let given = platform
        .grant(wish(&world, ALICE))
        .await
        .expect("the first");
    platform
        .grant(wish(&world, ALICE))
        .await
        .expect("the second");
    let refusal = until_refused(async || platform.grant(wish(&world, ALICE)).await).await;
    let wait = is_to_wait(&refusal);
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    // Others are not held up by it, and neither is what takes access away, or asks about it.
    let mut hr = broker.client_with(Some(&token(&world.emulator, HR)));
    hr.grant(wish(&world, BOB)).await.expect("another caller");
    let grant_id = given.into_inner().grant.unwrap().grant_id;
    platform
        .revoke(revocation(&grant_id))
        .await
        .expect("a revocation");
    platform.check_access(check(&world)).await.expect("a check");
    // As it was told.
    tokio::time::sleep(wait).await;
    platform.grant(wish(&world, BOB)).await.expect("in time");
    let list = async || platform.list_grants(ListGrantsRequest::default()).await;
    is_to_wait(&until_refused(list).await);
}

#[tokio::test]
async fn each_check_of_a_batch_counts() {
    let world = World::start().await;
    let limits = "  checks: {capacity: 1000, per_second: 1}\n";
    let broker = broker(&world, limits, &[]).await;
    let mut client = broker.client();
    let batch = |count| BatchCheckAccessRequest {
        requests: vec![check(&world); count],
        ..BatchCheckAccessRequest::default()
    };
    client
        .batch_check_access(batch(990))
        .await
        .expect("990 checks");
    is_to_wait(&Refusal::from(
        client.batch_check_access(batch(1_000)).await,
    ));
    client.batch_check_access(batch(5)).await.expect("5 more");
}

/// Azure does not answer, and everything that asks it waits.
fn held_up(world: &World) {
    let silent = FaultEffect::Hold {
        name: "held".to_owned(),
    };
    for operation in [Operation::ManagedClusterRead, Operation::ManagedClusterList] {
        world
            .emulator
            .add_fault(Fault::always(operation, silent.clone()));
    }
}

/// Azure answers again, and what it was asked meanwhile.
fn goes_on(world: &World) {
    world.emulator.clear_faults();
    // They may be on their way still: then nothing holds them up any more.
    let _ = world.emulator.release("held");
}

/// Asks about a cluster, and hears nothing until Azure goes on.
fn waits(world: &World, mut client: Client) -> tokio::task::JoinHandle<()> {
    let request = GetClusterRequest {
        cluster: world.cluster("aks-production"),
    };
    tokio::spawn(async move {
        // Whoever looks whether there is room takes some for a moment.
        while let Err(status) = client.get_cluster(request.clone()).await {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        }
    })
}

#[tokio::test]
async fn where_there_is_no_room_for_grants_there_is_for_revocations_and_health() {
    let world = World::start().await;
    let broker = broker(&world, PLENTY, &["max_in_flight: 3"]).await;
    let mut client = broker.client();
    let given = active(&mut client, wish(&world, ALICE)).await;
    held_up(&world);
    let waiting: Vec<_> = (0..3).map(|_| waits(&world, broker.client())).collect();
    let full = async {
        loop {
            let Err(refused) = client.list_grants(ListGrantsRequest::default()).await else {
                tokio::task::yield_now().await;
                continue;
            };
            return Refusal::of(&refused);
        }
    };
    let refusal = full.await;
    assert_eq!(refusal.kind(), (Code::ResourceExhausted, "OVERLOADED"));
    let refusal = Refusal::from(client.grant(wish(&world, BOB)).await);
    assert_eq!(refusal.kind(), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refusal.retry_after.is_some());
    let revoked = client.revoke(revocation(&given.grant_id)).await;
    assert_eq!(
        revoked.expect("a revocation").into_inner().matched_grants,
        1
    );
    assert!(broker.is_serving().await);
    goes_on(&world);
    for one in waiting {
        one.await.unwrap();
    }
    client.grant(wish(&world, BOB)).await.expect("room again");
}

#[tokio::test]
async fn one_caller_does_not_take_the_room_of_all() {
    let world = World::start().await;
    let limits = format!("{PLENTY}  in_flight_per_caller: 2\n  streams_per_caller: 1\n");
    let broker = broker(&world, &limits, &[]).await;
    let mut platform = broker.client();
    let never = FaultEffect::Status {
        status: 503,
        code: "ServerError".to_owned(),
        message: "not now".to_owned(),
        retry_after: None,
    };
    world
        .emulator
        .add_fault(Fault::always(Operation::RoleAssignmentWrite, never));
    let job = platform
        .grant(wish(&world, ALICE))
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    let watch = || WatchJobRequest {
        job_id: job.job_id.clone(),
    };
    let mut told = platform.watch_job(watch()).await.unwrap().into_inner();
    told.message().await.unwrap().expect("the job");
    let refusal = Refusal::from(platform.watch_job(watch()).await);
    assert_eq!(refusal.kind(), (Code::ResourceExhausted, "OVERLOADED"));
    let mut hr = broker.client_with(Some(&token(&world.emulator, HR)));
    let mut others = hr.watch_job(watch()).await.unwrap().into_inner();
    others.message().await.unwrap().expect("the job");

    held_up(&world);
    let waiting = [
        waits(&world, broker.client()),
        waits(&world, broker.client()),
    ];
    let refusal = loop {
        match platform.list_grants(ListGrantsRequest::default()).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(refused) => break Refusal::of(&refused),
        }
    };
    assert_eq!(refusal.kind(), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refusal.message.contains("of yours"), "{}", refusal.message);
    hr.list_grants(ListGrantsRequest::default())
        .await
        .expect("another caller");
    goes_on(&world);
    for one in waiting {
        one.await.unwrap();
    }
}

/// Each refusal is an event of the trail: nobody writes as many as it likes.
#[tokio::test]
async fn whoever_is_refused_too_often_is_not_heard_for_a_while() {
    let world = World::start().await;
    let limits = format!("{PLENTY}  refusals: {{capacity: 3, per_second: 1}}\n");
    let broker = broker(&world, &limits, &[]).await;
    let mut platform = broker.client();
    let refusal = loop {
        let request = GetGrantRequest {
            grant_id: Uuid::now_v7().to_string(),
        };
        let refusal = Refusal::from(platform.get_grant(request).await);
        if refusal.reason != "GRANT_NOT_FOUND" {
            break refusal;
        }
    };
    let wait = is_to_wait(&refusal);
    let refusal = Refusal::from(platform.list_grants(ListGrantsRequest::default()).await);
    is_to_wait(&refusal);
    let mut hr = broker.client_with(Some(&token(&world.emulator, HR)));
    hr.list_grants(ListGrantsRequest::default())
        .await
        .expect("another caller");
    tokio::time::sleep(wait).await;
    platform
        .list_grants(ListGrantsRequest::default())
        .await
        .expect("in time");
}
