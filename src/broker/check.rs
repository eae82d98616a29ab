//! `CheckAccess`, the `access` question: does a principal hold every permission that an access gives,
//! however it got them?
//!
//! Azure is asked now; what this broker did so lately that Azure's lists may not show it yet is laid over
//! them. Whatever cannot be read is an error, never an answer (I9).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use uuid::Uuid;

use super::clusters::{ClusterError, Clusters, unavailable};
use super::request::RequestedAccess;
use super::roles::{RoleError, Roles, role_id};
use crate::azure::{Azure, AzureError, Filter, Place, RoleAssignment};
use crate::domain::access::{Principal, PrincipalType, RoleAtScope};
use crate::domain::cluster::{Cluster, Finding, Severity};
use crate::domain::evaluate::{Answer, Decision, Held, Managed, Question, evaluate, holds_at};
use crate::domain::grant::Expiry;
use crate::domain::ids::{
    AssignmentName, ClusterId, GrantId, InstanceId, PrincipalId, RoleDefinitionId, Scope,
};
use crate::domain::ownership::{Description, place_in_series};
use crate::domain::reason::Reason;

/// What the broker itself knows of a target: laid over what Azure says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnRecord {
    /// This broker.
    pub instance: InstanceId,
    /// The `resourceUID` of the cluster that the effects are at; empty where it is not known.
    pub cluster_uid: String,
    /// The settled effects of the target. Of unsettled ones nobody knows: there Azure's word counts.
    pub effects: Vec<OwnEffect>,
}

impl OwnRecord {
    /// What it says of `cluster`: of one that took the place of another under the same id, nothing. Azure
    /// took what was assigned at the old one away with it, and our own word for it would open the new one.
    fn of(&self, cluster: &Cluster) -> Cow<'_, Self> {
        let known = [&self.cluster_uid, &cluster.resource_uid];
        if known.iter().any(|uid| uid.is_empty()) || self.cluster_uid == cluster.resource_uid {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self {
            effects: Vec::new(),
            ..self.clone()
        })
    }
}

/// One settled effect of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnEffect {
    /// The assignment's name.
    pub name: AssignmentName,
    /// What it assigns, and where.
    pub at: RoleAtScope,
    /// Whether it is there.
    pub present: bool,
    /// When that last changed.
    pub changed: Timestamp,
    /// The grants that called for it when it was last written.
    pub grants: Vec<GrantId>,
    /// When the last of them ends by itself.
    pub expiry: Expiry,
}

/// What is asked, of a principal that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Who. The type decides how Azure is asked for the principal's groups.
    pub principal: Principal,
    /// Where.
    pub cluster: ClusterId,
    /// Does the principal hold every permission that this gives, however it got them?
    pub access: RequestedAccess,
}

/// What `CheckAccess` answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// The answer.
    pub answer: Answer,
    /// What it is true of.
    pub as_of: Timestamp,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CheckError {
    /// The cluster cannot be had.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The role that is asked about, or one that the principal holds, cannot be had.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The role assignments cannot be read.
    #[error("the role assignments cannot be read, so there is no answer: {0}")]
    Assignments(Box<AzureError>),
}

impl CheckError {
    /// The stable reason that callers see.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Cluster(error) => error.reason(),
            Self::Role(error) => error.reason(),
            Self::Assignments(error) => match error.reason() {
                reason @ Reason::AuthorizationFailed => reason,
                _ => unavailable(error),
            },
        }
    }
}

/// Answers `CheckAccess`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Check {
    azure: Azure,
    clusters: Clusters,
    roles: Roles,
    /// The longest that ARM's reads may trail its writes.
    lag: SignedDuration,
}

impl Check {
    /// `lag` is the longest that ARM's reads may trail its writes.
    #[must_use]
    pub const fn new(azure: Azure, clusters: Clusters, roles: Roles, lag: SignedDuration) -> Self {
        Self {
            azure,
            clusters,
            roles,
            lag,
        }
    }

    /// Answers as of `now`, by the clock that `own` was written with.
    ///
    /// # Errors
    /// [`CheckError`] wherever something that the answer hangs on cannot be read.
    pub async fn check_access(
        &self,
        asked: &Asked,
        own: &OwnRecord,
        now: Timestamp,
    ) -> Result<Checked, CheckError> {
        let cluster = self.clusters.get(&asked.cluster).await?;
        let own = own.of(&cluster);
        let subscription = asked.cluster.subscription();
        let role = self
            .roles
            .get(subscription, role_id(asked.access.role))
            .await?;
        let places = places(asked);
        let listed = self.listed(asked, &places).await?;
        let assignments = overlaid(listed, asked.principal.id, &own, now, self.lag);
        let held = self.held(asked, &places, assignments, &own).await?;
        let mut answer = evaluate(
            &Question {
                principal: asked.principal.id,
                cluster: &cluster,
                namespaces: &asked.access.namespaces,
                role: &role,
            },
            &held,
        );
        add_what_was_not_looked_at(&mut answer, asked);
        Ok(Checked { answer, as_of: now })
    }

