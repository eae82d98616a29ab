//! `ListAuditEvents`: what was decided and done, newest first, as far as the caller may see it.

use std::sync::Arc;

use jiff::Timestamp;

use super::lists::{MOST_LOOKED_AT, filter_of, position};
use super::page::{InvalidPageToken, PageSize, token_behind};
use super::request::RequestedPrincipal;
use super::{Broker, BrokerError};
pub use crate::audit::told::TrailEvent;
use crate::caller::Caller;
use crate::domain::freshness::Position;
use crate::domain::ids::{ClusterId, GrantId, JobId};
use crate::store::TrailEntry;

/// How many in one go: one script reads them, and Redis waits for it.
const LOOK: usize = 250;

/// A `ListAuditEvents`, as asked for: every part that is there must match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditQuery {
    /// Events about this principal.
    pub principal: Option<RequestedPrincipal>,
    /// Events about this cluster.
    pub cluster: Option<ClusterId>,
    /// Events about this grant.
    pub grant: Option<GrantId>,
    /// Events of this job.
    pub job: Option<JobId>,
    /// Events of this actor, by its name in the audit log.
    pub actor: Option<String>,
    /// Not before this moment.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// How many at most.
    pub size: PageSize,
    /// Where the last page ended; empty: the first page.
    pub token: String,
}

/// A page of events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditPage {
    /// Which chain they are of.
    pub chain: String,
    /// Newest first.
    pub events: Vec<TrailEvent>,
    /// Where the next page begins; empty: there is none.
    pub next: String,
}

impl Broker {
    /// A page of the events that the caller may see. An entry that cannot be read may have been about anything, so it
    /// is in every answer whose time it falls into. O(events that are looked at): there is no index but time.
    ///
    /// # Errors
    /// [`BrokerError::PageToken`] for a token of another query.
    pub async fn list_audit_events(
        &self,
        caller: &Arc<Caller>,
        query: &AuditQuery,
    ) -> Result<AuditPage, BrokerError> {
        let AuditQuery {
            principal,
            cluster,
            grant,
            job,
            actor,
            from,
            until,
            size,
            token,
        } = query;
        let of_actor = actor.as_deref().unwrap_or_default();
        let asked = (principal, cluster, grant, job, of_actor, from, until);
        let filter = filter_of("audit events", caller, &[], &asked);
        let given = position(token, &filter, end_of_page)?;
        let chain = self.store.instance().await?.to_string();
        let sight = self.sight(caller).await;
        if !sight.sees_events() {
            return Ok(AuditPage {
                chain,
                events: Vec::new(),
                next: String::new(),
            });
        }
        let principal = match principal {
            Some(principal) => Some(self.principals.id(principal).await?.to_string()),
            None => None,
        };
        let is_asked_for = |event: &TrailEvent| {
            let says = &event.says;
            let is = |asked: Option<String>, found: &str| asked.is_none_or(|asked| asked == found);
            is(principal.clone(), &says.principal)
                && is(cluster.as_ref().map(ToString::to_string), &says.cluster)
                && is(grant.map(|id| id.to_string()), &says.grant)
                && is(job.map(|id| id.to_string()), &says.job)
                && actor.as_ref().is_none_or(|actor| *actor == says.actor)
        };
        // Positions begin with the moment at which they were given, by the clock that gave the event its time.
        let mut before = given.or_else(|| until.map(Position::at));
        let mut events: Vec<TrailEvent> = Vec::new();
        let mut last = None;
        let mut looked_at = 0;
        loop {
            let found = self.store.trail(before, *from, LOOK).await?;
            looked_at += found.len();
            for entry in &found {
                let event = TrailEvent::of(&chain, entry);
                let of_cluster = ClusterId::parse(&event.says.cluster).ok();
                let is_seen = sight.sees_event(of_cluster.as_ref())?;
                // An answer without the unreadable entry would look complete. So every caller who sees any event learns
                // that it is there; only callers who see the events of every cluster get its text.
                let event = if event.may_be_about_anything() {
                    if is_seen {
                        event
                    } else {
                        event.without_its_text()
                    }
                } else if is_seen && is_asked_for(&event) {
                    event
                } else {
                    continue;
                };
                if events.len() == size.rows() {
                    let next = last.map(|it: Position| token_behind(&it.to_string(), &filter));
                    return Ok(AuditPage {
                        chain,
                        events,
                        next: next.unwrap_or_default(),
                    });
                }
                events.push(event);
                last = Some(entry.position());
            }
            before = found.last().map(TrailEntry::position).or(before);
            let is_end = found.len() < LOOK;
            if is_end || looked_at >= MOST_LOOKED_AT {
                let next = before.filter(|_| !is_end);
                let next = next.map(|it| token_behind(&it.to_string(), &filter));
                return Ok(AuditPage {
                    chain,
                    events,
                    next: next.unwrap_or_default(),
                });
            }
        }
    }
}

/// The position in a page token: the page is before it, and nothing is before the first.
fn end_of_page(token: &str) -> Result<Position, InvalidPageToken> {
    let position = token.parse().map_err(|_| InvalidPageToken)?;
    if position == Position::default() {
        return Err(InvalidPageToken);
    }
    Ok(position)
}
