//! A worker's side of a pass: what it plans, begins and calls.

use jiff::SignedDuration;

use super::world::{Worker, World};
use super::{CALL_TIMEOUT, Fate, LAG, MOST_NAMES, SETTLE, at, failed, instance};
use crate::domain::conclude::Retry;
use crate::domain::effect::{Answer, Call, PassTime};
use crate::domain::grant::Expiry;
use crate::domain::ownership::place_in_series;
use crate::domain::plan::{Step, plan, put_with_next_name};

impl World {
    pub(super) fn pass_time(worker: &Worker) -> PassTime {
        PassTime {
            claimed: worker.settled.now,
            now: at(Self::redis_of(worker)),
            lag: SignedDuration::from_secs(LAG),
        }
    }

    pub(super) fn begin(&mut self, index: usize) {
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        if !worker.begun {
            worker.begun = true;
            let steps = plan(&worker.target, instance(), Self::pass_time(&worker));
            let waits = worker.waits;
            let (held, steps): (Vec<Step>, Vec<Step>) = steps
                .into_iter()
                .partition(|step| *waits.get(step.call()) > 0);
            worker.left = held;
            let (deletes, puts) = steps
                .into_iter()
                .partition(|step| step.call() == Call::Delete);
            worker.rounds = vec![puts, deletes];
            self.begin_a_round(&mut worker);
        }
        self.workers[index] = Some(worker);
    }

    /// Begins the next calls of one kind, unless their lane is closed.
    fn begin_a_round(&mut self, worker: &mut Worker) {
        while worker.steps.is_empty() && !worker.unfinished && worker.read_as_gone.is_none() {
            let Some(steps) = worker.rounds.pop() else {
                return;
            };
            let Some(call) = steps.first().map(Step::call) else {
                continue;
            };
            let closed = self.left_of(*self.queue.closed.get(call));
            if closed > 0 {
                *worker.closings.get_mut(call) = closed;
                *self.told_to_wait.get_mut(call) = self.now + closed;
            } else if self.write_intents(worker, &steps) {
                worker.steps = steps;
                continue;
            }
            worker.left.extend(steps);
        }
    }

    /// Before a PUT the pass looks whether it may still give; where it may not, it hands back.
    fn may_give(&mut self, worker: &mut Worker, step: &Step) -> bool {
        let Step::Put { description, .. } = step else {
            return true;
        };
        if !self.mended.looks_before_it_gives {
            return true;
        }
        if self.is_in_doubt() || !self.holds(worker) || !self.is_leased() || self.queue.urgent {
            return false;
        }
        worker.heard = (self.redis(), 0);
        let left = self.lease.map_or(0, |(_, end)| end - self.redis());
        left > CALL_TIMEOUT && !description.expiry.has_passed(at(Self::redis_of(worker)))
    }

    /// The worker has looked whether it may send its next call, and falls asleep before it does.
    pub(super) fn clear_to_send(&mut self, index: usize) {
        self.gives_up_waiting(index);
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        self.begin_a_round(&mut worker);
        let next = worker.steps.first().cloned();
        let may_call = Self::may_call(&worker);
        worker.cleared_to_send =
            may_call && next.is_some_and(|step| self.may_give(&mut worker, &step));
        self.workers[index] = Some(worker);
    }

    pub(super) fn call(&mut self, index: usize, fate: Fate) {
        self.gives_up_waiting(index);
        let Some(mut worker) = self.workers[index].take() else {
            return;
        };
        self.call_next(&mut worker, fate);
        self.workers[index] = Some(worker);
    }

    fn call_next(&mut self, worker: &mut Worker, fate: Fate) {
        self.begin_a_round(worker);
        if worker.steps.is_empty() || !(worker.cleared_to_send || Self::may_call(worker)) {
            return;
        }
        let step = worker.steps.remove(0);
        let is_cleared = std::mem::take(&mut worker.cleared_to_send);
        if !is_cleared && !self.may_give(worker, &step) {
            worker.unfinished = true;
            worker.left.push(step);
            worker.left.append(&mut worker.steps);
            return;
        }
        if !is_cleared {
            self.gives_nothing_that_was_taken_back(&step);
        }
        worker.unsent.remove(&step.name());
        if !self.holds(worker) {
            worker.sent_late = true;
            self.overslept.insert(step.at().clone());
        }
        let answer = self.answer(worker, &step, fate);
        self.take_in(worker, &step, &answer, fate);
    }

