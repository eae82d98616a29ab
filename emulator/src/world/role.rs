//! Role definitions: the built-in ones as the service publishes them, and those a company makes itself.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::scope::Scope;
use crate::wildcard;

/// A role that the company made itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomRole {
    /// The GUID of the role definition.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Where it can be assigned: at these scopes and below.
    pub assignable_scopes: Vec<Scope>,
    /// What it allows.
    pub permissions: Vec<Permissions>,
}

/// One block of a role's permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Permissions {
    /// Control-plane actions that it gives.
    #[serde(default)]
    pub actions: Vec<String>,
    /// Control-plane actions that the lines above do not give after all.
    #[serde(default)]
    pub not_actions: Vec<String>,
    /// Data actions that it gives.
    #[serde(default)]
    pub data_actions: Vec<String>,
    /// Data actions that the lines above do not give after all.
    #[serde(default)]
    pub not_data_actions: Vec<String>,
    /// An ABAC condition on the block; [`None`] in all roles that matter here.
    #[serde(default)]
    pub condition: Option<String>,
    /// The condition's language version.
    #[serde(default)]
    pub condition_version: Option<String>,
}

/// Any role definition.
#[derive(Clone, Debug)]
pub(crate) struct RoleDefinition {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) role_type: &'static str,
    pub(crate) assignable_scopes: Vec<Scope>,
    pub(crate) permissions: Vec<Permissions>,
}

/// The data file's own form of a definition.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Published {
    assignable_scopes: Vec<Scope>,
    description: String,
    name: Uuid,
    permissions: Vec<Permissions>,
    role_name: String,
    #[serde(rename = "roleType")]
    _role_type: String,
    #[serde(rename = "type")]
    _kind: String,
}

/// The built-in roles by GUID.
#[expect(
    clippy::expect_used,
    reason = "the text is part of the program, and a test reads it"
)]
pub(crate) static BUILT_IN_ROLES: LazyLock<BTreeMap<Uuid, RoleDefinition>> = LazyLock::new(|| {
    let published: Vec<Published> =
        serde_json::from_str(include_str!("../../data/role_definitions.json"))
            .expect("the built-in roles are readable");
    published
        .into_iter()
        .map(|role| (role.name, role.into()))
        .collect()
});

impl From<Published> for RoleDefinition {
    fn from(role: Published) -> Self {
        Self {
            id: role.name,
            name: role.role_name,
            description: role.description,
            role_type: "BuiltInRole",
            assignable_scopes: role.assignable_scopes,
            permissions: role.permissions,
        }
    }
}

impl From<&CustomRole> for RoleDefinition {
    fn from(role: &CustomRole) -> Self {
        Self {
            id: role.id,
            name: role.name.clone(),
            description: role.description.clone(),
            role_type: "CustomRole",
            assignable_scopes: role.assignable_scopes.clone(),
            permissions: role.permissions.clone(),
        }
    }
}

impl RoleDefinition {
    /// Does it give this control-plane action? A `notAction` takes away from its own block only [azure.md §2].
    pub(crate) fn gives_action(&self, action: &str) -> bool {
        self.permissions
            .iter()
            .any(|block| block.has_action(action))
    }
}

impl Permissions {
    /// Is this control-plane action among the block's, and not among those that it takes out?
    pub(crate) fn has_action(&self, action: &str) -> bool {
        let matches = |patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| wildcard::matches(pattern, action))
        };
        matches(&self.actions) && !matches(&self.not_actions)
    }
}

#[cfg(test)]
mod tests {
    use super::BUILT_IN_ROLES;

    fn gives(role: &str, action: &str) -> bool {
        BUILT_IN_ROLES[&role.parse().expect("a GUID")].gives_action(action)
    }

    #[test]
    fn owner_writes_role_assignments_and_contributor_does_not() {
        let write = "Microsoft.Authorization/roleAssignments/write";
        assert!(gives("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", write));
        assert!(!gives("b24988ac-6180-42a0-ab88-20f7382dd24c", write));
        assert!(gives(
            "b24988ac-6180-42a0-ab88-20f7382dd24c",
            "Microsoft.ContainerService/managedClusters/write"
        ));
    }

    #[test]
    fn reader_reads_everything_and_nothing_else() {
        let reader = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
        assert!(gives(
            reader,
            "Microsoft.ContainerService/managedClusters/read"
        ));
        assert!(!gives(
            reader,
            "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action"
        ));
    }

    #[test]
    fn the_roles_for_clusters_have_their_true_guids() {
        for (guid, name) in [
            (
                "4abbcc35-e782-43d8-92c5-2d3f1bd2253f",
                "Azure Kubernetes Service Cluster User Role",
            ),
            (
                "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8",
                "Azure Kubernetes Service Cluster Admin Role",
            ),
            (
                "7f6c6a51-bcf8-42ba-9220-52d62157d7db",
                "Azure Kubernetes Service RBAC Reader",
            ),
            (
                "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb",
                "Azure Kubernetes Service RBAC Writer",
            ),
            (
                "3498e952-d568-435e-9b2c-8d77e338d7f7",
                "Azure Kubernetes Service RBAC Admin",
            ),
            (
                "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b",
                "Azure Kubernetes Service RBAC Cluster Admin",
            ),
            (
                "1afdec4b-e479-420e-99e7-f82237c7c5e6",
                "Azure Kubernetes Service Cluster Monitoring User",
            ),
        ] {
            assert_eq!(BUILT_IN_ROLES[&guid.parse().expect("a GUID")].name, name);
        }
    }
}
