//! The store and its workers: the transitions that the scripts make, one method each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::azure::Azure;
use super::{CALL_TIMEOUT, Fate, LAG, LEASE, SETTLE, at, failed, instance, target_id};
use crate::domain::access::RoleAtScope;
use crate::domain::conclude::{Conclusion, FailedStep, Terms, conclude};
use crate::domain::effect::{Answer, Call, Effect, Known, PassTime};
use crate::domain::grant::{Ending, Expiry, Grant, GrantState};
use crate::domain::ids::{AssignmentName, GrantId, JobId};
use crate::domain::job::JobState;
use crate::domain::plan::{Step, plan, put_with_next_name};
use crate::domain::target::Target;

pub(super) struct Worker {
    pub(super) token: u64,
    pub(super) lease_end: i64,
    pub(super) claimed: i64,
    pub(super) target: Target,
    pub(super) steps: Vec<Step>,
    pub(super) begun: bool,
    /// It has looked at its lease and is about to send, however long it sleeps in between.
    pub(super) cleared_to_send: bool,
    /// It has sent a call for which too little of its lease was left: it lives to report it.
    pub(super) sent_late: bool,
    pub(super) touched: BTreeMap<AssignmentName, Call>,
    pub(super) unsent: BTreeSet<AssignmentName>,
    pub(super) definite: BTreeSet<AssignmentName>,
    pub(super) failed: Vec<FailedStep>,
    /// When it read the cluster, after a call that was refused, and there was none.
    pub(super) read_as_gone: Option<i64>,
}

