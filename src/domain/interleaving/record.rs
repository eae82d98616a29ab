//! What a pass records, and what must be so whenever something is said to be over.

use std::collections::BTreeSet;
use std::time::Duration;

use super::queue::{CALLS, Due};
use super::world::{Worker, World};
use super::{GIVE_UP, SETTLE, at, instance, seconds};
use crate::domain::conclude::{
    Conclusion, GrantChange, MOST_PUT_OFF, Retry, Steps, Terms, conclude, concluded,
};
use crate::domain::effect::{Call, Effect, Known, PerCall};
use crate::domain::grant::{Grant, GrantState};
use crate::domain::plan::{Step, needed_calls, plan};
use crate::domain::target::Target;

/// What is left to do by calls of one kind.
#[derive(Clone, Copy, Debug)]
struct NextLook {
    needed: bool,
    wait: i64,
    failures: u32,
}

impl World {
    pub(super) fn record(&mut self, index: usize) {
        self.gives_up_waiting(index);
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        if !worker.begun {
            // A pass always plans; of what it has not begun it has made no call.
            worker.left = plan(&worker.target, instance(), Self::pass_time(&worker));
        }
        worker.left.append(&mut worker.steps);
        worker.left.extend(worker.rounds.drain(..).flatten());
        for name in &worker.unsent {
            // Withdrawn: what was open before is open again, what was not is not.
            worker.touched.remove(name);
        }
        self.sent[index] = Some(worker.clone());
        self.take_in_the_record(worker);
    }

    /// The answer to a record was lost, and its worker's client sends it again, however late.
    pub(super) fn record_again(&mut self, index: usize) {
        if let Some(worker) = self.sent[index].clone() {
            self.take_in_the_record(worker);
        }
    }

    fn take_in_the_record(&mut self, mut worker: Worker) {
        if self.is_in_doubt() {
            return;
        }
        let is_known = if self.mended.remembers_records {
            self.remembered.contains(&worker.token)
        } else {
            self.remembered.last() == Some(&worker.token)
        };
        if is_known {
            return;
        }
        for (call, length) in [
            (Call::Delete, worker.closings.deletes),
            (Call::Put, worker.closings.writes),
        ] {
            if length > self.left_of(*self.queue.closed.get(call)) {
                *self.queue.closed.get_mut(call) = Some(self.wait(length));
            }
        }
        if !self.holds(&worker) {
            self.report(&worker);
            return;
        }
        self.withdraw(&worker);
        let cluster_gone = worker.read_as_gone.is_some();
        if cluster_gone {
            Self::take_all_for_gone(&mut worker);
        }
        self.take_in_effects(&worker);
        let waits = PerCall::from_fn(|call| wait_of(&worker, call));
        let left: &[Step] = if self.mended.doubts_what_is_left {
            &worker.left
        } else {
            &[]
        };
        let steps = Steps {
            failed: &worker.failed,
            left,
            waiting: PerCall::from_fn(|call| *waits.get(call) > 0),
            ..Steps::NONE
        };
        let terms = Terms {
            time: Self::pass_time(&worker),
            grant_give_up: Duration::from_secs(u64::try_from(GIVE_UP).unwrap()),
            cluster_gone,
        };
        let conclusion = conclude(&worker.target, steps, terms);
        let after = concluded(&worker.target, &conclusion);
        let needed = needed_calls(&after, instance(), Self::pass_time(&worker));
        let looks = PerCall::from_fn(|call| NextLook {
            needed: *needed.get(call),
            wait: *waits.get(call),
            failures: failures_of(&worker, call),
        });
        let moved = self.stored.generation != worker.target.generation;
        let skipped = self.apply(&conclusion, &worker, moved, cluster_gone);
        self.gives_up_in_the_end(&worker);
        self.hand_back(&worker, &conclusion, looks, moved || skipped);
        self.tell(worker.token);
    }

    fn withdraw(&mut self, worker: &Worker) {
        for name in &worker.unsent {
            match worker.target.effects[name].open {
                Some(call) => self.open.insert(*name, (call, 0)),
                None => self.open.remove(name),
            };
        }
    }

