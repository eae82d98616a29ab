//! How a broker begins and ends: not ready before it can do its work, and gone without leaving any of it behind.
#![cfg(feature = "dev")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use aks_access_broker::grpc::proto::{
    Access, AzureRole, GetClusterRequest, GrantRequest, WatchJobRequest, job,
};
use azure_emulator::{CustomRole, Event, Fault, FaultEffect, Operation, Permissions, Scope};
use support::ask::{access, permanent, revocation};
use support::broker::BrokerProcess;
use support::refusal::Refusal;
use support::{Timing, World, ask};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use uuid::{Uuid, uuid};

const ALICE: Uuid = uuid!("10000000-0000-4000-8000-000000000001");
const POD_READER: Uuid = uuid!("60000000-0000-4000-8000-000000000001");

/// A lease that nobody lives to see end: whoever goes on at once was handed the work.
fn long_lease() -> Timing {
    Timing {
        call_timeout: Duration::from_secs(20),
        lease: Duration::from_hours(1),
        settle_time: Duration::from_hours(1),
        ..Timing::default()
    }
}

fn config(world: &World, timing: &Timing) -> PathBuf {
    world.config(timing, &world.redis.url(), &world.emulator.urls().arm)
}

fn reader(world: &World) -> GrantRequest {
    let access = access(AzureRole::RbacReader, &[]);
    permanent(ALICE, &world.cluster("aks-production"), access)
}

fn held(effect: fn(String) -> FaultEffect, operation: Operation, world: &World) {
    let fault = Fault::once(operation, effect("call".to_owned()));
    world.emulator.add_fault(fault);
}

fn before_commit(name: String) -> FaultEffect {
    FaultEffect::Hold { name }
}

fn after_commit(name: String) -> FaultEffect {
    FaultEffect::HoldAfterCommit { name }
}

/// Tells the broker to end, and waits until whoever watches its work has heard.
async fn told_to_end(broker: &BrokerProcess, job_id: &str) {
    let asked = WatchJobRequest {
        job_id: job_id.to_owned(),
    };
    let watch = broker.client().watch_job(asked).await.expect("a stream");
    let mut watch = watch.into_inner();
    broker.signal("TERM").await;
    let ended = loop {
        match watch.message().await {
            Ok(Some(told)) => assert!(told.job.expect("a job").finish_time.is_none()),
            Ok(None) => panic!("the watch ended as if its job were over"),
            Err(status) => break Refusal::of(&status),
        }
    };
    assert_eq!(ended.kind(), (Code::Unavailable, "SHUTTING_DOWN"));
    assert!(ended.retry_after.is_some(), "{ended:?}");
}

/// Told to end, it lets no more than the held call go, and then ends well.
async fn ends_with_what_it_has_in_hand(world: &World, broker: BrokerProcess, job_id: &str) {
    told_to_end(&broker, job_id).await;
    assert_eq!(world.emulator.release("call"), 1);
    assert!(broker.ended().await.success());
}

/// The next broker has the job over long before any lease ends, and Azure was asked for nothing twice.
async fn the_next_one_finishes(world: &World, grant_id: &str, job_id: &str) {
    let next = world.broker(&long_lease()).await;
    let mut client = next.client();
    let job = ask::over(&mut client, job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    assert_eq!(world.truth().len(), 2);
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 2);
    // Nothing was left in doubt: neither is there anything to settle before the access has ended.
    let job = ask::revoke(&mut client, grant_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    world.at_rest().await;
    assert_eq!(world.count(Operation::RoleAssignmentDelete), 2);
    assert_eq!(world.truth(), BTreeSet::new());
}

/// A broker that is ending takes no new connections.
async fn until_it_takes_no_calls(broker: &BrokerProcess) {
    let address = broker.address().trim_start_matches("http://");
    let ends = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_mins(1), ends).await;
    ended.expect("it goes on, where it was to end");
}

async fn health(broker: &BrokerProcess) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(broker.address().to_owned());
    let endpoint = endpoint.expect("an address");
    HealthClient::new(endpoint.connect().await.expect("a connection"))
}

async fn is_serving(broker: &BrokerProcess) -> bool {
    let mut health = health(broker).await;
    let told = health.check(HealthCheckRequest::default()).await;
    told.expect("health").into_inner().status() == ServingStatus::Serving
}

