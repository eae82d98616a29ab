//! Every change is one record: applied to the state and, with a state directory, written down first.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::scope::Scope;
use crate::world::{
    Cluster, CustomRole, DenyAssignment, Fleet, Lock, Principal, PrincipalType, World,
};

/// A role assignment as it truly is, whatever lagging reads show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleAssignment {
    /// Its name, unique in the tenant.
    pub name: Uuid,
    /// Where it is.
    pub scope: Scope,
    /// The GUID of the role definition.
    pub role: Uuid,
    /// The object id of who has the role.
    pub principal: Uuid,
    /// What kind of principal that is.
    pub principal_type: PrincipalType,
    /// Free text.
    pub description: Option<String>,
    /// An ABAC condition.
    pub condition: Option<String>,
    /// The condition's language version.
    pub condition_version: Option<String>,
    /// When it was first made.
    pub created_on: Timestamp,
    /// When it was last written.
    pub updated_on: Timestamp,
    /// The object id of who made it; [`None`] for what the world began with.
    pub created_by: Option<Uuid>,
    /// The object id of who wrote it last.
    pub updated_by: Option<Uuid>,
}

impl RoleAssignment {
    /// Its ARM id.
    #[must_use]
    pub fn id(&self) -> String {
        self.scope.role_assignment_id(&self.name.to_string())
    }
}

/// One change of the world.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// Everything that is not versioned, as the world began.
    World(Box<World>),
    RoleAssignment(RoleAssignment),
    RoleAssignmentDeleted(Uuid),
    Cluster(Box<Cluster>),
    ClusterDeleted(Scope),
    Fleet(Box<Fleet>),
    FleetDeleted(Scope),
    /// Under its name.
    DenyAssignment(Box<DenyAssignment>),
    DenyAssignmentDeleted(Uuid),
    Principal(Principal),
    PrincipalDeleted(Uuid),
    CustomRole(CustomRole),
    Locked(Lock),
    Unlocked(Scope),
}
