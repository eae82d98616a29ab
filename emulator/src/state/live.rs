//! Look-ups over the role assignments that truly exist.
//!
//! Every call asks what its caller has, and every PUT counts its subscription: walking all assignments
//! for that would make the emulator slower than Azure.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::RoleAssignment;
use crate::scope::Scope;

/// Indexes over live role assignments.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// (principal, name)
    by_principal: BTreeSet<(Uuid, Uuid)>,
    /// How many there are in each subscription or at each management group, by key.
    counts: BTreeMap<String, usize>,
}

impl Live {
    pub(super) fn replace(&mut self, old: Option<&RoleAssignment>, new: Option<&RoleAssignment>) {
        if let Some(old) = old {
            self.by_principal.remove(&(old.principal, old.name));
            if let Some(count) = self.counts.get_mut(counted_at(&old.scope)) {
                *count -= 1;
            }
        }
        if let Some(new) = new {
            self.by_principal.insert((new.principal, new.name));
            *self
                .counts
                .entry(counted_at(&new.scope).to_owned())
                .or_default() += 1;
        }
    }

    pub(super) fn names_of(&self, principal: Uuid) -> impl Iterator<Item = Uuid> {
        self.by_principal
            .range((principal, Uuid::nil())..=(principal, Uuid::max()))
            .map(|(_, name)| *name)
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
