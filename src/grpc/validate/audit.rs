//! `ListAuditEvents`.

use jiff::Timestamp;

use crate::broker::page::PageSize;
use crate::broker::trail::AuditQuery;
use crate::domain::ids::{ClusterId, GrantId, JobId};
use crate::grpc::proto;
use crate::grpc::status::Violation;

use super::{Violations, filter, principal, time};

/// A `ListAuditEventsRequest`.
///
/// # Errors
/// Every field that is wrong.
pub(in crate::grpc) fn audit_events(
    request: &proto::ListAuditEventsRequest,
) -> Result<AuditQuery, Vec<Violation>> {
    let mut wrong = Violations::default();
    let size = wrong.take("page_size", PageSize::try_new(request.page_size));
    let principal = principal::optional("principal", request.principal.as_ref(), &mut wrong);
    let cluster = filter::parsed(
        "cluster",
        request.cluster.as_deref(),
        ClusterId::parse,
        &mut wrong,
    );
    // No event is older than 1970, and none is before its first millisecond.
    let from = moment("start_time", request.start_time, 0, &mut wrong);
    let until = moment("end_time", request.end_time, 1, &mut wrong);
    let grant = filter::parsed(
        "grant_id",
        request.grant_id.as_deref(),
        GrantId::parse,
        &mut wrong,
    );
    let job = filter::parsed(
        "job_id",
        request.job_id.as_deref(),
        JobId::parse,
        &mut wrong,
    );
    let actor = filter::text("actor", request.actor.as_deref(), &mut wrong);
    let whole = || {
        Some(AuditQuery {
            principal: principal?,
            cluster: cluster?,
            grant: grant?,
            job: job?,
            actor: actor?,
            from: from?,
            until: until?,
            size: size?,
            token: request.page_token.clone(),
        })
    };
    let whole = whole();
    wrong.finish(whole)
}

#[expect(
    clippy::option_option,
    reason = "two questions, answered at two levels"
)]
fn moment(
    field: &str,
    given: Option<prost_types::Timestamp>,
    earliest: i64,
    wrong: &mut Violations,
) -> Option<Option<Timestamp>> {
    let Some(given) = given else {
        return Some(None);
    };
    let time = time::point(given).filter(|time| time.as_millisecond() >= earliest);
    if time.is_none() {
        let (seconds, nanos) = (given.seconds, given.nanos);
        let problem = format!(
            "{seconds} seconds and {nanos} nanoseconds since 1970 are no time that an event can have: expected \
                 {earliest} milliseconds or more"
        );
        wrong.add(field, problem);
    }
    time.map(Some)
}