pub(super) struct World {
    pub(super) now: i64,
    pub(super) azure: Azure,
    pub(super) stored: Target,
    /// Which cluster the last grant was accepted for.
    pub(super) cluster: u64,
    pub(super) open: BTreeMap<AssignmentName, (Call, u64)>,
    pub(super) lease: Option<(u64, i64)>,
    pub(super) all: Vec<Grant>,
    pub(super) ended_jobs: BTreeMap<JobId, JobState>,
    /// The end that a job is to write on whatever carries its grant out.
    pub(super) promised: BTreeMap<JobId, Expiry>,
    pub(super) workers: [Option<Worker>; 2],
    pub(super) next: u64,
    /// Where a worker has slept so long before it sent a call that nobody waits for the call any more (I2):
    /// what is said there holds again when the worker has reported.
    pub(super) overslept: BTreeSet<RoleAtScope>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: 0,
            azure: Azure::new(),
            stored: Target {
                id: target_id(),
                generation: 0,
                effects: BTreeMap::new(),
                grants: Vec::new(),
                jobs: Vec::new(),
                attempts: 0,
            },
            cluster: 0,
            open: BTreeMap::new(),
            lease: None,
            all: Vec::new(),
            ended_jobs: BTreeMap::new(),
            promised: BTreeMap::new(),
            workers: [None, None],
            next: 1,
            overslept: BTreeSet::new(),
        }
    }

    pub(super) fn id(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(u128::from(self.next))
    }

    pub(super) fn advance(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += 1;
            self.azure.arrive(self.now);
        }
        let over: Vec<GrantId> = self
            .stored
            .grants
            .iter()
            .filter(|grant| grant.state.is_live() && grant.expiry <= Expiry::At(at(self.now)))
            .map(|grant| grant.id)
            .collect();
        for id in over {
            self.end(&[id], Ending::Expired);
        }
    }

    pub(super) fn claim(&mut self, worker: usize) {
        if self.workers[worker].is_some() || self.lease.is_some_and(|(_, end)| self.now < end) {
            return;
        }
        let lost_deadline = self.lease.map(|(_, end)| end + SETTLE);
        if let Some(deadline) = lost_deadline {
            for (name, (call, token)) in &mut self.open {
                if *token != 0 {
                    *token = 0;
                    let effect = self.stored.effects.get_mut(name).unwrap();
                    lose(effect, *call, at(deadline));
                }
            }
        }
        self.next += 1;
        let token = self.next;
        self.lease = Some((token, self.now + LEASE));
        self.workers[worker] = Some(Worker {
            token,
            lease_end: self.now + LEASE,
            claimed: self.now,

            target: self.stored.clone(),
            steps: Vec::new(),
            begun: false,
            cleared_to_send: false,
            sent_late: false,
            touched: BTreeMap::new(),
            unsent: BTreeSet::new(),
            definite: BTreeSet::new(),
            failed: Vec::new(),
            read_as_gone: None,
        });
    }

    pub(super) fn may_call(&self, worker: &Worker) -> bool {
        self.now + CALL_TIMEOUT < worker.lease_end
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

    pub(super) fn holds(&self, worker: &Worker) -> bool {
        self.lease.is_some_and(|(token, _)| token == worker.token)
    }

    /// Writes down the intents of `steps`; refused if the lease is lost or the wishes have moved.
    pub(super) fn write_intents(&mut self, worker: &mut Worker, steps: &[Step]) -> bool {
        if !self.holds(worker)
            || self.now >= worker.lease_end
            || self.stored.generation != worker.target.generation
        {
            return false;
        }
        for step in steps {
            let n = match step {
                Step::Put { n, .. } => *n,
                Step::Delete { name, .. } => self.stored.effects[name].n,
            };
            let fresh = || Effect::untouched(step.name(), step.at().clone(), n, at(self.now));
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

    pub(super) fn begin(&mut self, index: usize) {
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        if worker.begun {
            self.workers[index] = Some(worker);
            return;
        }
        worker.steps = plan(&worker.target, instance(), self.pass_time(&worker));
        let steps = worker.steps.clone();
        worker.begun = true;
        if !self.write_intents(&mut worker, &steps) {
            worker.steps.clear();
        }
        self.workers[index] = Some(worker);
    }

    pub(super) fn pass_time(&self, worker: &Worker) -> PassTime {
        PassTime {
            claimed: at(worker.claimed),
            now: at(self.now),
            lag: SignedDuration::from_secs(LAG),
        }
    }

    pub(super) fn call(&mut self, index: usize, fate: Fate) {
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        if worker.steps.is_empty() || !(worker.cleared_to_send || self.may_call(&worker)) {
            self.workers[index] = Some(worker);
            return;
        }
        worker.cleared_to_send = false;
        worker.sent_late |= !self.may_call(&worker);
        let step = worker.steps.remove(0);
        worker.unsent.remove(&step.name());
        let arrives = match fate {
            Fate::Late(after) => self.now + CALL_TIMEOUT + after,
            _ => self.now,
        };
        if arrives > worker.lease_end + SETTLE {
            self.overslept.insert(step.at().clone());
        }
        let answer = self.answer(&step, fate);
        let time = self.pass_time(&worker);
        if answer == Answer::Refused {
            worker.failed.push(failed(&step));
            if self.azure.cluster.is_none() {
                worker.read_as_gone = Some(self.now);
                worker.steps.clear();
            }
        }
        if !matches!(
            answer,
            Answer::Unknown { .. } | Answer::Unexplained | Answer::Refused | Answer::NotThere
        ) {
            worker.definite.insert(step.name());
        }
        let effect = worker.target.effects.get_mut(&step.name()).unwrap();
        effect.answered(step.call(), &answer, time);
        if answer == Answer::NotThere && effect.open.is_none() {
            worker.definite.insert(step.name());
        }
        if answer == Answer::Unexplained {
            self.find_what_stands(&mut worker, &step);
        }
        if answer == Answer::NameRefused
            && let Some(next) = put_with_next_name(&worker.target, instance(), step.at())
            && self.write_intents(&mut worker, std::slice::from_ref(&next))
        {
            worker.steps.insert(0, next);
        }
        self.workers[index] = Some(worker);
    }

    /// After a conflict that nothing explains, a read shows which of our own names stands there.
    fn find_what_stands(&self, worker: &mut Worker, step: &Step) {
        let mut standing = self.azure.ours.iter();
        let standing = standing.find(|(_, (place, _))| place == step.at());
        if let Some(effect) = standing.and_then(|(name, _)| worker.target.effects.get_mut(name)) {
            effect.known = Known::Present;
            effect.stood = true;
            effect.written = None;
            effect.changed = at(self.now);
            worker.touched.entry(effect.name).or_insert(Call::Put);
        }
    }

    pub(super) fn answer(&mut self, step: &Step, fate: Fate) -> Answer {
        let unknown = Answer::Unknown {
            until: at(self.now + CALL_TIMEOUT + SETTLE),
        };
        match fate {
            Fate::Answered => self.azure.commit(step, self.now),
            Fate::AnswerLost => {
                self.azure.commit(step, self.now);
                unknown
            }
            Fate::Late(after) => {
                self.azure
                    .late
                    .push((self.now + CALL_TIMEOUT + after, step.clone()));
                unknown
            }
            Fate::NeverArrives => unknown,
            Fate::Refused => Answer::Refused,
            Fate::Lagging => {
                let fresh = self
                    .azure
                    .put_at
                    .get(&step.name())
                    .is_some_and(|put| self.now < put + LAG);
                if step.call() == Call::Delete && fresh {
                    Answer::NotThere
                } else {
                    self.azure.commit(step, self.now)
                }
            }
        }
    }

    pub(super) fn record(&mut self, index: usize) {
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        for name in &worker.unsent {
            worker.touched.remove(name);
            // Withdrawn: what was open before is open again, what was not is not.
            let loaded = worker.target.effects[name].open;
            if self.holds(&worker) {
                match loaded {
                    Some(call) => self.open.insert(*name, (call, 0)),
                    None => self.open.remove(name),
                };
            }
        }
        if !self.holds(&worker) {
            self.report(&worker);
            return;
        }
        let cluster_gone = worker.read_as_gone.is_some();
        if cluster_gone {
            self.take_all_for_gone(&mut worker);
        }
        for name in worker.touched.keys() {
            let mut effect = worker.target.effects[name].clone();
            let stored = self.stored.effects[name].deadline;
            let kept =
                stored.filter(|d| !(worker.definite.contains(name) && *d <= at(worker.claimed)));
            effect.deadline = effect.deadline.max(kept);
            effect.may_be_gone |=
                effect.deadline.is_some() && self.stored.effects[name].may_be_gone;
            match effect.open {
                Some(call) => self.open.insert(*name, (call, 0)),
                None => self.open.remove(name),
            };
            self.stored.effects.insert(*name, effect);
        }
        let terms = Terms {
            time: self.pass_time(&worker),
            grant_give_up: Duration::from_secs(100),
            cluster_gone,
        };
        let conclusion = conclude(&worker.target, &[], &worker.failed, terms);
        let moved = self.stored.generation != worker.target.generation;
        self.apply(&conclusion, moved, cluster_gone);
        self.lease = None;
    }

    pub(super) fn apply(&mut self, conclusion: &Conclusion, moved: bool, cluster_gone: bool) {
        let mut skipped = BTreeSet::new();
        for change in &conclusion.grants {
            let unsettled = change.settled.iter().any(|name| {
                self.open.contains_key(name)
                    || self
                        .stored
                        .effects
                        .get(name)
                        .is_some_and(Effect::is_unsettled)
            });
            let grant = self
                .stored
                .grants
                .iter_mut()
                .find(|grant| grant.id == change.id);
            let Some(grant) = grant.filter(|grant| {
                grant.state == change.from && !unsettled && !(moved && change.shared)
            }) else {
                skipped.insert(change.id);
                continue;
            };
            grant.state = change.to;
            grant.was_active |= change.to == GrantState::Active;
            grant.last_error.clone_from(&change.error);
            if matches!(change.to, GrantState::Ended(_)) {
                let ended = grant.clone();
                self.stored.grants.retain(|grant| grant.id != ended.id);
                // What may still come meets no cluster, or another one: there it is looked after, and nobody waits.
                if !cluster_gone {
                    self.nothing_is_left_of(&ended);
                }
                self.all.push(ended);
            }
        }
        self.stored.generation += u64::from(conclusion.wishes_changed);
        for change in &conclusion.jobs {
            if change.to.is_final() && change.grants.is_disjoint(&skipped) {
                self.finish_job(change.id, change.to);
            }
        }
        for name in &conclusion.forget {
            if !self.open.contains_key(name)
                && self
                    .stored
                    .effects
                    .get(name)
                    .is_some_and(Effect::is_gone_and_settled)
            {
                self.stored.effects.remove(name);
            }
        }
    }

    /// I5: whoever is told that a grant has ended finds nothing that only it called for, now or later.
    pub(super) fn nothing_is_left_of(&self, ended: &Grant) {
        let wishes = self.stored.wishes();
        for place in ended
            .calls_for()
            .iter()
            .filter(|place| !wishes.contains_key(place) && !self.overslept.contains(place))
        {
            let there = self.azure.ours.values().any(|(at, _)| at == place);
            assert!(!there, "ended, but {place:?} is still assigned");
            let coming = self
                .azure
                .late
                .iter()
                .any(|(_, step)| step.at() == place && step.call() == Call::Put);
            assert!(
                !coming,
                "ended, but a late PUT of {place:?} is still to come"
            );
        }
    }

    /// What is said to stand is there, and what is said to be gone is not, at every moment.
    pub(super) fn what_is_said_is_so(&self) {
        if self.azure.cluster != Some(self.cluster) {
            return;
        }
        for effect in self.stored.effects.values() {
            let effect = Effect {
                open: self.open.get(&effect.name).map(|(call, _)| *call),
                ..effect.clone()
            };
            if self.overslept.contains(&effect.at) {
                continue;
            }
            let is_there = self.azure.ours.contains_key(&effect.name);
            if effect.surely_stands() {
                assert!(is_there, "it is said to stand: {effect:?}");
            }
            if effect.is_gone_and_settled() {
                assert!(!is_there, "it is said to be gone: {effect:?}");
            }
        }
    }

    /// A worker whose lease was lost records nothing; its report marks what it touched.
    pub(super) fn report(&mut self, worker: &Worker) {
        for (name, call) in &worker.touched {
            let row = worker.target.effects[name].clone();
            let until = row.deadline.max(Some(at(self.now + SETTLE))).unwrap();
            let stored = self.stored.effects.entry(*name).or_insert(row);
            lose(stored, *call, until);
            stored.may_be_gone = true;
            if self.open.get(name).is_none_or(|(_, token)| *token == 0) {
                self.open.insert(*name, (*call, 0));
            }
        }
    }
}

/// Nobody will hear the answer to a call that may have been sent: the same as if none had come.
pub(super) fn lose(effect: &mut Effect, call: Call, until: Timestamp) {
    let time = PassTime {
        claimed: until,
        now: until,
        lag: SignedDuration::ZERO,
    };
    effect.answered(call, &Answer::Unknown { until }, time);
}
