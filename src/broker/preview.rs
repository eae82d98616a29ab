//! `validate_only`: what a request would change, and nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::grant::ends_in_the_future;
use super::record::{Of, of_extension, of_grant, of_revocation};
use super::request::{ExtendRequest, GrantRequest, RequestedEnd, RevokeRequest};
use super::{Broker, BrokerError};
use crate::caller::Caller;
use crate::domain::access::Access;
use crate::domain::cluster::Finding;
use crate::domain::effect::{PassTime, PerCall};
use crate::domain::grant::{Ending, Expiry, Grant, GrantState};
use crate::domain::ids::{GrantId, JobId, TargetId};
use crate::domain::preview::{PlannedEffect, preview};
use crate::domain::selector::GrantSelector;
use crate::domain::target::Target;
use crate::store::{ListScope, Lives, TargetRecord};

/// How many planned effects are told.
const MOST_TOLD: usize = 1_000;

/// In the audit trail: nothing would have been changed.
const PREVIEW: &str = "validate_only";

/// What a `Grant` would come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedGrant {
    /// The grant as it would be, without ids of its own; or the one that the external key names.
    pub grant: Grant,
    /// Whether it is there already.
    pub exists: bool,
    /// What would be done for it.
    pub effects: Vec<PlannedEffect>,
    /// What is worth knowing beside it.
    pub findings: Vec<Finding>,
}

/// What a `Revoke` would come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedRevocation {
    /// The grants that its job would wait for: the live ones that it would end, and those that are REVOKING already.
    pub grants: Vec<Grant>,
    /// How many more grants match and would stay as they are, as far as the caller may know.
    pub left: u32,
    /// What would be done for all of them; at most the first 1,000.
    pub effects: Vec<(TargetId, PlannedEffect)>,
}

impl PlannedRevocation {
    /// How many live grants it would end.
    #[must_use]
    pub fn matched(&self) -> usize {
        let live = |grant: &&Grant| grant.state.is_live();
        self.grants.iter().filter(live).count()
    }
}

impl Broker {
    /// What the same `Grant` without `validate_only` would do.
    ///
    /// # Errors
    /// Those that it would have.
    pub async fn plan_grant(
        &self,
        caller: &Arc<Caller>,
        request: GrantRequest,
    ) -> Result<PlannedGrant, BrokerError> {
        let event = of_grant(caller, &request).with(PREVIEW, "true");
        let planned = Box::pin(self.work_grant_out(caller, request)).await;
        self.recorded(Of::Change, || event, planned).await
    }

    async fn work_grant_out(
        &self,
        caller: &Arc<Caller>,
        request: GrantRequest,
    ) -> Result<PlannedGrant, BrokerError> {
        let checked = self.check_grant(caller, &request).await?;
        let target_id = TargetId {
            cluster: request.cluster.clone(),
            principal: checked.principal.id,
        };
        let (mut target, record) = self.whole_target(&target_id).await?;
        let expiry = expiry_of(request.end, record.now);
        let access = Access {
            role: checked.role,
            namespaces: request.access.namespaces.clone(),
        };
        // Another cluster under the same id has none of what is known of the old one's, and ends its grants.
        let replaced = record.is_replaced_by(&checked.cluster.resource_uid);
        if replaced {
            target.effects.clear();
            target.grants.clear();
        }
        let named = self
            .named_by_key(caller, &request)
            .await?
            .filter(|grant| !(replaced && grant.target == target_id));
        if let (Some(grant), Some(key)) = (&named, &request.external_key)
            && !is_the_same(grant, &target_id, &access)
        {
            return Err(BrokerError::ExternalKeyInUse {
                key: key.clone(),
                grant: grant.id,
            });
        }
        let exists = named.is_some();
        let grant = match named {
            Some(grant) => Grant {
                expiry: grant.expiry.max(expiry),
                ..grant
            },
            None => Grant {
                id: GrantId::new(Uuid::nil()),
                target: target_id,
                principal: checked.principal,
                access,
                state: GrantState::Pending,
                create_time: record.now,
                expiry,
                update_time: record.now,
                end_time: None,
                was_active: false,
                requested_by: caller.name().to_owned(),
                ended_by: String::new(),
                justification: request.justification,
                labels: request.labels,
                external_key: request.external_key,
                on_behalf_of: request.on_behalf_of,
                job: JobId::new(Uuid::nil()),
                last_error: None,
            },
        };
        let (findings, others) = self.fresh_findings_beside(&grant).await;
        let mut effects = self.previewed_with(target, &grant, record.now).await?;
        for effect in &mut effects {
            if let Some(other) = others.iter().find(|other| other.is_at(&effect.at)) {
                *effect = PlannedEffect::found(other.name, effect.at.clone());
            }
        }
        Ok(PlannedGrant {
            grant,
            exists,
            effects,
            findings,
        })
    }

    /// What the same `ExtendGrant` without `validate_only` would do: the grant as it would be, and the
    /// effects.
    ///
    /// # Errors
    /// Those that it would have.
    pub async fn plan_extension(
        &self,
        caller: &Arc<Caller>,
        request: &ExtendRequest,
    ) -> Result<(Grant, Vec<PlannedEffect>), BrokerError> {
        let event = of_extension(caller, request).with(PREVIEW, "true");
        let planned = self.work_extension_out(caller, request).await;
        self.recorded(Of::Change, || event, planned).await
    }

