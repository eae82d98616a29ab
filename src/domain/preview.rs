//! What a request would change, were it carried out: the planner's own steps, on the wishes as they would be.

use std::collections::BTreeSet;

use super::access::RoleAtScope;
use super::effect::{Call, Effect, Known, PassTime};
use super::ids::{AssignmentName, InstanceId};
use super::plan::plan;
use super::target::Target;

/// What is done to an effect, or would be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// It is made.
    Create,
    /// Its description is written anew.
    Update,
    /// It is removed.
    Delete,
    /// It is already so, and stays as it is.
    Keep,
}

/// One effect, and what is done to it, or would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedEffect {
    /// The assignment's name.
    pub name: AssignmentName,
    /// What it assigns, and where.
    pub at: RoleAtScope,
    /// What is done to it.
    pub change: Change,
    /// Whether it is the broker's own.
    pub managed: bool,
}

impl PlannedEffect {
    /// Somebody else's assignment, which stays as it is.
    #[must_use]
    pub const fn found(name: AssignmentName, at: RoleAtScope) -> Self {
        Self {
            name,
            at,
            change: Change::Keep,
            managed: false,
        }
    }
}

/// What a pass would do at `places` if the wishes were those of `target`; in the order of the places.
#[must_use]
pub fn preview(
    target: &Target,
    places: &BTreeSet<RoleAtScope>,
    instance: InstanceId,
    time: PassTime,
) -> Vec<PlannedEffect> {
    let steps = plan(target, instance, time);
    let mut planned = Vec::new();
    for at in places {
        let known: Vec<&Effect> = target.series(at).collect();
        let foreign = known.iter().find_map(|effect| match &effect.known {
            Known::Foreign(foreign) => Some(foreign.name),
            _ => None,
        });
        if let Some(name) = foreign {
            planned.push(PlannedEffect::found(name, at.clone()));
            continue;
        }
        let stands = |name| {
            known
                .iter()
                .any(|effect| effect.name == name && effect.known == Known::Present)
        };
        let refused = |name| {
            known
                .iter()
                .any(|effect| effect.name == name && effect.known == Known::NameRefused)
        };
        let here = steps
            .iter()
            .filter(|step| step.at() == at && !refused(step.name()));
        let mut changes: Vec<PlannedEffect> = here
            .map(|step| PlannedEffect {
                name: step.name(),
                at: at.clone(),
                change: match step.call() {
                    Call::Put if stands(step.name()) => Change::Update,
                    Call::Put => Change::Create,
                    Call::Delete => Change::Delete,
                },
                managed: true,
            })
            .collect();
        if changes.is_empty() {
            let standing = known.iter().filter(|effect| effect.known == Known::Present);
            changes.extend(standing.map(|effect| PlannedEffect {
                name: effect.name,
                at: at.clone(),
                change: Change::Keep,
                managed: true,
            }));
        }
        planned.append(&mut changes);
    }
    planned
}
