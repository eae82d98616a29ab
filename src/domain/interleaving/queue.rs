//! When the target is looked at: its two queues, the times that are due, what waits, and Redis's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;

use super::world::World;
use super::{CALL_TIMEOUT, LAG, LEASE, LONGEST_WAIT, SETTLE, at, instance};
use crate::domain::effect::{Call, Effect, PassTime, PerCall};
use crate::domain::grant::Expiry;
use crate::domain::plan::needed_calls;
use crate::domain::settle_clock::{SettledTime, Told};
use crate::domain::target::Target;

/// How long it takes until what is due is noticed.
const WAKE: i64 = 1;

/// Both calls, in the order in which their queues are asked.
pub(super) const CALLS: [Call; 2] = [Call::Delete, Call::Put];

/// A wait as it is stored: by Redis's clock, and with its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    end: i64,
    length: i64,
}

/// What a member of `due` is the time of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    Lease,
    Bucket(Call),
}

/// Redis's keys about when a target is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) ready: PerCall<bool>,
    pub(super) due: BTreeMap<Due, i64>,
    pub(super) waits: PerCall<Option<Wait>>,
    /// The target's own wait, while its workers die.
    pub(super) pause: Option<Wait>,
    pub(super) urgent: bool,
    /// How long Azure has told the lane to wait.
    pub(super) closed: PerCall<Option<Wait>>,
    /// Redis's time at the last look.
    clock_seen: i64,
}

impl World {
    /// Redis's time.
    pub(super) const fn redis(&self) -> i64 {
        self.now + self.ahead
    }

    pub(super) const fn wait(&self, length: i64) -> Wait {
        Wait {
            end: self.redis() + length,
            length,
        }
    }

    /// How long a wait lasts still.
    pub(super) fn left_of(&self, wait: Option<Wait>) -> i64 {
        let Some(wait) = wait else { return 0 };
        let left = wait.end - self.redis();
        if left > wait.length && self.mended.believes_no_time_beyond {
            return 0;
        }
        left.max(0)
    }

    pub(super) fn is_leased(&self) -> bool {
        let Some((token, end)) = self.lease else {
            return false;
        };
        let left = end - self.redis();
        let is_believed = left <= LEASE || !self.mended.believes_no_time_beyond;
        token != 0 && left > 0 && is_believed
    }

    pub(super) fn look_at(&mut self, call: Call, when: i64) {
        if when > self.redis() {
            self.queue.due.insert(Due::Bucket(call), when);
        } else {
            self.enqueue(call);
        }
    }

    pub(super) fn enqueue(&mut self, call: Call) {
        *self.queue.ready.get_mut(call) = true;
        self.queue.due.remove(&Due::Bucket(call));
    }

    /// Leaves the target to the worker that has its lease, or to the lease's end.
    pub(super) fn wait_for_the_lease(&mut self) {
        let end = self.lease.map_or(0, |(_, end)| end);
        self.queue.due.insert(Due::Lease, end);
    }

    pub(super) fn dequeue(&mut self, call: Call) {
        *self.queue.ready.get_mut(call) = false;
        self.queue.due.remove(&Due::Bucket(call));
    }

    /// The desired state has changed: what ends access clears all waits.
    pub(super) fn desired_state_changed(&mut self, ends: bool) {
        self.stored.generation += 1;
        if ends {
            self.queue.urgent = true;
            self.queue.pause = None;
            self.queue.waits = PerCall::default();
            self.stored.failures = PerCall::default();
            self.told_to_wait = PerCall::default();
        }
        if self.is_leased() {
            self.wait_for_the_lease();
            return;
        }
        if ends {
            self.enqueue(Call::Delete);
            if self.stored.grants.iter().any(|grant| grant.state.is_live()) {
                self.enqueue(Call::Put);
            } else {
                self.dequeue(Call::Put);
            }
        } else {
            let wait = self
                .left_of(self.queue.pause)
                .max(self.left_of(self.queue.waits.writes));
            self.look_at(Call::Put, self.redis() + wait);
        }
    }

    /// Redis's clock is set by a failover. Not while Redis is empty: how long that lasts nobody can tell from how far
    /// the clock has gone back, and what is due comes late by as much.
    pub(super) fn set_the_clock(&mut self, by: i64) {
        if self.before.is_some() {
            return;
        }
        // A failover lasts longer than the second after which the clock looks again.
        self.wake();
        self.ahead += by;
        self.wake();
        if by < 0 {
            // Whatever waits may wait once more as long as it ever could, and so may what a pass records that crosses
            // this. So may a lease that nobody has handed back, even one that was over.
            let told = self.told_to_wait.writes.max(self.told_to_wait.deletes);
            self.grace_until = self.grace_until.max(told).max(self.now) + LONGEST_WAIT;
            if self.lease.is_some_and(|(token, _)| token != 0) {
                self.paused_until = self.paused_until.max(self.now) + LEASE;
            }
        }
    }

