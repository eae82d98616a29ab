//! What a pass has gathered so far: the target as it is known by now, what was touched, and what failed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::apply::{classify, failed};
use super::roles::RolesRead;
use crate::azure::{AzureError, Purpose};
use crate::domain::conclude::FailedStep;
use crate::domain::effect::{Answer, Call, Effect, Known, PassTime, PerCall};
use crate::domain::ids::AssignmentName;
use crate::domain::plan::Step;
use crate::domain::preview::{Change, PlannedEffect};
use crate::domain::target::Target;
use crate::store::{Claimed, Closing, TouchedEffect};

/// What a pass has gathered so far.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a separate observation, and they combine freely"
)]
pub(super) struct Progress {
    pub(super) target: Target,
    /// The settle deadlines as the claim returned them.
    loaded_deadlines: BTreeMap<AssignmentName, Timestamp>,
    pub(super) touched: BTreeMap<AssignmentName, TouchedEffect>,
    /// What was done, and what was found in place.
    pub(super) done: Vec<PlannedEffect>,
    pub(super) failed: Vec<FailedStep>,
    /// Steps whose call was not made.
    pub(super) left: Vec<Step>,
    pub(super) closings: Vec<Closing>,
    /// How many more calls of a kind ARM allows the subscription at once, by its latest answers.
    pub(super) remaining: Vec<(Call, u32)>,
    pub(super) audit_events: Vec<String>,
    pub(super) cluster_gone: bool,
    /// Another worker has the lease, or Redis does not answer: nothing more is called.
    pub(super) lost: bool,
    /// Steps are left that nothing stood in the way of.
    pub(super) unfinished: bool,
    /// The lane's budget does not reach before so long.
    pub(super) budget_wait: PerCall<Option<Duration>>,
    /// Whether `begin` has just answered, with no call since.
    pub(super) has_just_begun: bool,
    /// The definitions of custom roles that were read for the PUTs of this pass.
    pub(super) roles: RolesRead,
}

impl Progress {
    pub(super) fn new(claimed: &Claimed) -> Self {
        Self {
            target: claimed.target.clone(),
            loaded_deadlines: claimed.target.settle_deadlines(),
            touched: BTreeMap::new(),
            done: Vec::new(),
            failed: Vec::new(),
            left: Vec::new(),
            closings: Vec::new(),
            remaining: Vec::new(),
            audit_events: Vec::new(),
            cluster_gone: false,
            lost: false,
            unfinished: false,
            budget_wait: PerCall::default(),
            has_just_begun: false,
            roles: RolesRead::default(),
        }
    }

    /// Keeps back the steps whose calls have to wait, and returns the others.
    pub(super) fn hold_back_what_waits(
        &mut self,
        steps: Vec<Step>,
        waits: &PerCall<Duration>,
    ) -> Vec<Step> {
        let (held, others) = steps
            .into_iter()
            .partition(|step| !waits.get(step.call()).is_zero());
        self.left = held;
        others
    }

    /// How many passes in a row have failed at calls of this kind, including this one. A pass that made no such call,
    /// because the calls wait, does not change the count.
    pub(super) fn failures(&self, call: Call) -> u32 {
        let before = *self.target.failures.get(call);
        if self.cluster_gone {
            return 0;
        }
        if self.failed.iter().any(|failed| failed.call == call) {
            return before.saturating_add(1);
        }
        if self.left.iter().any(|step| step.call() == call) {
            return before;
        }
        0
    }

    /// The effect that `step` is about: as it is known, or new.
    pub(super) fn effect(&self, step: &Step, now: Timestamp) -> Effect {
        let (n, kind) = match step {
            Step::Put {
                n, principal_type, ..
            } => (*n, Some(*principal_type)),
            Step::Delete { .. } => (0, None),
        };
        let fresh = || Effect::untouched(step.name(), step.at().clone(), n, now);
        let known = self.target.effects.get(&step.name()).cloned();
        let effect = known.unwrap_or_else(fresh);
        Effect {
            holder_kind: kind.or(effect.holder_kind),
            ..effect
        }
    }

    /// Whether Azure has told calls of this kind to wait, in this pass: what is left of them is withdrawn.
    pub(super) fn is_told_to_wait(&self, call: Call) -> bool {
        self.closings.iter().any(|closing| closing.call == call)
    }

