//! A store on a real Redis, and passes that are gone through step by step.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use aks_access_broker::config::{LaneBudget, Redis};
use aks_access_broker::domain::access::{Access, Principal, PrincipalType};
use aks_access_broker::domain::backoff::Backoff;
use aks_access_broker::domain::conclude::{Conclusion, Steps, Terms, conclude, concluded};
use aks_access_broker::domain::effect::{Answer, Call, Effect, PassTime, PerCall};
use aks_access_broker::domain::grant::{Expiry, Grant};
use aks_access_broker::domain::ids::{
    AssignmentName, ClusterId, GrantId, InstanceId, JobId, LeaseToken, PrincipalId, RequestId,
    TargetId,
};
use aks_access_broker::domain::job::Job;
use aks_access_broker::domain::plan::{Step, needed_calls, plan};
use aks_access_broker::domain::role::{BuiltInRole, Role};
use aks_access_broker::domain::settle_clock::SettledTime;
use aks_access_broker::store::{
    Accepted, Begun, ClaimTerms, Claimed, Closing, End, NewGrant, NewRevocation, NextLook,
    PassRecord, Recorded, Refusal, RefusalBounds, RequestKey, Revoked, Store, TouchedEffect,
};
use jiff::{SignedDuration, Timestamp};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use uuid::Uuid;

use super::redis_server::RedisServer;

pub const SUBSCRIPTION: &str = "11111111-1111-4111-8111-111111111111";
pub const LEASE: Duration = Duration::from_mins(1);
pub const SETTLE: Duration = Duration::from_mins(5);
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);
pub const LAG: Duration = Duration::from_mins(10);
pub const RETENTION: Duration = Duration::from_hours(1);

/// A store, the Redis under it, and a view past the store.
pub struct Bench {
    pub store: Store,
    pub raw: MultiplexedConnection,
    pub lane: LaneBudget,
    pub redis: RedisServer,
    _dir: TempDir,
}

pub fn target_of(principal: u128) -> TargetId {
    let cluster = format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/one"
    );
    TargetId {
        cluster: ClusterId::parse(&cluster).unwrap(),
        principal: PrincipalId::new(Uuid::from_u128(principal)),
    }
}

pub fn request() -> RequestKey {
    RequestKey {
        caller: "platform".to_owned(),
        id: RequestId::new(Uuid::new_v4()),
        payload_hash: "hash".to_owned(),
    }
}

/// Reader on the whole cluster, until it is revoked: two role assignments.
pub fn reader(principal: u128) -> NewGrant {
    NewGrant {
        grant: GrantId::new(Uuid::now_v7()),
        job: JobId::new(Uuid::now_v7()),
        request: request(),
        target: target_of(principal),
        principal: Principal::unnamed(
            PrincipalId::new(Uuid::from_u128(principal)),
            PrincipalType::User,
        ),
        access: Access {
            role: Role::BuiltIn(BuiltInRole::RbacReader),
            namespaces: BTreeSet::new(),
        },
        cluster_uid: "uid".to_owned(),
        end: End::At(Expiry::Never),
        justification: String::new(),
        labels: BTreeMap::new(),
        external_key: None,
        on_behalf_of: None,
        audit_event: "{}".to_owned(),
        gone_event: "{}".to_owned(),
    }
}

pub fn revocation(grant: GrantId) -> NewRevocation {
    NewRevocation {
        left: 0,
        shows_job: false,
        grants: Revoked::One(grant),
        job: JobId::new(Uuid::now_v7()),
        request: request(),
        justification: String::new(),
        audit_event: "{}".to_owned(),
    }
}

/// Room for every refusal of a test.
pub const ROOM: RefusalBounds = RefusalBounds {
    per_minute: 1_000,
    share: 1_000_000,
    over: RETENTION,
};

/// One refusal of a caller's, whose event says so much.
pub fn refusal_of(actor: &str, audit_event: &str) -> Refusal {
    Refusal {
        token: Uuid::new_v4(),
        actor: actor.to_owned(),
        count: 1,
        audit_event: audit_event.to_owned(),
    }
}

