//! How late a revocation is, counted: by the calls that Azure received and by how often the broker's clock looked.
//!
//! The weather is bad for PUTs alone: they are slow, cut, late, refused, told to wait. DELETEs are slow at most, so
//! their bucket is always open. Then nothing may stand between an accepted revocation and its DELETEs but the PUT that
//! is under way at that moment, and a look of the clock. The run is drawn from a seed, which is printed; `LATE_SEED`
//! repeats one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aks_access_broker::domain::access::RoleAtScope;
use aks_access_broker::domain::ids::{
    ClusterId, InstanceId, Namespace, PrincipalId, RoleDefinitionId, Scope,
};
use aks_access_broker::domain::ownership::assignment_name;
use aks_access_broker::grpc::proto::{AzureRole, job};
use azure_emulator::{Call, Fault, FaultEffect, Operation, Settings};
use futures::StreamExt;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::{Uuid, uuid};

use super::revoke;
use super::support::ask::{self, accepted, access, permanent};
use super::support::broker::{BrokerProcess, Client};
use super::support::{Timing, World, weather};

const CLUSTER_USER: Uuid = uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f");
const WRITER: Uuid = uuid!("a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb");

/// So many people are granted something, and have it taken back at some moment.
const PEOPLE: u128 = 24;
const NAMESPACES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// How often the clock looks, so seldom that what else a machine does makes no difference to how often it has.
const POLL: Duration = Duration::from_millis(400);
/// The look that queues it, and one that may be under way at either end.
const MOST_LOOKS: usize = 3;

