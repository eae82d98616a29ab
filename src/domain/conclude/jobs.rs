//! When jobs are over: with their grants, whatever else their target waits for.

use std::collections::{BTreeMap, BTreeSet};

use super::{JobChange, Outcome, Steps, is_as_wished};
use crate::domain::access::RoleAtScope;
use crate::domain::effect::{Call, Known};
use crate::domain::grant::{Ending, Grant, GrantState, role_name};
use crate::domain::ids::GrantId;
use crate::domain::job::{JobEffect, JobKind, JobState, WaitingJob};
use crate::domain::plan::Step;
use crate::domain::preview::PlannedEffect;
use crate::domain::target::{Target, Wish};

/// What was done that one of the job's grants calls for, or called for.
pub(super) fn done_for(
    job: &WaitingJob,
    target: &Target,
    done: &[PlannedEffect],
) -> Vec<JobEffect> {
    let places: BTreeSet<RoleAtScope> = target
        .grants
        .iter()
        .filter(|grant| job.grants.contains(&grant.id))
        .flat_map(Grant::calls_for)
        .collect();
    let for_job = done.iter().filter(|done| places.contains(&done.at));
    for_job
        .map(|effect| JobEffect {
            role_name: role_name(effect.at.role, &target.grants),
            effect: effect.clone(),
        })
        .collect()
}

/// What a pass means for one of the jobs that wait for its target.
pub(super) fn job_change(
    job: &WaitingJob,
    target: &Target,
    after: &BTreeMap<GrantId, Outcome>,
    wishes: &BTreeMap<RoleAtScope, Wish>,
    steps: Steps<'_>,
) -> JobChange {
    let change = |to, error| JobChange {
        id: job.id,
        to,
        error,
        grants: job.grants.clone(),
        waits_for: BTreeSet::new(),
        effects: Vec::new(),
    };
    // A grant that the target no longer has ended in an earlier pass.
    let gone = Outcome {
        state: GrantState::Ended(Ending::Revoked),
        was_active: false,
    };
    let outcomes: Vec<Outcome> = job
        .grants
        .iter()
        .map(|id| after.get(id).copied().unwrap_or(gone))
        .collect();
    let error_of = |id: &GrantId| {
        target
            .grants
            .iter()
            .find(|grant| grant.id == *id)?
            .last_error
            .clone()
    };
    let places: BTreeSet<RoleAtScope> = target
        .grants
        .iter()
        .filter(|grant| job.grants.contains(&grant.id))
        .flat_map(Grant::calls_for)
        .collect();
    let is_written = || {
        places
            .iter()
            .all(|at| is_somebody_elses(target, at) || is_as_wished(target, at, wishes, steps))
    };
    if let Some(state) = final_state(job.kind, &outcomes, is_written) {
        let error = (state == JobState::Failed)
            .then(|| job.grants.iter().find_map(error_of))
            .flatten();
        return change(state, error);
    }
    let failed = steps.failed.iter().filter(|step| places.contains(&step.at));
    let left = steps.left.iter().filter(|step| {
        let waits = *steps.waiting.get(step.call());
        waits && places.contains(step.at())
    });
    let waits_for: BTreeSet<Call> = failed
        .clone()
        .map(|step| step.call)
        .chain(left.map(Step::call))
        .collect();
    if waits_for.is_empty() {
        return change(JobState::Running, None);
    }
    // A job that only waits keeps the error that it reported before.
    let error = failed.map(|step| step.failure.clone()).next();
    JobChange {
        waits_for,
        ..change(JobState::Retrying, error)
    }
}

/// Somebody else's assignment takes no end of ours: there is nothing to write.
fn is_somebody_elses(target: &Target, at: &RoleAtScope) -> bool {
    target
        .series(at)
        .any(|effect| effect.open.is_none() && matches!(effect.known, Known::Foreign(_)))
}

/// The state in which a job of `kind` is over, once its grants have come to rest so. `is_written`: whether
/// everything that they call for stands, and says the end that is wished for.
fn final_state(
    kind: JobKind,
    outcomes: &[Outcome],
    is_written: impl FnOnce() -> bool,
) -> Option<JobState> {
    let ended = |outcome: &Outcome| matches!(outcome.state, GrantState::Ended(_));
    let failed = |outcome: &Outcome| outcome.state == GrantState::Ended(Ending::Failed);
    let rests = |outcome: &Outcome| ended(outcome) || outcome.state == GrantState::Active;
    // A grant that ended after all was given once; an end that was to be written later never was.
    let undone = |outcome: &Outcome| match kind {
        JobKind::Extend => ended(outcome),
        _ => ended(outcome) && !outcome.was_active,
    };
    match kind {
        JobKind::Revoke | JobKind::Expire => {
            outcomes.iter().all(ended).then_some(JobState::Succeeded)
        }
        JobKind::Grant | JobKind::Extend if !outcomes.iter().all(rests) => None,
        JobKind::Grant | JobKind::Extend if outcomes.iter().any(failed) => Some(JobState::Failed),
        JobKind::Grant | JobKind::Extend if outcomes.iter().any(undone) => {
            Some(JobState::Superseded)
        }
        JobKind::Extend if !is_written() => None,
        JobKind::Grant | JobKind::Extend => Some(JobState::Succeeded),
    }
}
