//! A world to test in: a real Redis, the Azure emulator in this process, and the broker as a process of its
//! own, which can be killed. Helpers make worlds and ask what is true; they assert nothing about the broker.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test takes for granted, its helpers may as well"
)]

pub mod ask;
pub mod attacker;
pub mod bearer;
pub mod broker;
pub mod contract;
pub mod every_rpc;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod refusal;
pub mod replicas;
pub mod stream;
pub mod trail;
pub mod weather;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use azure_emulator::{
    Emulator, FaultEffect, NewRoleAssignment, Operation, Options, RoleAssignment, Scope, Settings,
};
use tempfile::TempDir;
use uuid::{Uuid, uuid};

use broker::BrokerProcess;
use redis::RedisServer;

/// The client id of the world's own `access-broker`.
pub const ACCESS_BROKER: Uuid = uuid!("40000000-0000-4000-8000-000000000001");
/// The object id of the world's own `platform`, which calls wherever a test says nothing else.
pub const PLATFORM: Uuid = uuid!("30000000-0000-4000-8000-000000000003");
/// Longer than any test takes.
const ONE_DAY: i64 = 86_400;
/// What every broker signs in with.
const SECRET: &str = "access-broker-secret";

/// Where a world has its policies.
const POLICIES: &str = "policies";
/// What most tests are not about: everybody may do everything.
const EVERYTHING: &str = "permit (principal, action, resource);\n";

/// Everything that a broker stands on.
pub struct World {
    /// Azure, and what is true.
    pub emulator: Emulator,
    /// Where the broker keeps what it accepted.
    pub redis: RedisServer,
    /// Everything on disk; gone with the world.
    pub dir: TempDir,
}

/// How a world's broker is set up.
#[derive(Clone, Debug)]
pub struct Timing {
    /// How long one call to Azure may take.
    pub call_timeout: Duration,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How long a call may take effect after its sender gave up.
    pub settle_time: Duration,
    /// How far Azure's reads may trail its writes.
    pub lag: Duration,
    /// How many PUTs a subscription is sent at once, and how many more each second.
    pub writes: (u32, u32),
    /// How many DELETEs.
    pub deletes: (u32, u32),
    /// How many targets are worked on at once.
    pub workers: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(2),
            lease: Duration::from_secs(5),
            settle_time: Duration::from_secs(2),
            lag: Duration::from_secs(1),
            writes: (200, 10),
            deletes: (200, 10),
            workers: 32,
        }
    }
}

impl World {
    /// A world whose Azure is always up to date and never throttles.
    pub async fn start() -> Self {
        Self::start_with(Settings::immediate(), 0).await
    }

    /// A world whose Azure has these manners, and draws its chances from `seed`.
    pub async fn start_with(settings: Settings, seed: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options {
            settings,
            seed,
            ..Options::default()
        };
        let emulator = Emulator::start(options).await.expect("an emulator");
        fs::write(dir.path().join("ca.pem"), emulator.ca_pem()).expect("the CA's file");
        fs::write(dir.path().join("secret"), SECRET).expect("the secret's file");
        let token = token(&emulator, PLATFORM);
        fs::write(dir.path().join(broker::TOKEN), token).expect("the token's file");
        let policies = dir.path().join(POLICIES);
        fs::create_dir(&policies).expect("the policies' directory");
        fs::write(policies.join("all.cedar"), EVERYTHING).expect("a policy");
        let redis = RedisServer::start(&dir.path().join("redis"), &[]).await;
        Self {
            emulator,
            redis,
            dir,
        }
    }

    /// The brokers' instance id, as Redis holds it.
    pub async fn instance(&self) -> String {
        let mut connection = self.redis.connection().await;
        ::redis::cmd("HGET")
            .arg("{aab:main}:meta")
            .arg("instance")
            .query_async(&mut connection)
            .await
            .expect("an instance id")
    }

    /// Starts a broker, and waits until it says that it serves.
    pub async fn broker(&self, timing: &Timing) -> BrokerProcess {
        let config = self.config(timing, &self.redis.url(), &self.emulator.urls().arm);
        BrokerProcess::start(&config).await
    }

    /// Writes a configuration for a broker that reaches Redis and ARM there.
    pub fn config(&self, timing: &Timing, redis: &str, arm: &str) -> PathBuf {
        self.config_as(ACCESS_BROKER, timing, redis, arm)
    }