    fn take_in(&mut self, worker: &mut Worker, step: &Step, answer: &Answer, fate: Fate) {
        let time = Self::pass_time(worker);
        if *answer == Answer::Refused {
            let retry = match fate {
                Fate::Throttled(_) => Retry::After(std::time::Duration::ZERO),
                _ => Retry::Slowly,
            };
            worker.failed.push(failed(step, retry));
            if let Fate::Throttled(length) = fate {
                *worker.closings.get_mut(step.call()) = length;
                let rest = std::mem::take(&mut worker.steps);
                worker.left.extend(rest);
            }
            if self.azure.cluster.is_none() {
                worker.read_as_gone = Some(self.now);
                worker.steps.clear();
            }
        }
        if matches!(answer, Answer::Unknown { .. }) {
            worker.busy_until = self.now + CALL_TIMEOUT;
            worker.unanswered.insert(step.name());
        }
        if matches!(answer, Answer::Written(_)) {
            worker.landed.insert(step.name());
        }
        if matches!(answer, Answer::Unknown { .. } | Answer::Unexplained) {
            worker.failed.push(failed(step, Retry::Soon));
        }
        let effect = worker.target.effects.get_mut(&step.name()).unwrap();
        effect.answered(step.call(), answer, time);
        if *answer == Answer::NotThere && effect.open.is_some() {
            worker.failed.push(failed(step, Retry::Soon));
        }
        if *answer == Answer::Unexplained {
            self.find_what_stands(worker, step);
        }
        if *answer == Answer::NameRefused {
            self.go_on_with_the_next_name(worker, step);
        }
    }

    fn go_on_with_the_next_name(&mut self, worker: &mut Worker, refused: &Step) {
        let tried = worker.names_tried.entry(refused.at().clone()).or_default();
        *tried += 1;
        assert!(
            *tried <= MOST_NAMES,
            "a pass empties the lane's budget with names"
        );
        let goes_on = *tried < MOST_NAMES || !self.mended.tries_few_names;
        worker.refused_at.insert(refused.at().clone());
        if goes_on && let Some(next) = put_with_next_name(&worker.target, instance(), refused.at())
        {
            let principal = worker.target.id.principal;
            let place = place_in_series(instance(), next.at(), principal, next.name());
            assert!(place.is_some(), "{next:?} would not be known for ours");
            if self.write_intents(worker, std::slice::from_ref(&next)) {
                worker.refused_at.remove(refused.at());
                worker.steps.insert(0, next);
                return;
            }
        }
        if self.mended.counts_refused_names {
            worker.failed.push(failed(refused, Retry::Soon));
        }
    }

    /// I5, I6: no PUT is sent for what no live grant calls for any more.
    fn gives_nothing_that_was_taken_back(&self, step: &Step) {
        if step.call() == Call::Delete || self.before.is_some() {
            return;
        }
        let wishes = self.stored.wishes();
        let is_wished_for = wishes.get(step.at()).is_some_and(|wish| {
            let now = Expiry::At(at(self.redis()));
            wish.expiry > now
        });
        assert!(is_wished_for, "a pass gives what was taken back: {step:?}");
    }

    /// After a conflict that nothing explains, a read shows which of our own names stands there.
    fn find_what_stands(&self, worker: &mut Worker, step: &Step) {
        let mut standing = self.azure.ours.iter();
        let standing = standing.find(|(_, (place, _))| place == step.at());
        let now = at(Self::redis_of(worker));
        if let Some(effect) = standing.and_then(|(name, _)| worker.target.effects.get_mut(name)) {
            effect.known = crate::domain::effect::Known::Present;
            effect.stood = true;
            effect.written = None;
            effect.changed = now;
            worker.touched.entry(effect.name).or_insert(Call::Put);
        }
    }

    fn answer(&mut self, worker: &Worker, step: &Step, fate: Fate) -> Answer {
        let unknown = Answer::Unknown {
            until: at(Self::redis_of(worker) + CALL_TIMEOUT + SETTLE),
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
            Fate::Refused | Fate::Throttled(_) => Answer::Refused,
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
}
