//! Deny assignments: what somebody may not do, whatever roles they have.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Permissions, default_true};
use crate::scope::Scope;

/// The principal of a deny assignment that means everybody [pim-and-deny-assignments.txt].
pub const EVERYONE: Uuid = Uuid::nil();

/// A deny assignment. Azure's callers cannot make any: Azure makes them for deployment stacks and managed
/// applications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyAssignment {
    /// Where.
    pub scope: Scope,
    /// Its name; one is worked out from the scope and the display name if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Uuid>,
    /// What people call it (`denyAssignmentName`).
    pub display_name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What it denies: what matches a block's `actions` (or `dataActions`) and not what the block takes out.
    pub permissions: Vec<Permissions>,
    /// Object ids of whom it binds, groups with their members; [`EVERYONE`] for all.
    pub principals: Vec<Uuid>,
    /// Object ids of whom it does not bind after all, groups with their members.
    #[serde(default)]
    pub exclude_principals: Vec<Uuid>,
    /// Whether it binds at its scope only, and nothing below.
    #[serde(default)]
    pub do_not_apply_to_child_scopes: bool,
    /// Whether it denies at all.
    #[serde(default)]
    pub effect: DenyEffect,
    /// An ABAC condition; it is shown and not evaluated, and with one nothing is denied to callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Whether only Azure itself may change it.
    #[serde(default = "default_true")]
    pub system_protected: bool,
}

/// `denyAssignmentEffect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyEffect {
    /// It denies.
    #[default]
    Enforced,
    /// It is only written down what it would deny.
    Audit,
}

impl DenyAssignment {
    /// Takes control-plane actions and data actions away from everybody.
    #[must_use]
    pub fn for_everyone(scope: Scope, display_name: &str, actions: &[&str]) -> Self {
        let all = || actions.iter().map(ToString::to_string).collect();
        Self {
            scope,
            name: None,
            display_name: display_name.to_owned(),
            description: String::new(),
            permissions: vec![Permissions {
                actions: all(),
                data_actions: all(),
                ..Permissions::default()
            }],
            principals: vec![EVERYONE],
            exclude_principals: Vec::new(),
            do_not_apply_to_child_scopes: false,
            effect: DenyEffect::Enforced,
            condition: None,
            system_protected: true,
        }
    }

    /// The name that was given, or one that follows from what it is.
    pub(crate) fn name_or_derived(&self) -> Uuid {
        self.name.unwrap_or_else(|| {
            let text = format!("deny|{}|{}", self.scope.key(), self.display_name);
            Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes())
        })
    }

    /// The same under the name that it has anyhow.
    pub(crate) fn named(mut self) -> Self {
        self.name = Some(self.name_or_derived());
        self
    }

    /// Does it keep somebody with these object ids, groups included, from a control-plane action? Conditions
    /// are not evaluated: what hangs on one is not denied here.
    pub(crate) fn denies(
        &self,
        identities: &std::collections::BTreeSet<Uuid>,
        action: &str,
    ) -> bool {
        let names = |ids: &[Uuid]| {
            ids.iter()
                .any(|id| *id == EVERYONE || identities.contains(id))
        };
        self.effect == DenyEffect::Enforced
            && self.condition.is_none()
            && names(&self.principals)
            && !names(&self.exclude_principals)
            && self
                .permissions
                .iter()
                .any(|block| block.condition.is_none() && block.has_action(action))
    }
}
