//! What to do: wishes × known effects × now → steps, as data.
//!
//! The queue says which target to look at, never what to do: that is worked out here, from the wishes
//! at the moment of doing. So a job delivered twice, late, or by a worker that died half-way is
//! harmless, and a grant that was revoked before any call was begun collapses to nothing.

use super::access::{PrincipalType, RoleAtScope};
use super::effect::{Call, Effect, Known, PassTime, PerCall};
use super::ids::{AssignmentName, InstanceId};
use super::ownership::{Description, LONGEST_SERIES, assignment_name};
use super::target::{Target, Wish};

/// One call to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Create the assignment, or write its description anew.
    Put {
        /// Under which name.
        name: AssignmentName,
        /// What it assigns, and where.
        at: RoleAtScope,
        /// The name's place in its series.
        n: u32,
        /// What its description is to say.
        description: Description,
        /// The type that Azure wants beside the object id.
        principal_type: PrincipalType,
    },
    /// Remove the assignment.
    Delete {
        /// Under which name.
        name: AssignmentName,
        /// What it assigns, and where.
        at: RoleAtScope,
    },
}

impl Step {
    /// The name of the effect that it touches.
    #[must_use]
    pub const fn name(&self) -> AssignmentName {
        match self {
            Self::Put { name, .. } | Self::Delete { name, .. } => *name,
        }
    }

    /// What the effect assigns, and where.
    #[must_use]
    pub const fn at(&self) -> &RoleAtScope {
        match self {
            Self::Put { at, .. } | Self::Delete { at, .. } => at,
        }
    }

    /// Which call it makes.
    #[must_use]
    pub const fn call(&self) -> Call {
        match self {
            Self::Put { .. } => Call::Put,
            Self::Delete { .. } => Call::Delete,
        }
    }
}

/// The steps that a pass over `target` takes: deletes first, because taking access away goes first.
///
/// If all grants that call for an assignment have passed their end, the plan no longer writes it. It is removed as soon
/// as the clock has ended those grants (I6).
#[must_use]
pub fn plan(target: &Target, instance: InstanceId, time: PassTime) -> Vec<Step> {
    let wishes = target.wishes();
    let mut deletes = Vec::new();
    let mut puts = Vec::new();
    for (at, wish) in &wishes {
        let carrier = carrier(target, at);
        let n = carrier.map_or_else(|| next_n(target, at), |effect| effect.n);
        let own_name = assignment_name(instance, at, target.id.principal, n);
        if carrier.is_none_or(|effect| needs_put(effect, wish, time))
            && !wish.expiry.has_passed(time.now)
        {
            puts.push(put(target, instance, at, n, wish));
        }
        let others = target
            .series(at)
            .filter(|effect| effect.name != own_name)
            .filter(|effect| {
                effect.open.is_some()
                    || effect.known == Known::Present
                    || effect.is_due(time.claimed)
            });
        deletes.extend(others.map(delete));
    }
    let unwanted = target
        .effects
        .values()
        .filter(|effect| !wishes.contains_key(&effect.at));
    deletes.extend(
        unwanted
            .filter(|effect| needs_delete(effect, time))
            .map(delete),
    );
    deletes.append(&mut puts);
    deletes
}

/// The step that tries the next name of the series, after Azure refused one for good; `None` if the series has no other
/// name.
#[must_use]
pub fn put_with_next_name(target: &Target, instance: InstanceId, at: &RoleAtScope) -> Option<Step> {
    let wish = target.wishes().remove(at)?;
    let next = put(target, instance, at, next_n(target, at), &wish);
    let is_new = !target.effects.contains_key(&next.name());
    is_new.then_some(next)
}

/// Which calls the next pass would make, if it saw `target` as it is now.
#[must_use]
pub fn needed_calls(target: &Target, instance: InstanceId, time: PassTime) -> PerCall<bool> {
    let steps = plan(target, instance, time);
    PerCall::from_fn(|call| steps.iter().any(|step| step.call() == call))
}

/// The effect of the series that carries the wish, or is about to: the one that stands, else the one
/// whose PUT has had no definite answer, else none yet.
fn carrier<'a>(target: &'a Target, at: &'a RoleAtScope) -> Option<&'a Effect> {
    let stands = |effect: &&Effect| matches!(effect.known, Known::Present | Known::Foreign(_));
    let usable = |effect: &&Effect| effect.known == Known::Absent;
    let tried = |effect: &&Effect| usable(effect) && effect.open == Some(Call::Put);
    target
        .series(at)
        .find(stands)
        .or_else(|| target.series(at).find(tried))
        .or_else(|| target.series(at).find(usable))
}

/// The first place in the series that no effect of the record has. If Azure has refused all names, the last place: the
/// broker asks for that name again, with backoff, instead of using one that it would not recognise.
fn next_n(target: &Target, at: &RoleAtScope) -> u32 {
    let next = target.series(at).map(|effect| effect.n + 1).max();
    next.unwrap_or(0).min(LONGEST_SERIES - 1)
}

fn needs_put(effect: &Effect, wish: &Wish, time: PassTime) -> bool {
    let stands = match &effect.known {
        Known::Present => effect
            .written
            .as_ref()
            .is_some_and(|written| written.expiry == wish.expiry),
        // What we know of somebody else's assignment is as old as the pass that found it: a new grant
        // is not called active on the strength of it.
        Known::Foreign(_) => !wish.pending,
        Known::Absent | Known::NameRefused => false,
    };
    !stands || effect.open.is_some() || effect.is_due(time.claimed)
}

/// An unwanted effect is deleted whatever we believe is there, until it is known to be gone; then once
/// more when its deadline is over.
fn needs_delete(effect: &Effect, time: PassTime) -> bool {
    effect.known != Known::Absent || effect.open.is_some() || effect.is_due(time.claimed)
}

fn put(target: &Target, instance: InstanceId, at: &RoleAtScope, n: u32, wish: &Wish) -> Step {
    Step::Put {
        name: assignment_name(instance, at, target.id.principal, n),
        at: at.clone(),
        n,
        description: Description {
            instance,
            expiry: wish.expiry,
            grants: wish.grants.clone(),
        },
        principal_type: wish.principal_type,
    }
}

fn delete(effect: &Effect) -> Step {
    Step::Delete {
        name: effect.name,
        at: effect.at.clone(),
    }
}