    /// Writes a configuration for a broker that signs in as `client`.
    pub fn config_as(&self, client: Uuid, timing: &Timing, redis: &str, arm: &str) -> PathBuf {
        let world = self.emulator.world();
        let urls = self.emulator.urls();
        let subscriptions: Vec<String> = world
            .subscriptions
            .iter()
            .map(|subscription| subscription.id.to_string())
            .collect();
        let bucket = |(capacity, per_second): (u32, u32)| {
            format!("{{capacity: {capacity}, per_second: {per_second}}}")
        };
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        let text = format!(
            "server:\n  listen: 127.0.0.1:0\n  allow_plaintext: true\n\
             authentication:\n  audiences: [{ACCESS_BROKER}]\n\
             limits:\n  grants: {plenty}\n  revocations: {plenty}\n  checks: {plenty}\n  reads: {plenty}\n  refusals: {plenty}\n  fresh_reads: {{per_caller: {fresh}, per_subscription: {fresh}}}\n\
             policy:\n  directory: {dir}/{POLICIES}\n\
             audit:\n  file: {dir}/audit.jsonl\n  refusals_per_minute: 1000000\n\
             redis:\n  url: {redis}\n\
             azure:\n  tenant_id: {tenant}\n  subscriptions: [{subscriptions}]\n  ca_file: {dir}/ca.pem\n  \
             call_timeout: {call}\n  connect_timeout: {connect}\n  credential:\n    client_secret:\n      \
             client_id: {client}\n      client_secret_file: {dir}/secret\n  endpoints:\n    arm: {arm}\n    \
             entra: {entra}\n    graph: {graph}\n\
             reconciler:\n  allow_short_times: true\n  lease: {lease}\n  settle_time: {settle}\n  lag: {lag}\n  \
             workers: {workers}\n  backoff_initial: 50ms\n  backoff_max: 1s\n  poll: 20ms\n  lane:\n    \
             writes: {writes}\n    deletes: {deletes}\n",
            plenty = bucket((1_000_000, 1_000_000)),
            fresh = "{capacity: 1000000, per_minute: 1000000}",
            tenant = world.tenant,
            subscriptions = subscriptions.join(", "),
            dir = self.dir.path().display(),
            call = millis(timing.call_timeout),
            connect = millis(timing.call_timeout / 2),
            entra = urls.entra,
            graph = urls.graph,
            lease = millis(timing.lease),
            settle = millis(timing.settle_time),
            lag = millis(timing.lag),
            writes = bucket(timing.writes),
            deletes = bucket(timing.deletes),
            workers = timing.workers,
        );
        let path = self
            .dir
            .path()
            .join(format!("broker-{}.yaml", Uuid::new_v4()));
        fs::write(&path, text).expect("the configuration's file");
        path
    }

    /// The same for a broker that reaches both as they are, with further lines of the section `server`.
    pub fn config_with(&self, timing: &Timing, server: &[&str]) -> PathBuf {
        self.config_with_more(timing, "server", server)
    }

    /// The same with further lines of any section.
    pub fn config_with_more(&self, timing: &Timing, section: &str, lines: &[&str]) -> PathBuf {
        let path = self.config(timing, &self.redis.url(), &self.emulator.urls().arm);
        let text = fs::read_to_string(&path).expect("the configuration's file");
        let heading = format!("{section}:\n");
        let with_more = format!("{heading}  {}\n", lines.join("\n  "));
        fs::write(&path, text.replacen(&heading, &with_more, 1)).expect("the file");
        path
    }

    /// The same with the policies of this directory; or with those that the broker brings along.
    pub fn config_of_policies(&self, timing: &Timing, directory: Option<&Path>) -> PathBuf {
        let path = self.config(timing, &self.redis.url(), &self.emulator.urls().arm);
        let text = fs::read_to_string(&path).expect("the configuration's file");
        let all = format!("  directory: {}/{POLICIES}\n", self.dir.path().display());
        let instead = match directory {
            Some(directory) => format!("  directory: {}\n", directory.display()),
            None => "  directory:\n".to_owned(),
        };
        fs::write(&path, text.replacen(&all, &instead, 1)).expect("the file");
        path
    }