    /// Everything that Azure says counts for the principal at `places`, its groups' assignments included.
    async fn listed(
        &self,
        asked: &Asked,
        places: &[Scope],
    ) -> Result<Vec<RoleAssignment>, CheckError> {
        let filter = match asked.principal.kind {
            PrincipalType::User | PrincipalType::ServicePrincipal => {
                Filter::AtScopeAssignedTo(asked.principal.id)
            }
            // assignedTo() takes no groups, and principalId does not combine with atScope() [azure.md §1].
            PrincipalType::Group => Filter::Principal(asked.principal.id),
        };
        let lists = places.iter().map(|scope| async move {
            let place = Place::Scope(scope.clone());
            self.azure
                .role_assignments(&place, filter, Uuid::new_v4())
                .await
        });
        let lists = try_join_all(lists)
            .await
            .map_err(|error| CheckError::Assignments(error.into()))?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// The assignments that matter at `places`, with what their roles give.
    async fn held(
        &self,
        asked: &Asked,
        places: &[Scope],
        assignments: Vec<RoleAssignment>,
        own: &OwnRecord,
    ) -> Result<Vec<Held>, CheckError> {
        let places: Vec<String> = places.iter().map(ToString::to_string).collect();
        let matters = |assignment: &RoleAssignment| {
            places
                .iter()
                .any(|place| holds_at(&assignment.scope, place))
        };
        let assignments: Vec<RoleAssignment> = assignments.into_iter().filter(matters).collect();
        let subscription = asked.cluster.subscription();
        let ids: BTreeSet<RoleDefinitionId> = assignments
            .iter()
            .map(|assignment| assignment.role)
            .collect();
        let read = ids.into_iter().map(|id| async move {
            let definition = self.roles.get(subscription, id).await?;
            Ok::<_, RoleError>((id, definition))
        });
        let roles: BTreeMap<RoleDefinitionId, Arc<_>> =
            try_join_all(read).await?.into_iter().collect();
        Ok(assignments
            .into_iter()
            .filter_map(|assignment| {
                let role = Arc::clone(roles.get(&assignment.role)?);
                Some(Held {
                    resource_id: assignment.resource_id(),
                    managed: managed(&assignment, own),
                    scope: assignment.scope,
                    holder: assignment.principal,
                    role,
                    conditional: assignment.condition.is_some(),
                })
            })
            .collect())
    }
}

/// Where to ask: at the cluster, which the first of AKS's two questions is about, and at each namespace.
fn places(asked: &Asked) -> Vec<Scope> {
    let mut places = vec![Scope::Cluster(asked.cluster.clone())];
    places.extend(
        asked
            .access
            .namespaces
            .iter()
            .map(|namespace| Scope::Namespace(asked.cluster.clone(), namespace.clone())),
    );
    places
}

/// Azure's lists, each assignment once, with what we did within the lag laid over them: a list that
/// trails our own writes neither hides what we assigned nor shows what we removed.
fn overlaid(
    listed: Vec<RoleAssignment>,
    principal: PrincipalId,
    own: &OwnRecord,
    now: Timestamp,
    lag: SignedDuration,
) -> Vec<RoleAssignment> {
    let mut by_name: BTreeMap<(AssignmentName, String), RoleAssignment> = listed
        .into_iter()
        .map(|assignment| ((assignment.name, assignment.scope.clone()), assignment))
        .collect();
    for effect in &own.effects {
        if now.duration_since(effect.changed) >= lag {
            continue;
        }
        let key = (effect.name, effect.at.scope.to_string());
        if effect.present {
            by_name
                .entry(key)
                .or_insert_with_key(|(name, scope)| RoleAssignment {
                    name: *name,
                    scope: scope.clone(),
                    role: effect.at.role,
                    principal,
                    principal_type: None,
                    description: None,
                    condition: None,
                });
        } else {
            by_name.remove(&key);
        }
    }
    by_name.into_values().collect()
}

/// What we know of an assignment if we made it: from our record or, for a group's, from its description,
/// which counts only under a name of our own series.
fn managed(assignment: &RoleAssignment, own: &OwnRecord) -> Option<Managed> {
    let recorded = own
        .effects
        .iter()
        .find(|effect| effect.name == assignment.name && assignment.is_at(&effect.at));
    if let Some(effect) = recorded {
        return Some(Managed {
            grants: effect.grants.clone(),
            expiry: effect.expiry,
        });
    }
    let description = Description::parse(assignment.description.as_deref()?)?;
    let at = RoleAtScope {
        role: assignment.role,
        scope: Scope::parse(&assignment.scope).ok()?,
    };
    let ours = description.instance == own.instance
        && place_in_series(own.instance, &at, assignment.principal, assignment.name).is_some();
    ours.then_some(Managed {
        grants: description.grants,
        expiry: description.expiry,
    })
}

/// Azure does not say in which other groups a group is.
fn add_what_was_not_looked_at(answer: &mut Answer, asked: &Asked) {
    let is_group = asked.principal.kind == PrincipalType::Group;
    for layer in [&mut answer.cluster_access, &mut answer.permission] {
        if layer.decision != Decision::Denied {
            layer.findings.push(deny_assignments_not_read());
        }
        if layer.decision != Decision::Allowed && is_group {
            layer.findings.push(group_memberships_not_read(asked));
        }
    }
}

/// An enforced deny assignment beats every role [azure.md §2]: an answer that has read none says so.
fn deny_assignments_not_read() -> Finding {
    Finding {
        severity: Severity::Warning,
        reason: "DENY_ASSIGNMENTS_NOT_READ",
        message: "an enforced deny assignment would beat these roles; deny assignments are not \
                  read for this answer"
            .to_owned(),
        remediation: "Where deny assignments are in use, look at the cluster's, under Access \
                      control (IAM) in the portal"
            .to_owned(),
    }
}

fn group_memberships_not_read(asked: &Asked) -> Finding {
    Finding {
        severity: Severity::Info,
        reason: "GROUP_MEMBERSHIPS_NOT_READ",
        message: format!(
            "the groups that {} is in may give it more, and are not read for this answer",
            asked.principal.id
        ),
        remediation: "Ask about a member of the group, whose groups all count".to_owned(),
    }
}

#[cfg(test)]
mod tests;
