//! What an Azure error means for us: one table, here and nowhere else.
//!
//! Two questions are kept apart. *Did it happen?* is the [`Outcome`]: only an answer that says "not
//! done", or proof that the request never left, is definite. *What now?* is the [`Disposition`], and it
//! differs with what one is after: a grant may fail for good, a revocation never does (I5).

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use super::wire::Refusal;
use crate::domain::effect::Call;
use crate::domain::job::Failure;
use crate::domain::reason::Reason;

/// How long Entra and Azure RBAC may take to tell all their replicas of a new principal or a new custom
/// role; others retry `PrincipalNotFound` for as long [azure.md §1].
pub const REPLICATION: Duration = Duration::from_mins(30);

/// Whether a failed call may have changed something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It changed nothing: Azure said so, or the request provably never left.
    Definite,
    /// Nobody knows: the effect is unsettled.
    Unknown,
}

/// What a call was made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// To give access: a PUT, or a read on its behalf.
    Grant,
    /// To take it back: a DELETE, or a read on its behalf.
    Revocation,
}

impl From<Call> for Purpose {
    fn from(call: Call) -> Self {
        match call {
            Call::Put => Self::Grant,
            Call::Delete => Self::Revocation,
        }
    }
}

/// What to do about a failed call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Disposition {
    /// Try again, with backoff.
    Retry {
        /// At the slow end of the backoff: somebody else has to act first, or nobody knows what it is.
        slow: bool,
    },
    /// Try again with backoff, but take it for final once it has lasted [`REPLICATION`].
    AwaitReplication,
    /// The whole subscription has to wait for `retry_after`; says nothing about this call.
    Throttled,
    /// This name is refused for good: go on to the next of the series.
    NextName,
    /// Such an assignment exists under another name: read which before believing anything.
    ReadBack,
    /// It will never work.
    Final,
}

/// A call to Azure that did not work.
#[derive(Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct AzureError {
    row: &'static Row,
    /// Whether it may have changed something all the same.
    pub outcome: Outcome,
    /// The HTTP status; `None` where Azure did not answer.
    pub status: Option<u16>,
    /// Azure's own code, such as `AuthorizationFailed`; empty where it gave none.
    pub code: String,
    /// What was being done, what went wrong, and what to do.
    pub message: String,
    /// Azure's correlation id, for a support request; empty where Azure did not answer.
    pub correlation_id: String,
    /// How long Azure says to wait; always there, and at least one second, with a 429.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Debug for AzureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AzureError")
            .field("reason", &self.row.reason)
            .field("outcome", &self.outcome)
            .field("status", &self.status)
            .field("code", &self.code)
            .field("message", &self.message)
            .field("correlation_id", &self.correlation_id)
            .field("retry_after", &self.retry_after)
            .finish()
    }
}

impl AzureError {
    /// Azure answered `call`, and not with what was asked for.
    pub(super) fn refused(call: &str, refusal: Refusal) -> Self {
        let row = Row::of(refusal.status, &refusal.code);
        let throttled = row.granting == Disposition::Throttled;
        let status = refusal.status;
        let code = if refusal.code.is_empty() {
            "no error code"
        } else {
            &refusal.code
        };
        let said = refusal.said.trim_end_matches('.');
        Self {
            message: format!("{call}: {status} {code}: {said}. {}", row.remedy)
                .trim_end()
                .to_owned(),
            outcome: outcome_of(status, row),
            status: Some(status),
            retry_after: refusal
                .retry_after
                .or_else(|| throttled.then_some(Duration::from_secs(1))),
            row,
            code: refusal.code,
            correlation_id: refusal.correlation_id,
        }
    }

    /// Azure gave no answer to `call`.
    pub(super) fn unanswered(call: &str, outcome: Outcome, problem: &str) -> Self {
        Self::without_answer(&UNANSWERED, outcome, format!("{call}: {problem}"))
    }

    /// `call` was answered with success, but what the answer says cannot be understood.
    pub(super) fn unreadable(call: &str, status: u16, correlation_id: &str, problem: &str) -> Self {
        Self {
            status: Some(status),
            correlation_id: correlation_id.to_owned(),
            ..Self::without_answer(
                &UNREADABLE,
                Outcome::Unknown,
                format!("{call}: {status}, but the answer cannot be understood: {problem}"),
            )
        }
    }

    /// There is no access token to make a call with.
    pub(super) fn no_token(refused: bool, problem: &str) -> Self {
        let row = if refused {
            &CREDENTIALS_REFUSED
        } else {
            &NO_TOKEN
        };
        Self::without_answer(
            row,
            Outcome::Definite,
            format!("no access token: {problem}. {}", row.remedy),
        )
    }

    fn without_answer(row: &'static Row, outcome: Outcome, message: String) -> Self {
        Self {
            row,
            outcome,
            status: None,
            code: String::new(),
            message,
            correlation_id: String::new(),
            retry_after: None,
        }
    }

