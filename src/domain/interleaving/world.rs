//! The store and its workers: the transitions that the scripts make, one method each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::azure::Azure;
use super::mendings::Mended;
use super::queue::{Due, Queue};
use super::{CALL_TIMEOUT, LEASE, PAUSE, SETTLE, at, seconds, target_id};
use crate::domain::access::RoleAtScope;
use crate::domain::conclude::FailedStep;
use crate::domain::effect::{Answer, Call, Effect, PassTime, PerCall};
use crate::domain::grant::{Ending, Expiry, Grant};
use crate::domain::ids::{AssignmentName, GrantId, JobId};
use crate::domain::job::JobState;
use crate::domain::plan::Step;
use crate::domain::settle_clock::{SettleClock, SettledTime};
use crate::domain::target::Target;

/// A worker and its pass.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Worker {
    pub(super) token: u64,
    /// When it claimed, by the time.
    pub(super) claimed: i64,
    /// What has passed since its claim, or since it last renewed its lease, as far as it knows.
    pub(super) lease_age: i64,
    /// Redis's time as it last heard it, and what has passed since, as far as it knows.
    pub(super) heard: (i64, i64),
    pub(super) settled: SettledTime,
    pub(super) waits: PerCall<i64>,
    pub(super) target: Target,
    /// The settle deadlines as they were loaded.
    pub(super) loaded_deadlines: BTreeMap<AssignmentName, Timestamp>,
    /// What is not begun yet: first the DELETEs, then the PUTs.
    pub(super) rounds: Vec<Vec<Step>>,
    pub(super) steps: Vec<Step>,
    pub(super) left: Vec<Step>,
    pub(super) begun: bool,
    /// It waits for an answer until then, by the time.
    pub(super) busy_until: i64,
    /// It has looked at its lease and is about to send, however long it sleeps in between.
    pub(super) cleared_to_send: bool,
    /// The worker sent a call while another worker had the target. It lives to report that.
    pub(super) sent_late: bool,
    /// It hands back before it was done.
    pub(super) unfinished: bool,
    pub(super) touched: BTreeMap<AssignmentName, Call>,
    pub(super) unsent: BTreeSet<AssignmentName>,
    pub(super) unanswered: BTreeSet<AssignmentName>,
    /// Its PUTs that took effect.
    pub(super) landed: BTreeSet<AssignmentName>,
    pub(super) failed: Vec<FailedStep>,
    pub(super) names_tried: BTreeMap<RoleAtScope, u32>,
    pub(super) refused_at: BTreeSet<RoleAtScope>,
    pub(super) closings: PerCall<i64>,
    /// When it read the cluster, after a call that was refused, and there was none.
    pub(super) read_as_gone: Option<i64>,
}

/// What Redis holds.
#[derive(Clone)]
pub(super) struct Emptied {
    stored: Target,
    open: BTreeMap<AssignmentName, (Call, u64)>,
    lease: Option<(u64, i64)>,
    queue: Queue,
    cluster: u64,
    remembered: BTreeSet<u64>,
}

