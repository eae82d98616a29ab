//! `ExtendGrant`: moves the end of a live grant to a later time.

use jiff::Timestamp;
use uuid::Uuid;

use super::grant::ends_in_the_future;
use super::request::{Caller, ExtendRequest};
use super::{Broker, BrokerError, payload};
use crate::audit::{Event, Outcome};
use crate::domain::grant::Grant;
use crate::domain::ids::JobId;
use crate::domain::job::Job;
use crate::store::NewExtension;

const ACTION: &str = "aks.access.v1.AccessBrokerService/ExtendGrant";

impl Broker {
    /// Accepts a later end. The later of the old and the new one holds, so extensions commute and a repeat
    /// is harmless; the job is over when the end is written on everything that carries the grant out.
    ///
    /// # Errors
    /// [`BrokerError::GrantEnded`] where the grant is not live: none is revived.
    pub async fn extend(
        &self,
        caller: &Caller,
        request: ExtendRequest,
    ) -> Result<(Grant, Job), BrokerError> {
        let key = payload::key(caller, request.request_id, &payload::of_extension(&request));
        if let Some(accepted) = self.store.replayed(&key).await? {
            let (job, grant) = self.accepted_with_grant(&key, &accepted).await?;
            return Ok((grant, job));
        }
        ends_in_the_future(request.end, Timestamp::now())?;
        let job = JobId::new(Uuid::now_v7());
        let event = Event::new(&caller.0, ACTION, Outcome::Accepted)
            .by_job(job)
            .on_behalf_of(request.on_behalf_of.as_ref())
            .to_json();
        let new = NewExtension {
            grant: request.grant,
            job,
            request: key,
            end: request.end.into(),
            justification: request.justification,
            audit_event: event,
        };
        let accepted = self.store.accept_extension(&new).await?;
        self.work.notify_one();
        let (job, grant) = self.accepted_with_grant(&new.request, &accepted).await?;
        Ok((grant, job))
    }
}