    fn take_in_effects(&mut self, worker: &Worker) {
        let redis = self.redis();
        for name in worker.touched.keys() {
            let mut effect = worker.target.effects[name].clone();
            let stored = self
                .stored
                .effects
                .get(name)
                .and_then(|effect| effect.deadline);
            // The pass has judged the deadline that it loaded; one that was set since stays.
            if stored != worker.loaded_deadlines.get(name).copied() {
                effect.deadline = effect.deadline.max(stored);
            }
            if worker.landed.contains(name) {
                effect.put_until = effect.put_until.max(Some(at(redis)));
            }
            if worker.unanswered.contains(name) && self.mended.dates_open_calls {
                effect.deadline = effect.deadline.max(Some(at(redis + SETTLE)));
                if worker.touched[name] == Call::Put {
                    effect.put_until = effect.put_until.max(Some(at(redis + SETTLE)));
                }
            }
            let before = self.stored.effects.get(name);
            effect.may_be_gone |=
                effect.deadline.is_some() && before.is_some_and(|before| before.may_be_gone);
            match effect.open {
                Some(call) => self.open.insert(*name, (call, 0)),
                None => self.open.remove(name),
            };
            self.stored.effects.insert(*name, effect);
        }
    }

    /// The lease goes, and each kind of call is looked at again when it has to be.
    fn hand_back(
        &mut self,
        worker: &Worker,
        conclusion: &Conclusion,
        looks: PerCall<NextLook>,
        changed: bool,
    ) {
        let redis = self.redis();
        let urgent = conclusion.wishes_changed || self.queue.urgent;
        self.stored.generation += u64::from(conclusion.wishes_changed);
        self.stored.attempts = 0;
        self.lease = Some((0, 0));
        self.queue.pause = None;
        self.queue.due.remove(&Due::Lease);
        self.paused_until = 0;
        if self.mended.bounds_deadlines {
            self.bound_deadlines();
        }
        let deadlines: Vec<i64> = self
            .stored
            .effects
            .values()
            .filter_map(|effect| Some(seconds(effect.deadline?)))
            .collect();
        let next_deadline = deadlines
            .iter()
            .copied()
            .filter(|deadline| *deadline > redis)
            .min();
        let clock = self.settled_time();
        let behind = i64::try_from(clock.behind.as_secs()).unwrap();
        let caught_up = seconds(clock.caught_up);
        let judged = seconds(worker.settled.now).min(redis);
        let next_look = deadlines
            .iter()
            .filter(|deadline| **deadline > judged)
            .map(|deadline| (deadline + behind).min(caught_up.max(*deadline)))
            .min();
        let known = worker.target.effects.values();
        let known_open: BTreeSet<_> = known
            .filter(|effect| effect.open.is_some())
            .map(|effect| effect.name)
            .collect();
        let reported = self.open.keys().any(|name| !known_open.contains(name));
        let again = changed || worker.unfinished || urgent || reported;
        let longest = looks.deletes.wait.max(looks.writes.wait);
        let mut scheduled = false;
        for call in CALLS {
            let look = looks.get(call);
            let mut wait = if self.mended.buckets_wait_apart {
                look.wait
            } else {
                longest
            };
            if self.mended.waits_end_with_deadlines {
                wait = next_deadline.map_or(wait, |deadline| wait.min(deadline - redis));
            }
            if urgent {
                wait = 0;
            }
            *self.queue.waits.get_mut(call) = (wait > 0).then(|| self.wait(wait));
            *self.stored.failures.get_mut(call) = if urgent { 0 } else { look.failures };
            *self.told_to_wait.get_mut(call) = self.now + if urgent { 0 } else { look.wait };
            if look.needed || again {
                self.look_at(call, redis + wait);
                scheduled = true;
            } else if let Some(next) = next_look {
                self.look_at(call, next);
                scheduled = true;
            } else {
                self.dequeue(call);
            }
        }
        if !self.stored.jobs.is_empty() && !scheduled {
            for call in CALLS {
                self.queue.due.insert(Due::Bucket(call), redis + 1);
            }
        }
    }

    /// Whether the change may be made: its grant is as it was loaded, and what it rests on is so still.
    fn may_change(&mut self, change: &GrantChange, moved: bool) -> bool {
        let is_settled = |name| {
            let effect = self.stored.effects.get(name);
            !self.open.contains_key(name) && effect.is_none_or(|effect| !effect.is_unsettled())
        };
        let all_settled = change.settled.iter().all(is_settled);
        let mut grants = self.stored.grants.iter();
        let is_as_loaded = grants.any(|grant| grant.id == change.id && grant.state == change.from);
        if !is_as_loaded || !all_settled {
            return false;
        }
        if change.shared && moved {
            let put_off = self.put_off.entry(change.id).or_default();
            *put_off += 1;
            assert!(*put_off <= MOST_PUT_OFF, "an ending is put off for ever");
            if self.mended.puts_off_a_few_times {
                *self.stored.put_off.entry(change.id).or_default() += 1;
            }
            return false;
        }
        true
    }