    /// The ARM id of one of the world's clusters, by name.
    pub fn cluster(&self, name: &str) -> String {
        let world = self.emulator.world();
        let cluster = world
            .clusters
            .iter()
            .find(|cluster| cluster.name == name)
            .expect("such a cluster");
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ContainerService/managedClusters/{}",
            cluster.subscription, cluster.resource_group, cluster.name
        )
    }

    /// What Azure truly holds for everybody but the world's own beginnings: (scope, role, principal).
    pub fn truth(&self) -> BTreeSet<Assignment> {
        let ours = self
            .emulator
            .role_assignments()
            .into_iter()
            .filter(|found| found.description.is_some());
        ours.map(|found| Assignment {
            scope: found.scope.to_string().to_lowercase(),
            role: found.role,
            principal: found.principal,
        })
        .collect()
    }

    /// The same with the end that each says of itself.
    pub fn described(&self) -> BTreeSet<(Assignment, String)> {
        let ours = self.emulator.role_assignments().into_iter();
        ours.filter_map(|found| {
            let end = end_in(found.description.as_deref()?);
            let assignment = Assignment {
                scope: found.scope.to_string().to_lowercase(),
                role: found.role,
                principal: found.principal,
            };
            Some((assignment, end))
        })
        .collect()
    }

    /// Assigns a role as somebody else does, perhaps under a condition.
    pub fn somebody_else_gives(
        &self,
        scope: &str,
        role: Uuid,
        principal: Uuid,
        condition: Option<&str>,
    ) -> RoleAssignment {
        let new = NewRoleAssignment {
            scope: Scope::parse(scope).expect("a scope"),
            role,
            principal,
            name: None,
            description: None,
            condition: condition.map(str::to_owned),
        };
        let made = self.emulator.put_role_assignment_as_somebody_else(&new);
        made.expect("an assignment")
    }

    /// The ends that Azure's own descriptions say, as a set: of grants with one end it has one element.
    pub fn described_ends(&self) -> BTreeSet<String> {
        let ours = self.described().into_iter();
        ours.map(|(_, end)| end).collect()
    }

    /// What the broker calls the world's own `platform`.
    pub fn platform_name(&self) -> String {
        let tenant = self.emulator.world().tenant;
        format!("application/40000000-0000-4000-8000-000000000003@{tenant}")
    }

    /// How many calls of one operation the broker has made.
    pub fn count(&self, operation: Operation) -> usize {
        self.emulator
            .calls()
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    }
}

/// Azure answers that it cannot serve the call now.
pub fn out_of_order() -> FaultEffect {
    FaultEffect::Status {
        status: 503,
        code: "ServerTimeout".to_owned(),
        message: "later".to_owned(),
        retry_after: None,
    }
}

/// A token with which somebody may call the broker, for a day.
pub fn token(emulator: &Emulator, bearer: Uuid) -> String {
    let claims = emulator.claims(bearer, &ACCESS_BROKER.to_string());
    let mut claims = claims.expect("somebody in the directory");
    claims.exp = claims.iat + ONE_DAY;
    emulator.sign(&claims).expect("a token")
}

/// When an assignment of the broker's ends, by its description.
fn end_in(description: &str) -> String {
    let mut words = description.split(' ');
    let end = words.find_map(|word| word.strip_prefix("expires="));
    end.expect("an end in the description").to_owned()
}

/// One role of one principal at one scope.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Assignment {
    /// Where, in lower case.
    pub scope: String,
    /// Which role.
    pub role: Uuid,
    /// Whose.
    pub principal: Uuid,
}

impl World {
    /// Waits until no target of the broker's waits for anything: no work, no retry, no settle deadline, no
    /// expiry.
    pub async fn at_rest(&self) {
        self.rests(false).await;
    }

    /// Waits until no target waits for anything but its expiries.
    pub async fn at_rest_but_for_expiries(&self) {
        self.rests(true).await;
    }

    async fn rests(&self, but_for_expiries: bool) {
        let mut connection = self.redis.connection().await;
        loop {
            let (due, expiries, waiting, ready): (u64, u64, Vec<String>, Vec<String>) =
                ::redis::pipe()
                    .zcard("{aab:main}:due")
                    .zcard("{aab:main}:expiries")
                    .cmd("KEYS")
                    .arg("{aab:main}:*:todo")
                    .cmd("KEYS")
                    .arg("{aab:main}:ready:*")
                    .query_async(&mut connection)
                    .await
                    .expect("Redis answers");
            let expired = expiries == 0 || but_for_expiries;
            if due == 0 && expired && waiting.is_empty() && ready.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Azure tells a call, and all of its kind in the subscription, to wait.
pub fn told_to_wait(seconds: &str) -> FaultEffect {
    FaultEffect::Status {
        status: 429,
        code: "TooManyRequests".to_owned(),
        message: "wait".to_owned(),
        retry_after: Some(seconds.to_owned()),
    }
}
