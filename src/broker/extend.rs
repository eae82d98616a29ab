//! `ExtendGrant`: moves the end of a live grant to a later time.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::grant::ends_in_the_future;
use super::permission::{Wanted, as_it_is};
use super::preview::expiry_of;
use super::record::{Of, decided_by, of_extension};
use super::request::ExtendRequest;
use super::{Broker, BrokerError, payload};
use crate::audit::Event;
use crate::caller::Caller;
use crate::caller::policy::{Action, Decision};
use crate::domain::grant::Grant;
use crate::domain::ids::JobId;
use crate::domain::job::Job;
use crate::store::NewExtension;

impl Broker {
    /// Accepts a later end. The later of the old and the new one holds, so extensions commute and a repeat
    /// is harmless; the job is over when the end is written on everything that carries the grant out.
    ///
    /// # Errors
    /// [`BrokerError::GrantEnded`] where the grant is not live: none is revived.
    pub async fn extend(
        &self,
        caller: &Arc<Caller>,
        request: ExtendRequest,
    ) -> Result<(Grant, Job), BrokerError> {
        let event = of_extension(caller, &request);
        let extended = Box::pin(self.decide_extension(caller, request, event.clone())).await;
        self.recorded(Of::Change, || event, extended).await
    }

    async fn decide_extension(
        &self,
        caller: &Arc<Caller>,
        request: ExtendRequest,
        event: Event<'static>,
    ) -> Result<(Grant, Job), BrokerError> {
        let key = payload::key(caller, request.request_id, &payload::of_extension(&request));
        if let Some(accepted) = self.store.replayed(&key).await? {
            let (job, grant) = self.accepted_with_grant(&key, &accepted).await?;
            self.may_see_again(caller, &job).await?;
            return Ok((grant, job));
        }
        let (_, decision) = self.may_extend(caller, &request).await?;
        ends_in_the_future(request.end, Timestamp::now())?;
        let job = JobId::new(Uuid::now_v7());
        let event = decided_by(event, &decision).by_job(job).to_json();
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

    /// The grant, if the caller may extend it so far.
    pub(super) async fn may_extend(
        &self,
        caller: &Arc<Caller>,
        request: &ExtendRequest,
    ) -> Result<(Grant, Arc<Decision>), BrokerError> {
        let grant = self.grant_of(request.grant).await?;
        let rules = self.policies.current();
        let end = grant.expiry.max(expiry_of(request.end, Timestamp::now()));
        let mut access = as_it_is(caller, &grant, end);
        let whom = request.on_behalf_of.as_ref();
        access.to_own_group = self.is_own_group(&rules, caller, &grant.principal).await?;
        access.to_beneficiary = self.is_beneficiary(&rules, &grant.principal, whom).await?;
        access.on_behalf_of = request.on_behalf_of.clone();
        access.justification.clone_from(&request.justification);
        let known = self.facts(&rules, &grant.target.cluster).await?;
        let wanted = Wanted {
            access,
            cluster: &grant.target.cluster,
            known: known.as_deref(),
        };
        match Self::may_change(&rules, caller, Action::ExtendGrant, &wanted) {
            Ok(decision) => Ok((grant, decision)),
            Err(refused) => Err(self.denied_or_hidden(caller, &grant, refused).await),
        }
    }
}
