//! What a pass means for grants and jobs: known effects × wishes × what failed → changes, as data.
//!
//! Answers are per effect. A grant is active when everything it calls for stands; it has ended when
//! everything that only it called for is gone *and settled*; a job ends with its grants, whatever else
//! the target waits for.

mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::access::{PrincipalType, RoleAtScope};
use super::effect::{Call, Effect, Known, PassTime, PerCall};
use super::grant::{Ending, Grant, GrantState};
use super::ids::{AssignmentName, GrantId, JobId};
use super::job::{Failure, JobEffect, JobState};
use super::plan::Step;
use super::preview::PlannedEffect;
use super::reason::Reason;
use super::target::{Target, Wish};
use jobs::{done_for, job_change};

/// A step that did not do what it was meant to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailedStep {
    /// Which role, where.
    pub at: RoleAtScope,
    /// Which call.
    pub call: Call,
    /// The principal's type that a PUT claimed.
    pub principal_type: Option<PrincipalType>,
    /// What went wrong; `retryable` is false where trying again cannot help.
    pub failure: Failure,
    /// When to try again.
    pub retry: Retry,
}

/// What became of the steps that a pass had planned, besides the effects themselves.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a> {
    /// What was done, and what was found in place.
    pub done: &'a [PlannedEffect],
    /// Steps that did not do what they were meant to.
    pub failed: &'a [FailedStep],
    /// Steps whose call the pass did not make: their bucket waits, or the pass handed them back. What they were to
    /// write or to verify does not count as done.
    pub left: &'a [Step],
    /// Whether calls of a kind wait.
    pub waiting: PerCall<bool>,
}

impl Steps<'_> {
    /// The steps of a pass that planned nothing, or did everything that it planned.
    pub const NONE: Self = Self {
        done: &[],
        failed: &[],
        left: &[],
        waiting: PerCall {
            writes: false,
            deletes: false,
        },
    };

    /// Whether a PUT of this pass leaves it open what stands at a place.
    fn leave_in_doubt(&self, at: &RoleAtScope) -> bool {
        let failed = |step: &FailedStep| step.call == Call::Put && step.at == *at;
        let left = |step: &Step| step.call() == Call::Put && step.at() == at;
        self.failed.iter().any(failed) || self.left.iter().any(left)
    }
}

/// How soon a failed step is tried again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Retry {
    /// By ordinary backoff.
    Soon,
    /// Somebody else has to put something right first.
    Slowly,
    /// Not before so long has passed, as Azure said.
    After(Duration),
}

/// Everything that a pass changes besides its effects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conclusion {
    /// Grants that change.
    pub grants: Vec<GrantChange>,
    /// Jobs that change.
    pub jobs: Vec<JobChange>,
    /// Effects that tell nothing any more.
    pub forget: Vec<AssignmentName>,
    /// Whether a grant failed: its taking back is a new wish.
    pub wishes_changed: bool,
}

/// A change of one grant, made only if it still is in the state that the pass loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantChange {
    /// Which.
    pub id: GrantId,
    /// The state that the pass loaded.
    pub from: GrantState,
    /// The new one; the same where only the error changes.
    pub to: GrantState,
    /// What went wrong last; `None` clears it.
    pub error: Option<Failure>,
    /// Effects that must still be settled when the change is recorded.
    pub settled: Vec<AssignmentName>,
    /// Whether `record` puts off the ending if the desired state has changed meanwhile, because other grants still call
    /// for some of the grant's effects. After [`MOST_PUT_OFF`] times it is no longer put off.
    pub shared: bool,
}

/// How often in a row an ending that rests on other grants is put off because the desired state has changed meanwhile.
/// After that, the state at the pass's claim decides, so that a steady stream of requests cannot put the ending off for
/// ever.
///
/// This is safe. At the claim, everything that only this grant called for was gone and settled. Other grants that were
/// live then called for what still stands. If one of those has been ended since, its own ending waits for its effects,
/// and the same record leaves that ending untouched. So every effect has an ending that waits for it. The grant ends as
/// it would have ended if this pass had recorded a moment before the other request came.
pub const MOST_PUT_OFF: u32 = 3;