pub(super) struct World {
    /// The time.
    pub(super) now: i64,
    /// How far Redis's clock is ahead.
    pub(super) ahead: i64,
    pub(super) mended: Mended,
    pub(super) azure: Azure,
    pub(super) stored: Target,
    /// Which cluster the last grant was accepted for.
    pub(super) cluster: u64,
    pub(super) open: BTreeMap<AssignmentName, (Call, u64)>,
    /// The token of the last claim and its end, by Redis's clock.
    pub(super) lease: Option<(u64, i64)>,
    pub(super) queue: Queue,
    pub(super) remembered: BTreeSet<u64>,
    /// What Redis held before it was emptied.
    pub(super) before: Option<Box<Emptied>>,
    pub(super) settle_clock: SettleClock,
    pub(super) all: Vec<Grant>,
    pub(super) accepted: BTreeSet<GrantId>,
    pub(super) ended_jobs: BTreeMap<JobId, JobState>,
    /// The end that a job is to write on whatever carries its grant out.
    pub(super) promised: BTreeMap<JobId, Expiry>,
    /// The grants whose end a job was asked for.
    pub(super) asked_to_end: BTreeMap<JobId, BTreeSet<GrantId>>,
    pub(super) workers: [Option<Worker>; 2],
    /// What each worker recorded last, as it may be sent again.
    pub(super) sent: [Option<Worker>; 2],
    /// How often the events of a pass were written.
    pub(super) told: BTreeMap<u64, u32>,
    /// How often the end of a grant was put off, though all was gone that only it called for.
    pub(super) put_off: BTreeMap<GrantId, u32>,
    pub(super) next: u64,
    /// Where a worker has slept so long before it sent a call that nobody waits for the call any more (I2):
    /// what is said there holds again when the worker has reported.
    pub(super) overslept: BTreeSet<RoleAtScope>,
    /// How long calls may wait, by the time: because of what was answered to calls of their own kind,
    pub(super) told_to_wait: PerCall<i64>,
    /// because a worker has died,
    pub(super) paused_until: i64,
    /// and because Redis's clock has gone back.
    pub(super) grace_until: i64,
}

impl World {
    pub(super) fn new(mended: Mended) -> Self {
        let mut world = Self::made(mended);
        world.wake();
        world
    }

    fn made(mended: Mended) -> Self {
        let hold = Duration::from_secs(u64::try_from(LEASE + CALL_TIMEOUT + SETTLE).unwrap());
        Self {
            // Whatever befalls Redis's clock, its times are positive.
            now: 1_000_000,
            ahead: 0,
            mended,
            azure: Azure::new(),
            stored: empty(),
            cluster: 0,
            open: BTreeMap::new(),
            lease: None,
            queue: Queue::default(),
            remembered: BTreeSet::new(),
            before: None,
            settle_clock: SettleClock::new(hold),
            all: Vec::new(),
            accepted: BTreeSet::new(),
            ended_jobs: BTreeMap::new(),
            promised: BTreeMap::new(),
            asked_to_end: BTreeMap::new(),
            workers: [None, None],
            sent: [None, None],
            told: BTreeMap::new(),
            put_off: BTreeMap::new(),
            next: 1,
            overslept: BTreeSet::new(),
            told_to_wait: PerCall::default(),
            paused_until: 0,
            grace_until: 0,
        }
    }

    pub(super) fn id(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(u128::from(self.next))
    }

    pub(super) fn advance(&mut self, length: i64) {
        for _ in 0..length {
            self.now += 1;
            for worker in self.workers.iter_mut().flatten() {
                worker.lease_age += 1;
                worker.heard.1 += 1;
            }
            self.azure.arrive(self.now);
            self.wake();
            self.expire();
            self.everything_is_looked_after();
        }
    }

    /// The clock ends what has reached its end.
    fn expire(&mut self) {
        let now = Expiry::At(at(self.redis()));
        let grants = self.stored.grants.iter();
        let over: Vec<GrantId> = grants
            .filter(|grant| grant.state.is_live() && grant.expiry <= now)
            .map(|grant| grant.id)
            .collect();
        for id in over {
            self.end(&[id], Ending::Expired);
        }
    }

    /// A machine sleeps, and one worker with it: it goes on as if nothing had been.
    pub(super) fn suspend(&mut self, worker: usize, length: i64) {
        self.advance(length);
        if let Some(worker) = &mut self.workers[worker] {
            worker.heard.1 -= length;
        }
    }

    /// Redis is emptied under the brokers, or another one stands in its place.
    pub(super) fn empty_redis(&mut self) {
        // The exception to I2: what a worker sends that has slept, and cannot report then, only a sweep finds.
        let mut workers = self.workers.iter().flatten();
        let may_have_slept = workers.any(|worker| worker.cleared_to_send || worker.sent_late);
        if self.before.is_some() || may_have_slept {
            return;
        }
        self.before = Some(Box::new(Emptied {
            stored: std::mem::replace(&mut self.stored, empty()),
            open: std::mem::take(&mut self.open),
            lease: self.lease.take(),
            queue: std::mem::take(&mut self.queue),
            cluster: self.cluster,
            remembered: std::mem::take(&mut self.remembered),
        }));
    }