fn refused_tokens(events: &[Event]) -> usize {
    events
        .iter()
        .filter_map(Event::as_call)
        .filter(|call| call.operation == Operation::Token && call.status == Some(401))
        .count()
}

#[tokio::test]
async fn a_broker_whose_secret_entra_refuses_is_not_ready_until_the_secret_is_put_right() {
    let world = World::start().await;
    let secret = world.dir.path().join("secret");
    fs::write(&secret, "yesterday's").expect("the file");
    let broker = BrokerProcess::start_unready(&config(&world, &Timing::default())).await;
    world
        .emulator
        .until(|events| refused_tokens(events) >= 2)
        .await;
    assert!(!is_serving(&broker).await);
    let refusal = Refusal::from(broker.client().grant(reader(&world)).await);
    let expected = (Code::Unavailable, "AZURE_CREDENTIALS_REFUSED");
    assert_eq!(refusal.kind(), expected, "{refusal:?}");
    assert!(refusal.retry_after.is_some());

    fs::write(&secret, "access-broker-secret").expect("the file");
    let mut health = health(&broker).await;
    let states = health.watch(HealthCheckRequest::default()).await;
    let mut states = states.expect("health").into_inner();
    while states
        .message()
        .await
        .expect("health")
        .expect("a state")
        .status()
        != ServingStatus::Serving
    {}
    let (_, job) = ask::grant(&mut broker.client(), reader(&world)).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
}

#[tokio::test]
async fn serve_ends_in_plain_words_where_the_configuration_is_not_what_it_takes_it_for() {
    let world = World::start().await;
    for (written, instead, words) in [
        (
            "  allow_plaintext: true\n",
            "",
            &["in plain text", "server.allow_plaintext"][..],
        ),
        (
            "  listen: 127.0.0.1:0\n",
            "  listn: 127.0.0.1:0\n",
            &["server.listn", "unknown key", "listen"],
        ),
        (
            "reconciler:\n",
            "reconciliator:\n",
            &["reconciliator", "unknown section"],
        ),
        (
            "  listen: 127.0.0.1:0\n",
            "  listen: 192.0.2.1:1\n",
            &["server.listen", "192.0.2.1:1"],
        ),
    ] {
        let path = config(&world, &Timing::default());
        let text = fs::read_to_string(&path).expect("the file");
        assert!(text.contains(written), "{written}");
        fs::write(&path, text.replacen(written, instead, 1)).expect("the file");
        let told = BrokerProcess::start_in_vain(&path).await;
        for word in words {
            assert!(told.contains(word), "{word:?} is not in {told}");
        }
    }
}

/// The first of two calls is under way: it is recorded when it is answered, and the second one is handed back.
#[tokio::test]
async fn a_pass_in_mid_way_is_handed_back_and_the_next_broker_makes_the_call_that_is_left() {
    let world = World::start().await;
    let broker = world.broker(&long_lease()).await;
    held(after_commit, Operation::RoleAssignmentWrite, &world);
    let (grant_id, job_id) = ask::accepted(&mut broker.client(), reader(&world)).await;
    world.emulator.until_held("call", 1).await;
    ends_with_what_it_has_in_hand(&world, broker, &job_id).await;
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 1);
    the_next_one_finishes(&world, &grant_id, &job_id).await;
}

/// The last call is under way: when it is answered, the job is over.
#[tokio::test]
async fn a_pass_at_its_last_call_is_finished_before_the_process_ends() {
    let world = World::start().await;
    let broker = world.broker(&long_lease()).await;
    let second = Fault {
        path_contains: Some("/namespaces/team-a".to_owned()),
        ..Fault::once(
            Operation::RoleAssignmentWrite,
            before_commit("call".to_owned()),
        )
    };
    world.emulator.add_fault(second);
    let request = permanent(
        ALICE,
        &world.cluster("aks-production"),
        access(AzureRole::RbacReader, &["team-a"]),
    );
    let (grant_id, job_id) = ask::accepted(&mut broker.client(), request).await;
    world.emulator.until_held("call", 1).await;
    ends_with_what_it_has_in_hand(&world, broker, &job_id).await;
    assert_eq!(world.truth().len(), 2);
    the_next_one_finishes(&world, &grant_id, &job_id).await;
}

