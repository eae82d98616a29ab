//! The table, row by row.

use std::collections::BTreeSet;

use super::table::{OTHERS, TABLE};
use super::*;

const SOON: Disposition = Disposition::Retry { slow: false };
const SLOWLY: Disposition = Disposition::Retry { slow: true };

fn refused(status: u16, code: &str) -> AzureError {
    AzureError::refused(
        "PUT of a role assignment",
        Refusal {
            status,
            code: code.to_owned(),
            said: "Azure's own words.".to_owned(),
            correlation_id: "c-1".to_owned(),
            retry_after: None,
        },
    )
}

/// Every code that azure.md §1 and §5 name, as it is answered there: status, code, did it perhaps
/// happen, what a grant does, what a revocation does.
const KNOWN: &[(u16, &str, Outcome, Disposition, Disposition)] = {
    use Disposition::{AwaitReplication, Final, NextName, ReadBack, Throttled};
    use Outcome::{Definite, Unknown};
    &[
        (409, "RoleAssignmentExists", Definite, ReadBack, SLOWLY),
        (
            400,
            "RoleAssignmentUpdateNotPermitted",
            Definite,
            SLOWLY,
            SLOWLY,
        ),
        (
            400,
            "HashConflictOnDifferentRoleAssignmentIds",
            Definite,
            NextName,
            SLOWLY,
        ),
        (404, "RoleAssignmentNotFound", Definite, SOON, SOON),
        (400, "PrincipalNotFound", Definite, AwaitReplication, SLOWLY),
        (400, "UnmatchedPrincipalType", Definite, Final, SLOWLY),
        (403, "AuthorizationFailed", Definite, SLOWLY, SLOWLY),
        (
            403,
            "DenyAssignmentAuthorizationFailed",
            Definite,
            SLOWLY,
            SLOWLY,
        ),
        (403, "LinkedAuthorizationFailed", Definite, SLOWLY, SLOWLY),
        (403, "RequestDisallowedByPolicy", Definite, SLOWLY, SLOWLY),
        (
            400,
            "RoleDefinitionDoesNotExist",
            Definite,
            AwaitReplication,
            SLOWLY,
        ),
        (
            404,
            "RoleDefinitionDoesNotExist",
            Definite,
            AwaitReplication,
            SLOWLY,
        ),
        (400, "InvalidRoleDefinitionId", Definite, Final, SLOWLY),
        (400, "InvalidPrincipalId", Definite, Final, SLOWLY),
        (400, "PrincipalTypeNotSupported", Definite, Final, SLOWLY),
        (400, "BadRequestFormat", Definite, Final, SLOWLY),
        (409, "ScopeLocked", Definite, SLOWLY, SLOWLY),
        (400, "RoleAssignmentLimitExceeded", Definite, SLOWLY, SLOWLY),
        (404, "SubscriptionNotFound", Definite, SLOWLY, SLOWLY),
        (404, "ResourceGroupNotFound", Definite, SOON, SOON),
        (404, "ResourceNotFound", Definite, SOON, SOON),
        (
            409,
            "ReadOnlyDisabledSubscription",
            Definite,
            SLOWLY,
            SLOWLY,
        ),
        (
            429,
            "SubscriptionRequestsThrottled",
            Definite,
            Throttled,
            Throttled,
        ),
        (
            429,
            "ResourceRequestsThrottled",
            Definite,
            Throttled,
            Throttled,
        ),
        (429, "Throttled", Definite, Throttled, Throttled),
        (429, "TooManyRequests", Definite, Throttled, Throttled),
        (400, "StorageException", Unknown, SOON, SOON),
        (500, "StorageException", Unknown, SOON, SOON),
        (500, "InternalServerError", Unknown, SOON, SOON),
        (503, "ServerTimeout", Unknown, SOON, SOON),
        (503, "ServiceUnavailable", Unknown, SOON, SOON),
        (504, "GatewayTimeout", Unknown, SOON, SOON),
        (502, "ServiceUnavailable", Unknown, SOON, SOON),
        (400, "RoleAssignmentDoesNotExist", Definite, SOON, SOON),
        (400, "SubjectNotFound", Definite, AwaitReplication, SLOWLY),
        (400, "ActiveDurationTooShort", Definite, Final, SLOWLY),
        (
            400,
            "RoleAssignmentRequestPolicyValidationFailed",
            Definite,
            SLOWLY,
            SLOWLY,
        ),
        (
            400,
            "RoleAssignmentRequestAcrsValidationFailed",
            Definite,
            SLOWLY,
            SLOWLY,
        ),
    ]
};

