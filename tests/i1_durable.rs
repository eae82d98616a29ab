//! I1, accepted means durable: `kill -9` at random moments, under faults, loses nothing.
//!
//! The run is drawn from a seed, which is printed; `KILL_SEED` repeats one.
#![cfg(feature = "dev")]
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aks_access_broker::grpc::proto::{AzureRole, GrantRequest, RevokeRequest};
use azure_emulator::{Fault, FaultEffect, Operation, Settings, Throttling};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::ask::{access, lasting, permanent, revocation};
use support::broker::{BrokerProcess, Client};
use support::{Assignment, Timing, World, ask};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::{Uuid, uuid};

const KILLS: u32 = 200;
const TARGETS: usize = 50;
/// How many requests are under way at once.
const CALLERS: u64 = 4;
/// The longest that a call takes effect after its sender gave up. The weather's latest commits come a second after
/// their receipt; the rest is for a machine that has much else to do.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// How far Azure's replicas trail.
const LAG: Duration = Duration::from_secs(1);
const CLUSTER_USER: Uuid = uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f");
const ROLES: [(AzureRole, Uuid); 3] = [
    (
        AzureRole::RbacReader,
        uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db"),
    ),
    (
        AzureRole::RbacWriter,
        uuid!("a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb"),
    ),
    (
        AzureRole::RbacAdmin,
        uuid!("3498e952-d568-435e-9b2c-8d77e338d7f7"),
    ),
];

/// A live wish, as this test knows it.
#[derive(Clone, Debug)]
struct Wish {
    principal: Uuid,
    cluster: String,
    role: Uuid,
    namespaces: Vec<String>,
}

/// What was asked for and accepted, by this test's own account.
#[derive(Default)]
struct Account {
    permanent: BTreeMap<String, Wish>,
    ending: Vec<String>,
    jobs: Vec<String>,
    last_end: Option<Instant>,
}

enum Ask {
    Grant(GrantRequest, Wish),
    Revoke(RevokeRequest),
}

/// One caller: a stream of grants, expiries and revocations, each sent again until it is accepted.
struct Caller {
    random: StdRng,
    targets: Arc<Vec<(Uuid, String)>>,
    account: Arc<Mutex<Account>>,
    broker: watch::Receiver<Option<Client>>,
}

impl Caller {
    async fn ask_until(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let ask = self.draw();
            self.send(ask).await;
        }
    }

    fn draw(&mut self) -> Ask {
        let known: Vec<String> = {
            let account = self.account.lock().unwrap();
            account
                .permanent
                .keys()
                .chain(&account.ending)
                .cloned()
                .collect()
        };
        if !known.is_empty() && self.random.random_bool(0.4) {
            let which = self.random.random_range(0..known.len());
            return Ask::Revoke(revocation(&known[which]));
        }
        let (principal, cluster) =
            self.targets[self.random.random_range(0..self.targets.len())].clone();
        let (role, role_id) = ROLES[self.random.random_range(0..ROLES.len())];
        let namespaces: &[&str] =
            [&[][..], &["team-a"][..], &["team-a", "team-b"][..]][self.random.random_range(0..3)];
        let wish = Wish {
            principal,
            cluster: cluster.to_lowercase(),
            role: role_id,
            namespaces: namespaces.iter().map(ToString::to_string).collect(),
        };
        let access = access(role, namespaces);
        let request = if self.random.random_bool(0.5) {
            let ttl = Duration::from_millis(self.random.random_range(1_000..6_000));
            lasting(principal, &cluster, access, ttl)
        } else {
            permanent(principal, &cluster, access)
        };
        Ask::Grant(request, wish)
    }

    /// Sends a request, with the same id, until a broker has accepted it.
    async fn send(&mut self, ask: Ask) {
        loop {
            let client = self.broker.borrow_and_update().clone();
            let accepted = match (client, &ask) {
                (Some(client), Ask::Grant(request, wish)) => {
                    self.grant(client, request, wish).await
                }
                (Some(client), Ask::Revoke(request)) => self.revoke(client, request).await,
                (None, _) => false,
            };
            if accepted {
                return;
            }
            // The next broker, or the end of the wait for one that lives but cannot reach Redis or Azure.
            let _ = tokio::time::timeout(Duration::from_millis(50), self.broker.changed()).await;
        }
    }

    async fn grant(&self, mut client: Client, request: &GrantRequest, wish: &Wish) -> bool {
        let Ok(accepted) = client.grant(request.clone()).await else {
            return false;
        };
        let accepted = accepted.into_inner();
        let grant = accepted.grant.expect("a grant");
        let mut account = self.account.lock().unwrap();
        account.jobs.push(accepted.job.expect("a job").job_id);
        if request.permanent {
            account.permanent.insert(grant.grant_id, wish.clone());
        } else {
            account.last_end = Some(Instant::now() + Duration::from_secs(6));
            account.ending.push(grant.grant_id);
        }
        true
    }

    async fn revoke(&self, mut client: Client, request: &RevokeRequest) -> bool {
        let Ok(accepted) = client.revoke(request.clone()).await else {
            return false;
        };
        let mut account = self.account.lock().unwrap();
        account
            .jobs
            .push(accepted.into_inner().job.expect("a job").job_id);
        account.permanent.remove(&request.grant_id);
        true
    }
}

