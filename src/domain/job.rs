//! Jobs: what a caller follows while the broker carries out what it accepted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::access::Principal;
use super::freshness::ConsistencyToken;
use super::ids::{ClusterId, GrantId, JobId, RequestId, TargetId};
use super::preview::PlannedEffect;
use super::reason::Reason;

/// What a job was made for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum JobKind {
    /// A `Grant`: over when its grant is active.
    Grant,
    /// A `Revoke`: over when its grants are gone and settled.
    Revoke,
    /// A grant's time was up: over when it is gone and settled.
    Expire,
    /// An `ExtendGrant`: over when the grant is active, and its new end is written.
    Extend,
}

/// Where a job stands. It reaches one final state, once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum JobState {
    /// No worker has looked at it yet.
    Queued,
    /// A worker is at it, or it waits for calls to settle.
    Running,
    /// Something failed; it is tried again.
    Retrying,
    /// Done.
    Succeeded,
    /// Its grant could not be applied; what had been applied was taken back.
    Failed,
    /// A later request undid it before it was carried out.
    Superseded,
}

impl JobState {
    /// Whether it is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Superseded)
    }
}

/// Why something did not work, in the words that the caller gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// A stable reason in `UPPER_SNAKE_CASE`, as in `google.rpc.ErrorInfo`.
    pub reason: String,
    /// What happened, with which value, and what to do.
    pub message: String,
    /// Azure's correlation id, for a support request; empty where Azure did not answer.
    pub azure_correlation_id: String,
    /// Whether it is tried again.
    pub retryable: bool,
    /// The `google.rpc.Code` that fits.
    pub code: i32,
    /// Further values, as in `google.rpc.ErrorInfo`.
    pub metadata: BTreeMap<String, String>,
}

impl Failure {
    /// One that trying again may mend; not Azure's own.
    #[must_use]
    pub fn passing(reason: Reason, message: String) -> Self {
        Self {
            retryable: true,
            ..Self::lasting(reason, message)
        }
    }

    /// One that trying again cannot mend; not Azure's own.
    #[must_use]
    pub fn lasting(reason: Reason, message: String) -> Self {
        Self {
            reason: reason.to_string(),
            message,
            azure_correlation_id: String::new(),
            retryable: false,
            code: reason.code(),
            metadata: BTreeMap::new(),
        }
    }
}

/// One job, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Its id, a UUIDv7.
    pub id: JobId,
    /// What it was made for.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// Raised by every change: a watcher sends what is newer than what it sent.
    pub version: u64,
    /// The caller's idempotency key, or the broker's own where the caller gave none; `None`: no request set
    /// it off, as for an expiry.
    pub request_id: Option<RequestId>,
    /// Who asked for it.
    pub requested_by: String,
    /// Why, in the caller's words.
    pub justification: String,
    /// When it was accepted.
    pub create_time: Timestamp,
    /// When it was over; present exactly when it is.
    pub finish_time: Option<Timestamp>,
    /// When it is tried again; present while it is `Retrying`.
    pub next_attempt_time: Option<Timestamp>,
    /// How often a worker has taken it up.
    pub attempts: u32,
    /// Who it is about; `None` where its targets differ.
    pub principal: Option<Principal>,
    /// Where; `None` where its targets differ.
    pub cluster: Option<ClusterId>,
    /// How many live grants a revocation found, and so ended.
    pub matched_grants: u32,
    /// How many more a selector matched that the job leaves as they are, as far as its caller may know.
    pub left_grants: u32,
    /// How many targets it has.
    pub total_targets: u32,
    /// How many of them are done.
    pub completed_targets: u32,
    /// What went wrong last.
    pub last_error: Option<Failure>,
    /// The place of its end in the broker's stream of changes; set when the job is over.
    pub consistency_token: Option<ConsistencyToken>,
    /// Its targets: at most the first 20.
    pub targets: Vec<JobTarget>,
}

/// One target of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobTarget {
    /// Which.
    pub id: TargetId,
    /// Its principal, as resolved when its grants were accepted.
    pub principal: Principal,
    /// Where the job stands on this target.
    pub state: JobState,
    /// How often a worker has taken it up.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt_time: Option<Timestamp>,
    /// What went wrong last.
    pub last_error: Option<Failure>,
    /// The grants that it is about.
    pub grants: BTreeSet<GrantId>,
    /// What has been done so far, in the order of the assignments' names.
    pub effects: Vec<JobEffect>,
}

/// What was done to one effect while a job waited for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobEffect {
    /// The effect, and what was done to it.
    pub effect: PlannedEffect,
    /// Its role's display name.
    pub role_name: String,
}

/// What a target remembers of a job that waits for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitingJob {
    /// The job.
    pub id: JobId,
    /// What it was made for.
    pub kind: JobKind,
    /// The grants of this target that it waits for.
    pub grants: BTreeSet<GrantId>,
}
