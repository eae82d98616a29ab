//! How much one caller may ask: so often, and so much at once. Taking access away has the most room: where grants find
//! none, revocations still do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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
/// Beside all calls that may be under way, an eighth as many revocations may; of these an eighth is one caller's, so
/// that nobody takes the room of those who take access away.
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
            "Revoke" | "Offboard" => Self::Revocation,
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

/// Room for so many calls. Nobody waits for it, so it is no semaphore: a check would pay for that.
struct Room {
    taken: AtomicUsize,
    limit: usize,
}

impl Room {
    const fn new(limit: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            limit,
        }
    }

    fn take(&self) -> bool {
        let is_taken = self.taken.fetch_add(1, Ordering::Relaxed) < self.limit;
        if !is_taken {
            self.give_back();
        }
        is_taken
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.limit
    }
}

/// What is left to whom.
pub(super) struct Limits {
    settings: config::Limits,
    in_flight: usize,
    calls: Room,
    revocations: Room,
    callers: Cache<String, Arc<Allowance>>,
}

/// What is left to one caller.
pub(super) struct Allowance {
    settings: config::Limits,
    grants: DefaultDirectRateLimiter,
    revocations: DefaultDirectRateLimiter,
    checks: DefaultDirectRateLimiter,
    reads: DefaultDirectRateLimiter,
    refusals: DefaultDirectRateLimiter,
    /// Until then nothing is taken, in milliseconds since this was made: it was refused too often.
    waits_until: AtomicU64,
    begun: Instant,
    calls: Room,
    /// Beyond its calls, where these are used up.
    more_revocations: Room,
    streams: Arc<Semaphore>,
}

/// A call that is taken, for as long as this is held.
pub(super) struct Admission {
    limits: Arc<Limits>,
    allowance: Arc<Allowance>,
    /// In the room that revocations have beside all calls.
    is_beside: bool,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let (own, all) = rooms(&self.limits, &self.allowance, self.is_beside);
        own.give_back();
        all.give_back();
    }
}

/// A caller's own room, and that of all.
const fn rooms<'a>(
    limits: &'a Limits,
    allowance: &'a Allowance,
    is_beside: bool,
) -> (&'a Room, &'a Room) {
    if is_beside {
        (&allowance.more_revocations, &limits.revocations)
    } else {
        (&allowance.calls, &limits.calls)
    }
}

impl Limits {
    /// `in_flight`: how many calls of all callers may be under way.
    pub(super) fn new(settings: config::Limits, in_flight: usize) -> Self {
        let reserved = in_flight.div_ceil(SHARE_OF_REVOCATIONS);
        Self {
            settings,
            in_flight,
            calls: Room::new(in_flight),
            revocations: Room::new(reserved),
            callers: Cache::new(REMEMBERED),
        }
    }

    /// What is left to a caller, whatever tokens it brings.
    pub(super) fn allowance(&self, caller: &Caller) -> Arc<Allowance> {
        if let Some(allowance) = self.callers.get(caller.name()) {
            return allowance;
        }
        let reserved = self.in_flight.div_ceil(SHARE_OF_REVOCATIONS);
        let allowance = || Arc::new(Allowance::new(self.settings, reserved));
        let new = || Ok::<_, std::convert::Infallible>(allowance());
        match self.callers.get_or_insert_with(caller.name(), new) {
            Ok(allowance) => allowance,
            Err(never) => match never {},
        }
    }

    /// Takes a call of this kind.
    ///
    /// # Errors
    /// What the caller is to be told: it asks too often, or too much at once, or everybody does.
    pub(super) fn admit(
        self: &Arc<Self>,
        kind: Kind,
        allowance: &Arc<Allowance>,
    ) -> Result<Admission, Status> {
        allowance.is_heard()?;
        allowance.take(kind, 1)?;
        let tries = if kind == Kind::Revocation {
            &[false, true][..]
        } else {
            &[false]
        };
        for is_beside in tries.iter().copied() {
            let (own, all) = rooms(self, allowance, is_beside);
            if !own.take() {
                continue;
            }
            if all.take() {
                return Ok(Admission {
                    limits: Arc::clone(self),
                    allowance: Arc::clone(allowance),
                    is_beside,
                });
            }
            own.give_back();
        }
        Err(if allowance.calls.is_full() {
            status::overloaded("calls of yours", self.settings.in_flight_per_caller)
        } else {
            status::overloaded("calls", self.in_flight)
        })
    }
}