fn bad_weather() -> Vec<Fault> {
    let role_assignments = |effect, probability| Fault {
        operation: Some("roleAssignments/*".to_owned()),
        path_contains: None,
        effect,
        times: None,
        probability: Some(probability),
    };
    let status = |status, code: &str| FaultEffect::Status {
        status,
        code: code.to_owned(),
        message: "bad weather".to_owned(),
        retry_after: (status == 429).then(|| "1".to_owned()),
    };
    let late = |millis, hang| FaultEffect::CommitLate {
        delay: Duration::from_millis(millis),
        hang,
    };
    vec![
        role_assignments(FaultEffect::CutBeforeCommit, 0.03),
        role_assignments(FaultEffect::CutAfterCommit, 0.04),
        role_assignments(late(300, false), 0.03),
        role_assignments(late(850, false), 0.03),
        role_assignments(late(850, true), 0.01),
        role_assignments(status(500, "InternalServerError"), 0.03),
        role_assignments(status(503, "ServerTimeout"), 0.02),
        role_assignments(status(429, "TooManyRequests"), 0.002),
        role_assignments(FaultEffect::LaggingNoContent { within: Some(LAG) }, 0.04),
        role_assignments(
            FaultEffect::Latency {
                delay: Duration::from_millis(120),
            },
            0.2,
        ),
    ]
}

fn expected(account: &Account) -> BTreeSet<Assignment> {
    let mut expected = BTreeSet::new();
    for wish in account.permanent.values() {
        let mut assign = |scope: String, role| {
            expected.insert(Assignment {
                scope,
                role,
                principal: wish.principal,
            });
        };
        assign(wish.cluster.clone(), CLUSTER_USER);
        if wish.namespaces.is_empty() {
            assign(wish.cluster.clone(), wish.role);
        }
        for namespace in &wish.namespaces {
            assign(
                format!("{}/namespaces/{namespace}", wish.cluster),
                wish.role,
            );
        }
    }
    expected
}

fn seed() -> u64 {
    std::env::var("KILL_SEED").map_or_else(
        |_| rand::random(),
        |seed| seed.parse().expect("KILL_SEED is a number"),
    )
}

/// Azure in bad weather. Whatever comes late comes within [`SETTLE_TIME`] of its receipt, as Azure promises.
async fn world(seed: u64) -> World {
    let settings = Settings {
        list_lag: Duration::from_millis(900),
        read_lag: Duration::from_millis(900),
        hash_conflict_probability: 0.02,
        throttling: Throttling {
            enabled: false,
            ..Throttling::default()
        },
        ..Settings::default()
    };
    let world = World::start_with(settings, seed).await;
    for fault in bad_weather() {
        world.emulator.add_fault(fault);
    }
    world
}

/// The stream of requests, until it is told to stop.
struct Stream {
    account: Arc<Mutex<Account>>,
    brokers: watch::Sender<Option<Client>>,
    stop: watch::Sender<bool>,
    callers: Vec<JoinHandle<()>>,
}

impl Stream {
    fn begin(world: &World, seed: u64) -> Self {
        let clusters = [
            world.cluster("aks-production"),
            world.cluster("aks-development"),
        ];
        let mut random = StdRng::seed_from_u64(seed);
        let targets: Arc<Vec<(Uuid, String)>> = Arc::new(
            (0..TARGETS)
                .map(|n| {
                    let principal = Uuid::from_u128(random.random());
                    (principal, clusters[n % clusters.len()].clone())
                })
                .collect(),
        );
        let account = Arc::new(Mutex::new(Account::default()));
        let (brokers, broker) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let caller = |n| Caller {
            random: StdRng::seed_from_u64(seed ^ (n + 1)),
            targets: Arc::clone(&targets),
            account: Arc::clone(&account),
            broker: broker.clone(),
        };
        let callers = (0..CALLERS)
            .map(|n| tokio::spawn(caller(n).ask_until(stopped.clone())))
            .collect();
        Self {
            account,
            brokers,
            stop,
            callers,
        }
    }