    /// The clock of the process looks at what is due, once a second.
    pub(super) fn wake(&mut self) {
        if self.is_in_doubt() {
            return;
        }
        let redis = self.redis();
        let went_back = self.queue.clock_seen - redis;
        if went_back > 0 && self.mended.due_moves_with_the_clock {
            for when in self.queue.due.values_mut() {
                *when -= went_back;
            }
        }
        self.queue.clock_seen = redis;
        self.settled_time();
        let due: Vec<Due> = self
            .queue
            .due
            .iter()
            .filter(|(_, when)| **when <= redis)
            .map(|(kind, _)| *kind)
            .collect();
        for kind in due {
            match kind {
                _ if self.is_leased() => {
                    self.queue.due.remove(&kind);
                    self.wait_for_the_lease();
                }
                Due::Bucket(call) => self.enqueue(call),
                Due::Lease if self.left_of(self.queue.pause) > 0 => {
                    let end = redis + self.left_of(self.queue.pause);
                    self.queue.due.insert(kind, end);
                }
                Due::Lease => {
                    self.queue.due.remove(&kind);
                    for call in CALLS {
                        let wait = self.left_of(*self.queue.waits.get(call));
                        self.look_at(call, redis + wait);
                    }
                }
            }
        }
    }

    /// Takes the target out of the first of its queues whose lane is open, and so out of both.
    pub(super) fn take_from_the_queues(&mut self) -> bool {
        let is_open = |call| self.left_of(*self.queue.closed.get(call)) == 0;
        let takes = CALLS
            .iter()
            .any(|call| *self.queue.ready.get(*call) && is_open(*call));
        if takes {
            for call in CALLS {
                self.dequeue(call);
            }
            if self.is_leased() {
                self.wait_for_the_lease();
                return false;
            }
        }
        takes
    }

    /// Redis's time as the process believes it when something is judged to be over.
    pub(super) fn settled_time(&mut self) -> SettledTime {
        let own = Duration::from_secs(u64::try_from(self.now).unwrap());
        let redis = at(self.redis());
        let settled = self.settle_clock.observe(Told {
            asked: own,
            answered: own,
            redis,
            host: at(self.now),
        });
        if self.mended.judges_by_both_clocks {
            return settled;
        }
        SettledTime {
            now: redis,
            behind: Duration::ZERO,
            caught_up: redis,
        }
    }

    /// Whether nothing waits, ends by itself or is still to come.
    pub(super) fn rests(&self) -> bool {
        let is_ready = |call: &Call| *self.queue.ready.get(*call);
        let mut grants = self.stored.grants.iter();
        self.queue.due.is_empty()
            && !CALLS.iter().any(is_ready)
            && self.workers.iter().all(Option::is_none)
            && self.azure.late.is_empty()
            && grants.all(|grant| grant.expiry == Expiry::Never)
    }

    /// By when calls that a worker has left without an answer have taken effect or never will.
    pub(super) fn calls_settle(&self) -> i64 {
        let end = self.lease.map_or(0, |(_, end)| end);
        if !self.mended.dates_open_calls {
            return end + SETTLE;
        }
        let redis = self.redis();
        (redis + CALL_TIMEOUT).max(end.min(redis + LEASE)) + SETTLE
    }

    /// The target as a claim would load it.
    pub(super) fn loaded(&self) -> Target {
        let mut target = self.stored.clone();
        for effect in target.effects.values_mut() {
            effect.open = self.open.get(&effect.name).map(|(call, _)| *call);
            effect.may_be_gone |= effect.open == Some(Call::Delete);
        }
        target
    }

    /// I5, I6: what a pass would do now is queued or, where calls of its own kind have failed, due when these may be
    /// made again; nothing waits for another's wait, nor past a settle deadline. So what ends access comes one wake and
    /// one call after it may. And nobody's job waits for a target that is never looked at again.
    pub(super) fn everything_is_looked_after(&mut self) {
        let is_ready = |call: &Call| *self.queue.ready.get(*call);
        if self.is_in_doubt() || self.is_leased() || CALLS.iter().all(is_ready) {
            return;
        }
        let time = PassTime {
            claimed: self.settled_time().now,
            now: at(self.redis()),
            lag: SignedDuration::from_secs(LAG),
        };
        let needed = needed_calls(&self.loaded(), instance(), time);
        let lease_end = self.queue.due.get(&Due::Lease).copied();
        let is_queued = CALLS.iter().any(|call| *self.queue.ready.get(*call));
        for call in CALLS {
            if !*needed.get(call) || *self.queue.ready.get(call) {
                continue;
            }
            let waits = self.queue.due.get(&Due::Bucket(call)).copied();
            let due = waits.into_iter().chain(lease_end).min();
            let due = due.unwrap_or_else(|| panic!("{call:?} is never made: {:?}", self.queue));
            let told = *self.told_to_wait.get(call);
            let latest = told.max(self.paused_until).max(self.grace_until);
            assert!(
                due - self.ahead <= latest + WAKE,
                "{call:?} waits until {}, and may wait until {latest}: {:?}",
                due - self.ahead,
                self.queue
            );
            let deadlines = self.stored.effects.values().filter_map(deadline);
            let next = deadlines.filter(|deadline| *deadline > self.redis()).min();
            // A clock that has gone back moves what is due, and no deadline.
            if let (Some(waits), Some(deadline)) = (waits, next)
                && self.grace_until <= self.now
            {
                // A lease lasts as long as it does.
                let latest = lease_end.map_or(deadline, |end| end.max(deadline));
                assert!(waits <= latest, "{call:?} waits past {deadline}");
            }
        }
        if !self.stored.jobs.is_empty() {
            let is_looked_at = is_queued || !self.queue.due.is_empty();
            assert!(
                is_looked_at,
                "jobs wait for a target that is never looked at: {:?}",
                self.queue
            );
        }
    }
}

fn deadline(effect: &Effect) -> Option<i64> {
    Some(super::seconds(effect.deadline?))
}
