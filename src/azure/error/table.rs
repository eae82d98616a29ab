//! THE table: every error of Azure's that is known, and what goes by status alone.
//!
//! Sources: azure.md §1 and §5 and the bodies in wire/errors.txt, which name theirs.

use super::Disposition;
use crate::domain::reason::Reason;

/// One row of the table.
#[derive(PartialEq, Eq)]
pub(super) struct Row {
    /// Azure's code; in words, in parentheses, where a row goes by something else.
    pub(super) code: &'static str,
    /// The statuses that it comes with.
    pub(super) statuses: &'static [u16],
    /// What Azure says by it, for operators.
    pub(super) means: &'static str,
    pub(super) reason: Reason,
    pub(super) granting: Disposition,
    pub(super) revoking: Disposition,
    pub(super) may_have_happened: bool,
    /// What to do; empty where there is nothing to be done.
    pub(super) remedy: &'static str,
}

impl Row {
    /// 429 and 5xx are what they are whatever their code; the rest goes by code.
    pub(super) fn of(status: u16, code: &str) -> &'static Self {
        let by_code = TABLE.iter().find(|row| row.code.eq_ignore_ascii_case(code));
        match (status, by_code) {
            (429, Some(row)) if row.granting == Disposition::Throttled => row,
            (429, _) => &THROTTLED,
            (401, _) => &TOKEN_REFUSED,
            (500.., Some(row)) if row.may_have_happened => row,
            (408 | 500.., _) => &FAILED,
            (_, Some(row)) => row,
            (_, None) => &UNKNOWN,
        }
    }

    const fn new(
        code: &'static str,
        statuses: &'static [u16],
        means: &'static str,
        reason: Reason,
        does: (Disposition, Disposition),
    ) -> Self {
        let (granting, revoking) = does;
        Self {
            code,
            statuses,
            means,
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
/// Replication; a revocation names nobody, so it is somebody else's problem there.
const REPLICATES: (Disposition, Disposition) = (Disposition::AwaitReplication, SLOWLY);
/// Final for a grant; a revocation is never final (I5).
const FAIL: (Disposition, Disposition) = (Disposition::Final, SLOWLY);

// What goes by status, or by there being no answer.
pub(super) static UNANSWERED: Row = Row::new(
    "(no answer)",
    &[],
    "The connection was refused, cut, or nothing came in time.",
    Reason::AzureUnavailable,
    RETRY,
)
.unsure();
pub(super) static FAILED: Row = Row::new(
    "(any other)",
    &[408, 500, 502, 503, 504],
    "Azure failed, whatever it says of why; every 5xx counts as this.",
    Reason::AzureUnavailable,
    RETRY,
)
.unsure();
pub(super) static UNREADABLE: Row = Row::new(
    "(an answer that cannot be read)",
    &[200, 201],
    "Success, but not in the form that Azure documents.",
    Reason::AzureError,
    RETRY_SLOWLY,
)
.unsure()
.remedy("If no proxy stands between, report it with the correlation id.");
pub(super) static NO_TOKEN: Row = Row::new(
    "(no access token)",
    &[],
    "Entra, the machine's identity endpoint or the developer's tool gave none.",
    Reason::AzureUnavailable,
    RETRY,
);
pub(super) static CREDENTIALS_REFUSED: Row = Row::new(
    "(no access token)",
    &[400, 401],
    "Entra, or the machine's identity endpoint, refuses the broker.",
    Reason::AzureCredentialsRefused,
    RETRY_SLOWLY,
)
.remedy("The broker's own credentials are refused: renew or correct them in its configuration.");
pub(super) static TOKEN_REFUSED: Row = Row::new(
    "(any)",
    &[401],
    "The access token is refused, or has just ended.",
    Reason::AzureUnavailable,
    RETRY,
)
.remedy("A new access token is fetched before the next call.");
pub(super) static THROTTLED: Row = Row::new(
    "(any other)",
    &[429],
    "Too many requests.",
    Reason::AzureThrottled,
    WAIT,
);
// An error that no table knows is never success, and never final: a person has to look at it.
pub(super) static UNKNOWN: Row = Row::new(
    "(any other)",
    &[400, 403, 404, 409],
    "An error that the broker does not know: never success, never final.",
    Reason::AzureError,
    RETRY_SLOWLY,
)
.remedy("The broker does not know this error and goes on trying slowly.");

pub(super) static TABLE: [Row; 35] = [
    // The id in its message is only a hint.
    Row::new("RoleAssignmentExists", &[409],
        "The same role is assigned at the same scope under another name. It is read whose: somebody else's counts, \
         unless a condition limits it, and is left alone by the revocation.",
        Reason::AzureError, (Disposition::ReadBack, SLOWLY)),
    // About one name in a hundred, and it stays refused [azure-cli#13368, ARO-RP#670].
    Row::new("HashConflictOnDifferentRoleAssignmentIds", &[400],
        "The assignment's name is refused for good, by chance.",
        Reason::AzureError, (Disposition::NextName, SLOWLY)),
    // Seen at random together with StorageException as well [azure-docs#68065], so it is not final.
    Row::new("RoleAssignmentUpdateNotPermitted", &[400],
        "The name is taken by an assignment of something else.",
        Reason::AzureError, RETRY_SLOWLY)
        .remedy("An assignment of this name exists with another principal, role or scope: look at it in Azure."),
    // Of a DELETE as well [terraform and vault tolerate it there].
    Row::new("RoleAssignmentNotFound", &[404],
        "There is no such assignment. To a DELETE that is no error: it is done, unless a PUT of ours was sent less \
         than `reconciler.lag` ago.",
        Reason::AzureError, RETRY),
    // principalType, which we always send, mostly avoids it.
    Row::new("PrincipalNotFound", &[400],
        "Entra has no such principal, or has not told all its replicas of it yet.",
        Reason::PrincipalNotFound, REPLICATES)
        .remedy("Check the object id and the tenant."),
    // 404 on GET. A fresh custom role gives it for a minute or two.
    Row::new("RoleDefinitionDoesNotExist", &[400, 404],
        "There is no such role, or Azure has not told all its replicas of it yet.",
        Reason::RoleNotFound, REPLICATES)
        .remedy("Check the role's GUID and its assignable scopes."),
    // Azure's message names both types. The status is not known for certain.
    Row::new("UnmatchedPrincipalType", &[400],
        "The principal is of another type than the grant said.",
        Reason::UnmatchedPrincipalType, FAIL)
        .remedy("Grant again with the principal's real type."),
    Row::new("PrincipalTypeNotSupported", &[400],
        "Azure assigns no roles to principals of this type.",
        Reason::PrincipalTypeNotSupported, FAIL)
        .remedy("Only users, groups and service principals can hold access."),
    Row::new("InvalidPrincipalId", &[400],
        "What the grant names is no object id of a principal.",
        Reason::PrincipalNotFound, FAIL)
        .remedy("Grant again with the principal's object id."),
    // [terraform#8547]
    Row::new("InvalidRoleDefinitionId", &[400],
        "What the grant names is no role.",
        Reason::RoleNotFound, FAIL)
        .remedy("Grant again with an existing role."),
    // Sending it again does not help [azure-cli#2458].
    Row::new("BadRequestFormat", &[400],
        "Azure does not understand what the broker sent.",
        Reason::AzureError, FAIL)
        .remedy("What the broker sent is wrong: report it with the correlation id."),
    // Two wordings: an ABAC condition that was not fulfilled has this code as well.
    Row::new("AuthorizationFailed", &[403],
        "The broker's identity may not do this there, or a condition on its own role forbids it.",
        Reason::AuthorizationFailed, RETRY_SLOWLY)
        .remedy("Give the broker's identity a role with Microsoft.Authorization/roleAssignments/* and \
                 Microsoft.ContainerService/managedClusters/read at the cluster or above."),
    // From general knowledge: no source at hand has it.
    Row::new("DenyAssignmentAuthorizationFailed", &[403],
        "A deny assignment keeps the broker's identity from it, whatever roles it has.",
        Reason::AuthorizationFailed, RETRY_SLOWLY)
        .remedy("Exclude the broker's identity from the deny assignment that the message names: most belong to a \
                 deployment stack or a managed application."),
    Row::new("LinkedAuthorizationFailed", &[403],
        "The broker's identity may not use something that the call refers to.",
        Reason::AuthorizationFailed, RETRY_SLOWLY)
        .remedy("Give the broker's identity the permission that the message names."),
    Row::new("RequestDisallowedByPolicy", &[403],
        "An Azure Policy forbids it.",
        Reason::RequestDisallowedByPolicy, RETRY_SLOWLY)
        .remedy("Exempt the broker from the Azure policy that the message names."),
    // CanNotDelete blocks DELETE, not PUT [terraform#15111, azure-docs#110791].
    Row::new("ScopeLocked", &[409],
        "A lock is on the scope or above it. A `CanNotDelete` lock stops revocations, not grants.",
        Reason::ScopeLocked, RETRY_SLOWLY)
        .remedy("Remove the lock that the message names."),
    // The status is not known for certain.
    Row::new("ReadOnlyDisabledSubscription", &[409],
        "The subscription is disabled, and nothing in it can be changed.",
        Reason::ReadOnlyDisabledSubscription, RETRY_SLOWLY)
        .remedy("Enable the subscription again."),
    // [azure-docs limits.md]; room comes back as others end.
    Row::new("RoleAssignmentLimitExceeded", &[400],
        "The subscription holds as many role assignments as it may: 4,000, in some tenants 2,000.",
        Reason::RoleAssignmentLimitExceeded, RETRY_SLOWLY)
        .remedy("Remove role assignments from the subscription, or grant to groups."),
    Row::new("SubscriptionNotFound", &[404],
        "There is no such subscription, or the broker's identity does not see it. Never proof that a cluster is gone.",
        Reason::SubscriptionNotFound, RETRY_SLOWLY)
        .remedy("Check that the subscription exists in the broker's tenant and that its identity may read it."),
    Row::new("ResourceGroupNotFound", &[404],
        "The cluster's resource group does not exist, nor then the cluster: it is read, and that decides (below).",
        Reason::ClusterNotFound, RETRY),
    Row::new("ResourceNotFound", &[404],
        "The cluster does not exist: it is read, and that decides (below).",
        Reason::ClusterNotFound, RETRY),
    // [azure.md §5]
    Row::new("SubscriptionRequestsThrottled", &[429],
        "The subscription, or the broker in it, has sent ARM too many requests.",
        Reason::AzureThrottled, WAIT),
    Row::new("ResourceRequestsThrottled", &[429],
        "A resource provider, such as Microsoft.Authorization, has had too many requests.",
        Reason::AzureThrottled, WAIT),
    Row::new("Throttled", &[429],
        "AKS has had too many requests.",
        Reason::AzureThrottled, WAIT),
    Row::new("TooManyRequests", &[429],
        "Too many requests.",
        Reason::AzureThrottled, WAIT),
    // [azure-docs#68065] A store that failed may have kept what it was given.
    Row::new("StorageException", &[400, 500],
        "Azure's own store failed.",
        Reason::AzureUnavailable, RETRY).unsure(),
    Row::new("InternalServerError", &[500],
        "Azure failed.",
        Reason::AzureUnavailable, RETRY).unsure(),
    Row::new("ServerTimeout", &[503],
        "Azure did not get it done in time.",
        Reason::AzureUnavailable, RETRY).unsure(),
    Row::new("GatewayTimeout", &[504],
        "What stands behind ARM did not answer it in time.",
        Reason::AzureUnavailable, RETRY).unsure(),
    // [M]
    Row::new("ServiceUnavailable", &[502, 503],
        "What stands behind ARM is not there.",
        Reason::AzureUnavailable, RETRY).unsure(),
    // What Privileged Identity Management says of its schedule requests [azure.md §1, wire/errors.txt].
    Row::new("RoleAssignmentDoesNotExist", &[400],
        "PIM: there is no such assignment to end.",
        Reason::AzureError, RETRY),
    Row::new("SubjectNotFound", &[400],
        "PIM: Entra has no such principal, or has not told all its replicas of it yet.",
        Reason::PrincipalNotFound, REPLICATES)
        .remedy("Check the object id and the tenant."),
    Row::new("ActiveDurationTooShort", &[400],
        "PIM: the grant would be shorter than five minutes.",
        Reason::AzureError, FAIL)
        .remedy("Grant for at least five minutes."),
    Row::new("RoleAssignmentRequestPolicyValidationFailed", &[400],
        "PIM: the role's settings forbid it, for instance so long a time.",
        Reason::RequestDisallowedByPolicy, RETRY_SLOWLY)
        .remedy("Change the role's PIM settings that the message names."),
    Row::new("RoleAssignmentRequestAcrsValidationFailed", &[400],
        "PIM: the role's settings want an authentication context, which only people have.",
        Reason::RequestDisallowedByPolicy, RETRY_SLOWLY)
        .remedy("Exempt the broker's identity from the role's authentication context."),
];

/// What is not in [`TABLE`], in the order in which it is told.
#[cfg(test)]
pub(super) static OTHERS: [&Row; 8] = [
    &UNANSWERED,
    &FAILED,
    &THROTTLED,
    &TOKEN_REFUSED,
    &NO_TOKEN,
    &CREDENTIALS_REFUSED,
    &UNREADABLE,
    &UNKNOWN,
];
