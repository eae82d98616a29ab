//! What callers without rights can take from those who have some: nothing that counts.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what a test takes for granted, its helpers may as well; how much memory an attack took is for whoever reads \
              its output"
)]

mod support;

use std::fs;
use std::task::Poll;

use aks_access_broker::grpc::proto::{
    AzureRole, BatchCheckAccessRequest, CheckAccessRequest, WatchJobRequest,
};
use azure_emulator::{Fault, Operation};
use futures::future::join_all;
use prost::Message;
use prost::bytes::Bytes;
use support::ask::{access, active, permanent, reads, revocation, revoked};
use support::attacker::{Attacker, Begun, SOON, path, peak_memory, token_of};
use support::broker::{BrokerProcess, Client};
use support::raw::{RawClient, framed};
use support::refusal::Refusal;
use support::{Timing, World, told_to_wait};
use tokio::time::timeout;
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// The most memory that a broker with its default settings takes, whoever attacks it, in bytes.
const MOST_MEMORY: u64 = 200_000_000;

/// A broker with its default limits.
async fn broker(world: &World, server: &[&str]) -> BrokerProcess {
    let path = world.config_with(&Timing::default(), server);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("limits:\n").unwrap();
    let (_, after) = rest.split_once("policy:\n").unwrap();
    fs::write(&path, format!("{before}policy:\n{after}")).unwrap();
    BrokerProcess::start(&path).await
}

fn check(world: &World) -> CheckAccessRequest {
    reads(ALICE, &world.cluster("aks-production"))
}

/// Somebody with a role still gets everything.
async fn all_is_well(world: &World, client: &mut Client) {
    client.check_access(check(world)).await.expect("a check");
    let cluster = world.cluster("aks-production");
    let wish = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let grant = active(client, wish).await;
    revoked(client, revocation(&grant.grant_id)).await;
}

fn stays_small(broker: &BrokerProcess) {
    let peak = peak_memory(broker);
    println!("peak: {} MB", peak / 1_000_000);
    assert!(peak < MOST_MEMORY, "{peak} bytes");
}

async fn begun(attacker: &mut Attacker, path: &str, token: Option<&str>) -> Begun {
    let begun = timeout(SOON, attacker.begin(path, token)).await;
    begun.expect("soon").expect("a call")
}

#[tokio::test]
async fn streams_of_reflection_that_nobody_reads_take_little_and_stop_nobody() {
    let world = World::start().await;
    let broker = broker(&world, &[]).await;
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(
            "aks.access.v1.AccessBrokerService".to_owned(),
        )),
    };
    let six = Bytes::from(framed(&question.encode_to_vec()).repeat(6));
    let mut attackers = Vec::new();
    let mut calls = Vec::new();
    for _ in 0..8 {
        let mut attacker = Attacker::connect(&broker, 0).await;
        for _ in 0..250 {
            let mut call = begun(&mut attacker, REFLECTION, None).await;
            call.message.send_data(six.clone(), false).unwrap();
            calls.push(call);
        }
        attackers.push(attacker);
    }
    let answers = join_all(calls.iter_mut().map(Begun::refusal));
    let answers = timeout(SOON, answers).await.expect("answers");
    let refused: Vec<_> = answers.iter().flatten().map(Refusal::of).collect();
    // Each connection has sixteen, and all together 64.
    assert_eq!(calls.len() - refused.len(), 64);
    for refusal in refused {
        assert_eq!(refusal.kind(), (Code::ResourceExhausted, "OVERLOADED"));
    }
    stays_small(&broker);
    assert!(broker.is_serving().await);
    all_is_well(&world, &mut broker.client()).await;
}

