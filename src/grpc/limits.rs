//! How much one caller may ask: so often, and so much at once. Taking access away has the most room: where grants find
//! none, revocations still do.

use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use quick_cache::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::status;
use crate::caller::Caller;
use crate::config;

/// Of so many callers it is known how much they have asked. Whoever was not heard of for longest begins anew.
const REMEMBERED: usize = 10_000;
/// Beside all calls that may be under way, an eighth as many revocations may.
const SHARE_OF_REVOCATIONS: usize = 8;

/// What kind of call it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Grant,
    Revocation,
    Check,
    Read,
}

impl Kind {
    /// By the call's path, `/SERVICE/RPC`.
    pub(super) fn of(path: &str) -> Self {
        match path.rsplit('/').next().unwrap_or_default() {
            "Grant" | "ExtendGrant" => Self::Grant,
            "Revoke" => Self::Revocation,
            "CheckAccess" | "BatchCheckAccess" => Self::Check,
            _ => Self::Read,
        }
    }

    /// As callers read it.
    const fn plural(self) -> &'static str {
        match self {
            Self::Grant => "grants and extensions",
            Self::Revocation => "revocations",
            Self::Check => "checks",
            Self::Read => "reads",
        }
    }
}

/// What is left to whom.
pub(super) struct Limits {
    settings: config::Limits,
    in_flight: usize,
    calls: Arc<Semaphore>,
    revocations: Arc<Semaphore>,
    callers: Cache<String, Arc<Allowance>>,
}

/// What is left to one caller.
pub(super) struct Allowance {
    settings: config::Limits,
    grants: DefaultDirectRateLimiter,
    revocations: DefaultDirectRateLimiter,
    checks: DefaultDirectRateLimiter,
    reads: DefaultDirectRateLimiter,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A call that is taken, for as long as this is held.
pub(super) struct Admission {
    _of_all: OwnedSemaphorePermit,
    _of_caller: Option<OwnedSemaphorePermit>,
}

impl Limits {
    /// `in_flight`: how many calls of all callers may be under way.
    pub(super) fn new(settings: config::Limits, in_flight: usize) -> Self {
        let reserved = in_flight.div_ceil(SHARE_OF_REVOCATIONS);
        Self {
            settings,
            in_flight,
            calls: Arc::new(Semaphore::new(in_flight)),
            revocations: Arc::new(Semaphore::new(reserved)),
            callers: Cache::new(REMEMBERED),
        }
    }

    /// What is left to a caller, whatever tokens it brings.
    pub(super) fn allowance(&self, caller: &Caller) -> Arc<Allowance> {
        if let Some(allowance) = self.callers.get(caller.name()) {
            return allowance;
        }
        let new = || Ok::<_, std::convert::Infallible>(Arc::new(Allowance::new(self.settings)));
        match self.callers.get_or_insert_with(caller.name(), new) {
            Ok(allowance) => allowance,
            Err(never) => match never {},
        }
    }

    /// Takes a call of this kind.
    ///
    /// # Errors
    /// What the caller is to be told: it asks too often, or too much at once, or everybody does.
    pub(super) fn admit(&self, kind: Kind, allowance: &Allowance) -> Result<Admission, Status> {
        allowance.take(kind, 1)?;
        // A revocation needs no share: it may only not come too often.
        let is_revocation = kind == Kind::Revocation;
        let of_caller = Arc::clone(&allowance.calls).try_acquire_owned().ok();
        if of_caller.is_none() && !is_revocation {
            let limit = self.settings.in_flight_per_caller;
            return Err(status::overloaded("calls of yours", limit));
        }
        let of_all = Arc::clone(&self.calls).try_acquire_owned();
        let of_all = match of_all {
            Err(_) if is_revocation => Arc::clone(&self.revocations).try_acquire_owned(),
            of_all => of_all,
        };
        let of_all = of_all.map_err(|_| status::overloaded("calls", self.in_flight))?;
        Ok(Admission {
            _of_all: of_all,
            _of_caller: of_caller,
        })
    }
}

impl Allowance {
    fn new(settings: config::Limits) -> Self {
        let limiter = |rate: config::Rate| {
            let quota = Quota::per_second(rate.per_second).allow_burst(rate.capacity);
            RateLimiter::direct(quota)
        };
        Self {
            grants: limiter(settings.grants),
            revocations: limiter(settings.revocations),
            checks: limiter(settings.checks),
            reads: limiter(settings.reads),
            calls: Arc::new(Semaphore::new(settings.in_flight_per_caller)),
            streams: Arc::new(Semaphore::new(settings.streams_per_caller)),
            settings,
        }
    }

