//! What an error of Microsoft Graph means for us: one table, beside ARM's.
//!
//! The directory is only ever read, and a request that needed it can be sent again: so there is no outcome to
//! keep in doubt here, only what to tell whoever asked.

use std::time::Duration;

use thiserror::Error;

use crate::azure::error::AzureError;
use crate::azure::wire::Refusal;
use crate::domain::reason::Reason;

/// A look into the directory that did not work.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{message}")]
pub struct GraphError {
    reason: Reason,
    /// The HTTP status; `None` where Graph did not answer.
    pub status: Option<u16>,
    /// Graph's own code, such as `Request_ResourceNotFound`; empty where it gave none.
    pub code: String,
    /// What was asked, what went wrong, and what to do.
    pub message: String,
    /// Graph's `request-id`, for a support request; empty where Graph did not answer.
    pub request_id: String,
    /// How long Graph says to wait; always there, and at least one second, with a 429.
    pub retry_after: Option<Duration>,
}

impl GraphError {
    /// Graph answered `question`, and not with what was asked for. `needs` are the application permissions
    /// that the question takes.
    pub(super) fn refused(question: &str, needs: &str, refusal: Refusal) -> Self {
        let status = refusal.status;
        let row = Row::of(status, &refusal.code);
        let code = if refusal.code.is_empty() {
            "no error code"
        } else {
            &refusal.code
        };
        let said = refusal.said.trim_end_matches('.');
        let remedy = match row.reason {
            Reason::PrincipalNotReadable => &format!(
                "Give the broker's application {needs} in Microsoft Graph, as an application permission with an \
                 administrator's consent."
            ),
            _ => row.remedy,
        };
        let throttled = row.reason == Reason::AzureThrottled;
        Self {
            reason: row.reason,
            message: format!("{question}: {status} {code}: {said}. {remedy}")
                .trim_end()
                .to_owned(),
            status: Some(status),
            retry_after: refusal
                .retry_after
                .or_else(|| throttled.then_some(Duration::from_secs(1))),
            code: refusal.code,
            request_id: refusal.correlation_id,
        }
    }

    /// Graph gave no answer to `question`.
    pub(super) fn unanswered(question: &str, problem: &str) -> Self {
        Self::without_answer(Reason::AzureUnavailable, format!("{question}: {problem}"))
    }

    /// `question` was answered with success, but what the answer says cannot be understood.
    pub(super) fn unreadable(question: &str, status: u16, request_id: &str, problem: &str) -> Self {
        Self {
            status: Some(status),
            request_id: request_id.to_owned(),
            ..Self::without_answer(
                Reason::AzureError,
                format!("{question}: {status}, but the answer cannot be understood: {problem}"),
            )
        }
    }

    /// There is no access token to ask with.
    pub(super) fn no_token(question: &str, error: &AzureError) -> Self {
        Self::without_answer(error.reason(), format!("{question}: {error}"))
    }

    fn without_answer(reason: Reason, message: String) -> Self {
        Self {
            reason,
            status: None,
            code: String::new(),
            message,
            request_id: String::new(),
            retry_after: None,
        }
    }

    /// The stable reason that callers see.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }
}

/// One row of the table.
struct Row {
    status: u16,
    code: &'static str,
    reason: Reason,
    remedy: &'static str,
}

impl Row {
    /// 401, 408, 429 and 5xx are what they are whatever their code. Of the rest only what is known by status
    /// and code counts: a proxy's 404 says nothing of a person, nor its 403 of the broker's permissions.
    fn of(status: u16, code: &str) -> &'static Self {
        match status {
            401 => &TOKEN_REFUSED,
            429 => &THROTTLED,
            408 | 500.. => &UNANSWERED,
            _ => TABLE
                .iter()
                .find(|row| row.status == status && row.code.eq_ignore_ascii_case(code))
                .unwrap_or(&UNKNOWN),
        }
    }

    const fn new(status: u16, code: &'static str, reason: Reason, remedy: &'static str) -> Self {
        Self {
            status,
            code,
            reason,
            remedy,
        }
    }
}

static TOKEN_REFUSED: Row = Row::new(
    401,
    "",
    Reason::AzureUnavailable,
    "A new access token is fetched before the next call.",
);
static THROTTLED: Row = Row::new(429, "", Reason::AzureThrottled, "");
static UNANSWERED: Row = Row::new(0, "", Reason::AzureUnavailable, "");
// An error that no table knows is never success, and never says that somebody does not exist.
static UNKNOWN: Row = Row::new(
    0,
    "",
    Reason::AzureError,
    "The broker does not know this error.",
);

/// THE table. Sources: azure.md §6 and the bodies in wire/errors.txt, which name theirs.
static TABLE: [Row; 2] = [
    Row::new(
        404,
        "Request_ResourceNotFound",
        Reason::PrincipalNotFound,
        "",
    ),
    // The remedy names the permissions, which differ with the question.
    Row::new(
        403,
        "Authorization_RequestDenied",
        Reason::PrincipalNotReadable,
        "",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str, retry_after: Option<f64>) -> GraphError {
        let refusal = Refusal {
            status,
            code: code.to_owned(),
            said: "words.".to_owned(),
            correlation_id: "id".to_owned(),
            retry_after: retry_after.map(Duration::from_secs_f64),
        };
        GraphError::refused("user ada@contoso.example", "User.Read.All", refusal)
    }

    #[test]
    fn each_refusal_has_one_meaning_and_what_is_not_known_is_never_an_absence() {
        for (status, code, reason) in [
            (404, "Request_ResourceNotFound", Reason::PrincipalNotFound),
            (404, "request_resourcenotfound", Reason::PrincipalNotFound),
            (404, "ResourceNotFound", Reason::AzureError),
            (404, "", Reason::AzureError),
            (
                403,
                "Authorization_RequestDenied",
                Reason::PrincipalNotReadable,
            ),
            (403, "", Reason::AzureError),
            (400, "Request_ResourceNotFound", Reason::AzureError),
            (400, "Request_BadRequest", Reason::AzureError),
            (401, "InvalidAuthenticationToken", Reason::AzureUnavailable),
            (408, "", Reason::AzureUnavailable),
            (429, "TooManyRequests", Reason::AzureThrottled),
            (429, "", Reason::AzureThrottled),
            (500, "Request_ResourceNotFound", Reason::AzureUnavailable),
            (503, "serviceNotAvailable", Reason::AzureUnavailable),
            (302, "", Reason::AzureError),
            (204, "", Reason::AzureError),
        ] {
            let error = refused(status, code, None);
            assert_eq!(error.reason(), reason, "{status} {code}");
            assert!(error.message.contains("words."), "{}", error.message);
        }
    }

    #[test]
    fn whoever_is_throttled_is_told_for_how_long() {
        assert_eq!(
            refused(429, "", None).retry_after,
            Some(Duration::from_secs(1))
        );
        let decimal = refused(429, "", Some(2.128)).retry_after;
        assert_eq!(decimal, Some(Duration::from_millis(2_128)));
        assert_eq!(
            refused(503, "", Some(7.0)).retry_after,
            Some(Duration::from_secs(7))
        );
        assert_eq!(refused(500, "", None).retry_after, None);
    }

    #[test]
    fn a_missing_permission_is_named() {
        let error = refused(403, "Authorization_RequestDenied", None);
        assert!(
            error.message.contains("User.Read.All in Microsoft Graph"),
            "{error}"
        );
    }
}
