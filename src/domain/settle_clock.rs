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

/// A process that starts believes Redis's clock, unless it is ahead of the host's by more than this.
const HOSTS_AGREE_WITHIN: SignedDuration = SignedDuration::from_secs(30);

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

/// An answer with Redis's time.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// When the process asked, by a clock of its own that never leaps.
    pub asked: Duration,
    /// When the answer arrived, by the same clock.
    pub answered: Duration,
    /// Redis's time.
    pub redis: Timestamp,
    /// The host's time.
    pub host: Timestamp,
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

    /// Notes an answer of Redis's with its time.
    pub fn observe(&mut self, told: Told) -> SettledTime {
        let settled = self.settle(told);
        self.last = Some(settled);
        settled
    }

    /// The result of the last observation; `None` before the first.
    #[must_use]
    pub const fn last(&self) -> Option<SettledTime> {
        self.last
    }

    fn settle(&mut self, told: Told) -> SettledTime {
        let Told {
            answered: own,
            redis,
            ..
        } = told;
        let (anchored, then) = *self.anchor.get_or_insert_with(|| first_anchor(told));
        let passed = own.saturating_sub(anchored);
        let estimate = then.saturating_add(passed).unwrap_or(Timestamp::MAX);
        let ahead = redis.duration_since(estimate);
        // A slow answer does not say well enough when Redis gave it. It neither shows a leap nor ends one.
        let took = SignedDuration::try_from(own.saturating_sub(told.asked));
        if took.is_ok_and(|took| took <= TOLERANCE) {
            self.leap = match self.leap {
                _ if ahead <= TOLERANCE => None,
                // A second leap starts a new wait, because calls may have begun in between.
                Some((until, before)) if ahead <= before + TOLERANCE => {
                    // If the clock has gone back in between, the next leap counts from there.
                    Some((until, before.min(ahead))).filter(|_| until > own)
                }
                _ => Some((own.saturating_add(self.hold), ahead)),
            };
            if self.leap.is_none() {
                self.anchor = Some((own, redis));
                return SettledTime {
                    now: redis,
                    behind: Duration::ZERO,
                    caught_up: redis,
                };
            }
        }
        let Some((until, _)) = self.leap else {
            let now = redis.min(estimate.saturating_add(TOLERANCE).unwrap_or(redis));
            return SettledTime {
                now,
                behind: redis.duration_since(now).unsigned_abs(),
                caught_up: redis,
            };
        };
        SettledTime {
            now: redis.min(estimate),
            behind: ahead.unsigned_abs(),
            caught_up: redis
                .saturating_add(until.saturating_sub(own))
                .unwrap_or(Timestamp::MAX),
        }
    }
}

/// A process that has just started has only the host's clock to compare with.
fn first_anchor(told: Told) -> (Duration, Timestamp) {
    let is_far_ahead = told.redis.duration_since(told.host) > HOSTS_AGREE_WITHIN;
    let believed = if is_far_ahead { told.host } else { told.redis };
    (told.answered, believed)
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

    /// Redis tells its time at once.
    fn observe(clock: &mut SettleClock, own: Duration, redis: Timestamp) -> SettledTime {
        clock.observe(Told {
            asked: own,
            answered: own,
            redis,
            host: redis,
        })
    }

    #[test]
    fn a_clock_that_goes_on_evenly_is_believed() {
        let mut clock = SettleClock::new(HOLD);
        for second in 0..1_000_u32 {
            let redis = at(5_000 + i64::from(second));
            let settled = observe(&mut clock, own(u64::from(second)), redis);
            assert_eq!(settled.now, redis);
            assert_eq!(settled.behind, Duration::ZERO);
        }
    }

    #[test]
    fn a_leap_ahead_is_believed_when_nothing_of_before_can_be_under_way() {
        let mut clock = SettleClock::new(HOLD);
        observe(&mut clock, own(10), at(1_000));
        let leapt = observe(&mut clock, own(20), at(1_510));
        assert_eq!(leapt.now, at(1_010));
        assert_eq!(leapt.behind, own(500));
        assert_eq!(leapt.caught_up, at(1_570));
        assert_eq!(observe(&mut clock, own(79), at(1_569)).now, at(1_069));
        assert_eq!(observe(&mut clock, own(80), at(1_570)).now, at(1_570));
        assert_eq!(
            observe(&mut clock, own(81), at(1_571)).behind,
            Duration::ZERO
        );
    }

    #[test]
    fn a_leap_upon_a_leap_is_waited_for_anew() {
        let mut clock = SettleClock::new(HOLD);
        observe(&mut clock, own(0), at(1_000));
        assert_eq!(observe(&mut clock, own(10), at(1_110)).caught_up, at(1_170));
        let again = observe(&mut clock, own(50), at(1_250));
        assert_eq!((again.now, again.caught_up), (at(1_050), at(1_310)));
        assert_eq!(observe(&mut clock, own(109), at(1_309)).now, at(1_109));
        assert_eq!(observe(&mut clock, own(110), at(1_310)).now, at(1_310));
    }

    #[test]
    fn a_clock_that_went_back_is_believed_at_once() {
        let mut clock = SettleClock::new(HOLD);
        observe(&mut clock, own(10), at(1_000));
        assert_eq!(observe(&mut clock, own(20), at(500)).now, at(500));
        assert_eq!(observe(&mut clock, own(30), at(510)).behind, Duration::ZERO);
    }

    #[test]
    fn a_leap_after_a_step_back_is_waited_for_anew() {
        let mut clock = SettleClock::new(HOLD);
        observe(&mut clock, own(0), at(1_000));
        assert_eq!(observe(&mut clock, own(10), at(1_200)).caught_up, at(1_260));
        assert_eq!(observe(&mut clock, own(20), at(1_050)).now, at(1_020));
        let again = observe(&mut clock, own(50), at(1_180));
        assert_eq!((again.now, again.caught_up), (at(1_050), at(1_240)));
        assert_eq!(observe(&mut clock, own(70), at(1_200)).now, at(1_070));
        assert_eq!(observe(&mut clock, own(110), at(1_240)).now, at(1_240));
    }

    #[test]
    fn a_slow_answer_is_no_leap() {
        let mut clock = SettleClock::new(HOLD);
        observe(&mut clock, own(10), at(1_000));
        let slow = Told {
            asked: own(20),
            answered: own(24),
            redis: at(1_010),
            host: at(1_010),
        };
        assert_eq!(clock.observe(slow).now, at(1_010));
        let next = observe(&mut clock, own(25), at(1_015));
        assert_eq!((next.now, next.behind), (at(1_015), Duration::ZERO));
    }

    #[test]
    fn a_process_that_begins_after_a_leap_goes_by_its_host_until_that_is_safe() {
        let mut clock = SettleClock::new(HOLD);
        let told = |second: u64, redis: i64| Told {
            asked: own(second),
            answered: own(second),
            redis: at(redis),
            host: at(redis - 400),
        };
        assert_eq!(clock.observe(told(0, 1_400)).now, at(1_000));
        assert_eq!(clock.observe(told(59, 1_459)).now, at(1_059));
        assert_eq!(clock.observe(told(60, 1_460)).now, at(1_460));
    }
}
