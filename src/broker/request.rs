//! Requests that change access, well-formed: what `grpc` hands down once every field has been checked.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::access::PrincipalType;
use crate::domain::ids::{ClusterId, GrantId, Namespace, PrincipalId, RequestId, RoleDefinitionId};
use crate::domain::role::BuiltInRole;

/// Who calls: one name space of idempotency keys, and the name that is written beside what they did.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Caller(pub String);

/// A `Grant`, as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantRequest {
    /// The caller's idempotency key; `None`: this request is one of its own.
    pub request_id: Option<RequestId>,
    /// Who gets access.
    pub principal: PrincipalId,
    /// The type that Azure wants beside the object id.
    pub principal_type: PrincipalType,
    /// Where.
    pub cluster: ClusterId,
    /// What.
    pub access: RequestedAccess,
    /// Until when.
    pub end: RequestedEnd,
    /// Why, in the caller's words; may be empty.
    pub justification: String,
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
    pub principal: PrincipalId,
    /// The type that decides how Azure is asked for the principal's groups.
    pub principal_type: PrincipalType,
    /// Where.
    pub cluster: ClusterId,
    /// Does the principal hold every permission that this gives, however it got them?
    pub access: RequestedAccess,
}