    /// What Redis held is there again.
    pub(super) fn restore_redis(&mut self) {
        let Some(before) = self.before.take() else {
            return;
        };
        let Emptied {
            stored,
            open,
            lease,
            queue,
            cluster,
            remembered,
        } = *before;
        self.stored = stored;
        self.open = open;
        self.lease = lease;
        self.queue = queue;
        self.cluster = cluster;
        self.remembered = remembered;
    }

    /// Whether scripts refuse to run.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.before.is_some() && self.mended.compares_meta
    }

    pub(super) fn claim(&mut self, index: usize) {
        if self.workers[index].is_some() || self.is_in_doubt() || !self.take_from_the_queues() {
            return;
        }
        let redis = self.redis();
        let until = self.calls_settle();
        for (name, (call, token)) in &mut self.open {
            if *token != 0 {
                *token = 0;
                lose(self.stored.effects.get_mut(name).unwrap(), *call, at(until));
            }
        }
        if self.mended.bounds_deadlines {
            self.bound_deadlines();
        }
        self.next += 1;
        let token = self.next;
        self.lease = Some((token, redis + LEASE));
        let deadlines = self
            .stored
            .effects
            .values()
            .filter_map(|effect| effect.deadline);
        let lefts = deadlines.map(|deadline| seconds(deadline) - redis);
        let pause = lefts.filter(|left| *left > 0).fold(PAUSE, i64::min);
        self.stored.attempts += 1;
        self.queue.pause = Some(self.wait(pause));
        self.queue.urgent = false;
        self.queue.due.insert(Due::Lease, redis + LEASE);
        self.paused_until = self.now + LEASE.max(pause);
        let waits = PerCall::from_fn(|call| self.left_of(*self.queue.waits.get(call)));
        self.workers[index] = Some(Worker {
            token,
            claimed: self.now,
            lease_age: 0,
            heard: (redis, 0),
            settled: self.settled_time(),
            waits,
            target: self.loaded(),
            loaded_deadlines: self.stored.settle_deadlines(),
            rounds: Vec::new(),
            steps: Vec::new(),
            left: Vec::new(),
            begun: false,
            busy_until: 0,
            cleared_to_send: false,
            sent_late: false,
            unfinished: false,
            touched: BTreeMap::new(),
            unsent: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            landed: BTreeSet::new(),
            failed: Vec::new(),
            names_tried: BTreeMap::new(),
            refused_at: BTreeSet::new(),
            closings: PerCall::default(),
            read_as_gone: None,
        });
    }

    /// Neither a settle deadline nor the last moment of a PUT lies further ahead than a lease, a call and the settle
    /// time.
    pub(super) fn bound_deadlines(&mut self) {
        let longest = at(self.redis() + LEASE + CALL_TIMEOUT + SETTLE);
        for effect in self.stored.effects.values_mut() {
            effect.deadline = effect.deadline.map(|deadline| deadline.min(longest));
            effect.put_until = effect.put_until.map(|until| until.min(longest));
        }
    }

    /// What a worker takes for Redis's time.
    pub(super) const fn redis_of(worker: &Worker) -> i64 {
        worker.heard.0 + worker.heard.1
    }

    pub(super) const fn may_call(worker: &Worker) -> bool {
        worker.lease_age + CALL_TIMEOUT < LEASE
    }

    pub(super) fn die(&mut self, index: usize) {
        if self.workers[index]
            .as_ref()
            .is_some_and(|worker| worker.sent_late)
        {
            self.record(index);
        }
        self.workers[index] = None;
    }

    /// Lets time pass until a worker has given up the call that it waits for.
    pub(super) fn gives_up_waiting(&mut self, index: usize) {
        let busy = self.workers[index]
            .as_ref()
            .map_or(0, |worker| worker.busy_until);
        self.advance((busy - self.now).max(0));
    }

    pub(super) fn holds(&self, worker: &Worker) -> bool {
        self.lease.is_some_and(|(token, _)| token == worker.token)
    }

    /// Writes down the intents of `steps`; refused if the lease is lost or the wishes have moved.
    pub(super) fn write_intents(&mut self, worker: &mut Worker, steps: &[Step]) -> bool {
        if self.is_in_doubt() || !self.holds(worker) || !self.is_leased() {
            return false;
        }
        // A plan that is out of date takes nothing away; it may still give, while no access has ended since the claim.
        let has_moved = self.stored.generation != worker.target.generation;
        let takes_away = steps.iter().any(|step| step.call() == Call::Delete);
        if has_moved && (takes_away || self.queue.urgent) {
            return false;
        }
        let redis = at(self.redis());
        for step in steps {
            let n = match step {
                Step::Put { n, .. } => *n,
                Step::Delete { name, .. } => self.stored.effects[name].n,
            };
            let fresh = || Effect::untouched(step.name(), step.at().clone(), n, redis);
            let stored = self.stored.effects.entry(step.name()).or_insert_with(fresh);
            let before = self.open.get(&step.name()).map(|(call, _)| *call);
            stored.may_be_gone |= before == Some(Call::Delete);
            worker
                .target
                .effects
                .entry(step.name())
                .or_insert_with(fresh);
            self.open.insert(step.name(), (step.call(), worker.token));
            worker.touched.insert(step.name(), step.call());
            worker.unsent.insert(step.name());
        }
        true
    }

    /// A worker whose lease was lost records nothing; its report marks what it touched.
    pub(super) fn report(&mut self, worker: &Worker) {
        let touched = worker.touched.iter();
        let sent: Vec<(&AssignmentName, &Call)> = touched
            .filter(|(name, _)| !worker.unsent.contains(name))
            .collect();
        if sent.is_empty() {
            return;
        }
        let redis = self.redis();
        for (name, call) in sent {
            let row = worker.target.effects[name].clone();
            let longest = at(redis + LEASE + CALL_TIMEOUT + SETTLE);
            let until = row.deadline.max(Some(at(redis + SETTLE))).unwrap();
            let stored = self.stored.effects.entry(*name).or_insert(row);
            let before = stored.deadline;
            lose(stored, *call, until.min(longest));
            // Another than before in any case: the pass that has the target now sees that it was set since its claim.
            if stored.deadline == before {
                stored.deadline = stored
                    .deadline
                    .map(|deadline| deadline + Duration::from_secs(1));
            }
            stored.may_be_gone = true;
            if self.open.get(name).is_none_or(|(_, token)| *token == 0) {
                self.open.insert(*name, (*call, 0));
            }
        }
        if self.is_leased() {
            self.wait_for_the_lease();
        } else {
            self.enqueue(Call::Delete);
            self.enqueue(Call::Put);
        }
        self.tell(worker.token);
    }

    /// I10: the events of a pass are written once.
    pub(super) fn tell(&mut self, token: u64) {
        let told = self.told.entry(token).or_default();
        *told += 1;
        assert_eq!(*told, 1, "the events of a pass are written twice");
        self.remembered.insert(token);
    }
}

fn empty() -> Target {
    Target {
        id: target_id(),
        generation: 0,
        effects: BTreeMap::new(),
        grants: Vec::new(),
        jobs: Vec::new(),
        attempts: 0,
        failures: PerCall::default(),
        put_off: BTreeMap::new(),
    }
}

/// Nobody will hear the answer to a call that may have been sent: the same as if none had come.
pub(super) fn lose(effect: &mut Effect, call: Call, until: Timestamp) {
    let time = PassTime {
        claimed: until,
        now: until,
        lag: jiff::SignedDuration::ZERO,
    };
    effect.answered(call, &Answer::Unknown { until }, time);
}