/// A change of one job on this target, made only if every grant it rests on changed as concluded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobChange {
    /// Which.
    pub id: JobId,
    /// The new state on this target.
    pub to: JobState,
    /// What went wrong last.
    pub error: Option<Failure>,
    /// The grants it rests on.
    pub grants: BTreeSet<GrantId>,
    /// The calls that a retrying job waits for. It goes on as soon as the first of them may be made.
    pub waits_for: BTreeSet<Call>,
    /// What the pass did for it.
    pub effects: Vec<JobEffect>,
}

/// What a pass went by, besides the target.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The pass's times.
    pub time: PassTime,
    /// How long a grant is tried before it fails.
    pub grant_give_up: Duration,
    /// The cluster is gone, and everything on it: the effects say so already
    /// ([`Effect::went_with_its_cluster`]).
    pub cluster_gone: bool,
}

/// Where a pass leaves a grant.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    state: GrantState,
    was_active: bool,
}

/// Concludes a pass, from the target's effects after the answers, and from what became of the steps.
#[must_use]
pub fn conclude(target: &Target, steps: Steps<'_>, terms: Terms) -> Conclusion {
    let wishes = target.wishes();
    let mut conclusion = Conclusion::default();
    let mut after: BTreeMap<GrantId, Outcome> = BTreeMap::new();
    let changes = if terms.cluster_gone {
        target
            .grants
            .iter()
            .filter_map(ended_with_its_cluster)
            .collect()
    } else {
        changes(target, &wishes, steps, terms)
    };
    for (grant, change) in changes {
        conclusion.wishes_changed |= fails(&change);
        after.insert(
            grant.id,
            Outcome {
                state: change.to,
                was_active: grant.was_active || change.to == GrantState::Active,
            },
        );
        if change.to != change.from || change.error != grant.last_error {
            conclusion.grants.push(change);
        }
    }
    conclusion.jobs = target
        .jobs
        .iter()
        .map(|job| JobChange {
            effects: done_for(job, target, steps.done),
            ..job_change(job, target, &after, &wishes, steps)
        })
        .collect();
    conclusion.forget = target
        .effects
        .values()
        // Also of a cluster that is gone: lists go on showing what was on it, and what may still come would meet another
        // cluster that is made under its id.
        .filter(|effect| {
            let is_wished_for = !terms.cluster_gone && wishes.contains_key(&effect.at);
            effect.is_forgettable(terms.time) && !is_wished_for
        })
        .map(|effect| effect.name)
        .collect();
    conclusion
}

/// A target after its pass, with its grants as `conclusion` leaves them.
#[must_use]
pub fn concluded(target: &Target, conclusion: &Conclusion) -> Target {
    let mut after = target.clone();
    for change in &conclusion.grants {
        for grant in after
            .grants
            .iter_mut()
            .filter(|grant| grant.id == change.id)
        {
            grant.state = change.to;
        }
    }
    after
        .grants
        .retain(|grant| !matches!(grant.state, GrantState::Ended(_)));
    after
}

/// Live grants first: one that fails calls for nothing any more, and what it shared with an ending one
/// must then be gone before that one has ended.
fn changes<'a>(
    target: &'a Target,
    wishes: &BTreeMap<RoleAtScope, Wish>,
    steps: Steps<'_>,
    terms: Terms,
) -> Vec<(&'a Grant, GrantChange)> {
    let mut changes: Vec<(&Grant, GrantChange)> = target
        .grants
        .iter()
        .filter(|grant| grant.state.is_live())
        .map(|grant| (grant, live_change(grant, target, wishes, steps, terms)))
        .collect();
    let failing: BTreeSet<GrantId> = changes
        .iter()
        .filter(|(_, change)| fails(change))
        .map(|(grant, _)| grant.id)
        .collect();
    let remaining = target.wishes_without(&failing);
    let ending = target.grants.iter().filter_map(|grant| match grant.state {
        GrantState::Revoking(how) => {
            Some((grant, ending_change(grant, how, target, &remaining, steps)))
        }
        _ => None,
    });
    changes.extend(ending);
    changes
}

