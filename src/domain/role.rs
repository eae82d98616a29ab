//! Azure roles: the few that the broker may ever assign (I8), and what a role definition gives.

use std::fmt;

use uuid::uuid;

use super::ids::RoleDefinitionId;

/// The built-in roles that the broker assigns, and no others. Their GUIDs are the same in every
/// tenant and cloud [Azure's built-in roles, containers].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum BuiltInRole {
    /// May fetch the cluster's credentials and nothing else.
    ClusterUser,
    /// May read most objects, no secrets.
    RbacReader,
    /// May read and write most objects, secrets included.
    RbacWriter,
    /// Everything but writing and deleting quotas and namespaces.
    RbacAdmin,
    /// Everything.
    RbacClusterAdmin,
}

impl BuiltInRole {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ClusterUser,
        Self::RbacReader,
        Self::RbacWriter,
        Self::RbacAdmin,
        Self::RbacClusterAdmin,
    ];

    /// The role definition's GUID.
    #[must_use]
    pub const fn id(self) -> RoleDefinitionId {
        RoleDefinitionId::new(match self {
            Self::ClusterUser => uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f"),
            Self::RbacReader => uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db"),
            Self::RbacWriter => uuid!("a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb"),
            Self::RbacAdmin => uuid!("3498e952-d568-435e-9b2c-8d77e338d7f7"),
            Self::RbacClusterAdmin => uuid!("b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b"),
        })
    }

    /// The display name, as Azure writes it.
    #[must_use]
    pub const fn display_name(self) -> &'static str {
        match self {
            Self::ClusterUser => "Azure Kubernetes Service Cluster User Role",
            Self::RbacReader => "Azure Kubernetes Service RBAC Reader",
            Self::RbacWriter => "Azure Kubernetes Service RBAC Writer",
            Self::RbacAdmin => "Azure Kubernetes Service RBAC Admin",
            Self::RbacClusterAdmin => "Azure Kubernetes Service RBAC Cluster Admin",
        }
    }

    /// The built-in role with this GUID, if it is one of these.
    #[must_use]
    pub fn from_id(id: RoleDefinitionId) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.id() == id)
    }
}

impl fmt::Display for BuiltInRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.display_name())
    }
}

/// *Azure Kubernetes Service Cluster Admin Role* hands out the local admin credential, which goes round
/// everything that the broker is for. It is never assigned.
pub const CLUSTER_ADMIN_ROLE: RoleDefinitionId =
    RoleDefinitionId::new(uuid!("0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8"));

/// A role that the broker may assign: one of the built-in five, or a custom one whose definition passed
/// [`RoleDefinition::check_assignable`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Role {
    /// One of the five.
    BuiltIn(BuiltInRole),
    /// A custom role of the tenant's.
    Custom {
        /// Its GUID.
        id: RoleDefinitionId,
        /// Its display name when it was last read.
        name: String,
    },
}

impl Role {
    /// The role definition's GUID.
    #[must_use]
    pub const fn id(&self) -> RoleDefinitionId {
        match self {
            Self::BuiltIn(role) => role.id(),
            Self::Custom { id, .. } => *id,
        }
    }

    /// The display name.
    #[must_use]
    pub fn display_name(&self) -> &str {
        match self {
            Self::BuiltIn(role) => role.display_name(),
            Self::Custom { name, .. } => name,
        }
    }
}

/// One block of a role definition. A block gives an action that matches one of its patterns and none
/// of the patterns that it takes out; blocks add up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Permissions {
    /// Control-plane actions, with `*` for any run of characters.
    pub actions: Vec<String>,
    /// Taken out of `actions`.
    pub not_actions: Vec<String>,
    /// Data actions: what the role may do inside a cluster.
    pub data_actions: Vec<String>,
    /// Taken out of `data_actions`.
    pub not_data_actions: Vec<String>,
    /// Whether the whole block hangs on a condition of the definition's own.
    pub conditional: bool,
}

/// A role definition as ARM tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleDefinition {
    /// Its GUID.
    pub id: RoleDefinitionId,
    /// Its display name.
    pub name: String,
    /// Whether it is a custom role of the tenant's rather than one of Azure's own.
    pub custom: bool,
    /// Its blocks.
    pub permissions: Vec<Permissions>,
}

/// The only data actions that a custom role may hold to be assignable.
pub const ASSIGNABLE_DATA_ACTIONS: &str = "Microsoft.ContainerService/managedClusters/";

impl RoleDefinition {
    /// Whether the broker may assign the role (I8): one of the built-in five, or a custom one that
    /// holds nothing but data actions of managed clusters.
    ///
    /// # Errors
    /// Says why not, in words for the caller.
    pub fn check_assignable(&self) -> Result<Role, String> {
        if let Some(role) = BuiltInRole::from_id(self.id) {
            return Ok(Role::BuiltIn(role));
        }
        if !self.custom {
            return Err(format!(
                "{} ({}) is a built-in role that the broker never assigns",
                self.name, self.id
            ));
        }
        if let Some(action) = self
            .permissions
            .iter()
            .find_map(|block| block.actions.first())
        {
            return Err(format!(
                "{} ({}) has the control-plane action {action}; only roles with data actions alone may be granted",
                self.name, self.id
            ));
        }
        let mut data_actions = self
            .permissions
            .iter()
            .flat_map(|block| &block.data_actions)
            .peekable();
        if data_actions.peek().is_none() {
            return Err(format!(
                "{} ({}) has no data actions: it gives nothing",
                self.name, self.id
            ));
        }
        let prefix = ASSIGNABLE_DATA_ACTIONS.to_ascii_lowercase();
        for action in data_actions {
            if !action.to_ascii_lowercase().starts_with(&prefix) {
                return Err(format!(
                    "{} ({}) has the data action {action}, which is not below {ASSIGNABLE_DATA_ACTIONS}",
                    self.name, self.id
                ));
            }
        }
        Ok(Role::Custom {
            id: self.id,
            name: self.name.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn custom(actions: &[&str], data_actions: &[&str]) -> RoleDefinition {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        RoleDefinition {
            id: RoleDefinitionId::new(Uuid::from_u128(1)),
            name: "Pod Reader".to_owned(),
            custom: true,
            permissions: vec![Permissions {
                actions: own(actions),
                data_actions: own(data_actions),
                ..Permissions::default()
            }],
        }
    }

    #[test]
    fn i8_a_custom_role_with_data_actions_of_clusters_alone_is_assignable() {
        let role = custom(
            &[],
            &["microsoft.containerservice/ManagedClusters/pods/read"],
        );
        assert!(matches!(role.check_assignable(), Ok(Role::Custom { .. })));
    }

    #[test]
    fn i8_every_other_role_is_refused() {
        let cluster_admin = RoleDefinition {
            id: CLUSTER_ADMIN_ROLE,
            custom: false,
            ..custom(&[], &[])
        };
        for refused in [
            custom(
                &["*/read"],
                &["Microsoft.ContainerService/managedClusters/pods/read"],
            ),
            custom(&[], &["*"]),
            custom(&[], &["Microsoft.ContainerService/*"]),
            custom(&[], &["Microsoft.ContainerService/managedClusters*"]),
            custom(
                &[],
                &["Microsoft.ContainerService/fleets/members/pods/read"],
            ),
            custom(&[], &[]),
            cluster_admin,
        ] {
            assert!(refused.check_assignable().is_err(), "{refused:?}");
        }
    }
}
