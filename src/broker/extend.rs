//! `ExtendGrant`: moves the end of a live grant to a later time.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::grant::ends_in_the_future;
use super::permission::{Wanted, allowed, as_it_is};
use super::preview::expiry_of;
use super::record::{Of, decided_by, of_extension};
use super::request::{ExtendRequest, RequestedPrincipal, RequestedRole};
use super::roles::{Assignable, RoleError, power_told};
use super::{Broker, BrokerError, payload};
use crate::audit::Event;
use crate::caller::Caller;
use crate::caller::policy::{Action, Decision};
use crate::domain::grant::Grant;
use crate::domain::ids::JobId;
use crate::domain::job::Job;
use crate::domain::power::Power;
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
            self.may_see_again(caller, Action::ExtendGrant, &job, Some(&grant))
                .await?;
            return Ok((grant, job));
        }
        let (grant, decision) = self.may_extend(caller, &request).await?;
        ends_in_the_future(request.end, Timestamp::now())?;
        let job = JobId::new(Uuid::now_v7());
        let event = decided_by(event, &decision).by_job(job).to_json();
        let new = NewExtension {
            grant: request.grant,
            job,
            request: key,
            end: request.end.into(),
            justification: request.justification,
            shows_job: self.shows_jobs_of(caller, &grant).await,
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
        let action = Action::ExtendGrant;
        let grant = self.grant_to_change(caller, action, request.grant).await?;
        match self.judge_extension(caller, request, &grant).await {
            Ok(decision) => Ok((grant, decision)),
            Err(error) => Err(self.told_or_hidden(caller, action, &grant, error).await),
        }
    }

    async fn judge_extension(
        &self,
        caller: &Caller,
        request: &ExtendRequest,
        grant: &Grant,
    ) -> Result<Arc<Decision>, BrokerError> {
        let rules = self.policies.current();
        let (action, cluster) = (Action::ExtendGrant, &grant.target.cluster);
        // Before anything is looked up: a caller that surely may not would wait, and so learn that the grant is there.
        if !rules.might(caller, action, cluster) {
            return allowed(caller, action, Some(cluster), Arc::default());
        }
        let role = self.role_today(grant).await;
        let end = grant.expiry.max(expiry_of(request.end, Timestamp::now()));
        let own = self.id_here(&rules, caller, action, cluster).await?;
        let mut access = as_it_is(caller, own, grant, end);
        access.power = Some(match &role {
            Some(role) => power_told(role, rules.want_power(caller, action, cluster))?,
            None => Power::NONE,
        });
        let (principal, whom) = (grant.target.principal, request.on_behalf_of.as_ref());
        access.to_own_group = self.is_own_group(&rules, caller, own, principal).await?;
        access.to_beneficiary = self.is_beneficiary(&rules, principal, whom).await?;
        let named = RequestedPrincipal::ObjectId(principal, Some(grant.principal.kind));
        access.principal_type = Some(self.certain(&rules, &named).await?.kind);
        access.on_behalf_of.clone_from(&request.on_behalf_of);
        access.justification.clone_from(&request.justification);
        let known = if rules.want_cluster(caller, action, cluster) {
            // One that is gone has no grants to extend.
            Some(self.clusters.get(cluster).await?)
        } else {
            None
        };
        let wanted = Wanted {
            access,
            cluster,
            known: known.as_deref(),
        };
        let decision = Self::may_change(&rules, caller, action, &wanted)?;
        role.transpose()?;
        Ok(decision)
    }

    /// A grant's role, if the broker may still assign it (I8). Whoever may write role definitions may have widened a
    /// custom one since the grant was accepted, and an extension may need no PUT that the pass could refuse. `None`: the
    /// grant has ended, and nothing is extended.
    async fn role_today(&self, grant: &Grant) -> Option<Result<Assignable, RoleError>> {
        if !grant.state.is_live() {
            return None;
        }
        let subscription = grant.target.cluster.subscription();
        let role = RequestedRole::Definition(grant.access.role.id());
        Some(self.roles.assignable_now(subscription, role).await)
    }
}