fn fails(change: &GrantChange) -> bool {
    change.from == GrantState::Pending && change.to == GrantState::Revoking(Ending::Failed)
}

fn unchanged(grant: &Grant) -> GrantChange {
    GrantChange {
        id: grant.id,
        from: grant.state,
        to: grant.state,
        error: grant.last_error.clone(),
        settled: Vec::new(),
        shared: false,
    }
}

fn ended_with_its_cluster(grant: &Grant) -> Option<(&Grant, GrantChange)> {
    let ending = match grant.state {
        GrantState::Revoking(ending) => ending,
        GrantState::Pending | GrantState::Active => Ending::Revoked,
        GrantState::Ended(_) => return None,
    };
    let gone = || {
        let cluster = &grant.target.cluster;
        let message = format!("cluster {cluster} no longer exists; the grant ended with it");
        Failure::lasting(Reason::ClusterGone, message)
    };
    let error = if grant.state.is_live() {
        Some(gone())
    } else {
        grant.last_error.clone()
    };
    let change = GrantChange {
        to: GrantState::Ended(ending),
        error,
        ..unchanged(grant)
    };
    Some((grant, change))
}

fn live_change(
    grant: &Grant,
    target: &Target,
    wishes: &BTreeMap<RoleAtScope, Wish>,
    steps: Steps<'_>,
    terms: Terms,
) -> GrantChange {
    let failure = failure_of(grant, steps.failed);
    match (grant.state, failure) {
        (GrantState::Pending, failure) => {
            pending_change(grant, target, wishes, steps, failure, terms)
        }
        (_, Some(failure)) => GrantChange {
            error: Some(failure),
            ..unchanged(grant)
        },
        // The step was not made, so an earlier failure may still hold.
        (_, None) if is_left(grant, steps.left) => unchanged(grant),
        // Nothing failed that it calls for: whatever did before has been mended.
        (_, None) => GrantChange {
            error: None,
            ..unchanged(grant)
        },
    }
}

fn ending_change(
    grant: &Grant,
    how: Ending,
    target: &Target,
    wishes: &BTreeMap<RoleAtScope, Wish>,
    steps: Steps<'_>,
) -> GrantChange {
    let calls_for = grant.calls_for();
    if !is_taken_back(&calls_for, target, wishes) {
        return GrantChange {
            error: failure_of(grant, steps.failed).or_else(|| grant.last_error.clone()),
            ..unchanged(grant)
        };
    }
    let (shared, own): (Vec<_>, Vec<_>) = calls_for.iter().partition(|at| wishes.contains_key(*at));
    let put_off = target.put_off.get(&grant.id).copied().unwrap_or(0);
    GrantChange {
        to: GrantState::Ended(how),
        settled: names_at(target, own.into_iter()),
        shared: !shared.is_empty() && put_off < MOST_PUT_OFF,
        ..unchanged(grant)
    }
}

/// Whether the pass left a step that the grant calls for.
fn is_left(grant: &Grant, left: &[Step]) -> bool {
    let calls_for = grant.calls_for();
    left.iter().any(|step| calls_for.contains(step.at()))
}

/// What stands in the grant's way, the worst first.
fn failure_of(grant: &Grant, failed: &[FailedStep]) -> Option<Failure> {
    let calls_for = grant.calls_for();
    failed
        .iter()
        .filter(|step| calls_for.contains(&step.at))
        .max_by_key(|step| !step.failure.retryable)
        .map(|step| step.failure.clone())
}

