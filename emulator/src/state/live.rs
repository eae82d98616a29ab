//! Look-ups over the role assignments that truly exist.
//!
//! Every call asks what its caller has, and every PUT counts its subscription: walking all assignments
//! for that would make the emulator slower than Azure.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::RoleAssignment;
use crate::scope::Scope;

/// Indexes over live role assignments.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The name of each, by what it gives: Azure lets no two of them give the same.
    names: BTreeMap<Given, Uuid>,
    /// How many there are in each subscription or at each management group, by key.
    counts: BTreeMap<String, usize>,
}

/// Principal, role, and the key of the scope.
type Given = (Uuid, Uuid, String);

fn given(assignment: &RoleAssignment) -> Given {
    (
        assignment.principal,
        assignment.role,
        assignment.scope.key().to_owned(),
    )
}

impl Live {
    pub(super) fn replace(&mut self, old: Option<&RoleAssignment>, new: Option<&RoleAssignment>) {
        if let Some(old) = old {
            self.names.remove(&given(old));
            if let Some(count) = self.counts.get_mut(counted_at(&old.scope)) {
                *count -= 1;
            }
        }
        if let Some(new) = new {
            self.names.insert(given(new), new.name);
            *self
                .counts
                .entry(counted_at(&new.scope).to_owned())
                .or_default() += 1;
        }
    }

    pub(super) fn names_of(&self, principal: Uuid) -> impl Iterator<Item = Uuid> {
        let from = (principal, Uuid::nil(), String::new());
        let all = self.names.range(from..);
        all.take_while(move |((whose, _, _), _)| *whose == principal)
            .map(|(_, name)| *name)
    }

    /// The name of the assignment that gives the same to the same principal at the same place.
    pub(super) fn twin(&self, principal: Uuid, role: Uuid, scope: &Scope) -> Option<Uuid> {
        self.names
            .get(&(principal, role, scope.key().to_owned()))
            .copied()
    }

    pub(super) fn count_beside(&self, scope: &Scope) -> usize {
        self.counts
            .get(counted_at(scope))
            .copied()
            .unwrap_or_default()
    }
}

/// Subscriptions count with everything below them, management groups count alone [azure-docs limits.md].
fn counted_at(scope: &Scope) -> &str {
    scope.subscription().unwrap_or(scope.key())
}
