//! Who can be given a role: users, groups and service principals.

use std::fmt;

use jsonwebtoken::jwk::JwkSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The audience that Entra expects in federated assertions unless a credential says otherwise.
pub const DEFAULT_FEDERATED_AUDIENCE: &str = "api://AzureADTokenExchange";

/// `principalType` of a role assignment: the three usable ones [rest-api-specs#11830].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrincipalType {
    /// A person.
    User,
    /// A group.
    Group,
    /// An application or managed identity.
    ServicePrincipal,
}

impl fmt::Display for PrincipalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::ServicePrincipal => "ServicePrincipal",
        })
    }
}

/// Somebody or something in the directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// A person.
    User(User),
    /// A group.
    Group(Group),
    /// An application's identity.
    ServicePrincipal(ServicePrincipal),
}

/// A person.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Object id.
    pub id: Uuid,
    /// Name as people read it.
    pub display_name: String,
    /// Sign-in name; a guest's looks like `name_domain.com#EXT#@tenant.onmicrosoft.com`.
    pub user_principal_name: String,
    /// Whether the person can sign in.
    #[serde(default = "yes")]
    pub account_enabled: bool,
}

/// A group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Object id.
    pub id: Uuid,
    /// Name as people read it.
    pub display_name: String,
    /// Whether it counts for access; a mere mailing list does not.
    #[serde(default = "yes")]
    pub security_enabled: bool,
    /// Object ids of its direct members, which may be groups.
    #[serde(default)]
    pub members: Vec<Uuid>,
}

/// An application's identity in the tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePrincipal {
    /// Object id of the service principal, the one that roles are given to.
    pub id: Uuid,
    /// Application (client) id, the one that it signs in with.
    pub app_id: Uuid,
    /// Name as people read it.
    pub display_name: String,
    /// Whether it can get tokens.
    #[serde(default = "yes")]
    pub account_enabled: bool,
    /// Client secrets.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Whose tokens it can trade for its own.
    #[serde(default)]
    pub federated_credentials: Vec<FederatedCredential>,
    /// Application permissions for Microsoft Graph, such as `User.Read.All`.
    #[serde(default)]
    pub graph_permissions: Vec<String>,
    /// Who has which of the application's own app roles: tokens for it say so.
    #[serde(default)]
    pub app_role_assignments: Vec<AppRoleAssignment>,
}

/// One app role of one principal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRoleAssignment {
    /// The object id of who has it; of a group, its direct members have it as well.
    pub principal: Uuid,
    /// The role's value.
    pub role: String,
}

/// A computer in the directory. It has an object id as everything there has, and can hold no role.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Object id.
    pub id: Uuid,
    /// Name as people read it.
    pub display_name: String,
}

/// Trust in tokens of another issuer (workload identity).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederatedCredential {
    /// The assertion's `iss`, compared exactly.
    pub issuer: String,
    /// The assertion's `sub`, compared exactly.
    pub subject: String,
    /// The assertion's `aud`.
    #[serde(default = "default_audience")]
    pub audience: String,
    /// The issuer's public RSA key. Without this and without `jwks` the emulator's own key counts, so that
    /// it can play the issuer itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_pem: Option<String>,
    /// The issuer's keys as it publishes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JwkSet>,
}

fn yes() -> bool {
    true
}

fn default_audience() -> String {
    DEFAULT_FEDERATED_AUDIENCE.to_owned()
}

impl Principal {
    /// Object id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        match self {
            Self::User(user) => user.id,
            Self::Group(group) => group.id,
            Self::ServicePrincipal(application) => application.id,
        }
    }

    /// What kind of principal it is.
    #[must_use]
    pub fn principal_type(&self) -> PrincipalType {
        match self {
            Self::User(_) => PrincipalType::User,
            Self::Group(_) => PrincipalType::Group,
            Self::ServicePrincipal(_) => PrincipalType::ServicePrincipal,
        }
    }
}
