//! The audit events of a pass.

use std::collections::HashMap;

use super::apply::Applied;
use crate::audit::{BROKER, Event, Outcome};
use crate::domain::conclude::Conclusion;
use crate::domain::effect::{Answer, Call};
use crate::domain::grant::{Ending, GrantState};
use crate::domain::ids::{GrantId, TargetId};
use crate::domain::plan::Step;

/// One call and its answer.
pub(super) fn of_step(target: &TargetId, step: &Step, applied: &Applied) -> String {
    let action = match step.call() {
        Call::Put => "roleAssignments/write",
        Call::Delete => "roleAssignments/delete",
    };
    let outcome = match applied.answer {
        Answer::Written(_) | Answer::Deleted | Answer::NotThere => Outcome::Applied,
        Answer::Foreign(_) | Answer::NameRefused | Answer::Refused => Outcome::Failed,
        Answer::Unknown { .. } | Answer::Unexplained => Outcome::Unknown,
    };
    let reason = match (&applied.answer, &applied.failed) {
        (_, Some(failed)) => failed.failure.reason.as_str(),
        (Answer::NotThere, None) => "NOT_THERE",
        (Answer::NameRefused, None) => "NAME_REFUSED",
        (Answer::Foreign(_), None) => "FOREIGN_ASSIGNMENT",
        _ => "",
    };
    let mut event = Event::new(BROKER, action, outcome).on(target);
    event.reason = reason;
    event.resource = step.at().assignment_id(step.name());
    event.azure_correlation_id = &applied.correlation_id;
    event.to_json()
}

/// Each grant that changes its state.
pub(super) fn of_grants(target: &TargetId, conclusion: &Conclusion) -> HashMap<GrantId, String> {
    let changed = conclusion
        .grants
        .iter()
        .filter(|change| change.from != change.to);
    changed
        .map(|change| {
            let (action, outcome) = match change.to {
                GrantState::Active => ("grant/active", Outcome::Applied),
                GrantState::Revoking(_) => ("grant/fail", Outcome::Failed),
                GrantState::Ended(Ending::Revoked) => ("grant/revoked", Outcome::Applied),
                GrantState::Ended(Ending::Expired) => ("grant/expired", Outcome::Applied),
                GrantState::Ended(Ending::Failed) => ("grant/failed", Outcome::Applied),
                GrantState::Pending => ("grant/pending", Outcome::Applied),
            };
            let mut event = Event::new(BROKER, action, outcome)
                .on(target)
                .about(change.id);
            event.reason = change.error.as_ref().map_or("", |error| &error.reason);
            (change.id, event.to_json())
        })
        .collect()
}

/// A pass whose lease was somebody else's when it came to record.
pub(super) fn of_lost_lease(target: &TargetId) -> String {
    let mut event = Event::new(BROKER, "lease/lost", Outcome::Unknown).on(target);
    event.reason = "LEASE_LOST";
    event.to_json()
}
