//! Requests that change access, well-formed: what `grpc` hands down once every field has been checked.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::page::PageSize;
use crate::domain::access::PrincipalType;
use crate::domain::freshness::Freshness;
use crate::domain::grant::Phase;
use crate::domain::ids::{
    ApplicationId, ClusterId, GrantId, JobId, Namespace, PrincipalId, RequestId, RoleDefinitionId,
};
use crate::domain::job::{JobKind, JobState};
use crate::domain::kubernetes_request::KubernetesRequest;
use crate::domain::naming::{ExternalKey, Labels, OnBehalfOf};
use crate::domain::role::BuiltInRole;
use crate::domain::user_principal_name::UserPrincipalName;

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
    /// To find it by.
    pub labels: Labels,
    /// The caller's own name for it.
    pub external_key: Option<ExternalKey>,
    /// For whom the caller acts.
    pub on_behalf_of: Option<OnBehalfOf>,
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

impl RequestedPrincipal {
    /// The field of a `PrincipalRef` that names it, and what stands there.
    #[must_use]
    pub fn field(&self) -> (&'static str, String) {
        match self {
            Self::ObjectId(id, _) => ("object_id", id.to_string()),
            Self::UserPrincipalName(name) => ("user_principal_name", name.to_string()),
            Self::ApplicationId(id) => ("application_id", id.to_string()),
        }
    }
}

impl fmt::Display for RequestedPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ObjectId(id, _) => write!(f, "object {id}"),
            Self::UserPrincipalName(name) => write!(f, "user {name}"),
            Self::ApplicationId(id) => write!(f, "service principal of application {id}"),
        }
    }
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

/// An `ExtendGrant`, as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtendRequest {
    /// The caller's idempotency key; `None`: this request is one of its own.
    pub request_id: Option<RequestId>,
    /// Which grant.
    pub grant: GrantId,
    /// Until when, if that is later than it ends now.
    pub end: RequestedEnd,
    /// Why, in the caller's words; may be empty.
    pub justification: String,
    /// For whom the caller acts.
    pub on_behalf_of: Option<OnBehalfOf>,
}

/// A `Revoke`, as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevokeRequest {
    /// The caller's idempotency key; `None`: this request is one of its own.
    pub request_id: Option<RequestId>,
    /// Which grants.
    pub grants: RequestedGrants,
    /// Why, in the caller's words; may be empty.
    pub justification: String,
    /// For whom the caller acts.
    pub on_behalf_of: Option<OnBehalfOf>,
}

/// Which grants a request ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestedGrants {
    /// This one.
    One(GrantId),
    /// All that match, if they are no more than `most`.
    Matching {
        /// What they match.
        selector: RequestedSelector,
        /// If more match, none is ended.
        most: usize,
    },
}

/// Which grants are meant, as asked for: every part that is there must match.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RequestedSelector {
    /// Grants to this principal.
    pub principal: Option<RequestedPrincipal>,
    /// Grants on this cluster.
    pub cluster: Option<ClusterId>,
    /// Grants of this role.
    pub role: Option<RequestedRole>,
    /// Grants that are limited to namespaces, all of which are among these; empty: any.
    pub namespaces: BTreeSet<Namespace>,
    /// Grants that carry all of these labels.
    pub labels: Labels,
    /// Grants that this caller asked for.
    pub requested_by: Option<String>,
    /// The asking caller's own grant of this name.
    pub external_key: Option<ExternalKey>,
}

/// A `ListGrants`, as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantQuery {
    /// Which grants.
    pub selector: RequestedSelector,
    /// In which phases.
    pub phases: BTreeSet<Phase>,
    /// How many at most.
    pub size: PageSize,
    /// Where the last page ended; empty: the first page.
    pub token: String,
}

/// A `ListJobs`, as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobQuery {
    /// Jobs that are, or were, about this principal.
    pub principal: Option<RequestedPrincipal>,
    /// Jobs that are, or were, about this cluster.
    pub cluster: Option<ClusterId>,
    /// Jobs of this idempotency key.
    pub request_id: Option<RequestId>,
    /// In one of these states; `None`: any.
    pub states: Option<BTreeSet<JobState>>,
    /// Of one of these kinds; `None`: any.
    pub kinds: Option<BTreeSet<JobKind>>,
    /// How many at most.
    pub size: PageSize,
    /// Where the last page ended; empty: the first page.
    pub token: String,
}

/// A `ListJobTargets`, as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobTargetQuery {
    /// Of which job.
    pub job: JobId,
    /// In one of these states; `None`: any.
    pub states: Option<BTreeSet<JobState>>,
    /// How many at most.
    pub size: PageSize,
    /// Where the last page ended; empty: the first page.
    pub token: String,
}

/// A `CheckAccess`, as asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckRequest {
    /// Who.
    pub principal: RequestedPrincipal,
    /// Where.
    pub cluster: ClusterId,
    /// What.
    pub asks: Question,
}

/// What may be asked about somebody on a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// Does the principal hold every permission that this gives, however it got them?
    Access(RequestedAccess),
    /// Would the API server let this through?
    Request(KubernetesRequest),
}

/// A `ListAccess`, as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessQuery {
    /// Whose.
    pub of: AccessOf,
    /// How fresh the answer must be.
    pub freshness: Freshness,
    /// How many at most.
    pub size: PageSize,
    /// Where the last page ended; empty: the first page.
    pub token: String,
}

/// Whose access is listed, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessOf {
    /// Everybody's on this cluster, or one principal's, its groups' included; where a request is named, of those
    /// assignments that let it through.
    Cluster {
        /// Where.
        cluster: ClusterId,
        /// Only this one's.
        principal: Option<RequestedPrincipal>,
        /// Only who may do this.
        request: Option<KubernetesRequest>,
    },
    /// All that one principal has, on every cluster.
    Principal(RequestedPrincipal),
}