pub fn terms() -> ClaimTerms {
    ClaimTerms {
        token: LeaseToken::new(Uuid::new_v4()),
        lease: LEASE,
        settle: SETTLE,
        call_timeout: CALL_TIMEOUT,
        turn: 0,
        backoff: Backoff {
            initial: Duration::from_millis(1),
            max: Duration::from_millis(1),
        },
        jitter: 1.0,
    }
}

impl Bench {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = RedisServer::start(dir.path(), &[]).await;
        let settings = Redis {
            url: server.url().parse().unwrap(),
            ..Redis::default()
        };
        Self {
            store: Store::new(&settings, RETENTION).unwrap(),
            raw: server.connection().await,
            lane: LaneBudget::default(),
            redis: server,
            _dir: dir,
        }
    }

    async fn accept(&self, new: NewGrant) -> NewGrant {
        let accepted = self.store.accept_grant(&new).await.unwrap();
        assert_eq!(accepted, Accepted::New(new.job, Some(new.grant)));
        new
    }

    pub async fn grant(&self, principal: u128) -> NewGrant {
        self.accept(reader(principal)).await
    }

    /// A grant that ends after so long.
    pub async fn ending(&self, principal: u128, ttl: Duration) -> NewGrant {
        let mut new = reader(principal);
        new.end = End::After(ttl);
        self.accept(new).await
    }

    /// A grant in another subscription, the `lane`th.
    pub async fn grant_in(&self, lane: u64, principal: u128) -> NewGrant {
        let mut new = reader(principal);
        let subscription = Uuid::from_u128(u128::from(lane) + 1).to_string();
        let cluster = new.target.cluster.to_string();
        let cluster = cluster.replace(SUBSCRIPTION, &subscription);
        new.target.cluster = ClusterId::parse(&cluster).unwrap();
        self.accept(new).await
    }

    pub async fn revoke(&self, grant: GrantId) -> NewRevocation {
        let new = revocation(grant);
        let accepted = self.store.accept_revocation(&new).await.unwrap();
        assert_eq!(accepted, Accepted::New(new.job, Some(grant)));
        new
    }

    /// A grant whose two assignments stand.
    pub async fn active(&self, principal: u128) -> NewGrant {
        let new = self.grant(principal).await;
        let mut pass = self.pass().await;
        assert_eq!(pass.begin(self).await, Begun::Begun);
        pass.all_answered();
        assert_eq!(pass.record(self).await, Recorded::Recorded);
        new
    }

    pub async fn pass(&self) -> Pass {
        self.pass_on(&terms()).await.expect("a target is ready")
    }

    /// A pass whose lease is soon over.
    pub async fn short_pass(&self) -> Pass {
        let mut short = terms();
        // Long enough for a pass to begin, on a machine that has much else to do.
        short.lease = Duration::from_millis(300);
        self.pass_on(&short).await.expect("a target is ready")
    }

    /// A worker that made its calls and was given up before it could record them.
    pub async fn late_pass(&mut self) -> Pass {
        let mut late = self.short_pass().await;
        assert_eq!(late.begin(self).await, Begun::Begun);
        late.all_answered();
        self.is_given_up(&late).await;
        late
    }

    /// Waits until a pass's lease is over, and its target is ready for somebody else.
    pub async fn is_given_up(&mut self, pass: &Pass) {
        self.until(pass.claimed.lease_end).await;
        assert_eq!(self.store.wake(10).await.unwrap().looked_at, 1);
    }

    pub async fn pass_on(&self, terms: &ClaimTerms) -> Option<Pass> {
        let claimed = self.store.claim(terms, &self.lane).await.unwrap()?;
        Some(Pass::new(claimed, terms.token))
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().expect("the job is kept")
    }

    pub async fn grant_now(&self, id: GrantId) -> Grant {
        let grant = self.store.grant(id).await.unwrap();
        grant.expect("the grant is kept")
    }

    pub async fn effects(&self, principal: u128) -> BTreeMap<AssignmentName, Effect> {
        let record = self.store.target(&target_of(principal)).await.unwrap();
        record.effects
    }

    pub async fn ready(&mut self, bucket: &str) -> Vec<String> {
        let key = format!("{{aab:main}}:ready:{SUBSCRIPTION}:{bucket}");
        self.ask("ZRANGE", &[&key, "0", "-1"]).await
    }

    /// When the target is looked at again by itself.
    pub async fn due(&mut self, principal: u128) -> Option<f64> {
        let mut soonest: Option<f64> = None;
        for kind in ["lease", "deletes", "writes"] {
            let when = self.due_for(kind, principal).await;
            soonest = soonest.into_iter().chain(when).reduce(f64::min);
        }
        soonest
    }

    /// When the end of its lease, or one of its buckets, is looked at.
    pub async fn due_for(&mut self, kind: &str, principal: u128) -> Option<f64> {
        let member = format!("{kind}:{}", target_of(principal));
        self.ask("ZSCORE", &["{aab:main}:due", &member]).await
    }

    /// Redis's time, in milliseconds.
    pub async fn now(&mut self) -> f64 {
        let (seconds, micros): (f64, f64) = self.ask("TIME", &[]).await;
        (seconds * 1_000.0 + micros / 1_000.0).floor()
    }

    pub async fn ask<T: redis::FromRedisValue>(&mut self, command: &str, words: &[&str]) -> T {
        let asked = redis::cmd(command).arg(words).to_owned();
        asked.query_async(&mut self.raw).await.unwrap()
    }

    /// Waits until Redis's own clock has passed `end`.
    pub async fn until(&mut self, end: Timestamp) {
        loop {
            let (seconds, micros): (i64, i64) = self.ask("TIME", &[]).await;
            let now = Timestamp::from_microsecond(seconds * 1_000_000 + micros).unwrap();
            if now > end {
                return;
            }
            tokio::time::sleep(Duration::try_from(end.duration_since(now)).unwrap()).await;
        }
    }
}

