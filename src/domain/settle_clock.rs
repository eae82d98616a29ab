//! How far to believe Redis's clock about settle deadlines.
//!
//! A settle deadline is a time of Redis's clock. If a failover brings a Redis whose clock is ahead, all deadlines seem
//! to be over at once, while their calls may still be under way (I4). So a process compares Redis's clock with its own.
//! While the two disagree about how much time has passed, a deadline is over only when it is over by both.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A difference up to this is not a leap: answers take time, and clocks are slewed. Settle time and lag have it to
/// spare.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// Compares Redis's clock with a clock that never leaps.
#[derive(Clone, Debug)]
pub struct SettleClock {
    /// A moment by the process's own clock, and Redis's time then.
    anchor: Option<(Duration, Timestamp)>,
    /// After a leap: until when (by the process's own clock) Redis's clock is not believed, and how far it is ahead.
    leap: Option<(Duration, SignedDuration)>,
    hold: Duration,
    /// The result of the last observation.
    last: Option<SettledTime>,
}

/// What to believe of Redis's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SettledTime {
    /// A deadline before this time is over by both clocks.
    pub now: Timestamp,
    /// How far `now` is behind Redis's own time.
    pub behind: Duration,
    /// When, by Redis's clock, `now` will no longer be behind.
    pub caught_up: Timestamp,
}

impl SettleClock {
    /// Makes a clock. After a leap of Redis's clock, `hold` has to pass. It is how long a call from before the leap can
    /// still take effect: a lease, the call timeout and the settle time.
    #[must_use]
    pub const fn new(hold: Duration) -> Self {
        Self {
            anchor: None,
            leap: None,
            hold,
            last: None,
        }
    }

    /// Notes that Redis's time is `redis` at the moment `own`, which is by the process's own clock that never leaps.
    pub fn observe(&mut self, own: Duration, redis: Timestamp) -> SettledTime {
        let settled = self.settle(own, redis);
        self.last = Some(settled);
        settled
    }

    /// The result of the last observation; `None` before the first.
    #[must_use]
    pub const fn last(&self) -> Option<SettledTime> {
        self.last
    }

    fn settle(&mut self, own: Duration, redis: Timestamp) -> SettledTime {
        let (anchored, told) = *self.anchor.get_or_insert((own, redis));
        let passed = own.saturating_sub(anchored);
        let estimate = told.saturating_add(passed).unwrap_or(Timestamp::MAX);
        let ahead = redis.duration_since(estimate);
        self.leap = match self.leap {
            _ if ahead <= TOLERANCE => None,
            // A second leap starts a new wait, because calls may have begun in between.
            Some((until, before)) if ahead <= before + TOLERANCE => {
                Some((until, before)).filter(|_| until > own)
            }
            _ => Some((own.saturating_add(self.hold), ahead)),
        };
        let Some((until, _)) = self.leap else {
            self.anchor = Some((own, redis));
            return SettledTime {
                now: redis,
                behind: Duration::ZERO,
                caught_up: redis,
            };
        };
        SettledTime {
            now: estimate,
            behind: ahead.unsigned_abs(),
            caught_up: redis
                .saturating_add(until.saturating_sub(own))
                .unwrap_or(Timestamp::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_mins(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const fn own(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_clock_that_goes_on_evenly_is_believed() {
        let mut clock = SettleClock::new(HOLD);
        for second in 0..1_000_u32 {
            let redis = at(5_000 + i64::from(second));
            let settled = clock.observe(own(u64::from(second)), redis);
            assert_eq!(settled.now, redis);
            assert_eq!(settled.behind, Duration::ZERO);
        }
    }

    #[test]
    fn a_leap_ahead_is_believed_when_nothing_of_before_can_be_under_way() {
        let mut clock = SettleClock::new(HOLD);
        clock.observe(own(10), at(1_000));
        let leapt = clock.observe(own(20), at(1_510));
        assert_eq!(leapt.now, at(1_010));
        assert_eq!(leapt.behind, own(500));
        assert_eq!(leapt.caught_up, at(1_570));
        assert_eq!(clock.observe(own(79), at(1_569)).now, at(1_069));
        assert_eq!(clock.observe(own(80), at(1_570)).now, at(1_570));
        assert_eq!(clock.observe(own(81), at(1_571)).behind, Duration::ZERO);
    }

    #[test]
    fn a_leap_upon_a_leap_is_waited_for_anew() {
        let mut clock = SettleClock::new(HOLD);
        clock.observe(own(0), at(1_000));
        assert_eq!(clock.observe(own(10), at(1_110)).caught_up, at(1_170));
        let again = clock.observe(own(50), at(1_250));
        assert_eq!((again.now, again.caught_up), (at(1_050), at(1_310)));
        assert_eq!(clock.observe(own(109), at(1_309)).now, at(1_109));
        assert_eq!(clock.observe(own(110), at(1_310)).now, at(1_310));
    }

    #[test]
    fn a_clock_that_went_back_is_believed_at_once() {
        let mut clock = SettleClock::new(HOLD);
        clock.observe(own(10), at(1_000));
        assert_eq!(clock.observe(own(20), at(500)).now, at(500));
        assert_eq!(clock.observe(own(30), at(510)).behind, Duration::ZERO);
    }
}