    /// Takes so many of a kind out of what the caller may ask now.
    ///
    /// # Errors
    /// What it is to be told: how often it may ask, and when there is room again.
    pub(super) fn take(&self, kind: Kind, count: u32) -> Result<(), Status> {
        let Some(count) = std::num::NonZeroU32::new(count) else {
            return Ok(());
        };
        let (limiter, rate) = match kind {
            Kind::Grant => (&self.grants, self.settings.grants),
            Kind::Revocation => (&self.revocations, self.settings.revocations),
            Kind::Check => (&self.checks, self.settings.checks),
            Kind::Read => (&self.reads, self.settings.reads),
        };
        let wait = match limiter.check_n(count) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(not_until)) => not_until.wait_time_from(DefaultClock::default().now()),
            // More than ever fit: no configuration has a capacity below what one request may ask.
            Err(_) => Duration::MAX,
        };
        Err(status::rate_limited(kind.plural(), rate, wait))
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// What the caller is to be told where it has too many open.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        let limit = self.settings.streams_per_caller;
        permit.map_err(|_| status::overloaded("streams of yours", limit))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;

    fn caller(n: u128, role: &str) -> Caller {
        let caller = Caller::application(Uuid::nil(), Uuid::from_u128(n), Uuid::from_u128(n));
        caller.with(BTreeSet::from([role.to_owned()]), BTreeSet::new(), false)
    }

    fn settings() -> config::Limits {
        let one = config::Rate {
            capacity: std::num::NonZeroU32::MIN,
            per_second: std::num::NonZeroU32::MIN,
        };
        config::Limits {
            grants: one,
            in_flight_per_caller: 1,
            ..config::Limits::default()
        }
    }

    #[test]
    fn rpcs_are_told_apart_by_their_paths() {
        let kind = |rpc: &str| Kind::of(&format!("/aks.access.v1.AccessBrokerService/{rpc}"));
        assert_eq!(kind("Grant"), Kind::Grant);
        assert_eq!(kind("ExtendGrant"), Kind::Grant);
        assert_eq!(kind("Revoke"), Kind::Revocation);
        assert_eq!(kind("BatchCheckAccess"), Kind::Check);
        assert_eq!(kind("ListGrants"), Kind::Read);
    }

    #[test]
    fn a_rate_is_a_callers_own_whatever_token_it_brings() {
        let limits = Limits::new(settings(), 10);
        let take = |caller: &Caller, kind| limits.allowance(caller).take(kind, 1).is_ok();
        assert!(take(&caller(1, "a"), Kind::Grant));
        assert!(!take(&caller(1, "b"), Kind::Grant));
        assert!(take(&caller(2, "a"), Kind::Grant));
        assert!(take(&caller(1, "a"), Kind::Revocation));
    }

    #[test]
    fn revocations_find_room_where_nothing_else_does() {
        let limits = Limits::new(settings(), 2);
        let of = |n| limits.allowance(&caller(n, "a"));
        let first = limits.admit(Kind::Check, &of(1)).ok().unwrap();
        // Its share is used up, and there is room for others.
        assert!(limits.admit(Kind::Check, &of(1)).is_err());
        let second = limits.admit(Kind::Read, &of(2)).ok().unwrap();
        assert!(limits.admit(Kind::Check, &of(3)).is_err());
        let revocation = limits.admit(Kind::Revocation, &of(1)).ok().unwrap();
        assert!(limits.admit(Kind::Revocation, &of(2)).is_err());
        drop((first, second, revocation));
        assert!(limits.admit(Kind::Check, &of(1)).is_ok());
    }
}