fn pending_change(
    grant: &Grant,
    target: &Target,
    wishes: &BTreeMap<RoleAtScope, Wish>,
    steps: Steps<'_>,
    failure: Option<Failure>,
    terms: Terms,
) -> GrantChange {
    let calls_for = grant.calls_for();
    // After its end no PUT is planned: what stands there may be what an earlier pass saw.
    let is_in_time = !grant.expiry.has_passed(terms.time.now);
    let is_there = |at| is_as_wished(target, at, wishes, steps);
    if is_in_time && calls_for.iter().all(is_there) {
        return GrantChange {
            to: GrantState::Active,
            error: None,
            ..unchanged(grant)
        };
    }
    let given_up = grant
        .create_time
        .saturating_add(terms.grant_give_up)
        .is_ok_and(|end| end <= terms.time.now);
    let fatal = steps
        .failed
        .iter()
        .find(|step| {
            !step.failure.retryable
                && step.call == Call::Put
                && calls_for.contains(&step.at)
                && step
                    .principal_type
                    .is_none_or(|claimed| claimed == grant.principal.kind)
        })
        .map(|step| step.failure.clone())
        .or_else(|| conditional_assignment(target, &calls_for))
        .or_else(|| failure.clone().filter(|_| given_up));
    match fatal {
        Some(error) => GrantChange {
            to: GrantState::Revoking(Ending::Failed),
            error: Some(error),
            ..unchanged(grant)
        },
        None => GrantChange {
            error: failure.or_else(|| grant.last_error.clone()),
            ..unchanged(grant)
        },
    }
}

/// Somebody else's assignment counts only without a condition: one with a condition is not what was
/// asked for, and stands in the way of ours.
fn conditional_assignment(target: &Target, calls_for: &BTreeSet<RoleAtScope>) -> Option<Failure> {
    target.effects.values().find_map(|effect| match &effect.known {
        Known::Foreign(foreign) if foreign.conditional && calls_for.contains(&effect.at) => Some(Failure {
            metadata: BTreeMap::from([("role_assignment".to_owned(), foreign.name.to_string())]),
            ..Failure::lasting(Reason::ConditionalAssignmentExists, format!(
                "role assignment {} at {} gives the same role under a condition, and Azure allows no second one; \
                 remove it, or lift its condition",
                foreign.name, effect.at.scope
            ))
        }),
        _ => None,
    })
}

/// Whether what is wished for at a place stands, and no PUT of this pass leaves that in doubt.
fn is_as_wished(
    target: &Target,
    at: &RoleAtScope,
    wishes: &BTreeMap<RoleAtScope, Wish>,
    steps: Steps<'_>,
) -> bool {
    stands(target, at, wishes.get(at)) && !steps.leave_in_doubt(at)
}

fn stands(target: &Target, at: &RoleAtScope, wish: Option<&Wish>) -> bool {
    target.series(at).any(|effect| {
        effect.open.is_none()
            && match &effect.known {
                Known::Present => is_described(effect, wish),
                Known::Foreign(foreign) => !foreign.conditional,
                Known::Absent | Known::NameRefused => false,
            }
    })
}

/// Whether the effect's own description says the end that the live grants call for.
fn is_described(effect: &Effect, wish: Option<&Wish>) -> bool {
    match (&effect.written, wish) {
        (Some(written), Some(wish)) => written.expiry == wish.expiry,
        _ => false,
    }
}

/// What only ended grants called for must be gone and settled; what a live one still calls for must
/// not say on itself that it lasts longer than that one.
fn is_taken_back(
    calls_for: &BTreeSet<RoleAtScope>,
    target: &Target,
    wishes: &BTreeMap<RoleAtScope, Wish>,
) -> bool {
    calls_for.iter().all(|at| {
        let wish = wishes.get(at);
        target.series(at).all(|effect| match wish {
            None => effect.is_gone_and_settled(),
            Some(_) => match effect.known {
                Known::Present => effect.open.is_none() && is_described(effect, wish),
                Known::Absent | Known::NameRefused | Known::Foreign(_) => {
                    effect.open != Some(Call::Put)
                }
            },
        })
    })
}

fn names_at<'a>(
    target: &Target,
    places: impl Iterator<Item = &'a RoleAtScope>,
) -> Vec<AssignmentName> {
    places
        .flat_map(|at| {
            target
                .series(at)
                .map(|effect| effect.name)
                .collect::<Vec<_>>()
        })
        .collect()
}
