//! The stable reasons that callers and operators see: in `google.rpc.ErrorInfo`, in jobs and in findings.
//!
//! One enum, so that a reason is never spelled two ways, and each has one `google.rpc.Code`.

use std::fmt;

/// Why something was refused, failed or is late.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// A field of the request is wrong; `BadRequest` says which.
    InvalidRequest,
    /// The caller says not who it is.
    TokenMissing,
    /// The caller's token is not taken.
    TokenInvalid,
    /// The caller's token was good once.
    TokenExpired,
    /// The caller's certificate names nobody.
    CertificateInvalid,
    /// Entra's keys cannot be had, and without them nobody knows whether the caller's token is good.
    IdentityProviderUnavailable,
    /// No policy allows it, or one forbids it.
    PermissionDenied,
    /// No such cluster.
    ClusterNotFound,
    /// The broker's own identity may not read the cluster.
    ClusterNotReadable,
    /// The cluster has been deleted, or another one stands under its id.
    ClusterGone,
    /// The cluster has no Entra integration: there *Cluster User* is admin.
    EntraIntegrationRequired,
    /// Azure RBAC for Kubernetes is off on the cluster: an Azure role would give nothing there.
    AzureRbacDisabled,
    /// No such role definition.
    RoleNotFound,
    /// The broker never assigns this role (I8).
    RoleNotAllowed,
    /// No such grant.
    GrantNotFound,
    /// The grant is going, or has ended.
    GrantEnded,
    /// The caller's external key names a live grant of something else.
    ExternalKeyInUse,
    /// More grants match a selector than the caller was ready to end.
    TooManyMatches,
    /// No such job.
    JobNotFound,
    /// The request id was used before, with another payload.
    RequestIdReused,
    /// Azure does not know the principal (yet).
    PrincipalNotFound,
    /// The broker's own application may not look principals up in the directory.
    PrincipalNotReadable,
    /// Somebody else's assignment of the same role carries a condition.
    ConditionalAssignmentExists,
    /// The broker's own identity may not do this at that scope.
    AuthorizationFailed,
    /// A lock stands in the way.
    ScopeLocked,
    /// An Azure Policy stands in the way.
    RequestDisallowedByPolicy,
    /// The subscription holds as many role assignments as Azure allows.
    RoleAssignmentLimitExceeded,
    /// The principal is of another type than was said.
    UnmatchedPrincipalType,
    /// Azure assigns no roles to principals of this type.
    PrincipalTypeNotSupported,
    /// The subscription does not exist, or the broker's own identity does not see it.
    SubscriptionNotFound,
    /// The subscription is disabled.
    ReadOnlyDisabledSubscription,
    /// Entra refuses the broker's own credentials.
    AzureCredentialsRefused,
    /// Azure told us to wait.
    AzureThrottled,
    /// Azure did not answer, or not in time.
    AzureUnavailable,
    /// Azure answered with an error that no table of ours knows.
    AzureError,
    /// What Azure answered cannot be believed yet: its replicas may not have seen an earlier write.
    NotSettled,
    /// Data as fresh as a caller asked for are not there in good time.
    NotFreshEnough,
    /// Redis cannot be reached, or not in time.
    StoreUnavailable,
    /// Redis is at its memory limit: grants are refused first.
    StoreFull,
    /// Redis is not the one that the process began with: it was emptied or replaced.
    StoreInDoubt,
    /// What Redis holds cannot be read: a newer format, or damage.
    StoreUnreadable,
    /// The broker takes no further requests at the moment.
    Overloaded,
    /// The caller asks more often than it may.
    RateLimited,
    /// This server is ending; another, or the next, answers.
    ShuttingDown,
    /// The request's deadline passed.
    DeadlineExceeded,
    /// The feature is not there yet.
    NotImplemented,
}

/// The codes of `google.rpc.Code` that are used here, by their numbers.
pub mod code {
    /// `INVALID_ARGUMENT`
    pub const INVALID_ARGUMENT: i32 = 3;
    /// `DEADLINE_EXCEEDED`
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// `NOT_FOUND`
    pub const NOT_FOUND: i32 = 5;
    /// `PERMISSION_DENIED`
    pub const PERMISSION_DENIED: i32 = 7;
    /// `RESOURCE_EXHAUSTED`
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    /// `FAILED_PRECONDITION`
    pub const FAILED_PRECONDITION: i32 = 9;
    /// `UNIMPLEMENTED`
    pub const UNIMPLEMENTED: i32 = 12;
    /// `INTERNAL`
    pub const INTERNAL: i32 = 13;
    /// `UNAVAILABLE`
    pub const UNAVAILABLE: i32 = 14;
    /// `UNAUTHENTICATED`
    pub const UNAUTHENTICATED: i32 = 16;
}

impl Reason {
    /// The stable text, `UPPER_SNAKE_CASE`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// The `google.rpc.Code` that goes with it.
    #[must_use]
    pub const fn code(self) -> i32 {
        self.entry().1
    }