#[tokio::test]
async fn a_batch_of_nothing_is_counted_before_it_is_decoded() {
    let world = World::start().await;
    let broker = broker(&world, &[]).await;
    let raw = RawClient::new(&broker);
    let empty = |bytes: usize| framed(&[0x0a, 0x00].repeat(bytes / 2));
    let most = empty(1024 * 1024);
    let calls = (0..16).map(|_| raw.refusal("BatchCheckAccess", most.clone(), &[]));
    for refusal in join_all(calls).await {
        let refusal = Refusal::of(&refusal.expect("a refusal"));
        if refusal.code == Code::InvalidArgument {
            assert_eq!(refusal.fields, ["requests"]);
        } else {
            // A quarter of all bytes is one caller's.
            assert_eq!(refusal.kind(), (Code::ResourceExhausted, "OVERLOADED"));
        }
    }
    let more = raw.refusal("BatchCheckAccess", empty(4 * 1024 * 1024), &[]);
    let refusal = Refusal::of(&more.await.expect("a refusal"));
    assert!(refusal.message.contains("1048576"), "{refusal:?}");
    stays_small(&broker);
    all_is_well(&world, &mut broker.client()).await;
}

#[tokio::test]
async fn calls_without_a_message_hold_no_place_and_end_soon() {
    let world = World::start().await;
    let broker = broker(&world, &[]).await;
    let mut attackers = Vec::new();
    let mut calls = Vec::new();
    for n in 1..=12 {
        let token = token_of(&world.emulator, Uuid::from_u128(n), &[]);
        let mut attacker = Attacker::connect(&broker, 65_535).await;
        for at in 0..256 {
            let rpc = if at % 2 == 0 { "CheckAccess" } else { "Revoke" };
            let mut call = begun(&mut attacker, &path(rpc), Some(&token)).await;
            // Half of its prefix.
            call.message
                .send_data(Bytes::from_static(&[0, 0]), false)
                .unwrap();
            calls.push(call);
        }
        attackers.push(attacker);
    }
    all_is_well(&world, &mut broker.client()).await;
    let answers = join_all(calls.iter_mut().map(Begun::refusal));
    let answers = timeout(SOON, answers).await.expect("all of them end");
    for refusal in answers {
        let refusal = Refusal::of(&refusal.expect("a refusal"));
        let kind = refusal.kind();
        assert!(
            kind == (Code::ResourceExhausted, "OVERLOADED")
                || kind == (Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
                || kind == (Code::ResourceExhausted, "RATE_LIMITED"),
            "{refusal:?}"
        );
    }
    stays_small(&broker);
}

/// Callers with a role fill everybody's room, and access can be taken away all the same.
#[tokio::test]
async fn revocations_are_taken_where_everybodys_room_is_full_of_calls_without_a_message() {
    let world = World::start().await;
    let broker = broker(&world, &["max_in_flight: 64"]).await;
    let mut client = broker.client();
    let cluster = world.cluster("aks-production");
    let wish = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let grant = active(&mut client, wish).await;
    let token = token_of(
        &world.emulator,
        Uuid::from_u128(7),
        &["AccessBroker.Reader"],
    );
    let mut attacker = Attacker::connect(&broker, 65_535).await;
    let mut calls = Vec::new();
    for _ in 0..65 {
        calls.push(begun(&mut attacker, &path("CheckAccess"), Some(&token)).await);
    }
    // One too many: the room is full.
    let refused = timeout(SOON, calls[64].refusal()).await.expect("an answer");
    let refusal = Refusal::of(&refused.expect("a refusal"));
    assert_eq!(refusal.kind(), (Code::ResourceExhausted, "OVERLOADED"));
    let refusal = Refusal::from(client.check_access(check(&world)).await);
    assert_eq!(refusal.kind(), (Code::ResourceExhausted, "OVERLOADED"));
    revoked(&mut client, revocation(&grant.grant_id)).await;
}

#[tokio::test]
async fn messages_that_do_not_end_take_no_more_than_there_is_room_for() {
    let world = World::start().await;
    let broker = broker(&world, &[]).await;
    let half = Bytes::from([&[0, 0, 0x10, 0, 0][..], &vec![0; 900_000]].concat());
    let mut attackers = Vec::new();
    let mut calls = Vec::new();
    for n in 1..=8 {
        let token = token_of(
            &world.emulator,
            Uuid::from_u128(n),
            &["AccessBroker.Reader"],
        );
        for _ in 0..2 {
            let mut attacker = Attacker::connect(&broker, 65_535).await;
            for _ in 0..64 {
                calls.push(begun(&mut attacker, &path("BatchCheckAccess"), Some(&token)).await);
            }
            attackers.push(attacker);
        }
    }
    let sent = calls.into_iter().map(|mut call| {
        let half = half.clone();
        async move {
            // Whatever comes of it.
            let _ = call.send(half).await;
            call.refusal().await
        }
    });
    let answers = timeout(SOON, join_all(sent))
        .await
        .expect("all of them end");
    let is_full = |refusal: &&tonic::Status| refusal.code() == Code::ResourceExhausted;
    assert!(answers.iter().flatten().filter(is_full).count() > 0);
    stays_small(&broker);
    all_is_well(&world, &mut broker.client()).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_take_no_more_than_there_is_room_for() {
    let world = World::start().await;
    let broker = broker(&world, &[]).await;
    let batch = BatchCheckAccessRequest {
        requests: vec![check(&world); 1_000],
        explain: true,
        ..BatchCheckAccessRequest::default()
    };
    let message = Bytes::from(framed(&batch.encode_to_vec()));
    let mut attackers = Vec::new();
    let mut calls = Vec::new();
    for n in 1..=8 {
        let token = token_of(
            &world.emulator,
            Uuid::from_u128(n),
            &["AccessBroker.Reader"],
        );
        let mut attacker = Attacker::connect(&broker, 0).await;
        for _ in 0..9 {
            let mut call = begun(&mut attacker, &path("BatchCheckAccess"), Some(&token)).await;
            call.send(message.clone()).await.unwrap();
            call.message.send_data(Bytes::new(), true).unwrap();
            calls.push(call);
        }
        attackers.push(attacker);
    }
    let answers = join_all(calls.iter_mut().map(Begun::refusal));
    timeout(SOON, answers).await.expect("headers of answers");
    stays_small(&broker);
    all_is_well(&world, &mut broker.client()).await;
}

#[tokio::test]
async fn idle_connections_make_room_for_others_and_those_with_calls_stay() {
    let world = World::start().await;
    world.emulator.add_fault(Fault::always(
        Operation::RoleAssignmentWrite,
        told_to_wait("3600"),
    ));
    let broker = broker(&world, &["max_connections: 4"]).await;
    let mut client = broker.client();
    let cluster = world.cluster("aks-production");
    let wish = permanent(ALICE, &cluster, access(AzureRole::RbacReader, &[]));
    let accepted = client.grant(wish).await.expect("a grant").into_inner();
    let watch = WatchJobRequest {
        job_id: accepted.job.unwrap().job_id,
    };
    let mut told = client.watch_job(watch).await.unwrap().into_inner();
    told.message().await.unwrap().expect("the job");
    // They answer pings, and call nobody.
    let mut idle = Vec::new();
    for _ in 0..12 {
        idle.push(Attacker::connect(&broker, 65_535).await);
    }
    let newcomer = RawClient::new(&broker);
    let answered = newcomer.refusal("CheckAccess", framed(&check(&world).encode_to_vec()), &[]);
    assert!(timeout(SOON, answered).await.expect("soon").is_none());
    // The oldest went first.
    let last = idle.split_off(9);
    for gone in idle {
        timeout(SOON, gone.until_closed())
            .await
            .expect("it is closed");
    }
    drop(last);
    // What it tells meanwhile is the job, and no end.
    while let Poll::Ready(message) = futures::poll!(std::pin::pin!(told.message())) {
        message.expect("no error").expect("no end");
    }
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_its_share() {
    let world = World::start().await;
    let broker = broker(&world, &["max_connections_per_address: 3"]).await;
    let mut client = broker.client();
    client.check_access(check(&world)).await.expect("a check");
    let [first, second] = [
        Attacker::connect(&broker, 65_535).await,
        Attacker::connect(&broker, 65_535).await,
    ];
    let third = Attacker::connect(&broker, 65_535).await;
    timeout(SOON, third.until_closed())
        .await
        .expect("it is closed");
    assert!(first.is_open() && second.is_open());
    client.check_access(check(&world)).await.expect("a check");
}