    /// Whether the pass makes no more calls, of whatever kind.
    pub(super) fn has_to_stop(&self, shutdown: &CancellationToken) -> bool {
        shutdown.is_cancelled() || self.cluster_gone || self.lost
    }

    /// Marks that the call that touches an effect is about to be sent.
    pub(super) fn mark_sent(&mut self, name: AssignmentName) {
        if let Some(touched) = self.touched.get_mut(&name) {
            touched.sent = true;
            touched.unanswered = true;
        }
    }

    /// The pass can go on no further: what it had planned and not sent is left.
    pub(super) fn hand_back(&mut self, planned: Vec<Step>) {
        for step in planned {
            let touched = self.touched.get(&step.name());
            let is_sent = touched.is_some_and(|touched| touched.sent);
            let is_known = self.left.iter().any(|left| left.name() == step.name());
            if !is_sent && !is_known {
                self.left.push(step);
            }
        }
        self.lost = true;
        self.unfinished = true;
    }

    pub(super) fn intend(&mut self, effect: Effect, call: Call) {
        self.target.effects.insert(effect.name, effect.clone());
        let touched = untouched(effect, call, &self.loaded_deadlines);
        self.touched.insert(touched.effect.name, touched);
    }

    /// A read showed that an effect of our series stands, whose record says otherwise or is not there.
    pub(super) fn found(&mut self, fresh: &Effect) {
        let effect = self
            .target
            .effects
            .entry(fresh.name)
            .or_insert_with(|| fresh.clone());
        effect.known = Known::Present;
        effect.stood = true;
        effect.written = None;
        effect.changed = fresh.changed;
        let found = TouchedEffect {
            sent: true,
            ..untouched(effect.clone(), Call::Put, &self.loaded_deadlines)
        };
        self.touched
            .entry(fresh.name)
            .and_modify(|touched| touched.effect = found.effect.clone())
            .or_insert(found);
    }

    /// The cluster is gone, and whatever is known of effects there goes by that.
    pub(super) fn all_went_with_the_cluster(&mut self, time: PassTime) {
        for effect in self.target.effects.values_mut() {
            effect.went_with_its_cluster(time);
            let answered = untouched(effect.clone(), Call::Delete, &self.loaded_deadlines);
            self.touched
                .entry(effect.name)
                .and_modify(|touched| {
                    touched.effect = effect.clone();
                })
                .or_insert(answered);
        }
    }

    /// None of `steps` could be begun, because of `error`.
    pub(super) fn all_failed(&mut self, steps: &[Step], error: &AzureError, now: Timestamp) {
        for step in steps {
            let purpose = Purpose::from(step.call());
            let (failure, retry) = classify(&self.target, step.at(), error, purpose, now);
            self.failed.push(failed(step, failure, retry));
        }
    }
}

/// An effect that a pass is about to touch by a call that it has not sent.
fn untouched(
    effect: Effect,
    call: Call,
    loaded_deadlines: &BTreeMap<AssignmentName, Timestamp>,
) -> TouchedEffect {
    TouchedEffect {
        loaded_deadline: loaded_deadlines.get(&effect.name).copied(),
        effect,
        call,
        sent: false,
        unanswered: false,
        landed: false,
    }
}

/// What a call did, from what was known before it and what is known after.
pub(super) fn done(
    step: &Step,
    before: &Known,
    after: &Effect,
    answer: &Answer,
) -> Option<PlannedEffect> {
    let ours = |change| PlannedEffect {
        name: step.name(),
        at: step.at().clone(),
        change,
        managed: true,
    };
    match (answer, before) {
        (Answer::Written(_), Known::Present) => Some(ours(Change::Update)),
        (Answer::Written(_), _) => Some(ours(Change::Create)),
        // A DELETE that meets it was of our own name, which was never used: theirs is left alone.
        (Answer::Foreign(foreign), _)
        | (Answer::Deleted | Answer::NotThere, Known::Foreign(foreign)) => {
            Some(PlannedEffect::found(foreign.name, step.at().clone()))
        }
        (Answer::Deleted, _) => Some(ours(Change::Delete)),
        (Answer::NotThere, Known::Present) if after.known == Known::Absent => {
            Some(ours(Change::Delete))
        }
        _ => None,
    }
}
