//! What the audit trail hears of a request (I10): what was asked, and what was decided.
//!
//! An accepted request's event is written by the script that accepts it. A refusal has an event of its own, or is counted in
//! one, and where that cannot be written the caller hears of that instead: refused it is either way.

use uuid::Uuid;

use super::request::{
    ExtendRequest, GrantRequest, RequestedEnd, RequestedGrants, RequestedPrincipal, RequestedRole,
    RevokeRequest,
};
use super::{Broker, BrokerError};
use crate::audit::{Event, Outcome};
use crate::caller::Caller;
use crate::caller::policy::{Action, Decision};
use crate::domain::ids::Namespace;
use crate::domain::reason::{Reason, code};
use crate::store::Refusal;

/// Which refusals are written down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Of a change of access: all that were decided. That something could not be found out is no decision.
    Change,
    /// Of a question: those that policies decided, and that a grant or a job is not there. What is hidden is answered
    /// like that, and would be told from it by the time that writing takes.
    Question,
}

impl Broker {
    /// The end of a request: a refusal is written down first.
    ///
    /// # Errors
    /// The refusal, or what the store says where it could not be written down.
    pub(super) async fn recorded<T>(
        &self,
        of: Of,
        event: impl FnOnce() -> Event<'static>,
        outcome: Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let error = match outcome {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let denied = match &error {
            BrokerError::Denied(denied) | BrokerError::Hidden { denied, .. } => Some(denied),
            _ => None,
        };
        let reason = match denied {
            Some(_) => Reason::PermissionDenied,
            None => error.reason(),
        };
        let is_decision = !matches!(
            reason.code(),
            code::UNAVAILABLE | code::INTERNAL | code::RESOURCE_EXHAUSTED
        );
        let is_not_there = matches!(
            error,
            BrokerError::GrantNotFound(_) | BrokerError::JobNotFound(_)
        );
        if denied.is_none() && !is_not_there && (of == Of::Question || !is_decision) {
            return Err(error);
        }
        let mut event = event();
        event.outcome = Outcome::Refused;
        event.reason = reason.as_str();
        if let Some(denied) = denied {
            event = decided_by(event, &denied.decision);
            if let Some(cluster) = denied.cluster.as_ref().filter(|_| event.cluster.is_empty()) {
                event = event.on_cluster(cluster);
            }
        }
        let batch = event.details.get("refused").and_then(|it| it.parse().ok());
        let refusal = Refusal {
            token: Uuid::new_v4(),
            actor: event.actor.clone(),
            count: batch.unwrap_or(1),
            audit_event: event.shortened().to_json(),
        };
        let (store, bounds) = (self.store.clone(), self.refusals);
        // Whether or not the caller still waits: nobody tries things and goes before they are written down.
        let written = tokio::spawn(async move { store.write_refusal(&refusal, bounds).await });
        match written.await {
            Ok(written) => written?,
            // If it was not written, the caller does not get the refusal either. Otherwise the process is ending.
            Err(failed) => {
                if let Ok(panic) = failed.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
        Err(error)
    }
}

/// An event with the policies that decided.
pub(super) fn decided_by<'a>(event: Event<'a>, decision: &Decision) -> Event<'a> {
    event.decided_by(&decision.policies, &decision.errors)
}

/// A question, which leaves a trace only where it is refused.
pub(super) fn of_question(caller: &Caller, action: Action) -> Event<'static> {
    Event::new(caller.name(), action.rpc(), Outcome::Refused)
}

/// What a `Grant` asks for.
pub(super) fn of_grant(caller: &Caller, request: &GrantRequest) -> Event<'static> {
    let role = match request.access.role {
        RequestedRole::BuiltIn(role) => role.display_name().to_owned(),
        RequestedRole::Definition(id) => id.to_string(),
    };
    let namespaces: Vec<&str> = request
        .access
        .namespaces
        .iter()
        .map(Namespace::as_str)
        .collect();
    let event = Event::new(caller.name(), Action::Grant.rpc(), Outcome::Accepted)
        .on_cluster(&request.cluster)
        .on_behalf_of(request.on_behalf_of.as_ref())
        .with("role", role)
        .with("namespaces", namespaces.join(", "))
        .with("end", end_of(request.end))
        .with("justification", &*request.justification);
    about_principal(event, Some(&request.principal))
}

/// What an `ExtendGrant` asks for.
pub(super) fn of_extension(caller: &Caller, request: &ExtendRequest) -> Event<'static> {
    Event::new(caller.name(), Action::ExtendGrant.rpc(), Outcome::Accepted)
        .about(request.grant)
        .on_behalf_of(request.on_behalf_of.as_ref())
        .with("end", end_of(request.end))
        .with("justification", &*request.justification)
}

/// What a `Revoke` asks for.
pub(super) fn of_revocation(caller: &Caller, request: &RevokeRequest) -> Event<'static> {
    let event = Event::new(caller.name(), Action::Revoke.rpc(), Outcome::Accepted)
        .on_behalf_of(request.on_behalf_of.as_ref())
        .with("justification", &*request.justification);
    match &request.grants {
        RequestedGrants::One(grant) => event.about(*grant),
        RequestedGrants::Matching { selector, .. } => {
            let event = about_principal(event, selector.principal.as_ref());
            match &selector.cluster {
                Some(cluster) => event.on_cluster(cluster),
                None => event,
            }
        }
    }
}

fn about_principal(
    mut event: Event<'static>,
    asked: Option<&RequestedPrincipal>,
) -> Event<'static> {
    match asked {
        Some(RequestedPrincipal::ObjectId(id, _)) => {
            event.principal = id.to_string();
            event
        }
        Some(other) => event.with("principal", other.to_string()),
        None => event,
    }
}

fn end_of(end: RequestedEnd) -> String {
    match end {
        RequestedEnd::Ttl(ttl) => format!("after {} s", ttl.as_secs()),
        RequestedEnd::At(time) => time.to_string(),
        RequestedEnd::Permanent => "never".to_owned(),
    }
}
