//! A stream of grants, expiries and revocations from several callers at once, each sent again until it is accepted,
//! and what Azure is to hold when all of it is over.
#![allow(
    clippy::print_stdout,
    reason = "how a run went, and the story of what went wrong, are for whoever reads the test's output"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aks_access_broker::grpc::proto::{AzureRole, GrantRequest, RevokeRequest};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::{Uuid, uuid};

use super::ask::{self, access, lasting, permanent, revocation};
use super::broker::Client;
use super::{Assignment, World};

const TARGETS: usize = 50;
/// How many requests are under way at once.
const CALLERS: u64 = 4;
/// How long a caller waits for an answer before it asks elsewhere: a broker that is stopped never answers.
const PATIENCE: Duration = Duration::from_secs(1);
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
/// The namespaces that it asks for.
pub const NAMESPACES: [&str; 2] = ["team-a", "team-b"];

/// Every role that carries out what it asks for.
pub fn roles() -> Vec<Uuid> {
    let asked_for = ROLES.iter().map(|(_, role)| *role);
    asked_for.chain([CLUSTER_USER]).collect()
}

/// A live wish, as its caller knows it.
#[derive(Clone, Debug)]
struct Wish {
    principal: Uuid,
    cluster: String,
    role: Uuid,
    namespaces: Vec<String>,
}

/// What was asked for and accepted, by the callers' own account.
#[derive(Default)]
pub struct Account {
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
    brokers: watch::Receiver<Vec<Client>>,
}

impl Caller {
    async fn ask_until(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let ask = self.draw();
            self.send(ask).await;
        }
    }

    fn draw(&mut self) -> Ask {
        if self.random.random_bool(0.4)
            && let Some(grant) = self.draw_grant()
        {
            return Ask::Revoke(revocation(&grant));
        }
        let (principal, cluster) =
            self.targets[self.random.random_range(0..self.targets.len())].clone();
        let (role, role_id) = ROLES[self.random.random_range(0..ROLES.len())];
        let namespaces: &[&str] = &NAMESPACES[..self.random.random_range(0..=NAMESPACES.len())];
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

    /// One to revoke: mostly a permanent one, so that in the long run about as many go as come, and now and then one
    /// that ends by itself or has ended.
    fn draw_grant(&mut self) -> Option<String> {
        let account = self.account.lock().unwrap();
        if self.random.random_bool(0.65) {
            let permanent = account.permanent.keys();
            return permanent.choose(&mut self.random).cloned();
        }
        account.ending.choose(&mut self.random).cloned()
    }

    /// Sends a request, with the same id, until a broker has accepted it.
    async fn send(&mut self, ask: Ask) {
        loop {
            let clients = self.brokers.borrow_and_update().clone();
            if let Some(client) = clients.choose(&mut self.random) {
                let asked = self.ask(client.clone(), &ask);
                if matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(true)) {
                    return;
                }
            }
            // The next broker, or the end of the wait for one that lives but cannot reach Redis or Azure.
            let _ = tokio::time::timeout(Duration::from_millis(50), self.brokers.changed()).await;
        }
    }

    /// Whether it was accepted.
    async fn ask(&self, client: Client, ask: &Ask) -> bool {
        match ask {
            Ask::Grant(request, wish) => self.grant(client, request, wish).await,
            Ask::Revoke(request) => self.revoke(client, request).await,
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

/// The stream of requests, until it is told to end.
pub struct Stream {
    targets: Arc<Vec<(Uuid, String)>>,
    account: Arc<Mutex<Account>>,
    brokers: watch::Sender<Vec<Client>>,
    stop: watch::Sender<bool>,
    callers: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Begins it; nothing is sent before it is told of a broker.
    pub fn begin(world: &World, seed: u64) -> Self {
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
        let (brokers, to) = watch::channel(Vec::new());
        let (stop, stopped) = watch::channel(false);
        let caller = |n| Caller {
            random: StdRng::seed_from_u64(seed ^ (n + 1)),
            targets: Arc::clone(&targets),
            account: Arc::clone(&account),
            brokers: to.clone(),
        };
        let callers = (0..CALLERS)
            .map(|n| tokio::spawn(caller(n).ask_until(stopped.clone())))
            .collect();
        Self {
            targets,
            account,
            brokers,
            stop,
            callers,
        }
    }

    /// Where callers send from now on.
    pub fn send_to(&self, brokers: Vec<Client>) {
        self.brokers.send_replace(brokers);
    }

    /// The `n`th of them has started again: callers reach it there from now on.
    pub fn send_to_anew(&self, n: usize, broker: Client) {
        self.brokers.send_modify(|brokers| brokers[n] = broker);
    }

    /// Whom and what it is about: principals, each with a cluster.
    pub fn targets(&self) -> &[(Uuid, String)] {
        &self.targets
    }

    /// How many requests have been accepted.
    pub fn accepted(&self) -> usize {
        self.account.lock().unwrap().jobs.len()
    }

    /// Ends it once each request under way has been accepted.
    pub async fn end(self) -> Account {
        self.stop.send_replace(true);
        for caller in self.callers {
            caller.await.expect("a caller");
        }
        let account = Arc::into_inner(self.account).expect("the callers are gone");
        account.into_inner().unwrap()
    }
}

impl Account {
    /// What Azure is to hold when everything is over.
    pub fn calls_for(&self) -> BTreeSet<Assignment> {
        let mut expected = BTreeSet::new();
        for wish in self.permanent.values() {
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

    /// Waits until every accepted job is over and every grant has had its time, and counts how jobs ended.
    pub async fn all_over(&self, mut client: Client) -> BTreeMap<&'static str, usize> {
        let mut states: BTreeMap<&'static str, usize> = BTreeMap::new();
        for job in &self.jobs {
            let job = ask::over(&mut client, job).await;
            *states.entry(job.state().as_str_name()).or_default() += 1;
        }
        println!("{states:?}");
        if let Some(last_end) = self.last_end {
            tokio::time::sleep_until(last_end.into()).await;
        }
        states
    }

    /// What Azure lacks, and what it holds too much, of what is called for. Prints the story of each.
    pub async fn differences(&self, world: &World) -> (Vec<Assignment>, Vec<Assignment>) {
        let (truth, expected) = (world.truth(), self.calls_for());
        let missing: Vec<_> = expected.difference(&truth).cloned().collect();
        let left: Vec<_> = truth.difference(&expected).cloned().collect();
        for wrong in missing.iter().chain(&left) {
            tell_the_story_of(world, wrong).await;
        }
        (missing, left)
    }
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
