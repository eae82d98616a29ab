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
/// All callers without a role together have a sixteenth of the room: whoever has a token of the tenant's can call, and
/// nobody gave these anything to call for.
const SHARE_OF_STRANGERS: usize = 16;
/// What all callers without a role together have of this.
pub(super) const fn share_of_strangers(all: usize) -> usize {
    all.div_ceil(SHARE_OF_STRANGERS)
}

/// A quarter of the bytes is one caller's at most.
const SHARE_OF_BYTES: usize = 4;

/// What kind of call it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Grant,
    Revocation,
    Check,
    Read,
}

impl Kind {
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

/// Room for so much. Nobody waits for it, so it is no semaphore: a check would pay for that.
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

    fn take(&self, amount: usize) -> bool {
        let more = |taken: usize| taken.checked_add(amount).filter(|it| *it <= self.limit);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok()
    }

    fn give_back(&self, amount: usize) {
        self.taken.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// What there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// Calls whose message is not complete yet.
    Arriving,
    /// Calls whose message is complete.
    Calls,
    /// Bytes of messages, decoded ones too, and of answers that their callers have not taken yet.
    Bytes,
}

impl What {
    const fn of(self, rooms: &Rooms) -> &Room {
        match self {
            Self::Arriving => &rooms.arriving,
            Self::Calls => &rooms.calls,
            Self::Bytes => &rooms.bytes,
        }
    }

    /// As callers read it.
    const fn plural(self) -> &'static str {
        match self {
            Self::Arriving => "calls whose messages are not complete",
            Self::Calls => "calls",
            Self::Bytes => "bytes of calls and answers",
        }
    }
}

/// The room of one caller, or of many.
struct Rooms {
    arriving: Room,
    calls: Room,
    bytes: Room,
}

impl Rooms {
    const fn new(calls: usize, bytes: usize) -> Self {
        Self {
            arriving: Room::new(calls),
            calls: Room::new(calls),
            bytes: Room::new(bytes),
        }
    }
}

/// Whose room a call takes, beside its caller's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pool {
    Everybody,
    Strangers,
    /// Of callers with a role, where everybody's is full.
    Revocations,
    /// Of callers without one, where the strangers' is full.
    StrangersRevocations,
}

/// How much may be under way at once, whoever calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Calls.
    pub(super) calls: usize,
    /// Bytes, in both directions.
    pub(super) bytes: usize,
}

/// What is left to whom.
pub(super) struct Limits {
    settings: config::Limits,
    most: Most,
    everybody: Rooms,
    strangers: Rooms,
    revocations: Rooms,
    strangers_revocations: Rooms,
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
    own: Rooms,
    /// Beyond its own, where that is used up.
    own_revocations: Rooms,
    streams: Arc<Semaphore>,
}

/// A call on its way through: whose room it takes.
#[derive(Clone)]
pub(super) struct Taker {
    limits: Arc<Limits>,
    pub(super) allowance: Arc<Allowance>,
    kind: Kind,
    is_stranger: bool,
}

/// Room that is taken, for as long as this is held.
pub(super) struct Held {
    taker: Taker,
    pool: Pool,
    what: What,
    amount: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        for rooms in self.taker.rooms(self.pool) {
            self.what.of(rooms).give_back(self.amount);
        }
    }
}

impl Held {
    /// Holds so much, which is no less than it holds now.
    ///
    /// # Errors
    /// What the caller is to be told where there is no room for more. What is held stays held.
    pub(super) fn grow_to(&mut self, amount: usize) -> Result<(), Status> {
        let more = amount.saturating_sub(self.amount);
        match self.taker.take_in(self.pool, self.what, more) {
            Ok(mut more) => self.amount += std::mem::take(&mut more.amount),
            Err(refused) => match self.taker.pools() {
                // From now on all of it is held where only revocations are.
                [first, revocations] if *first == self.pool => {
                    *self = self.taker.take_in(*revocations, self.what, amount)?;
                }
                _ => return Err(refused),
            },
        }
        Ok(())
    }

    /// How much is held.
    #[cfg(test)]
    pub(super) const fn amount(&self) -> usize {
        self.amount
    }
}

