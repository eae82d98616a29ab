//! Why a use case could not be carried out, in the words of who asked.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;

use super::check::CheckError;
use super::clusters::ClusterError;
use super::page::InvalidPageToken;
use super::permission::Denied;
use super::principals::PrincipalError;
use super::roles::RoleError;
use crate::domain::ids::{ClusterId, GrantId, JobId, RequestId};
use crate::domain::naming::ExternalKey;
use crate::domain::reason::{Reason, code};
use crate::store::StoreError;

/// When to ask again where nothing better is known.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A use case that could not be carried out. Nothing was changed, unless it says otherwise.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The cluster cannot be had.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The role cannot be had, or is never assigned.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The principal cannot be had.
    #[error(transparent)]
    Principal(#[from] PrincipalError),
    /// A check has no answer.
    #[error("{}", of_check(.0))]
    Check(#[from] CheckError),
    /// A page token that is not of this list.
    #[error(transparent)]
    PageToken(#[from] InvalidPageToken),
    /// On a cluster without Entra integration *Cluster User* is admin: whoever may fetch its kubeconfig
    /// gets a client certificate in it.
    #[error(
        "cluster {cluster} has no Entra integration: every grant there would be an admin's. Turn it on: \
         {remedy}"
    )]
    EntraIntegrationRequired {
        /// Which.
        cluster: ClusterId,
        /// The command that puts it right.
        remedy: String,
    },
    /// An Azure role gives nothing on a cluster without Azure RBAC.
    #[error(
        "cluster {cluster} does not use Azure RBAC for Kubernetes: an Azure role would give nothing there. Turn it on: \
         {remedy}"
    )]
    AzureRbacDisabled {
        /// Which.
        cluster: ClusterId,
        /// The command that puts it right.
        remedy: String,
    },
    /// A new grant that would be over before it begins.
    #[error("{time} is in the past: it is {now}")]
    ExpireTimeIsPast {
        /// When it was to end.
        time: Timestamp,
        /// What time it is.
        now: Timestamp,
    },
    /// The idempotency key was used before, for something else.
    #[error(
        "request_id {request} was used before with another payload, for job {job}; take a new one for a new request"
    )]
    RequestIdReused {
        /// The key.
        request: RequestId,
        /// The job of the first use.
        job: JobId,
    },
    /// There is no such grant.
    #[error(
        "there is no grant {0}: it never was, or it ended longer ago than ended grants are kept"
    )]
    GrantNotFound(GrantId),
    /// The grant calls for nothing any more.
    #[error("grant {0} is not live any more, and no grant is revived: ask for a new one")]
    GrantEnded(GrantId),
    /// The external key names something else.
    #[error(
        "external_key {:?} names grant {grant}, which is of another principal, cluster or access: revoke that one \
         first, or take another key", key.as_str()
    )]
    ExternalKeyInUse {
        /// The key.
        key: ExternalKey,
        /// The live grant that has it.
        grant: GrantId,
    },
    /// A selector means more than the caller was ready to end.
    #[error(
        "more than {most} live grants match, and none was ended: narrow the selector, or raise max_grants if all of them \
         are meant"
    )]
    TooManyMatches {
        /// How many the caller was ready to end.
        most: usize,
    },
    /// There is no such job.
    #[error(
        "there is no job {0}: it never was, or it was over longer ago than finished jobs are kept"
    )]
    JobNotFound(JobId),
    /// No policy allows it, or one forbids it. Which ones is for the audit trail alone.
    #[error("{}", of_denial(.0))]
    Denied(Box<Denied>),
    /// The caller may not know that it is there.
    #[error("{as_if}")]
    Hidden {
        /// What is answered.
        as_if: Box<BrokerError>,
        /// What was decided.
        denied: Box<Denied>,
    },
    /// What a caller may see hangs on what its clusters are like, and Azure does not list them all.
    #[error(
        "some clusters cannot be read at the moment, and what you may do hangs on what they are like: ask again"
    )]
    ClustersNotListed,
    /// What is kept cannot be read or changed. What the store itself says names its keys and its settings: that
    /// is for its operator, and [`for_the_operator`](Self::for_the_operator) says it.
    #[error("{}", to_callers(.0))]
    Store(#[from] StoreError),
}

/// A refusal says what was refused: not why, and not whether there is such a cluster.
fn of_denial(denied: &Denied) -> String {
    let action = denied.action.name();
    let place = denied.cluster.as_ref();
    let place = place.map_or_else(String::new, |cluster| format!(" on {cluster}"));
    format!(
        "the policies of this broker do not let {} do {action} like this{place}: ask whoever runs it, who finds the \
         refusal in the audit trail",
        denied.caller
    )
}

/// What the store itself says is for its operator here as well.
fn of_check(error: &CheckError) -> String {
    match error.store() {
        Some(error) => to_callers(error).to_owned(),
        None => error.to_string(),
    }
}

