//! One step, carried out: a call to Azure, and what its answer means.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::Reconciler;
use crate::azure::{AzureError, Disposition, Filter, Outcome, Place, Purpose, REPLICATION};
use crate::domain::access::{PrincipalType, RoleAtScope};
use crate::domain::conclude::{FailedStep, Retry};
use crate::domain::effect::{Answer, Call, Foreign};
use crate::domain::ids::AssignmentName;
use crate::domain::job::Failure;
use crate::domain::ownership::place_in_series;
use crate::domain::plan::Step;
use crate::domain::reason::Reason;
use crate::domain::target::Target;
use crate::store::Closing;

/// What became of one step.
pub(super) struct Applied {
    /// What it says of the effect.
    pub(super) answer: Answer,
    /// Why it did not do what it was meant to.
    pub(super) failed: Option<FailedStep>,
    /// Azure's correlation id.
    pub(super) correlation_id: String,
    /// A queue that Azure told us to close.
    pub(super) closing: Option<Closing>,
    /// How many more calls of the kind ARM allows the subscription at once, where it says so.
    pub(super) remaining: Option<u32>,
    /// The answer hints that the cluster is gone.
    pub(super) cluster_may_be_gone: bool,
    /// Azure refuses the name for good, and this is what it said.
    pub(super) refused_name: Option<Failure>,
    /// Another name of the same series was found to stand: it, and its place in the series.
    pub(super) ours: Option<(AssignmentName, u32)>,
}

impl Applied {
    const fn new(answer: Answer, correlation_id: String) -> Self {
        Self {
            answer,
            failed: None,
            correlation_id,
            closing: None,
            remaining: None,
            cluster_may_be_gone: false,
            refused_name: None,
            ours: None,
        }
    }
}

impl Reconciler {
    /// Makes the call of `step`. `sent` is Redis's time when it is sent, or a little later.
    pub(super) async fn apply(&self, target: &Target, step: &Step, sent: Timestamp) -> Applied {
        match step {
            Step::Put {
                name,
                at,
                description,
                principal_type,
                ..
            } => {
                let description_text = description.write();
                let put = self.azure.put_role_assignment(
                    *name,
                    at,
                    target.id.principal,
                    *principal_type,
                    &description_text,
                    request_id(*name, target.generation, Call::Put),
                );
                match self.in_time(put).await {
                    Some(Ok(written)) => Applied {
                        remaining: written.remaining,
                        ..Applied::new(Answer::Written(description.clone()), written.correlation_id)
                    },
                    Some(Err(error)) => self.put_failed(target, step, &error, sent).await,
                    None => self.no_answer(step, sent),
                }
            }
            Step::Delete { name, at } => {
                let request = request_id(*name, target.generation, Call::Delete);
                let delete = self.azure.delete_role_assignment(*name, &at.scope, request);
                match self.in_time(delete).await {
                    Some(Ok(deletion)) => {
                        let answer = if deletion.was_there {
                            Answer::Deleted
                        } else {
                            Answer::NotThere
                        };
                        Applied {
                            remaining: deletion.remaining,
                            ..Applied::new(answer, deletion.correlation_id)
                        }
                    }
                    Some(Err(error)) => self.call_failed(target, step, &error, sent),
                    None => self.no_answer(step, sent),
                }
            }
        }
    }

