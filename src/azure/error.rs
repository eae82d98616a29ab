//! What an Azure error means for us: one table, here and nowhere else.
//!
//! Two questions are kept apart. *Did it happen?* is the [`Outcome`]: only an answer that says "not
//! done", or proof that the request never left, is definite. *What now?* is the [`Disposition`], and it
//! differs with what one is after: a grant may fail for good, a revocation never does (I5).
//! `docs/azure-errors.md` is the table for operators, and is made from it.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use super::wire::Refusal;
use crate::domain::effect::Call;
use crate::domain::job::Failure;
use crate::domain::reason::Reason;
use table::{CREDENTIALS_REFUSED, NO_TOKEN, Row, UNANSWERED, UNREADABLE};

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
                format!(
                    "{call}: {status}, but the answer cannot be understood: {problem}. {}",
                    UNREADABLE.remedy
                ),
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

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
