//! Request budgets: token buckets for each subscription and caller, and what is left of them as headers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use uuid::Uuid;

use super::error::ArmError;
use super::route::Target;
use crate::message::{Answer, Request};
use crate::scope::Scope;
use crate::settings::{Bucket, Throttling};
use crate::time::Moment;

/// What a caller is told at most, in seconds, when a bucket regains next to nothing.
const LONGEST_WAIT: f64 = 3_600.0;

/// All buckets.
#[derive(Debug)]
pub(crate) struct Throttle {
    tenant: Uuid,
    levels: Mutex<HashMap<Key, Level>>,
}

/// What a bucket is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A subscription's id, or none for what lies above them; whose; for what.
    Caller(Option<String>, Uuid, Kind),
    Everybody(Option<String>, Kind),
    ClusterRead(String),
    ClusterList(String),
}

/// What a bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Reads,
    Writes,
    Deletes,
}

/// How full a bucket was, and when.
#[derive(Clone, Copy, Debug)]
struct Level {
    tokens: f64,
    at: Duration,
}

/// What the caller has left after this call.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    headers: Vec<(&'static str, u64)>,
}

impl Allowance {
    pub(super) fn onto(self, mut answer: Answer) -> Answer {
        for (name, left) in self.headers {
            answer.set(name, &left.to_string());
        }
        answer
    }
}

impl Throttle {
    pub(crate) fn new(tenant: Uuid) -> Self {
        Self {
            tenant,
            levels: Mutex::default(),
        }
    }

    /// Takes one request out of every bucket that it counts in.
    pub(super) fn take(
        &self,
        settings: &Throttling,
        request: &Request,
        target: &Target,
        caller: Uuid,
        now: Moment,
    ) -> Result<Allowance, ArmError> {
        if !settings.enabled {
            return Ok(Allowance::default());
        }
        let kind = Kind::of(&request.method);
        let bucket = kind.bucket(settings);
        let subscription = target
            .scope()
            .and_then(Scope::subscription)
            .map(str::to_owned);
        let refused = |wait| self.refuse(request, subscription.as_deref(), wait);
        let own_key = Key::Caller(subscription.clone(), caller, kind);
        let own = self.draw(own_key, bucket, now).map_err(refused)?;
        let shared_key = Key::Everybody(subscription.clone(), kind);
        let shared = self
            .draw(shared_key, bucket.times(settings.all_callers_factor), now)
            .map_err(refused)?;
        self.draw_from_provider(settings, target, now)?;
        let (own_header, shared_header) = kind.headers(subscription.is_some());
        Ok(Allowance {
            headers: vec![(own_header, own), (shared_header, shared)],
        })
    }

    fn refuse(&self, request: &Request, subscription: Option<&str>, wait: u64) -> ArmError {
        let operation = operation_in_errors(request);
        match subscription {
            Some(id) => ArmError::subscription_throttled(id, &operation, wait),
            None => ArmError::tenant_throttled(self.tenant, &operation, wait),
        }
    }

    /// The AKS resource provider counts for itself [azure-aks-docs quotas-skus-regions.md].
    fn draw_from_provider(
        &self,
        settings: &Throttling,
        target: &Target,
        now: Moment,
    ) -> Result<(), ArmError> {
        let drawn = match target {
            Target::Cluster { id } => self.draw(
                Key::ClusterRead(id.key().to_owned()),
                settings.cluster_reads,
                now,
            ),
            Target::Clusters { subscription } => self.draw(
                Key::ClusterList(subscription.key().to_owned()),
                settings.cluster_lists,
                now,
            ),
            _ => return Ok(()),
        };
        drawn.map(|_| ()).map_err(ArmError::provider_throttled)
    }

    /// Takes one token; says how many are left, or else in how many seconds there will be one.
    fn draw(&self, key: Key, bucket: Bucket, now: Moment) -> Result<u64, u64> {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let capacity = f64::from(bucket.capacity);
        let level = levels.entry(key).or_insert(Level {
            tokens: capacity,
            at: now.elapsed,
        });
        let regained = now.elapsed.saturating_sub(level.at).as_secs_f64() * bucket.per_second;
        level.tokens = (level.tokens + regained).min(capacity);
        level.at = now.elapsed;
        if level.tokens < 1.0 {
            let wait = (1.0 - level.tokens) / bucket.per_second;
            return Err(whole(wait.min(LONGEST_WAIT)).max(1));
        }
        level.tokens -= 1.0;
        Ok(whole(level.tokens.floor()))
    }

    pub(crate) fn refill(&self) {
        self.levels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Whole seconds or requests, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is not negative, and the cast stops at the largest number"
)]
fn whole(value: f64) -> u64 {
    value.ceil() as u64
}

/// `GET/SUBSCRIPTIONS/RESOURCEGROUPS/…`: the method and the words of the path without its names.
fn operation_in_errors(request: &Request) -> String {
    let words = request.path.split('/').skip(1).step_by(2);
    let words: Vec<String> = words.map(str::to_ascii_uppercase).collect();
    format!("{}/{}", request.method, words.join("/"))
}

impl Kind {
    fn of(method: &Method) -> Self {
        match method.as_str() {
            "GET" | "HEAD" => Self::Reads,
            "DELETE" => Self::Deletes,
            _ => Self::Writes,
        }
    }

    fn bucket(self, settings: &Throttling) -> Bucket {
        match self {
            Self::Reads => settings.reads,
            Self::Writes => settings.writes,
            Self::Deletes => settings.deletes,
        }
    }

    /// The header for the caller's own bucket and the one for everybody's.
    fn headers(self, in_subscription: bool) -> (&'static str, &'static str) {
        match (in_subscription, self) {
            (true, Self::Reads) => (
                "x-ms-ratelimit-remaining-subscription-reads",
                "x-ms-ratelimit-remaining-subscription-global-reads",
            ),
            (true, Self::Writes) => (
                "x-ms-ratelimit-remaining-subscription-writes",
                "x-ms-ratelimit-remaining-subscription-global-writes",
            ),
            (true, Self::Deletes) => (
                "x-ms-ratelimit-remaining-subscription-deletes",
                "x-ms-ratelimit-remaining-subscription-global-deletes",
            ),
            (false, Self::Reads) => (
                "x-ms-ratelimit-remaining-tenant-reads",
                "x-ms-ratelimit-remaining-tenant-global-reads",
            ),
            (false, Self::Writes) => (
                "x-ms-ratelimit-remaining-tenant-writes",
                "x-ms-ratelimit-remaining-tenant-global-writes",
            ),
            (false, Self::Deletes) => (
                "x-ms-ratelimit-remaining-tenant-deletes",
                "x-ms-ratelimit-remaining-tenant-global-deletes",
            ),
        }
    }
}
