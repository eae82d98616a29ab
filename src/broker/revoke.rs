//! `Revoke`: takes a wish back.

use uuid::Uuid;

use super::request::{Caller, RevokeRequest};
use super::{Broker, BrokerError, payload};
use crate::audit::{Event, Outcome};
use crate::domain::ids::JobId;
use crate::domain::job::Job;
use crate::store::NewRevocation;

const ACTION: &str = "aks.access.v1.AccessBrokerService/Revoke";

impl Broker {
    /// Accepts the revocation of one grant; it is retried until it is done (I5). A grant that had ended
    /// already gives a job that is over; one that is going, a job that waits for it.
    ///
    /// # Errors
    /// [`BrokerError`]
    pub async fn revoke(
        &self,
        caller: &Caller,
        request: RevokeRequest,
    ) -> Result<Job, BrokerError> {
        let key = payload::key(
            caller,
            request.request_id,
            &payload::of_revocation(&request),
        );
        if let Some(accepted) = self.store.replayed(&key).await? {
            return self.accepted_job(&key, &accepted).await;
        }
        let grant = self
            .store
            .grant(request.grant)
            .await?
            .ok_or(BrokerError::GrantNotFound(request.grant))?;
        let job = JobId::new(Uuid::now_v7());
        let event = Event::new(&caller.0, ACTION, Outcome::Accepted)
            .on(&grant.target)
            .about(grant.id)
            .by_job(job)
            .to_json();
        let new = NewRevocation {
            grant: grant.id,
            job,
            request: key,
            justification: request.justification,
            audit_event: event,
        };
        let accepted = self.store.accept_revocation(&new).await?;
        self.work.notify_one();
        self.accepted_job(&new.request, &accepted).await
    }
}
