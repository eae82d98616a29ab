//! What a call asks for, in one word: faults are aimed and the history is read by it.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// The kind of a call; as text in the words of Azure's own operation names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Operation {
            $($(#[$doc])* #[serde(rename = $text)] $variant),+
        }

        impl Operation {
            /// The operation as text, e.g. `roleAssignments/write`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }
    };
}

operations! {
    /// PUT of a role assignment.
    RoleAssignmentWrite = "roleAssignments/write",
    /// DELETE of a role assignment.
    RoleAssignmentDelete = "roleAssignments/delete",
    /// GET of one role assignment.
    RoleAssignmentRead = "roleAssignments/read",
    /// A page of role assignments.
    RoleAssignmentList = "roleAssignments/list",
    /// A page of deny assignments.
    DenyAssignmentList = "denyAssignments/list",
    /// GET of one role definition.
    RoleDefinitionRead = "roleDefinitions/read",
    /// A page of role definitions.
    RoleDefinitionList = "roleDefinitions/list",
    /// GET of one managed cluster.
    ManagedClusterRead = "managedClusters/read",
    /// A page of a subscription's managed clusters.
    ManagedClusterList = "managedClusters/list",
    /// A page of a subscription's fleets.
    FleetList = "fleets/list",
    /// A page of a fleet's members.
    FleetMemberList = "fleets/members/list",
    /// GET of one subscription.
    SubscriptionRead = "subscriptions/read",
    /// The subscriptions that the caller sees.
    SubscriptionList = "subscriptions/list",
    /// GET of one resource group.
    ResourceGroupRead = "resourceGroups/read",
    /// A subscription's resource groups.
    ResourceGroupList = "resourceGroups/list",
    /// GET of one management group.
    ManagementGroupRead = "managementGroups/read",
    /// A request for an access token.
    Token = "token",
    /// `OpenID` Connect discovery.
    OpenIdConfiguration = "openidConfiguration",
    /// The keys that tokens are signed with.
    Keys = "keys",
    /// GET of one user.
    UserRead = "users/read",
    /// Users by filter.
    UserList = "users/list",
    /// GET of one group.
    GroupRead = "groups/read",
    /// GET of one service principal.
    ServicePrincipalRead = "servicePrincipals/read",
    /// Ids of all groups that somebody is in.
    GetMemberGroups = "getMemberGroups",
    /// The groups that somebody is in, as objects.
    TransitiveMemberOf = "transitiveMemberOf",
    /// Directory objects by id.
    GetByIds = "getByIds",
    /// Anything that this emulator does not know.
    Unknown = "unknown",
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
