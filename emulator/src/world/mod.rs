//! The world that an emulator starts with: who and what exists before the first call.
//!
//! It is data, a YAML file, so that a test or an operator can make another company without code. What is
//! in it was there long ago: nothing of it lags or waits for replication.

mod check;
mod cluster;
mod deny;
mod fleet;
mod principal;
mod role;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

pub use cluster::{Cluster, EntraIntegration};
pub use deny::{DenyAssignment, DenyEffect, EVERYONE};
pub use fleet::{Fleet, FleetMember};
pub use principal::{
    AppRoleAssignment, DEFAULT_FEDERATED_AUDIENCE, Device, FederatedCredential, Group, Principal,
    PrincipalType, ServicePrincipal, User,
};
pub(crate) use role::{BUILT_IN_ROLES, RoleDefinition};
pub use role::{CustomRole, Permissions};

use crate::scope::Scope;

/// A whole company in one tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// The tenant's id.
    pub tenant: Uuid,
    /// Management groups; one without a parent hangs at the root.
    #[serde(default)]
    pub management_groups: Vec<ManagementGroup>,
    /// Subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Resource groups besides those that clusters imply.
    #[serde(default)]
    pub resource_groups: Vec<ResourceGroup>,
    /// People.
    #[serde(default)]
    pub users: Vec<User>,
    /// Groups; they may hold each other.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Applications' identities.
    #[serde(default)]
    pub service_principals: Vec<ServicePrincipal>,
    /// Computers; no call changes them.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Managed clusters.
    #[serde(default)]
    pub clusters: Vec<Cluster>,
    /// Fleets.
    #[serde(default)]
    pub fleets: Vec<Fleet>,
    /// Roles that the company made itself.
    #[serde(default)]
    pub custom_roles: Vec<CustomRole>,
    /// Who has which role where.
    #[serde(default)]
    pub role_assignments: Vec<NewRoleAssignment>,
    /// Who may not do what, whatever roles they have.
    #[serde(default)]
    pub deny_assignments: Vec<DenyAssignment>,
    /// Locks.
    #[serde(default)]
    pub locks: Vec<Lock>,
}

/// A management group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagementGroup {
    /// The last segment of its ARM id.
    pub id: String,
    /// What people call it.
    pub display_name: String,
    /// The id of the management group above it; none means the tenant's root.
    #[serde(default)]
    pub parent: Option<String>,
}

/// A subscription.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub display_name: String,
    /// The id of the management group that it is in.
    #[serde(default)]
    pub management_group: Option<String>,
}

/// A resource group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceGroup {
    /// The subscription that it is in.
    pub subscription: Uuid,
    /// Its name.
    pub name: String,
    /// Its region.
    #[serde(default = "default_location")]
    pub location: String,
}

/// A role assignment that somebody other than the emulator's callers makes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRoleAssignment {
    /// Where.
    pub scope: Scope,
    /// The GUID of the role definition.
    pub role: Uuid,
    /// The object id of who gets it.
    pub principal: Uuid,
    /// The assignment's name; one is worked out from the three above if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Uuid>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// An ABAC condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// A lock, which binds at its scope and below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Where it hangs.
    pub scope: Scope,
    /// What it forbids.
    #[serde(default)]
    pub level: LockLevel,
}

/// What a lock forbids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockLevel {
    /// Deleting; writing stays possible.
    #[default]
    CanNotDelete,
    /// Deleting and writing.
    ReadOnly,
}

/// The world's text is not a world.
#[derive(Debug, Error)]
pub enum InvalidWorld {
    /// It is no YAML of the right shape; the text says where.
    #[error("the world is not readable: {0}")]
    Unreadable(String),
    /// Something in it names what is not there, or there is something twice.
    #[error("the world does not hold together: {0}")]
    Inconsistent(String),
}

pub(crate) fn default_location() -> String {
    "westeurope".to_owned()
}

pub(crate) fn default_true() -> bool {
    true
}

impl World {
    /// Reads a world from YAML.
    ///
    /// # Errors
    /// [`InvalidWorld`] for text that has another shape, or whose references lead nowhere.
    pub fn from_yaml(text: &str) -> Result<Self, InvalidWorld> {
        let world: Self = serde_saphyr::from_str(text)
            .map_err(|error| InvalidWorld::Unreadable(error.to_string()))?;
        world.check()?;
        Ok(world)
    }

    /// The small company that comes with the emulator: `world.yaml` in this package.
    ///
    /// # Panics
    /// Never: the text is part of the program, and a test reads it.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "the text is part of the program, and a test reads it"
    )]
    pub fn built_in() -> Self {
        Self::from_yaml(include_str!("../../world.yaml")).expect("the built-in world is readable")
    }

    pub(crate) fn principals(&self) -> impl Iterator<Item = Principal> {
        let users = self.users.iter().cloned().map(Principal::User);
        let groups = self.groups.iter().cloned().map(Principal::Group);
        let service_principals = self
            .service_principals
            .iter()
            .cloned()
            .map(Principal::ServicePrincipal);
        users.chain(groups).chain(service_principals)
    }

    /// Puts principals back where a world keeps them.
    pub(crate) fn set_principals(&mut self, principals: impl Iterator<Item = Principal>) {
        self.users.clear();
        self.groups.clear();
        self.service_principals.clear();
        for principal in principals {
            match principal {
                Principal::User(user) => self.users.push(user),
                Principal::Group(group) => self.groups.push(group),
                Principal::ServicePrincipal(application) => {
                    self.service_principals.push(application);
                }
            }
        }
    }

    pub(crate) fn management_group_parents(&self) -> BTreeMap<String, Option<String>> {
        let parent_of =
            |group: &ManagementGroup| group.parent.as_ref().map(|id| id.to_ascii_lowercase());
        self.management_groups
            .iter()
            .map(|group| (group.id.to_ascii_lowercase(), parent_of(group)))
            .collect()
    }
}

impl Default for World {
    fn default() -> Self {
        Self::built_in()
    }
}

impl NewRoleAssignment {
    /// The name that was given, or one that follows from what is assigned.
    pub(crate) fn name_or_derived(&self) -> Uuid {
        self.name.unwrap_or_else(|| {
            let text = format!("{}|{}|{}", self.scope.key(), self.role, self.principal);
            Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes())
        })
    }
}