/// One worker's pass: what it loaded, and what it has touched.
pub struct Pass {
    pub claimed: Claimed,
    pub token: LeaseToken,
    pub steps: Vec<Step>,
    pub touched: BTreeMap<AssignmentName, TouchedEffect>,
    /// How long what is left to do waits, by kind of call.
    pub waits: PerCall<Option<Duration>>,
    pub closings: Vec<Closing>,
}

impl Pass {
    fn new(claimed: Claimed, token: LeaseToken) -> Self {
        let mut pass = Self {
            claimed,
            token,
            steps: Vec::new(),
            touched: BTreeMap::new(),
            waits: PerCall::default(),
            closings: Vec::new(),
        };
        let instance = InstanceId::new(Uuid::from_u128(1));
        pass.steps = plan(&pass.claimed.target, instance, pass.time());
        pass
    }

    /// Steps that write all that is wished for, whatever stands.
    pub fn puts_again(&self) -> Vec<Step> {
        let mut target = self.claimed.target.clone();
        for effect in target.effects.values_mut() {
            effect.open = Some(Call::Put);
        }
        plan(&target, InstanceId::new(Uuid::from_u128(1)), self.time())
    }

    pub fn time(&self) -> PassTime {
        PassTime {
            claimed: self.claimed.now,
            now: self.claimed.now,
            lag: SignedDuration::try_from(LAG).unwrap(),
        }
    }