/// What a caller learns of trouble with the store: the reason, and what to do.
const fn to_callers(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => {
            "the broker's store cannot be reached, or did not answer in time. What was asked for may have been \
             accepted: send the same request again, with the same request_id, and it takes effect once"
        }
        StoreError::Full(_) => {
            "the broker's store is full: nothing that gives access is accepted until it has room, revocations are. Send \
             the same request again later; if it stays so, tell the broker's operator"
        }
        StoreError::NotDurable { .. } => {
            "the broker's store could forget what is given to it, so nothing is. The broker's operator has to put that \
             right, and finds in its log how; then send the same request again"
        }
        StoreError::InDoubt(_) => {
            "the broker's store is not the one that this server began with: it was emptied or replaced. The broker \
             accepts nothing and carries nothing out until its operator has settled that; the broker's log says how. \
             Then send the same request again"
        }
        StoreError::Unreadable { .. } => {
            "what the broker has stored of this is damaged, or in the format of a newer broker. Tell the broker's \
             operator, who finds in its log what it is"
        }
        StoreError::Refused(_) | StoreError::Misconfigured(_) => {
            "the broker is not let at its store. The broker's operator has to put that right, and finds in its log why; \
             then send the same request again"
        }
    }
}

/// Why the store does not do what it is asked for, as callers see it.
pub(super) const fn store_reason(error: &StoreError) -> Reason {
    match error {
        StoreError::Full(_) => Reason::StoreFull,
        StoreError::InDoubt(_) => Reason::StoreInDoubt,
        StoreError::Unreadable { .. } => Reason::StoreUnreadable,
        StoreError::Unavailable(_)
        | StoreError::NotDurable { .. }
        | StoreError::Refused(_)
        | StoreError::Misconfigured(_) => Reason::StoreUnavailable,
    }
}

impl BrokerError {
    /// The stable reason that callers see.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Cluster(error) => error.reason(),
            Self::Role(error) => error.reason(),
            Self::Principal(error) => error.reason(),
            Self::Check(error) => error.reason(),
            Self::Denied(_) => Reason::PermissionDenied,
            Self::Hidden { as_if, .. } => as_if.reason(),
            Self::ClustersNotListed => Reason::AzureUnavailable,
            Self::PageToken(_) | Self::ExpireTimeIsPast { .. } => Reason::InvalidRequest,
            Self::EntraIntegrationRequired { .. } => Reason::EntraIntegrationRequired,
            Self::AzureRbacDisabled { .. } => Reason::AzureRbacDisabled,
            Self::RequestIdReused { .. } => Reason::RequestIdReused,
            Self::GrantNotFound(_) => Reason::GrantNotFound,
            Self::GrantEnded(_) => Reason::GrantEnded,
            Self::ExternalKeyInUse { .. } => Reason::ExternalKeyInUse,
            Self::TooManyMatches { .. } => Reason::TooManyMatches,
            Self::JobNotFound(_) => Reason::JobNotFound,
            Self::Store(error) => store_reason(error),
        }
    }

    /// Whether policies decided so.
    #[must_use]
    pub const fn is_denial(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Hidden { .. })
    }

    /// What the operator has to see to, in words that callers do not get; `None` where it is the caller's to see
    /// to, or passes by itself.
    #[must_use]
    pub fn for_the_operator(&self) -> Option<String> {
        let error = match self {
            Self::Store(error) => error,
            Self::Check(error) => error.store()?,
            _ => return None,
        };
        // The store itself logs this, once for all callers.
        let is_told = error.is_trouble() || matches!(error, StoreError::InDoubt(_));
        (!is_told).then(|| error.to_string())
    }

    /// Further values for `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let pair = |key: &str, value: &dyn std::fmt::Display| {
            BTreeMap::from([(key.to_owned(), value.to_string())])
        };
        match self {
            Self::Cluster(error) | Self::Check(CheckError::Cluster(error)) => error
                .cluster()
                .map_or_else(BTreeMap::new, |cluster| pair("cluster", cluster)),
            Self::EntraIntegrationRequired { cluster, .. }
            | Self::AzureRbacDisabled { cluster, .. } => pair("cluster", cluster),
            Self::RequestIdReused { request, job } => {
                let mut values = pair("request_id", request);
                values.extend(pair("job_id", job));
                values
            }
            Self::GrantNotFound(grant) | Self::GrantEnded(grant) => pair("grant_id", grant),
            Self::ExternalKeyInUse { key, grant } => {
                let mut values = pair("external_key", key);
                values.extend(pair("grant_id", grant));
                values
            }
            Self::TooManyMatches { most } => pair("max_grants", most),
            Self::Principal(error) | Self::Check(CheckError::Principal(error)) => error.metadata(),
            Self::Denied(denied) => pair("action", &denied.action.name()),
            Self::Hidden { as_if, .. } => as_if.metadata(),
            Self::JobNotFound(job) => pair("job_id", job),
            _ => BTreeMap::new(),
        }
    }

    /// When to ask again, where asking again can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let passes = matches!(
            self.reason().code(),
            code::UNAVAILABLE | code::RESOURCE_EXHAUSTED
        );
        let said = match self {
            Self::Principal(error) | Self::Check(CheckError::Principal(error)) => {
                error.retry_after()
            }
            Self::Check(CheckError::FreshReadsSpent(spent)) => Some(spent.wait),
            _ => None,
        };
        passes.then_some(said.unwrap_or(RETRY_AFTER))
    }

    /// What a violated precondition is about; empty where there is nothing to name.
    #[must_use]
    pub fn subject(&self) -> String {
        self.metadata().into_values().next().unwrap_or_default()
    }
}
