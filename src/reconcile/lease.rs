//! A claim, and how much of its lease is left.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::domain::ids::LeaseToken;
use crate::domain::settle_clock::SettledTime;
use crate::store::Claimed;

/// A moment by a clock that goes on while the machine sleeps. `std::time::Instant` stands still then, and a worker that
/// counted by it would take a lease for its own that somebody else has long had.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Moment(Duration);

impl Moment {
    pub(super) fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        // Neither is ever negative, nor a second's part more than a second.
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

/// A claim, and since when its lease counts.
pub(super) struct Lease {
    pub(super) claimed: Claimed,
    /// The time at the claim, as far as it is believed.
    pub(super) settled: SettledTime,
    pub(super) token: LeaseToken,
    /// When the lease was last begun or lengthened, counted from before that was sent: what is left of it
    /// is never overrated.
    since: Moment,
    /// When the claim was sent.
    begun: Moment,
    /// Redis's time when it last told it, and a moment before it was asked.
    clock: (Moment, Timestamp),
}

impl Lease {
    /// A lease that was asked for at `sent`.
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

    /// What is left of it at least, where a lease lasts `length`.
    pub(super) fn left(&self, length: Duration) -> Duration {
        length.saturating_sub(self.since.elapsed())
    }

    /// It has been lengthened by a request that was sent then.
    pub(super) const fn is_renewed(&mut self, sent: Moment) {
        self.since = sent;
    }

    /// Redis has told its time, asked at `sent`.
    pub(super) const fn hears_the_time(&mut self, sent: Moment, now: Timestamp) {
        self.clock = (sent, now);
    }

    /// Redis's time now, or a little later: its time when it last told it, and what has passed since before it was asked.
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

    /// The kernel says itself which of its clocks counts the time asleep.
    #[test]
    fn leases_are_counted_by_the_clock_that_goes_on_while_the_machine_sleeps() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let since_boot: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let Moment(moment) = Moment::now();
        assert!((moment.as_secs_f64() - since_boot).abs() < 5.0);
    }
}
