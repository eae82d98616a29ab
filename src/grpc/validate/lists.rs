//! `ListGrants`, `ListJobs`, `ListJobTargets`. Whether a token is one of the list's only the list can tell.

use std::collections::BTreeSet;

use crate::broker::page::PageSize;
use crate::broker::request::{GrantQuery, JobQuery, JobTargetQuery};
use crate::domain::grant::{Ending, Phase};
use crate::domain::ids::{ClusterId, JobId, RequestId};
use crate::domain::job::{JobKind, JobState};
use crate::grpc::proto;
use crate::grpc::status::Violation;

use super::{Violations, filter, parsed, principal, selector};

/// A `ListGrantsRequest`.
///
/// # Errors
/// Every field that is wrong.
pub(in crate::grpc) fn grants(
    request: &proto::ListGrantsRequest,
) -> Result<GrantQuery, Vec<Violation>> {
    let mut wrong = Violations::default();
    let size = wrong.take("page_size", PageSize::try_new(request.page_size));
    let selector = selector::to_list("selector", request.selector.as_ref(), &mut wrong);
    let phases = each(
        "states",
        &request.states,
        "State of a Grant",
        phase,
        &mut wrong,
    );
    let whole = || {
        Some(GrantQuery {
            selector: selector?,
            phases: phases?.unwrap_or_else(|| Phase::LIVE.into()),
            size: size?,
            token: request.page_token.clone(),
        })
    };
    let whole = whole();
    wrong.finish(whole)
}

/// A `ListJobsRequest`.
///
/// # Errors
/// Every field that is wrong.
pub(in crate::grpc) fn jobs(request: &proto::ListJobsRequest) -> Result<JobQuery, Vec<Violation>> {
    let mut wrong = Violations::default();
    let size = wrong.take("page_size", PageSize::try_new(request.page_size));
    let principal = principal::optional("principal", request.principal.as_ref(), &mut wrong);
    let cluster = filter::parsed(
        "cluster",
        request.cluster.as_deref(),
        ClusterId::parse,
        &mut wrong,
    );
    let request_id = filter::parsed(
        "request_id",
        request.request_id.as_deref(),
        RequestId::parse,
        &mut wrong,
    );
    let states = each(
        "states",
        &request.states,
        "State of a Job",
        job_state,
        &mut wrong,
    );
    let kinds = each(
        "kinds",
        &request.kinds,
        "Kind of a Job",
        job_kind,
        &mut wrong,
    );
    let whole = || {
        Some(JobQuery {
            principal: principal?,
            cluster: cluster?,
            request_id: request_id?,
            states: states?,
            kinds: kinds?,
            size: size?,
            token: request.page_token.clone(),
        })
    };
    let whole = whole();
    wrong.finish(whole)
}

/// A `ListJobTargetsRequest`.
///
/// # Errors
/// Every field that is wrong.
pub(in crate::grpc) fn job_targets(
    request: &proto::ListJobTargetsRequest,
) -> Result<JobTargetQuery, Vec<Violation>> {
    let mut wrong = Violations::default();
    let size = wrong.take("page_size", PageSize::try_new(request.page_size));
    let job = parsed("job_id", &request.job_id, JobId::parse, &mut wrong);
    let states = each(
        "states",
        &request.states,
        "State of a Job",
        job_state,
        &mut wrong,
    );
    let whole = || {
        Some(JobTargetQuery {
            job: job?,
            states: states?,
            size: size?,
            token: request.page_token.clone(),
        })
    };
    let whole = whole();
    wrong.finish(whole)
}

/// What one value of an enum narrows a list to.
enum Narrows<T> {
    /// To what is so.
    To(T),
    /// To what this server never has.
    ToNothing,
}

/// The values of a repeated enum field. The outer `Option` is whether all are values, the inner whether
/// there are any.
#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
fn each<T: Ord>(
    field: &str,
    values: &[i32],
    kind: &str,
    read: impl Fn(i32) -> Option<Narrows<T>>,
    wrong: &mut Violations,
) -> Option<Option<BTreeSet<T>>> {
    let mut asked = BTreeSet::new();
    let mut all = true;
    for (index, value) in values.iter().enumerate() {
        match read(*value) {
            Some(Narrows::To(value)) => {
                asked.insert(value);
            }
            Some(Narrows::ToNothing) => {}
            None => {
                wrong.add(
                    format_args!("{field}[{index}]"),
                    format!("{value} is no {kind}"),
                );
                all = false;
            }
        }
    }
    all.then_some((!values.is_empty()).then_some(asked))
}

fn phase(value: i32) -> Option<Narrows<Phase>> {
    use proto::grant::State;
    Some(match State::try_from(value).ok()? {
        State::Unspecified => return None,
        State::Pending => Narrows::To(Phase::Pending),
        State::Active => Narrows::To(Phase::Active),
        State::Revoking => Narrows::To(Phase::Revoking),
        State::Revoked => Narrows::To(Phase::Ended(Ending::Revoked)),
        State::Expired => Narrows::To(Phase::Ended(Ending::Expired)),
        State::Failed => Narrows::To(Phase::Ended(Ending::Failed)),
        State::Scheduled => Narrows::ToNothing,
    })
}

fn job_state(value: i32) -> Option<Narrows<JobState>> {
    use proto::job::State;
    Some(Narrows::To(match State::try_from(value).ok()? {
        State::Unspecified => return None,
        State::Queued => JobState::Queued,
        State::Running => JobState::Running,
        State::Retrying => JobState::Retrying,
        State::Succeeded => JobState::Succeeded,
        State::Failed => JobState::Failed,
        State::Superseded => JobState::Superseded,
    }))
}

fn job_kind(value: i32) -> Option<Narrows<JobKind>> {
    use proto::job::Kind;
    Some(match Kind::try_from(value).ok()? {
        Kind::Unspecified => return None,
        Kind::Grant => Narrows::To(JobKind::Grant),
        Kind::Revoke => Narrows::To(JobKind::Revoke),
        Kind::Expire => Narrows::To(JobKind::Expire),
        Kind::Extend => Narrows::To(JobKind::Extend),
        Kind::Offboard | Kind::Repair => Narrows::ToNothing,
    })
}