impl Taker {
    /// A caller's own room, and the one that it shares.
    fn rooms(&self, pool: Pool) -> [&Rooms; 2] {
        match pool {
            Pool::Everybody => [&self.allowance.own, &self.limits.everybody],
            Pool::Strangers => [&self.allowance.own, &self.limits.strangers],
            Pool::Revocations => [&self.allowance.own_revocations, &self.limits.revocations],
            Pool::StrangersRevocations => [
                &self.allowance.own_revocations,
                &self.limits.strangers_revocations,
            ],
        }
    }

    /// Where it may take room, the first choice first.
    const fn pools(&self) -> &'static [Pool] {
        match (self.is_stranger, self.kind) {
            (true, Kind::Revocation) => &[Pool::Strangers, Pool::StrangersRevocations],
            (true, _) => &[Pool::Strangers],
            (false, Kind::Revocation) => &[Pool::Everybody, Pool::Revocations],
            (false, _) => &[Pool::Everybody],
        }
    }

    /// Takes room for so much.
    ///
    /// # Errors
    /// What the caller is to be told: it, or everybody, has too much under way.
    pub(super) fn take(&self, what: What, amount: usize) -> Result<Held, Status> {
        let mut refused = None;
        for pool in self.pools() {
            match self.take_in(*pool, what, amount) {
                Ok(held) => return Ok(held),
                Err(status) => refused = refused.or(Some(status)),
            }
        }
        // There is at least one pool.
        Err(refused.unwrap_or_else(|| status::overloaded(what.plural(), 0)))
    }

    fn take_in(&self, pool: Pool, what: What, amount: usize) -> Result<Held, Status> {
        let [own, shared] = self.rooms(pool).map(|rooms| what.of(rooms));
        if !own.take(amount) {
            let what = format!("{} of yours", what.plural());
            return Err(status::overloaded(&what, own.limit));
        }
        if !shared.take(amount) {
            own.give_back(amount);
            return Err(status::overloaded(what.plural(), shared.limit));
        }
        Ok(Held {
            taker: self.clone(),
            pool,
            what,
            amount,
        })
    }
}

impl Limits {
    pub(super) fn new(settings: config::Limits, most: Most) -> Self {
        let of = |share: usize| Rooms::new(most.calls.div_ceil(share), most.bytes.div_ceil(share));
        Self {
            settings,
            most,
            everybody: of(1),
            strangers: of(SHARE_OF_STRANGERS),
            revocations: of(SHARE_OF_REVOCATIONS),
            strangers_revocations: of(SHARE_OF_REVOCATIONS * SHARE_OF_STRANGERS),
            callers: Cache::new(REMEMBERED),
        }
    }

    /// What is left to a caller, whatever tokens it brings.
    fn allowance(&self, caller: &Caller) -> Arc<Allowance> {
        if let Some(allowance) = self.callers.get(caller.name()) {
            return allowance;
        }
        let allowance = || Arc::new(Allowance::new(self.settings, self.most));
        let new = || Ok::<_, std::convert::Infallible>(allowance());
        match self.callers.get_or_insert_with(caller.name(), new) {
            Ok(allowance) => allowance,
            Err(never) => match never {},
        }
    }

    /// Takes a call of this kind, by what its headers say.
    ///
    /// # Errors
    /// What the caller is to be told: it asks too often.
    pub(super) fn admit(self: &Arc<Self>, kind: Kind, caller: &Caller) -> Result<Taker, Status> {
        let allowance = self.allowance(caller);
        // Taking access away waits for nothing that its caller was refused before; it has a rate of its own.
        if kind != Kind::Revocation {
            allowance.is_heard()?;
        }
        allowance.take(kind, 1)?;
        Ok(Taker {
            limits: Arc::clone(self),
            allowance,
            kind,
            is_stranger: caller.is_stranger(),
        })
    }
}

impl Allowance {
    fn new(settings: config::Limits, most: Most) -> Self {
        // Of what is reserved for all revocations.
        let reserved = |most: usize| {
            let all = most.div_ceil(SHARE_OF_REVOCATIONS);
            all.div_ceil(SHARE_OF_REVOCATIONS)
        };
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
            own: Rooms::new(
                settings.in_flight_per_caller,
                most.bytes.div_ceil(SHARE_OF_BYTES),
            ),
            // Half of the bytes that all revocations have: no single one needs more.
            own_revocations: Rooms::new(
                reserved(most.calls),
                most.bytes.div_ceil(SHARE_OF_REVOCATIONS * 2),
            ),
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
mod tests;