    const fn entry(self) -> (&'static str, i32) {
        match self {
            Self::InvalidRequest => ("INVALID_REQUEST", code::INVALID_ARGUMENT),
            Self::TokenMissing => ("TOKEN_MISSING", code::UNAUTHENTICATED),
            Self::TokenInvalid => ("TOKEN_INVALID", code::UNAUTHENTICATED),
            Self::TokenExpired => ("TOKEN_EXPIRED", code::UNAUTHENTICATED),
            Self::CertificateInvalid => ("CERTIFICATE_INVALID", code::UNAUTHENTICATED),
            Self::IdentityProviderUnavailable => {
                ("IDENTITY_PROVIDER_UNAVAILABLE", code::UNAVAILABLE)
            }
            Self::PermissionDenied => ("PERMISSION_DENIED", code::PERMISSION_DENIED),
            Self::ClusterNotFound => ("CLUSTER_NOT_FOUND", code::NOT_FOUND),
            Self::ClusterNotReadable => ("CLUSTER_NOT_READABLE", code::FAILED_PRECONDITION),
            Self::ClusterGone => ("CLUSTER_GONE", code::FAILED_PRECONDITION),
            Self::EntraIntegrationRequired => {
                ("ENTRA_INTEGRATION_REQUIRED", code::FAILED_PRECONDITION)
            }
            Self::AzureRbacDisabled => ("AZURE_RBAC_DISABLED", code::FAILED_PRECONDITION),
            Self::RoleNotFound => ("ROLE_NOT_FOUND", code::NOT_FOUND),
            Self::RoleNotAllowed => ("ROLE_NOT_ALLOWED", code::FAILED_PRECONDITION),
            Self::GrantNotFound => ("GRANT_NOT_FOUND", code::NOT_FOUND),
            Self::GrantEnded => ("GRANT_ENDED", code::FAILED_PRECONDITION),
            Self::ExternalKeyInUse => ("EXTERNAL_KEY_IN_USE", code::FAILED_PRECONDITION),
            Self::TooManyMatches => ("TOO_MANY_MATCHES", code::FAILED_PRECONDITION),
            Self::JobNotFound => ("JOB_NOT_FOUND", code::NOT_FOUND),
            Self::RequestIdReused => ("REQUEST_ID_REUSED", code::FAILED_PRECONDITION),
            Self::PrincipalNotFound => ("PRINCIPAL_NOT_FOUND", code::NOT_FOUND),
            Self::PrincipalNotReadable => ("PRINCIPAL_NOT_READABLE", code::FAILED_PRECONDITION),
            Self::ConditionalAssignmentExists => {
                ("CONDITIONAL_ASSIGNMENT_EXISTS", code::FAILED_PRECONDITION)
            }
            Self::AuthorizationFailed => ("AUTHORIZATION_FAILED", code::FAILED_PRECONDITION),
            Self::ScopeLocked => ("SCOPE_LOCKED", code::FAILED_PRECONDITION),
            Self::RequestDisallowedByPolicy => {
                ("REQUEST_DISALLOWED_BY_POLICY", code::FAILED_PRECONDITION)
            }
            Self::RoleAssignmentLimitExceeded => {
                ("ROLE_ASSIGNMENT_LIMIT_EXCEEDED", code::RESOURCE_EXHAUSTED)
            }
            Self::UnmatchedPrincipalType => ("UNMATCHED_PRINCIPAL_TYPE", code::FAILED_PRECONDITION),
            Self::PrincipalTypeNotSupported => {
                ("PRINCIPAL_TYPE_NOT_SUPPORTED", code::FAILED_PRECONDITION)
            }
            Self::SubscriptionNotFound => ("SUBSCRIPTION_NOT_FOUND", code::FAILED_PRECONDITION),
            Self::ReadOnlyDisabledSubscription => {
                ("READ_ONLY_DISABLED_SUBSCRIPTION", code::FAILED_PRECONDITION)
            }
            Self::AzureCredentialsRefused => ("AZURE_CREDENTIALS_REFUSED", code::UNAVAILABLE),
            Self::AzureThrottled => ("AZURE_THROTTLED", code::UNAVAILABLE),
            Self::AzureUnavailable => ("AZURE_UNAVAILABLE", code::UNAVAILABLE),
            Self::AzureError => ("AZURE_ERROR", code::UNAVAILABLE),
            Self::NotSettled => ("NOT_SETTLED", code::UNAVAILABLE),
            Self::NotFreshEnough => ("NOT_FRESH_ENOUGH", code::UNAVAILABLE),
            Self::StoreUnavailable => ("STORE_UNAVAILABLE", code::UNAVAILABLE),
            Self::StoreFull => ("STORE_FULL", code::RESOURCE_EXHAUSTED),
            Self::StoreInDoubt => ("STORE_IN_DOUBT", code::UNAVAILABLE),
            Self::StoreUnreadable => ("STORE_UNREADABLE", code::INTERNAL),
            Self::RateLimited => ("RATE_LIMITED", code::RESOURCE_EXHAUSTED),
            Self::Overloaded => ("OVERLOADED", code::RESOURCE_EXHAUSTED),
            Self::ShuttingDown => ("SHUTTING_DOWN", code::UNAVAILABLE),
            Self::DeadlineExceeded => ("DEADLINE_EXCEEDED", code::DEADLINE_EXCEEDED),
            Self::NotImplemented => ("NOT_IMPLEMENTED", code::UNIMPLEMENTED),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
