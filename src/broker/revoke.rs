//! `Revoke`: takes wishes back, one or all that match.

use uuid::Uuid;

use super::request::{Caller, RequestedGrants, RevokeRequest};
use super::{Broker, BrokerError, payload};
use crate::audit::{Event, Outcome};
use crate::domain::grant::Grant;
use crate::domain::ids::{JobId, TargetId};
use crate::domain::job::Job;
use crate::domain::selector::GrantSelector;
use crate::store::{Lives, NewRevocation, Revoked};

const ACTION: &str = "aks.access.v1.AccessBrokerService/Revoke";

/// The most grants that one revocation ends: one script does it, and Redis waits for it.
pub const MOST_REVOKED: usize = 1_000;

/// How many grants are looked at in one go.
const LOOK: usize = 500;

impl Broker {
    /// Accepts the revocation of one grant, or of all that match; it is retried until it is done (I5). What
    /// had ended already gives a job that is over; what is going, a job that waits for it.
    ///
    /// # Errors
    /// [`BrokerError::TooManyMatches`]: then nothing is ended.
    pub async fn revoke(
        &self,
        caller: &Caller,
        request: RevokeRequest,
    ) -> Result<Job, BrokerError> {
        let parts = payload::of_revocation(&request);
        let key = payload::key(caller, request.request_id, &parts);
        if let Some(accepted) = self.store.replayed(&key).await? {
            return self.accepted_job(&key, &accepted).await;
        }
        let grants = match &request.grants {
            RequestedGrants::One(grant) => Revoked::One(*grant),
            RequestedGrants::Matching { selector, most } => {
                let selector = self.resolve(caller, selector).await?;
                let matched = self.live_matches(&selector, *most).await?;
                Revoked::Selected(matched.iter().map(|grant| grant.id).collect())
            }
        };
        let job = JobId::new(Uuid::now_v7());
        let event = Event::new(&caller.0, ACTION, Outcome::Accepted)
            .by_job(job)
            .on_behalf_of(request.on_behalf_of.as_ref())
            .to_json();
        let new = NewRevocation {
            grants,
            job,
            request: key,
            justification: request.justification,
            audit_event: event,
        };
        let accepted = self.store.accept_revocation(&new).await?;
        self.work.notify_one();
        self.accepted_job(&new.request, &accepted).await
    }

    /// All live grants of one principal on one cluster.
    pub(super) async fn live_grants_on(
        &self,
        target: &TargetId,
    ) -> Result<Vec<Grant>, BrokerError> {
        let selector = GrantSelector {
            principal: Some(target.principal),
            cluster: Some(target.cluster.clone()),
            ..GrantSelector::default()
        };
        self.live_matches(&selector, usize::MAX).await
    }

    /// All live grants that match.
    ///
    /// # Errors
    /// [`BrokerError::TooManyMatches`] where there are more than `most`.
    pub(super) async fn live_matches(
        &self,
        selector: &GrantSelector,
        most: usize,
    ) -> Result<Vec<Grant>, BrokerError> {
        let mut matched = Vec::new();
        let mut before = None;
        loop {
            let found = self
                .store
                .find_grants(selector, Lives::Live, before, LOOK)
                .await?;
            matched.extend(found.rows);
            if matched.len() > most {
                return Err(BrokerError::TooManyMatches { most });
            }
            if found.looked_to.is_none() {
                return Ok(matched);
            }
            before = found.looked_to;
        }
    }
}