    pub async fn begin(&mut self, bench: &Bench) -> Begun {
        let now = self.claimed.now;
        let rows: Vec<(Effect, Call)> = self
            .steps
            .iter()
            .map(|step| {
                let n = if let Step::Put { n, .. } = step {
                    *n
                } else {
                    0
                };
                let known = self.claimed.target.effects.get(&step.name()).cloned();
                let fresh = || Effect::untouched(step.name(), step.at().clone(), n, now);
                (known.unwrap_or_else(fresh), step.call())
            })
            .collect();
        let intents: Vec<(&Effect, Call)> = rows.iter().map(|(row, call)| (row, *call)).collect();
        let begun = bench
            .store
            .begin(&self.claimed.target, self.token, &intents, &bench.lane)
            .await
            .unwrap();
        if begun == Begun::Begun {
            for (effect, call) in rows {
                let effects = &mut self.claimed.target.effects;
                effects.insert(effect.name, effect.clone());
                let touched = TouchedEffect {
                    call,
                    sent: false,
                    unanswered: false,
                    loaded_deadline: effect.deadline,
                    landed: false,
                    effect,
                };
                self.touched.insert(touched.effect.name, touched);
            }
        }
        begun
    }

    /// Azure does what it is asked for.
    pub fn all_answered(&mut self) {
        for step in self.steps.clone() {
            let answer = match &step {
                Step::Put { description, .. } => Answer::Written(description.clone()),
                Step::Delete { .. } => Answer::Deleted,
            };
            self.answered(&step, &answer);
        }
    }

    pub fn answered(&mut self, step: &Step, answer: &Answer) {
        let time = self.time();
        let effects = &mut self.claimed.target.effects;
        let effect = effects.get_mut(&step.name()).expect("it was begun");
        effect.answered(step.call(), answer, time);
        let touched = self.touched.get_mut(&step.name()).expect("it was begun");
        touched.effect = effect.clone();
        touched.sent = true;
        touched.unanswered = matches!(answer, Answer::Unknown { .. });
        touched.landed = matches!(answer, Answer::Written(_));
    }

    pub fn conclusion(&self) -> Conclusion {
        let terms = Terms {
            time: self.time(),
            grant_give_up: Duration::from_hours(24),
            cluster_gone: false,
        };
        conclude(&self.claimed.target, Steps::NONE, terms)
    }

    pub async fn record(&self, bench: &Bench) -> Recorded {
        self.record_as(bench, &self.conclusion()).await
    }

    /// As a replica does whose settle time is another.
    pub async fn record_with(&self, bench: &Bench, settle: Duration) -> Recorded {
        self.recorded(bench, &self.conclusion(), settle).await
    }

    pub async fn record_as(&self, bench: &Bench, conclusion: &Conclusion) -> Recorded {
        self.recorded(bench, conclusion, SETTLE).await
    }

    async fn recorded(&self, bench: &Bench, conclusion: &Conclusion, settle: Duration) -> Recorded {
        let effects: Vec<TouchedEffect> = self.touched.values().cloned().collect();
        let target = &self.claimed.target;
        let after = concluded(target, conclusion);
        let needed = needed_calls(&after, InstanceId::new(Uuid::from_u128(1)), self.time());
        let open = target
            .effects
            .values()
            .filter(|effect| effect.open.is_some());
        let open: Vec<AssignmentName> = open.map(|effect| effect.name).collect();
        let record = PassRecord {
            target: &self.claimed.target.id,
            token: self.token,
            generation: self.claimed.target.generation,
            claimed: self.claimed.now,
            clock: SettledTime {
                now: self.claimed.now,
                behind: Duration::ZERO,
                caught_up: self.claimed.now,
            },
            effects: &effects,
            conclusion,
            open: &open,
            looks: PerCall::from_fn(|call| NextLook {
                needed: *needed.get(call),
                wait: *self.waits.get(call),
                failures: u32::from(self.waits.get(call).is_some()),
            }),
            again: false,
            closings: &self.closings,
            remaining: &[],
            lease: LEASE,
            settle,
            lag: LAG,
            audit_events: Vec::new(),
            grant_events: HashMap::new(),
            lost_event: "{\"lost\":true}".to_owned(),
        };
        bench.store.record(&record).await.unwrap()
    }
}
