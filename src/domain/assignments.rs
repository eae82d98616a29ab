//! The role assignments of a subscription, in as little room as a million of them ask for: scopes are kept once, and
//! of a description only what it says of us.

use std::collections::HashMap;
use std::sync::Arc;

use super::access::PrincipalType;
use super::condition::Condition;
use super::grant::Expiry;
use super::ids::{AssignmentName, PrincipalId, RoleDefinitionId};

/// A role assignment, as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub name: AssignmentName,
    /// Where it holds, in lower case.
    pub scope: String,
    /// Its role.
    pub role: RoleDefinitionId,
    /// Who has it.
    pub holder: PrincipalId,
    /// What kind of principal that is; `None` for kinds that the broker does not deal in.
    pub holder_kind: Option<PrincipalType>,
    /// The ABAC condition on which it hangs.
    pub condition: Option<String>,
    /// When the broker ends it, if the broker made it.
    pub ours: Option<Expiry>,
}

/// A role assignment, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Its name.
    pub name: AssignmentName,
    /// Who has it.
    pub holder: PrincipalId,
    /// What kind of principal that is; `None` for kinds that the broker does not deal in.
    pub holder_kind: Option<PrincipalType>,
    /// Its role.
    pub role: RoleDefinitionId,
    /// The ABAC condition on which it hangs.
    pub condition: Option<Arc<Condition>>,
    /// When the broker ends it, if the broker made it.
    pub ours: Option<Expiry>,
    scope: u32,
}

impl Assignment {
    /// Where its scope is, of [`Assignments::scopes`].
    #[must_use]
    pub const fn scope_index(&self) -> usize {
        self.scope as usize
    }

    /// When it ends by the broker's own clock.
    #[must_use]
    pub fn end(&self) -> Expiry {
        self.ours.unwrap_or(Expiry::Never)
    }
}

/// Role assignments, each once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Assignments {
    rows: Box<[Assignment]>,
    scopes: Box<[Box<str>]>,
}

impl Assignments {
    /// Takes them in. What several lists tell of counts once, as the first tells of it: names are unique in a tenant
    /// [azure.md §1]. In the order of their names, so that the same ones are the same however they were listed.
    #[must_use]
    pub fn new(listed: impl IntoIterator<Item = Listed>) -> Self {
        let mut scopes: HashMap<Box<str>, u32> = HashMap::new();
        let mut rows = Vec::new();
        let mut listed: Vec<Listed> = listed.into_iter().collect();
        listed.sort_by_key(|row| row.name);
        listed.dedup_by_key(|row| row.name);
        for row in listed {
            let next = u32::try_from(scopes.len()).unwrap_or(u32::MAX);
            let scope = *scopes.entry(row.scope.into()).or_insert(next);
            rows.push(Assignment {
                name: row.name,
                holder: row.holder,
                holder_kind: row.holder_kind,
                role: row.role,
                condition: row.condition.map(|text| Arc::new(Condition::parse(&text))),
                ours: row.ours,
                scope,
            });
        }
        let mut in_order: Vec<(u32, Box<str>)> =
            scopes.into_iter().map(|(text, at)| (at, text)).collect();
        in_order.sort_unstable();
        Self {
            rows: rows.into(),
            scopes: in_order.into_iter().map(|(_, text)| text).collect(),
        }
    }

    /// All of them.
    #[must_use]
    pub const fn rows(&self) -> &[Assignment] {
        &self.rows
    }

    /// The scopes at which they are, in lower case.
    #[must_use]
    pub const fn scopes(&self) -> &[Box<str>] {
        &self.scopes
    }

    /// Where an assignment of these holds, in lower case.
    #[must_use]
    pub fn scope_of(&self, row: &Assignment) -> &str {
        self.scopes.get(row.scope_index()).map_or("", |scope| scope)
    }
}

/// The ARM id of the role assignment of this name at this scope.
#[must_use]
pub fn resource_id(scope: &str, name: AssignmentName) -> String {
    let scope = scope.trim_end_matches('/');
    format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}")
}
