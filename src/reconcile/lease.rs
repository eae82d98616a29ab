//! A worker's claim on a target, and how much of its lease is left.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::domain::ids::LeaseToken;
use crate::domain::settle_clock::SettledTime;
use crate::store::Claimed;

/// A moment by a clock that goes on while the machine sleeps. `std::time::Instant` stands still then: a worker that
/// counted by it would still believe in its lease when another worker has long taken it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Moment(Duration);

impl Moment {
    pub(super) fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        // Both parts are never negative, and the nanoseconds are always less than a second.
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanos))
    }

    pub(super) const fn since_boot(self) -> Duration {
        self.0
    }

    pub(super) fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// A claim, and the moment from which its lease counts.
pub(super) struct Lease {
    pub(super) claimed: Claimed,
    /// The time at the claim, as the settle clock believes it.
    pub(super) settled: SettledTime,
    pub(super) token: LeaseToken,
    /// A moment before the last request that began or renewed the lease was sent. So the worker never overrates what is
    /// left of the lease.
    since: Moment,
    /// When the claim was sent.
    begun: Moment,
    /// Redis's time in its last answer, and a moment before that request was sent.
    clock: (Moment, Timestamp),
}

impl Lease {
    /// Makes the lease that the worker asked for at `sent`.
    pub(super) fn new(
        settled: SettledTime,
        claimed: Claimed,
        token: LeaseToken,
        sent: Moment,
    ) -> Self {
        let clock = (sent, claimed.now);
        Self {
            claimed,
            settled,
            token,
            since: sent,
            begun: sent,
            clock,
        }
    }

    /// How long ago the claim was sent.
    pub(super) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// How much of the lease is left at least, if a lease lasts `length`.
    pub(super) fn left(&self, length: Duration) -> Duration {
        length.saturating_sub(self.since.elapsed())
    }

    /// Notes that a request sent at `sent` has renewed the lease.
    pub(super) const fn mark_renewed(&mut self, sent: Moment) {
        self.since = sent;
    }

    /// Notes that a request sent at `sent` was answered with Redis's time `now`.
    pub(super) const fn set_redis_time(&mut self, sent: Moment, now: Timestamp) {
        self.clock = (sent, now);
    }

    /// Redis's time now, or a little later: its time in its last answer, plus what has passed since before that
    /// request.
    pub(super) fn redis_now(&self) -> Timestamp {
        let (since, told) = self.clock;
        told.saturating_add(since.elapsed())
            .unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_on() {
        let first = Moment::now();
        let second = Moment::now();
        assert!(first <= second);
        assert!(first.elapsed() >= Duration::ZERO);
    }

    /// `/proc/uptime` counts the time that the machine slept, so the lease's clock has to agree with it.
    #[test]
    fn leases_are_counted_by_the_clock_that_goes_on_while_the_machine_sleeps() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let since_boot: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let Moment(moment) = Moment::now();
        assert!((moment.as_secs_f64() - since_boot).abs() < 5.0);
    }
}
