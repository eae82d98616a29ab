//! Events of the audit trail.

use crate::broker::trail::{AuditPage, TrailEvent};
use crate::grpc::proto;

use super::timestamp;

/// A page of events.
pub(in crate::grpc) fn audit_page(page: AuditPage) -> proto::ListAuditEventsResponse {
    let AuditPage {
        chain,
        events,
        next,
    } = page;
    let events = events.into_iter();
    proto::ListAuditEventsResponse {
        events: events.map(|event| audit_event(event, &chain)).collect(),
        next_page_token: next,
    }
}

fn audit_event(event: TrailEvent, chain: &str) -> proto::AuditEvent {
    let TrailEvent {
        id,
        time,
        sequence,
        hash,
        says,
    } = event;
    let mut details: std::collections::HashMap<String, String> = says.details.into_iter().collect();
    if !says.resource.is_empty() {
        details.insert("resource".to_owned(), says.resource);
    }
    let principal = (!says.principal.is_empty()).then(|| proto::Principal {
        object_id: says.principal,
        ..proto::Principal::default()
    });
    proto::AuditEvent {
        event_id: id.to_string(),
        time: Some(timestamp(time)),
        actor: says.actor,
        action: says.action,
        outcome: says.outcome,
        reason: says.reason,
        principal,
        cluster: says.cluster,
        grant_id: says.grant,
        job_id: says.job,
        trace_id: String::new(),
        azure_correlation_id: says.azure_correlation_id,
        details,
        on_behalf_of: says.on_behalf_of,
        chain: chain.to_owned(),
        sequence,
        hash,
    }
}