    /// The stable reason that callers see.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.row.reason
    }

    /// What to do about it.
    #[must_use]
    pub const fn disposition(&self, purpose: Purpose) -> Disposition {
        match purpose {
            Purpose::Grant => self.row.granting,
            Purpose::Revocation => self.row.revoking,
        }
    }

    /// Whether the cluster should be read before anything else: it may be gone. A 403 of ARM says "or
    /// the scope is invalid" of a resource that is gone as well [azure.md §1].
    #[must_use]
    pub fn suggests_cluster_is_gone(&self) -> bool {
        matches!(self.status, Some(403 | 404))
    }

    /// Whether this, as the answer to *reading a resource*, says that the resource is gone. A 403 or a
    /// subscription that is not found never does: the broker may only have lost its sight of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status == Some(404)
            && ["ResourceNotFound", "ResourceGroupNotFound"]
                .iter()
                .any(|code| self.code.eq_ignore_ascii_case(code))
    }

    /// As a caller sees it, in a job.
    #[must_use]
    pub fn failure(&self, purpose: Purpose) -> Failure {
        let mut metadata = BTreeMap::new();
        if !self.code.is_empty() {
            metadata.insert("azure_code".to_owned(), self.code.clone());
        }
        if let Some(status) = self.status {
            metadata.insert("azure_status".to_owned(), status.to_string());
        }
        Failure {
            reason: self.reason().to_string(),
            message: self.message.clone(),
            azure_correlation_id: self.correlation_id.clone(),
            retryable: self.disposition(purpose) != Disposition::Final,
            code: self.reason().code(),
            metadata,
        }
    }
}

/// Only a 4xx says that nothing was done; 408 says that ARM gave up waiting for something.
fn outcome_of(status: u16, row: &Row) -> Outcome {
    if (400..500).contains(&status) && status != 408 && !row.may_have_happened {
        Outcome::Definite
    } else {
        Outcome::Unknown
    }
}

/// One row of the table.
#[derive(PartialEq, Eq)]
struct Row {
    code: &'static str,
    reason: Reason,
    granting: Disposition,
    revoking: Disposition,
    may_have_happened: bool,
    remedy: &'static str,
}

impl Row {
    /// 429 and 5xx are what they are whatever their code; the rest goes by code.
    fn of(status: u16, code: &str) -> &'static Self {
        let by_code = TABLE.iter().find(|row| row.code.eq_ignore_ascii_case(code));
        match (status, by_code) {
            (429, Some(row)) if row.granting == Disposition::Throttled => row,
            (429, _) => &THROTTLED,
            (401, _) => &TOKEN_REFUSED,
            (500.., Some(row)) if row.may_have_happened => row,
            (408 | 500.., _) => &UNANSWERED,
            (_, Some(row)) => row,
            (_, None) => &UNKNOWN,
        }
    }

    const fn new(code: &'static str, reason: Reason, does: (Disposition, Disposition)) -> Self {
        let (granting, revoking) = does;
        Self {
            code,
            reason,
            granting,
            revoking,
            may_have_happened: false,
            remedy: "",
        }
    }

    const fn remedy(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }

    const fn unsure(self) -> Self {
        Self {
            may_have_happened: true,
            ..self
        }
    }
}

const SOON: Disposition = Disposition::Retry { slow: false };
const SLOWLY: Disposition = Disposition::Retry { slow: true };
/// Both the same: the first is a grant's, the second a revocation's.
const RETRY: (Disposition, Disposition) = (SOON, SOON);
const RETRY_SLOWLY: (Disposition, Disposition) = (SLOWLY, SLOWLY);
const WAIT: (Disposition, Disposition) = (Disposition::Throttled, Disposition::Throttled);
/// Final for a grant; a revocation is never final (I5).
const FAIL: (Disposition, Disposition) = (Disposition::Final, SLOWLY);

// What has no code of Azure's.
static UNANSWERED: Row = Row::new("", Reason::AzureUnavailable, RETRY).unsure();
static UNREADABLE: Row = Row::new("", Reason::AzureError, RETRY_SLOWLY).unsure();
static NO_TOKEN: Row = Row::new("", Reason::AzureUnavailable, RETRY);
static CREDENTIALS_REFUSED: Row = Row::new("", Reason::AzureCredentialsRefused, RETRY_SLOWLY)
    .remedy("Entra refuses the broker's own credentials: renew them in its configuration.");
static TOKEN_REFUSED: Row = Row::new("", Reason::AzureUnavailable, RETRY)
    .remedy("A new access token is fetched before the next call.");
static THROTTLED: Row = Row::new("", Reason::AzureThrottled, WAIT);
// An error that no table knows is never success, and never final: a person has to look at it.
static UNKNOWN: Row = Row::new("", Reason::AzureError, RETRY_SLOWLY)
    .remedy("The broker does not know this error and goes on trying slowly.");