#[test]
fn every_known_error_has_its_row() {
    for &(status, code, outcome, granting, revoking) in KNOWN {
        let error = refused(status, code);
        assert_eq!(error.outcome, outcome, "{status} {code}");
        assert_eq!(
            error.disposition(Purpose::Grant),
            granting,
            "{status} {code}"
        );
        assert_eq!(
            error.disposition(Purpose::Revocation),
            revoking,
            "{status} {code}"
        );
    }
    for row in &TABLE {
        let tested: BTreeSet<u16> = KNOWN
            .iter()
            .filter(|known| known.1 == row.code)
            .map(|known| known.0)
            .collect();
        let said = row.statuses.iter().copied().collect();
        assert_eq!(tested, said, "{}", row.code);
    }
}

#[test]
fn i5_no_error_is_final_for_a_revocation() {
    for row in TABLE.iter().chain(OTHERS) {
        assert_ne!(row.revoking, Disposition::Final, "{}", row.code);
    }
}

#[test]
fn i9_an_error_that_the_table_does_not_know_is_neither_success_nor_final() {
    for (status, outcome) in [
        (400, Outcome::Definite),
        (404, Outcome::Definite),
        (409, Outcome::Definite),
        (408, Outcome::Unknown),
        (302, Outcome::Unknown),
        (202, Outcome::Unknown),
        (500, Outcome::Unknown),
        (599, Outcome::Unknown),
    ] {
        for code in ["", "SomethingNew"] {
            let error = refused(status, code);
            assert_eq!(error.outcome, outcome, "{status} {code}");
            for purpose in [Purpose::Grant, Purpose::Revocation] {
                assert!(
                    matches!(error.disposition(purpose), Disposition::Retry { .. }),
                    "{status} {code}"
                );
            }
        }
    }
}

#[test]
fn a_status_beats_a_code_that_does_not_go_with_it() {
    let throttled = refused(429, "ScopeLocked");
    assert_eq!(
        throttled.disposition(Purpose::Grant),
        Disposition::Throttled
    );
    assert_eq!(throttled.retry_after, Some(Duration::from_secs(1)));
    let failed = refused(500, "UnmatchedPrincipalType");
    assert_eq!(failed.disposition(Purpose::Grant), SOON);
    assert_eq!(failed.outcome, Outcome::Unknown);
    let token = refused(401, "ExpiredAuthenticationToken");
    assert_eq!(token.reason(), Reason::AzureUnavailable);
    assert_eq!(token.outcome, Outcome::Definite);
}

#[test]
fn only_a_resource_that_is_not_found_is_gone() {
    assert!(refused(404, "ResourceNotFound").is_gone());
    assert!(refused(404, "ResourceGroupNotFound").is_gone());
    for (status, code) in [
        (404, "SubscriptionNotFound"),
        (404, ""),
        (403, "AuthorizationFailed"),
        (403, "ResourceNotFound"),
        (500, "ResourceNotFound"),
    ] {
        assert!(!refused(status, code).is_gone(), "{status} {code}");
    }
}

#[test]
fn a_failure_says_what_azure_said_and_what_to_do() {
    let failure = refused(409, "ScopeLocked").failure(Purpose::Revocation);
    assert_eq!(failure.reason, "SCOPE_LOCKED");
    assert_eq!(
        failure.message,
        "PUT of a role assignment: 409 ScopeLocked: Azure's own words. Remove the lock that the message names."
    );
    assert_eq!(failure.azure_correlation_id, "c-1");
    assert!(failure.retryable);
    assert_eq!(failure.metadata["azure_code"], "ScopeLocked");
    let failure = refused(400, "UnmatchedPrincipalType").failure(Purpose::Grant);
    assert!(!failure.retryable);
}