    /// The client's own timeout says the same; this one holds even if it should wait for a token.
    pub(super) async fn in_time<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.call_timeout, call).await.ok()
    }

    async fn put_failed(
        &self,
        target: &Target,
        step: &Step,
        error: &AzureError,
        sent: Timestamp,
    ) -> Applied {
        match error.disposition(Purpose::Grant) {
            Disposition::NextName => Applied {
                refused_name: Some(error.failure(Purpose::Grant)),
                ..Applied::new(Answer::NameRefused, error.correlation_id.clone())
            },
            Disposition::ReadBack => self.read_back(target, step, error).await,
            _ => self.call_failed(target, step, error, sent),
        }
    }

    /// The same assignment stands under another name: whose is it?
    async fn read_back(&self, target: &Target, step: &Step, error: &AzureError) -> Applied {
        let at = step.at();
        let request = Uuid::new_v4();
        let place = Place::Scope(at.scope.clone());
        let read =
            self.azure
                .role_assignments(&place, Filter::Principal(target.id.principal), request);
        let found = match self.in_time(read).await {
            Some(Ok(list)) => list.into_iter().find(|found| {
                found.is_at(at)
                    && found.principal == target.id.principal
                    && found.name != step.name()
            }),
            Some(Err(_)) | None => None,
        };
        let correlation_id = error.correlation_id.clone();
        let ours = found
            .as_ref()
            .and_then(|found| self.place_in_series(target, at, found.name));
        match (found, ours) {
            (Some(found), None) => {
                let foreign = Foreign {
                    name: found.name,
                    conditional: found.condition.is_some(),
                };
                Applied::new(Answer::Foreign(foreign), correlation_id)
            }
            (found, ours) => Applied {
                failed: Some(failed(step, unexplained(error, at), Retry::Soon)),
                ours: found.map(|found| found.name).zip(ours),
                ..Applied::new(Answer::Unexplained, correlation_id)
            },
        }
    }

    /// The place of a name in our own series. The broker knows every name that it ever intended.
    fn place_in_series(
        &self,
        target: &Target,
        at: &RoleAtScope,
        name: AssignmentName,
    ) -> Option<u32> {
        let known = target.effects.get(&name).map(|effect| effect.n);
        known.or_else(|| place_in_series(self.instance, at, target.id.principal, name))
    }

    /// A 403 or a 404 may mean that the cluster is gone; only a read of the cluster itself says so.
    pub(super) async fn cluster_is_gone(&self, target: &Target) -> bool {
        match self
            .azure
            .managed_cluster(&target.id.cluster, Uuid::new_v4())
            .await
        {
            Ok(_) => false,
            Err(error) => error.is_gone(),
        }
    }

    fn call_failed(
        &self,
        target: &Target,
        step: &Step,
        error: &AzureError,
        sent: Timestamp,
    ) -> Applied {
        let purpose = Purpose::from(step.call());
        let answer = match error.outcome {
            Outcome::Definite => Answer::Refused,
            Outcome::Unknown => Answer::Unknown {
                until: self.settles(sent),
            },
        };
        let (failure, retry) = classify(target, step.at(), error, purpose, sent);
        let closing = match retry {
            Retry::After(wait) => Some(Closing {
                call: step.call(),
                for_: wait,
            }),
            Retry::Soon | Retry::Slowly => None,
        };
        Applied {
            failed: Some(failed(step, failure, retry)),
            closing,
            cluster_may_be_gone: error.suggests_cluster_is_gone(),
            ..Applied::new(answer, error.correlation_id.clone())
        }
    }

    fn no_answer(&self, step: &Step, sent: Timestamp) -> Applied {
        let message = format!(
            "Azure did not answer within {} s about {} at {}; it is tried again",
            self.call_timeout.as_secs(),
            step.at().role,
            step.at().scope
        );
        let failure = Failure::passing(Reason::AzureUnavailable, message);
        let answer = Answer::Unknown {
            until: self.settles(sent),
        };
        Applied {
            failed: Some(failed(step, failure, Retry::Soon)),
            ..Applied::new(answer, String::new())
        }
    }

    /// When a call sent at `sent` can take effect no more: give-up time + settle time.
    fn settles(&self, sent: Timestamp) -> Timestamp {
        let give_up = sent
            .saturating_add(self.call_timeout)
            .unwrap_or(Timestamp::MAX);
        give_up
            .saturating_add(self.settings.settle_time)
            .unwrap_or(Timestamp::MAX)
    }
}

/// An error as a job tells it, and how soon what met it is tried again.
pub(super) fn classify(
    target: &Target,
    at: &RoleAtScope,
    error: &AzureError,
    purpose: Purpose,
    now: Timestamp,
) -> (Failure, Retry) {
    let mut failure = error.failure(purpose);
    let retry = match error.disposition(purpose) {
        Disposition::Retry { slow: true } => Retry::Slowly,
        Disposition::Throttled => Retry::After(error.retry_after.unwrap_or(Duration::from_secs(1))),
        Disposition::AwaitReplication => {
            failure.retryable = !has_waited_for_replication(target, at, now);
            Retry::Soon
        }
        Disposition::Retry { slow: false }
        | Disposition::NextName
        | Disposition::ReadBack
        | Disposition::Final => Retry::Soon,
    };
    (failure, retry)
}

/// The same in a retry of the same wish, so that Azure's support can tell one from the other.
fn request_id(name: AssignmentName, generation: u64, call: Call) -> Uuid {
    Uuid::new_v5(&name.guid(), format!("{generation}|{call:?}").as_bytes())
}

/// Whether every grant that waits for this has waited longer than Azure's replicas take.
fn has_waited_for_replication(target: &Target, at: &RoleAtScope, now: Timestamp) -> bool {
    let replication = SignedDuration::try_from(REPLICATION).unwrap_or(SignedDuration::MAX);
    target
        .grants
        .iter()
        .filter(|grant| grant.state.is_live() && grant.calls_for().contains(at))
        .all(|grant| now.duration_since(grant.create_time) > replication)
}

fn unexplained(error: &AzureError, at: &RoleAtScope) -> Failure {
    Failure {
        reason: Reason::NotSettled.to_string(),
        message: format!(
            "Azure says that role {} is assigned at {} under another name, and shows no such assignment that is not \
             the broker's own (yet); it is tried again",
            at.role, at.scope
        ),
        retryable: true,
        code: Reason::NotSettled.code(),
        ..error.failure(Purpose::Grant)
    }
}

/// What to say of a DELETE's "there was none" that cannot be believed yet.
pub(super) fn not_believed(step: &Step, correlation_id: &str) -> FailedStep {
    let message = format!(
        "Azure says that role assignment {} at {} does not exist, but it was written so lately that the answer may \
         be out of date; it is asked again",
        step.name(),
        step.at().scope
    );
    let failure = Failure {
        azure_correlation_id: correlation_id.to_owned(),
        ..Failure::passing(Reason::NotSettled, message)
    };
    failed(step, failure, Retry::Soon)
}

pub(super) fn failed(step: &Step, failure: Failure, retry: Retry) -> FailedStep {
    FailedStep {
        at: step.at().clone(),
        call: step.call(),
        principal_type: principal_type(step),
        failure,
        retry,
    }
}

const fn principal_type(step: &Step) -> Option<PrincipalType> {
    match step {
        Step::Put { principal_type, .. } => Some(*principal_type),
        Step::Delete { .. } => None,
    }
}
