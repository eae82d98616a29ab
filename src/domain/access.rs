//! What a grant gives: a role, on the whole cluster or on some of its namespaces.

use std::collections::BTreeSet;

use super::ids::{AssignmentName, ClusterId, Namespace, PrincipalId, RoleDefinitionId, Scope};
use super::role::{BuiltInRole, Role};

/// Who can hold access. Azure wants the type beside the object id, so that a principal made seconds
/// ago, which its directory replicas have not seen, can be assigned a role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PrincipalType {
    /// A person.
    User,
    /// A security group.
    Group,
    /// An application's identity, or a managed identity.
    ServicePrincipal,
}

/// Who holds access.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Principal {
    /// The Entra object id: its only identity. The rest is for people, but for the type.
    pub id: PrincipalId,
    /// What kind of object it is.
    pub kind: PrincipalType,
    /// As in the directory when it was resolved; empty where no look-up was made.
    pub display_name: String,
    /// As in the directory when it was resolved; empty for what is not a user, or where no look-up was made.
    pub user_principal_name: String,
}

impl Principal {
    /// A principal of which nothing is known but what a request says of it.
    #[must_use]
    pub const fn unnamed(id: PrincipalId, kind: PrincipalType) -> Self {
        Self {
            id,
            kind,
            display_name: String::new(),
            user_principal_name: String::new(),
        }
    }
}

/// A role on a cluster, or on some of its namespaces.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Access {
    /// The role.
    pub role: Role,
    /// Empty: the whole cluster. At most [`MAX_NAMESPACES`].
    pub namespaces: BTreeSet<Namespace>,
}

/// How many namespaces one access may name.
pub const MAX_NAMESPACES: usize = 20;

/// One role at one scope: what one role assignment of ours carries out.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RoleAtScope {
    /// The role's GUID.
    pub role: RoleDefinitionId,
    /// Where.
    pub scope: Scope,
}

impl RoleAtScope {
    /// The ARM id of the role assignment of this name that carries it out.
    #[must_use]
    pub fn assignment_id(&self, name: AssignmentName) -> String {
        let scope = &self.scope;
        format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}")
    }
}

impl Access {
    /// Every role assignment that this access calls for on `cluster`: its own role at the cluster or
    /// at each namespace, and *Cluster User* at the cluster, without which nobody fetches a kubeconfig.
    #[must_use]
    pub fn calls_for(&self, cluster: &ClusterId) -> BTreeSet<RoleAtScope> {
        let mut wanted = BTreeSet::from([RoleAtScope {
            role: BuiltInRole::ClusterUser.id(),
            scope: Scope::Cluster(cluster.clone()),
        }]);
        let role = self.role.id();
        if self.namespaces.is_empty() {
            wanted.insert(RoleAtScope {
                role,
                scope: Scope::Cluster(cluster.clone()),
            });
        }
        wanted.extend(self.namespaces.iter().map(|namespace| RoleAtScope {
            role,
            scope: Scope::Namespace(cluster.clone(), namespace.clone()),
        }));
        wanted
    }
}