    fn accepted(&self) -> usize {
        self.account.lock().unwrap().jobs.len()
    }

    async fn end(self) -> Account {
        self.stop.send_replace(true);
        for caller in self.callers {
            caller.await.expect("a caller");
        }
        let account = Arc::into_inner(self.account).expect("the callers are gone");
        account.into_inner().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_killed_at_any_moment_the_broker_loses_nothing() {
    let seed = seed();
    println!("KILL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = world(seed).await;
    let timing = Timing {
        call_timeout: Duration::from_millis(700),
        lease: Duration::from_secs(2),
        settle_time: SETTLE_TIME,
        lag: LAG,
        ..Timing::default()
    };
    let stream = Stream::begin(&world, seed);
    for kill in 1..=KILLS {
        let process = world.broker(&timing).await;
        stream.brokers.send_replace(Some(process.client()));
        // The moment itself is what is drawn.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
        process.kill().await;
        stream.brokers.send_replace(None);
        if kill % 20 == 0 {
            println!(
                "{kill} of {KILLS} kills, {} jobs accepted",
                stream.accepted()
            );
        }
    }
    let process = world.broker(&timing).await;
    stream.brokers.send_replace(Some(process.client()));
    let account = stream.end().await;
    world.emulator.clear_faults();
    let states = all_over(&process, &account).await;
    world.at_rest().await;
    world.emulator.quiesce().await;

    let (truth, expected) = (world.truth(), expected(&account));
    let missing: Vec<_> = expected.difference(&truth).collect();
    let left: Vec<_> = truth.difference(&expected).collect();
    for wrong in missing.iter().chain(&left) {
        tell_the_story_of(&world, wrong).await;
    }
    assert!(
        missing.is_empty() && left.is_empty(),
        "missing {missing:#?}\nleft {left:#?}\nKILL_SEED={seed}"
    );
    assert_eq!(
        states.get("STATE_FAILED"),
        None,
        "nothing in this weather is final"
    );
    assert!(
        world.count(Operation::RoleAssignmentWrite) > 500,
        "the run was too short to mean anything"
    );
}

/// Waits until every accepted job is over and every grant has had its time, and counts how jobs ended.
async fn all_over(process: &BrokerProcess, account: &Account) -> BTreeMap<&'static str, usize> {
    let mut client = process.client();
    let mut states: BTreeMap<&'static str, usize> = BTreeMap::new();
    for job in &account.jobs {
        let job = ask::over(&mut client, job).await;
        *states.entry(job.state().as_str_name()).or_default() += 1;
    }
    println!("{states:?}");
    if let Some(last_end) = account.last_end {
        tokio::time::sleep_until(last_end.into()).await;
    }
    states
}

/// Prints all that happened to one assignment, for whoever has to find out why.
async fn tell_the_story_of(world: &World, wrong: &Assignment) {
    println!("--- {wrong:?}");
    let changes = world.emulator.changes();
    let ours = |change: &&azure_emulator::Change| {
        change.principal == Some(wrong.principal)
            && change.role == Some(wrong.role)
            && change
                .scope
                .as_ref()
                .is_some_and(|scope| scope.to_string().eq_ignore_ascii_case(&wrong.scope))
    };
    let names: BTreeSet<String> = changes
        .iter()
        .filter(ours)
        .map(|change| change.name.clone())
        .collect();
    for event in world.emulator.history() {
        match (event.as_call(), event.as_change()) {
            (Some(call), _) if names.iter().any(|name| call.path.contains(name)) => println!(
                "{:?} call {} {} {:?} closed {:?}",
                call.received.elapsed,
                call.sequence,
                call.operation.as_str(),
                call.status,
                call.closed.map(|closed| closed.elapsed)
            ),
            (_, Some(change)) if names.contains(&change.name) => {
                println!(
                    "{:?} {:?} {} by call {:?}",
                    change.time.elapsed, change.kind, change.name, change.call
                );
            }
            _ => {}
        }
    }
    let mut connection = world.redis.connection().await;
    let key = format!("{{aab:main}}:target:*|{}", wrong.principal);
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(key)
        .query_async(&mut connection)
        .await
        .expect("Redis answers");
    for key in keys {
        let record: BTreeMap<String, String> = redis::cmd("HGETALL")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .expect("Redis answers");
        println!("{key} {record:#?}");
    }
}