    fn apply(
        &mut self,
        conclusion: &Conclusion,
        worker: &Worker,
        moved: bool,
        cluster_gone: bool,
    ) -> bool {
        let mut skipped = BTreeSet::new();
        for change in &conclusion.grants {
            if !self.may_change(change, moved) {
                skipped.insert(change.id);
                continue;
            }
            let grants = &mut self.stored.grants;
            let grant = grants
                .iter_mut()
                .find(|grant| grant.id == change.id)
                .unwrap();
            grant.state = change.to;
            grant.was_active |= change.to == GrantState::Active;
            grant.last_error.clone_from(&change.error);
            if change.to == GrantState::Active && change.from == GrantState::Pending {
                let active = grant.clone();
                self.rests_on_what_was_seen(&active, worker);
                continue;
            }
            if matches!(change.to, GrantState::Ended(_)) {
                let ended = grant.clone();
                grants.retain(|grant| grant.id != ended.id);
                self.stored.put_off.remove(&ended.id);
                // A late call meets no cluster, or another one. The pass at that one handles it, and no job waits for
                // it.
                if !cluster_gone {
                    self.nothing_is_left_of(&ended, &worker.target);
                }
                self.all.push(ended);
            }
        }
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
        !skipped.is_empty()
    }

    /// What a stranger assigned carries a grant only if it was there at the claim: what an earlier pass saw may be
    /// gone.
    fn rests_on_what_was_seen(&self, active: &Grant, worker: &Worker) {
        for place in &active.calls_for() {
            let mut series = self.stored.series(place);
            let is_foreign = series.any(|effect| matches!(effect.known, Known::Foreign(_)));
            let was_there = self.azure.strangers.contains_key(place)
                || self.azure.strangers_left >= worker.claimed;
            assert!(
                !is_foreign || was_there,
                "it rests on what was gone: {place:?}"
            );
        }
    }

    /// A grant that has been tried for long enough does not stay pending, whatever Azure refuses.
    fn gives_up_in_the_end(&self, worker: &Worker) {
        let given_up = at(Self::redis_of(worker) - GIVE_UP);
        for grant in &self.stored.grants {
            let calls_for = grant.calls_for();
            let is_refused = worker
                .refused_at
                .iter()
                .any(|place| calls_for.contains(place));
            let is_old = grant.create_time <= given_up;
            let was_loaded = worker
                .target
                .grants
                .iter()
                .any(|loaded| loaded.id == grant.id && loaded.state == GrantState::Pending);
            assert!(
                !(is_refused && is_old && was_loaded && grant.state == GrantState::Pending),
                "it is refused for ever, and never fails"
            );
        }
    }

    /// I5: whoever is told that a grant has ended finds nothing that only it called for, now or later. What another
    /// grant called for that was live when the pass was claimed, and has been taken back since, that one's ending waits
    /// for.
    fn nothing_is_left_of(&self, ended: &Grant, loaded: &Target) {
        let wishes = self.stored.wishes();
        let waits_for = |place| {
            let mut others = self.stored.grants.iter();
            let was_live = |other: &Grant| {
                let mut then = loaded.grants.iter();
                then.any(|then| then.id == other.id && then.state.is_live())
            };
            others.any(|other| other.calls_for().contains(place) && was_live(other))
        };
        for place in ended.calls_for().iter().filter(|place| {
            !wishes.contains_key(place) && !self.overslept.contains(place) && !waits_for(place)
        }) {
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
}

/// How long calls of a kind wait after a pass.
fn wait_of(worker: &Worker, call: Call) -> i64 {
    let failed = worker.failed.iter().filter(|failed| failed.call == call);
    let told = *worker.closings.get(call);
    let wait = |retry: Retry| match retry {
        Retry::Soon => 2,
        Retry::Slowly => 20,
        Retry::After(_) => told,
    };
    let after_failure = failed.map(|failed| wait(failed.retry)).min();
    let held_back = *worker.waits.get(call) - worker.lease_age;
    if worker.read_as_gone.is_some() {
        return 0;
    }
    after_failure
        .or(Some(told).filter(|told| *told > 0))
        .unwrap_or(held_back.max(0))
}

fn failures_of(worker: &Worker, call: Call) -> u32 {
    let before = *worker.target.failures.get(call);
    if worker.failed.iter().any(|failed| failed.call == call) {
        before + 1
    } else if worker.left.iter().any(|step| step.call() == call) {
        before
    } else {
        0
    }
}