/// No call has been made yet: none is begun any more, and what was intended is withdrawn.
#[tokio::test]
async fn a_pass_that_has_called_nothing_yet_calls_nothing_more() {
    let world = World::start().await;
    let role = CustomRole {
        id: POD_READER,
        name: "Pod reader".to_owned(),
        description: String::new(),
        assignable_scopes: vec![
            Scope::parse("/providers/Microsoft.Management/managementGroups/contoso").unwrap(),
        ],
        permissions: vec![Permissions {
            data_actions: vec!["Microsoft.ContainerService/managedClusters/pods/read".to_owned()],
            ..Permissions::default()
        }],
    };
    world.emulator.add_custom_role(role).expect("a role");
    let broker = world.broker(&long_lease()).await;
    let cluster = world.cluster("aks-production");
    let read_pods = Access {
        role_definition_id: POD_READER.to_string(),
        ..Access::default()
    };
    // From here on accepting it needs no look at the role; the pass looks again.
    let preview = GrantRequest {
        validate_only: true,
        ..permanent(ALICE, &cluster, read_pods.clone())
    };
    broker.client().grant(preview).await.expect("a preview");
    held(before_commit, Operation::RoleDefinitionRead, &world);
    let request = permanent(ALICE, &cluster, read_pods);
    let (grant_id, job_id) = ask::accepted(&mut broker.client(), request).await;
    world.emulator.until_held("call", 1).await;
    ends_with_what_it_has_in_hand(&world, broker, &job_id).await;
    assert_eq!(world.count(Operation::RoleAssignmentWrite), 0);
    the_next_one_finishes(&world, &grant_id, &job_id).await;
}

#[tokio::test]
async fn a_call_of_a_callers_that_is_under_way_is_still_answered() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    held(before_commit, Operation::ManagedClusterRead, &world);
    let mut client = broker.client();
    let cluster = world.cluster("aks-production");
    let asked = GetClusterRequest { cluster };
    let answer = tokio::spawn(async move { client.get_cluster(asked).await });
    world.emulator.until_held("call", 1).await;
    broker.signal("TERM").await;
    until_it_takes_no_calls(&broker).await;
    assert_eq!(world.emulator.release("call"), 1);
    let answer = answer.await.expect("no panic").expect("an answer");
    assert!(answer.into_inner().cluster.is_some());
    assert!(broker.ended().await.success());
}

/// An operator who cannot wait: what is under way is cut off, and settled by whoever comes next.
#[tokio::test]
async fn a_broker_that_is_told_twice_ends_at_once_and_loses_nothing() {
    let world = World::start().await;
    let broker = world.broker(&Timing::default()).await;
    held(before_commit, Operation::RoleAssignmentWrite, &world);
    let (grant_id, job_id) = ask::accepted(&mut broker.client(), reader(&world)).await;
    world.emulator.until_held("call", 1).await;
    told_to_end(&broker, &job_id).await;
    broker.signal("TERM").await;
    assert!(!broker.ended().await.success());

    // Whoever comes next takes it back, and the call that is still under way changes nothing in the end.
    let next = world.broker(&Timing::default()).await;
    let request = revocation(&grant_id);
    let revoked = next.client().revoke(request).await.expect("accepted");
    let job_id = revoked.into_inner().job.expect("a job").job_id;
    assert_eq!(world.emulator.release("call"), 1);
    let job = ask::over(&mut next.client(), &job_id).await;
    assert_eq!(job.state(), job::State::Succeeded, "{job:?}");
    world.at_rest().await;
    assert_eq!(world.truth(), BTreeSet::new());
}

/// A task that is told to end is not missed: nothing is told as an error.
#[tokio::test]
async fn a_broker_that_is_told_to_end_ends_without_a_word_of_trouble() {
    let world = World::start().await;
    let log = world.dir.path().join("broker.log");
    let broker = BrokerProcess::start_with_log(&config(&world, &Timing::default()), &log).await;
    let mut client = broker.client();
    ask::grant(&mut client, reader(&world)).await;
    broker.signal("TERM").await;
    assert_eq!(broker.ended().await.code(), Some(0));
    assert_eq!(fs::read_to_string(&log).expect("the log"), "");
}