/// THE table. Sources: azure.md §1 and §5 and the bodies in wire/errors.txt, which name theirs.
static TABLE: [Row; 29] = [
    // 409. Same (scope, role, principal) under another name; the id in its message is only a hint.
    Row::new("RoleAssignmentExists", Reason::AzureError, (Disposition::ReadBack, SLOWLY)),
    // 400. About one name in a hundred, and it stays refused [azure-cli#13368, ARO-RP#670].
    Row::new("HashConflictOnDifferentRoleAssignmentIds", Reason::AzureError,
        (Disposition::NextName, SLOWLY)),
    // 400. The name is taken by an assignment of something else; seen at random together with
    // StorageException as well [azure-docs#68065], so it is not final.
    Row::new("RoleAssignmentUpdateNotPermitted", Reason::AzureError, RETRY_SLOWLY)
        .remedy("An assignment of this name exists with another principal, role or scope: look at it in Azure."),
    // 404 of a GET, and of a DELETE [terraform and vault tolerate it there]; a DELETE takes it for done.
    Row::new("RoleAssignmentNotFound", Reason::AzureError, RETRY),
    // 400. Replication; principalType, which we always send, mostly avoids it.
    Row::new("PrincipalNotFound", Reason::PrincipalNotFound, (Disposition::AwaitReplication, SLOWLY))
        .remedy("Check the object id and the tenant."),
    // 400 on PUT, 404 on GET. A fresh custom role gives it for a minute or two.
    Row::new("RoleDefinitionDoesNotExist", Reason::RoleNotFound, (Disposition::AwaitReplication, SLOWLY))
        .remedy("Check the role's GUID and its assignable scopes."),
    // 400 [M]. Azure's message names both types.
    Row::new("UnmatchedPrincipalType", Reason::UnmatchedPrincipalType, FAIL)
        .remedy("Grant again with the principal's real type."),
    Row::new("PrincipalTypeNotSupported", Reason::PrincipalTypeNotSupported, FAIL)
        .remedy("Only users, groups and service principals can hold access."),
    Row::new("InvalidPrincipalId", Reason::PrincipalNotFound, FAIL)
        .remedy("Grant again with the principal's object id."),
    // 400 [terraform#8547].
    Row::new("InvalidRoleDefinitionId", Reason::RoleNotFound, FAIL)
        .remedy("Grant again with an existing role."),
    // 400 [azure-cli#2458]. What the broker sent is wrong: sending it again does not help.
    Row::new("BadRequestFormat", Reason::AzureError, FAIL),
    // 403, 409: somebody else's problem. Retried slowly, shown as a finding.
    Row::new("AuthorizationFailed", Reason::AuthorizationFailed, RETRY_SLOWLY)
        .remedy("Give the broker's identity a role with Microsoft.Authorization/roleAssignments/* and \
                 Microsoft.ContainerService/managedClusters/read at the cluster or above."),
    Row::new("LinkedAuthorizationFailed", Reason::AuthorizationFailed, RETRY_SLOWLY)
        .remedy("Give the broker's identity the permission that the message names."),
    Row::new("RequestDisallowedByPolicy", Reason::RequestDisallowedByPolicy, RETRY_SLOWLY)
        .remedy("Exempt the broker from the Azure policy that the message names."),
    // 409. A CanNotDelete lock blocks DELETE, not PUT [terraform#15111, azure-docs#110791].
    Row::new("ScopeLocked", Reason::ScopeLocked, RETRY_SLOWLY)
        .remedy("Remove the lock that the message names."),
    // 409 [M].
    Row::new("ReadOnlyDisabledSubscription", Reason::ReadOnlyDisabledSubscription, RETRY_SLOWLY)
        .remedy("Enable the subscription again."),
    // 400. 4,000 in a subscription, some tenants 2,000 [azure-docs limits.md]; room comes back as others end.
    Row::new("RoleAssignmentLimitExceeded", Reason::RoleAssignmentLimitExceeded, RETRY_SLOWLY)
        .remedy("Remove role assignments from the subscription, or grant to groups."),
    // 404. Never proof that a cluster is gone: the broker may have lost its sight of the subscription.
    Row::new("SubscriptionNotFound", Reason::SubscriptionNotFound, RETRY_SLOWLY)
        .remedy("Check that the subscription exists in the broker's tenant and that its identity may read it."),
    // 404. Read the cluster: there the same codes mean that it is gone.
    Row::new("ResourceGroupNotFound", Reason::ClusterNotFound, RETRY),
    Row::new("ResourceNotFound", Reason::ClusterNotFound, RETRY),
    // 429 [azure.md §5].
    Row::new("SubscriptionRequestsThrottled", Reason::AzureThrottled, WAIT),
    Row::new("ResourceRequestsThrottled", Reason::AzureThrottled, WAIT),
    Row::new("Throttled", Reason::AzureThrottled, WAIT),
    Row::new("TooManyRequests", Reason::AzureThrottled, WAIT),
    // 400 or 500 [azure-docs#68065]. A store that failed may have kept what it was given.
    Row::new("StorageException", Reason::AzureUnavailable, RETRY).unsure(),
    // 500, 503, 504.
    Row::new("InternalServerError", Reason::AzureUnavailable, RETRY).unsure(),
    Row::new("ServerTimeout", Reason::AzureUnavailable, RETRY).unsure(),
    Row::new("GatewayTimeout", Reason::AzureUnavailable, RETRY).unsure(),
    // 502, 503 [M].
    Row::new("ServiceUnavailable", Reason::AzureUnavailable, RETRY).unsure(),
];

#[cfg(test)]
mod tests;