    async fn work_extension_out(
        &self,
        caller: &Arc<Caller>,
        request: &ExtendRequest,
    ) -> Result<(Grant, Vec<PlannedEffect>), BrokerError> {
        let (grant, _) = self.may_extend(caller, request).await?;
        ends_in_the_future(request.end, Timestamp::now())?;
        if !grant.state.is_live() {
            return Err(BrokerError::GrantEnded(grant.id));
        }
        let (target, record) = self.whole_target(&grant.target).await?;
        let grant = Grant {
            expiry: grant.expiry.max(expiry_of(request.end, record.now)),
            ..grant
        };
        let effects = self.previewed_with(target, &grant, record.now).await?;
        Ok((grant, effects))
    }

    /// What the same `Revoke` without `validate_only` would do.
    ///
    /// # Errors
    /// Those that it would have.
    pub async fn plan_revocation(
        &self,
        caller: &Arc<Caller>,
        request: &RevokeRequest,
    ) -> Result<PlannedRevocation, BrokerError> {
        let event = of_revocation(caller, request).with(PREVIEW, "true");
        let planned = self.work_revocation_out(caller, request).await;
        self.recorded(Of::Change, || event, planned).await
    }

    async fn work_revocation_out(
        &self,
        caller: &Arc<Caller>,
        request: &RevokeRequest,
    ) -> Result<PlannedRevocation, BrokerError> {
        let may = self.may_revoke(caller, request).await?;
        let mut grants = may.grants;
        // The access of a REVOKING grant may still stand, and the job would wait for it. So there is something to do.
        grants.retain(|grant| !matches!(grant.state, GrantState::Ended(_)));
        let mut by_target: BTreeMap<TargetId, Vec<&Grant>> = BTreeMap::new();
        for grant in &grants {
            by_target
                .entry(grant.target.clone())
                .or_default()
                .push(grant);
        }
        let instance = self.store.instance().await?;
        let mut effects = Vec::new();
        for (id, ending) in by_target {
            if effects.len() >= MOST_TOLD {
                break;
            }
            let (mut target, record) = self.whole_target(&id).await?;
            let ids: BTreeSet<GrantId> = ending.iter().map(|grant| grant.id).collect();
            for grant in &mut target.grants {
                if ids.contains(&grant.id) {
                    grant.state = GrantState::Revoking(Ending::Revoked);
                }
            }
            let places = ending.iter().flat_map(|grant| grant.calls_for()).collect();
            let planned = preview(&target, &places, instance, self.time(record.now));
            effects.extend(planned.into_iter().map(|effect| (id.clone(), effect)));
        }
        effects.truncate(MOST_TOLD);
        let left = may.left;
        Ok(PlannedRevocation {
            grants,
            left,
            effects,
        })
    }

    /// The live grant that the request's external key names.
    pub(super) async fn named_by_key(
        &self,
        caller: &Caller,
        request: &GrantRequest,
    ) -> Result<Option<Grant>, BrokerError> {
        let Some(key) = &request.external_key else {
            return Ok(None);
        };
        let selector = GrantSelector {
            external_key: Some((caller.name().to_owned(), key.clone())),
            ..GrantSelector::default()
        };
        let found = self
            .store
            .find_grants(&selector, &ListScope::All, Lives::Live, None, 1)
            .await?;
        Ok(found.rows.into_iter().next())
    }

    /// A target with its live grants.
    async fn whole_target(&self, id: &TargetId) -> Result<(Target, TargetRecord), BrokerError> {
        let record = self.store.target(id).await?;
        let target = Target {
            id: id.clone(),
            generation: 0,
            effects: record.effects.clone(),
            grants: self.live_grants_on(id).await?,
            jobs: Vec::new(),
            attempts: 0,
            failures: PerCall::default(),
            put_off: BTreeMap::new(),
        };
        Ok((target, record))
    }

    /// What would be done for `grant` if it were as it is here.
    async fn previewed_with(
        &self,
        mut target: Target,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Vec<PlannedEffect>, BrokerError> {
        target.grants.retain(|other| other.id != grant.id);
        target.grants.push(grant.clone());
        let instance = self.store.instance().await?;
        Ok(preview(
            &target,
            &grant.calls_for(),
            instance,
            self.time(now),
        ))
    }

    const fn time(&self, now: Timestamp) -> PassTime {
        PassTime {
            claimed: now,
            now,
            lag: self.lag,
        }
    }
}

/// Whether a grant is of this principal, cluster and access. A role is known by its id: another name is the same role.
fn is_the_same(grant: &Grant, target: &TargetId, access: &Access) -> bool {
    grant.target == *target
        && grant.access.role.id() == access.role.id()
        && grant.access.namespaces == access.namespaces
}

/// The end as it would be kept: to the millisecond.
pub(super) fn expiry_of(end: RequestedEnd, now: Timestamp) -> Expiry {
    let kept = |time: Timestamp| Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time);
    match end {
        RequestedEnd::Ttl(ttl) => {
            Expiry::At(kept(now.saturating_add(ttl).unwrap_or(Timestamp::MAX)))
        }
        RequestedEnd::At(time) => Expiry::At(kept(time)),
        RequestedEnd::Permanent => Expiry::Never,
    }
}
