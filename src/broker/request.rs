//! Requests that change access, well-formed: what `grpc` hands down once every field has been checked.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::access::PrincipalType;
use crate::domain::ids::{
    ApplicationId, ClusterId, GrantId, Namespace, PrincipalId, RequestId, RoleDefinitionId,
};
use crate::domain::role::BuiltInRole;
use crate::domain::user_principal_name::UserPrincipalName;

/// Who calls: one name space of idempotency keys, and the name that is written beside what they did.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Caller(pub String);

/// A `Grant`, as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantRequest {
    /// The caller's idempotency key; `None`: this request is one of its own.
    pub request_id: Option<RequestId>,
    /// Who gets access.
    pub principal: RequestedPrincipal,
    /// Where.
    pub cluster: ClusterId,
    /// What.
    pub access: RequestedAccess,
    /// Until when.
    pub end: RequestedEnd,
    /// Why, in the caller's words; may be empty.
    pub justification: String,
}

/// How a request names a principal, not yet known to exist.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RequestedPrincipal {
    /// By object id. With a type beside it the directory is not asked.
    ObjectId(PrincipalId, Option<PrincipalType>),
    /// A user, by sign-in name.
    UserPrincipalName(UserPrincipalName),
    /// A service principal, by the application that it stands for in the tenant.
    ApplicationId(ApplicationId),
}

/// A role, not yet known to exist or to be allowed, on a cluster or some of its namespaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestedAccess {
    /// The role.
    pub role: RequestedRole,
    /// Empty: the whole cluster.
    pub namespaces: BTreeSet<Namespace>,
}

/// How a request names a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestedRole {
    /// One of the five by the contract's enum.
    BuiltIn(BuiltInRole),
    /// By GUID or full resource id.
    Definition(RoleDefinitionId),
}

/// How a request says when a grant ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestedEnd {
    /// So long after it was accepted.
    Ttl(Duration),
    /// At this time.
    At(Timestamp),
    /// When it is revoked.
    Permanent,
}

/// A `Revoke` by grant id, as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevokeRequest {
    /// The caller's idempotency key; `None`: this request is one of its own.
    pub request_id: Option<RequestId>,
    /// Which grant.
    pub grant: GrantId,
    /// Why, in the caller's words; may be empty.
    pub justification: String,
}

/// The `access` question of `CheckAccess`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckRequest {
    /// Who.
    pub principal: RequestedPrincipal,
    /// Where.
    pub cluster: ClusterId,
    /// Does the principal hold every permission that this gives, however it got them?
    pub access: RequestedAccess,
}