/// One person's grant, and what became of it.
struct Taken {
    names: BTreeSet<Uuid>,
    /// When its revocation was accepted, and the last call that Azure had received by then.
    accepted: Timestamp,
    sequence: u64,
    job: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_nothing_stands_between_a_revocation_and_its_deletes_but_one_call_and_a_look() {
    let seed = weather::seed_from("LATE_SEED");
    println!("LATE_SEED={seed}");
    let world = World::start_with(Settings::immediate(), seed).await;
    for fault in bad_for_writes() {
        world.emulator.add_fault(fault);
    }
    let timing = Timing {
        call_timeout: Duration::from_millis(900),
        lease: Duration::from_secs(3),
        writes: (10_000, 10_000),
        deletes: (10_000, 10_000),
        ..Timing::default()
    };
    let broker = broker(&world, &timing).await;
    let looks = looks_of_the_clock(&world).await;
    let names = InstanceId::parse(&world.instance().await).unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let lives = (1..=PEOPLE).map(|person| {
        let random = StdRng::seed_from_u64(random.random());
        live(
            &world,
            broker.client(),
            names,
            Uuid::from_u128(person),
            random,
        )
    });
    let lives: Vec<_> = lives.collect();
    let taken = join_all(lives).await;
    let mut client = broker.client();
    for one in &taken {
        let over = ask::over(&mut client, &one.job).await;
        assert_eq!(over.state(), job::State::Succeeded, "{over:?}");
    }
    let calls = world.emulator.calls();
    let looks = looks.lock().unwrap().clone();
    let told: Vec<usize> = taken
        .iter()
        .map(|one| lateness(one, &calls, &looks))
        .collect();
    println!("looks of the clock before the last DELETE: {told:?}");
    let late = told.iter().filter(|looks| **looks > MOST_LOOKS).count();
    assert_eq!(late, 0, "{told:?} LATE_SEED={seed}");
    let began = taken
        .iter()
        .filter(|one| first_deletes(one, &calls).len() > 1)
        .count();
    assert!(
        began * 2 > taken.len(),
        "a run in which hardly anything was given would prove nothing"
    );
    assert!(world.truth().is_empty());
}

/// A grant, which is taken back at some moment of its being given.
async fn live(
    world: &World,
    mut client: Client,
    instance: InstanceId,
    person: Uuid,
    mut random: StdRng,
) -> Taken {
    let count = random.random_range(1..=NAMESPACES.len());
    let namespaces = &NAMESPACES[..count];
    let cluster = world.cluster("aks-production");
    let request = permanent(person, &cluster, access(AzureRole::RbacWriter, namespaces));
    let (grant, _) = accepted(&mut client, request).await;
    // The moment itself is what is drawn.
    tokio::time::sleep(Duration::from_millis(random.random_range(0..1_500))).await;
    let job = revoke(&mut client, &grant).await;
    let accepted = Timestamp::now();
    let sequence = world
        .emulator
        .calls()
        .last()
        .map_or(0, |call| call.sequence);
    Taken {
        names: names_of(instance, &cluster, person, namespaces),
        accepted,
        sequence,
        job,
    }
}

/// How often the clock looked, with no call of the target's under way, between the revocation and the DELETE that was
/// the last to be made for the first time.
fn lateness(one: &Taken, calls: &[Call], looks: &[Timestamp]) -> usize {
    let own: Vec<&Call> = calls.iter().filter(|call| is_of(one, call)).collect();
    let puts = own.iter().filter(|call| {
        call.operation == Operation::RoleAssignmentWrite && call.sequence > one.sequence
    });
    assert!(puts.count() <= 1, "it goes on giving: {own:#?}");
    let Some(last) = first_deletes(one, calls).into_values().max() else {
        return 0;
    };
    let is_under_way = |moment: Timestamp| {
        own.iter().any(|call| {
            let closed = call.closed.map_or(Timestamp::MAX, |closed| closed.wall);
            call.received.wall <= moment && moment <= closed
        })
    };
    let between = looks
        .iter()
        .filter(|look| **look > one.accepted && **look < last);
    between.filter(|look| !is_under_way(**look)).count()
}

/// When each name that was written before was first deleted after the revocation.
fn first_deletes(one: &Taken, calls: &[Call]) -> BTreeMap<Uuid, Timestamp> {
    let mut first = BTreeMap::new();
    let deletes = calls.iter().filter(|call| {
        is_of(one, call)
            && call.operation == Operation::RoleAssignmentDelete
            && call.sequence > one.sequence
    });
    for call in deletes {
        first
            .entry(name_of(call).unwrap())
            .or_insert(call.received.wall);
    }
    first
}

fn is_of(one: &Taken, call: &Call) -> bool {
    name_of(call).is_some_and(|name| one.names.contains(&name))
}

/// The role assignment that a call is about.
fn name_of(call: &Call) -> Option<Uuid> {
    let path = call.path.split('?').next()?;
    path.rsplit('/').next()?.parse().ok()
}

fn names_of(
    instance: InstanceId,
    cluster: &str,
    person: Uuid,
    namespaces: &[&str],
) -> BTreeSet<Uuid> {
    let id = ClusterId::parse(cluster).unwrap();
    let below = namespaces.iter().map(|name| {
        let namespace = Namespace::parse(name).unwrap();
        (WRITER, Scope::Namespace(id.clone(), namespace))
    });
    let all = below.chain([(CLUSTER_USER, Scope::Cluster(id.clone()))]);
    all.map(|(role, scope)| {
        let at = RoleAtScope {
            role: RoleDefinitionId::new(role),
            scope,
        };
        assignment_name(instance, &at, PrincipalId::new(person), 0).guid()
    })
    .collect()
}

fn bad_for_writes() -> Vec<Fault> {
    let of = |operation: Operation, effect, probability| Fault {
        operation: Some(operation.as_str().to_owned()),
        path_contains: None,
        effect,
        times: None,
        probability: Some(probability),
    };
    let write = |effect, probability| of(Operation::RoleAssignmentWrite, effect, probability);
    let slow = |millis| FaultEffect::Latency {
        delay: Duration::from_millis(millis),
    };
    let status = |status, code: &str, retry_after: Option<&str>| FaultEffect::Status {
        status,
        code: code.to_owned(),
        message: "bad weather".to_owned(),
        retry_after: retry_after.map(str::to_owned),
    };
    let late = FaultEffect::CommitLate {
        delay: Duration::from_millis(700),
        hang: true,
    };
    vec![
        write(slow(250), 0.7),
        write(FaultEffect::CutBeforeCommit, 0.06),
        write(FaultEffect::CutAfterCommit, 0.06),
        write(late, 0.06),
        write(status(503, "ServerTimeout", None), 0.08),
        write(status(403, "AuthorizationFailed", None), 0.04),
        // For the lane as a whole: it is closed for most of the run.
        write(status(429, "TooManyRequests", Some("3")), 0.02),
        of(Operation::RoleAssignmentDelete, slow(100), 0.5),
    ]
}

async fn broker(world: &World, timing: &Timing) -> BrokerProcess {
    let config = world.config(timing, &world.redis.url(), &world.emulator.urls().arm);
    let text = fs::read_to_string(&config).unwrap();
    let seldom = format!("poll: {}ms", POLL.as_millis());
    assert!(text.contains("poll: 20ms"));
    fs::write(&config, text.replace("poll: 20ms", &seldom)).unwrap();
    BrokerProcess::start(&config).await
}

/// Watches what Redis is asked, and notes when the broker's clock looked at what is due.
async fn looks_of_the_clock(world: &World) -> Arc<Mutex<Vec<Timestamp>>> {
    let client = redis::Client::open(world.redis.url()).unwrap();
    let monitor = client.get_async_monitor().await.unwrap();
    let looks = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&looks);
    tokio::spawn(async move {
        let mut commands = monitor.into_on_message::<String>();
        while let Some(command) = commands.next().await {
            if command.contains("lua] \"ZRANGEBYSCORE\" \"{aab:main}:due\"") {
                noted.lock().unwrap().push(time_of(&command));
            }
        }
    });
    looks
}

/// When Redis took in a command: seconds, with microseconds behind a point, come first.
fn time_of(command: &str) -> Timestamp {
    let seconds: f64 = command.split(' ').next().unwrap().parse().unwrap();
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs_f64(seconds)
}