impl Allowance {
    /// `reserved`: how many revocations of all callers find room beside all calls.
    fn new(settings: config::Limits, reserved: usize) -> Self {
        let limiter = |rate: config::Rate| {
            let quota = Quota::per_second(rate.per_second).allow_burst(rate.capacity);
            RateLimiter::direct(quota)
        };
        Self {
            grants: limiter(settings.grants),
            revocations: limiter(settings.revocations),
            checks: limiter(settings.checks),
            reads: limiter(settings.reads),
            refusals: limiter(settings.refusals),
            waits_until: AtomicU64::new(0),
            begun: Instant::now(),
            calls: Room::new(settings.in_flight_per_caller),
            more_revocations: Room::new(reserved.div_ceil(SHARE_OF_REVOCATIONS)),
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

    /// Whether anything is taken from a caller that was refused too often.
    fn is_heard(&self) -> Result<(), Status> {
        let until = self.waits_until.load(Ordering::Relaxed);
        // Nearly nobody is: no clock is looked at for that.
        if until == 0 {
            return Ok(());
        }
        match Duration::from_millis(until).checked_sub(self.begun.elapsed()) {
            Some(wait) if !wait.is_zero() => {
                let rate = self.settings.refusals;
                Err(status::rate_limited("refusals", rate, wait))
            }
            _ => Ok(()),
        }
    }

    /// It was refused.
    pub(super) fn is_refused(&self) {
        if let Err(not_until) = self.refusals.check() {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let until = self.begun.elapsed().saturating_add(wait).as_millis();
            let until = u64::try_from(until).unwrap_or(u64::MAX);
            self.waits_until.fetch_max(until, Ordering::Relaxed);
        }
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
        let limits = Arc::new(Limits::new(settings(), 10));
        let take = |caller: &Caller, kind| limits.allowance(caller).take(kind, 1).is_ok();
        assert!(take(&caller(1, "a"), Kind::Grant));
        assert!(!take(&caller(1, "b"), Kind::Grant));
        assert!(take(&caller(2, "a"), Kind::Grant));
        assert!(take(&caller(1, "a"), Kind::Revocation));
    }

    #[test]
    fn revocations_find_room_where_nothing_else_does() {
        let limits = Arc::new(Limits::new(settings(), 2));
        let of = |n| limits.allowance(&caller(n, "a"));
        let first = limits.admit(Kind::Check, &of(1)).ok().unwrap();
        // Its share is used up, and there is room for others.
        assert!(limits.admit(Kind::Check, &of(1)).is_err());
        let second = limits.admit(Kind::Read, &of(2)).ok().unwrap();
        assert!(limits.admit(Kind::Check, &of(3)).is_err());
        let revocation = limits.admit(Kind::Revocation, &of(1)).ok().unwrap();
        assert!(limits.admit(Kind::Revocation, &of(2)).is_err());
        drop((first, second, revocation));
        // Of a large reserve no caller has more than its part.
        let limits = Arc::new(Limits::new(settings(), 64));
        let of = |n| limits.allowance(&caller(n, "a"));
        let of_one: Vec<Admission> =
            std::iter::from_fn(|| limits.admit(Kind::Revocation, &of(1)).ok()).collect();
        assert_eq!(of_one.len(), 2);
        assert!(limits.admit(Kind::Revocation, &of(2)).is_ok());
        drop(of_one);
        let limits = Arc::new(Limits::new(settings(), 2));
        let of = |n| limits.allowance(&caller(n, "a"));
        assert!(limits.admit(Kind::Check, &of(1)).is_ok());
    }
}
