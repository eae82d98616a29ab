//! `Revoke`: takes wishes back, one or all that match.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::error;
use uuid::Uuid;

use super::lists::selector_of;
use super::permission::{Wanted, as_it_is, denied};
use super::record::{Of, decided_by, of_revocation};
use super::request::{RequestedGrants, RequestedPrincipal, RevokeRequest};
use super::sight::{Sight, list_scope};
use super::{Broker, BrokerError, payload};
use crate::audit::Event;
use crate::caller::Caller;
use crate::caller::policy::{Action, Decision, Rules};
use crate::domain::cluster::Cluster;
use crate::domain::grant::Grant;
use crate::domain::ids::{
    ClusterId, GrantId, JobId, PrincipalId, RoleDefinitionId, SubscriptionId, TargetId,
};
use crate::domain::job::Job;
use crate::domain::power::Power;
use crate::domain::role::Role;
use crate::domain::selector::GrantSelector;
use crate::store::{Found, ListScope, Lives, NewRevocation, Revoked, StoreError};
use crate::telemetry::{Loop, metrics};

/// The most grants that one revocation ends: one script does it, and Redis waits for it.
pub const MOST_REVOKED: usize = 1_000;

/// For how many grants that are already REVOKING the job of one revocation waits. They go through the same script, so
/// there is a bound. Further ones count as left. The request is not refused because of them: live grants must not keep
/// their access because other grants are losing theirs.
const MOST_WAITED_FOR: usize = 1_000;

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
        caller: &Arc<Caller>,
        request: RevokeRequest,
    ) -> Result<Job, BrokerError> {
        let event = of_revocation(caller, &request);
        let revoked = Box::pin(self.decide_revocation(caller, request, event.clone())).await;
        self.recorded(Of::Change, || event, revoked).await
    }

    async fn decide_revocation(
        &self,
        caller: &Arc<Caller>,
        request: RevokeRequest,
        event: Event<'static>,
    ) -> Result<Job, BrokerError> {
        let parts = payload::of_revocation(&request);
        let key = payload::key(caller, request.request_id, &parts);
        if let Some(accepted) = self.store.replayed(&key).await? {
            let job = self.accepted_job(&key, &accepted).await?;
            self.may_see_again(caller, Action::Revoke, &job, None)
                .await?;
            return Ok(job);
        }
        let may = self.may_revoke(caller, &request).await?;
        let shows_job = match (&request.grants, may.grants.as_slice()) {
            (RequestedGrants::One(_), [grant]) if !grant.state.is_live() => {
                self.shows_jobs_of(caller, grant).await
            }
            _ => false,
        };
        let ids = may.grants.iter().map(|grant| grant.id);
        let grants = match &request.grants {
            RequestedGrants::One(grant) => Revoked::One(*grant),
            RequestedGrants::Matching { .. } => Revoked::Selected(ids.collect()),
        };
        let job = JobId::new(Uuid::now_v7());
        let new = NewRevocation {
            grants,
            job,
            request: key,
            justification: request.justification,
            left: may.left,
            shows_job,
            audit_event: decided_by(event, &may.decision)
                .with("left", may.left_in_all())
                .by_job(job)
                .to_json(),
        };
        let accepted = self.store.accept_revocation(&new).await?;
        self.work.notify_one();
        self.accepted_job(&new.request, &accepted).await
    }

    /// The one grant that the request names, if the caller may revoke it. For a selector: the grants that match, have
    /// not ended, and may be revoked by the caller.
    ///
    /// # Errors
    /// [`BrokerError::TooManyMatches`] if more of them are live than the caller was ready to end;
    /// [`BrokerError::ClustersNotListed`] or [`BrokerError::Store`] if all grants that match are undecided at the
    /// moment, or cannot be read: the caller must not believe that they were revoked.
    pub(super) async fn may_revoke(
        &self,
        caller: &Arc<Caller>,
        request: &RevokeRequest,
    ) -> Result<Revocable, BrokerError> {
        let rules = self.policies.current();
        let deadline = Instant::now() + PATIENCE;
        let mut revoker = Revoker {
            broker: self,
            own: self.own_id(caller),
            rules,
            caller,
            request,
            known: BTreeMap::new(),
            powers: BTreeMap::new(),
            unknown: BTreeSet::new(),
            deadline,
            scope: ListScope::All,
        };
        match &request.grants {
            RequestedGrants::One(id) => {
                let grant = self.grant_to_change(caller, Action::Revoke, *id).await?;
                match revoker.may(&grant).await {
                    Ok(decision) => Ok(Revocable {
                        grants: vec![grant],
                        decision: (*decision).clone(),
                        ..Revocable::default()
                    }),
                    // It hears that it has to ask again: what is not taken away must not look as if it were gone.
                    Err(_) if revoker.unknown.contains(&grant.target.cluster) => {
                        Err(BrokerError::ClustersNotListed)
                    }
                    Err(refused) => {
                        let action = Action::Revoke;
                        Err(self.told_or_hidden(caller, action, &grant, refused).await)
                    }
                }
            }
            RequestedGrants::Matching { selector, most } => {
                let sight = timeout_at(deadline, self.sight(caller)).await.ok();
                // Whoever may end nothing but what is its own hears nothing of the directory, and has no job made.
                let may_end_others = || match &sight {
                    Some(sight) if sight.sees_others(Action::Revoke) => Ok(()),
                    Some(_) => Err(denied(caller, Action::Revoke, None, Arc::default())),
                    None => Err(BrokerError::ClustersNotListed),
                };
                let cluster = selector.cluster.as_ref();
                let principal = match &selector.principal {
                    None => None,
                    Some(RequestedPrincipal::ObjectId(id, _)) => Some(*id),
                    Some(asked)
                        if revoker
                            .rules
                            .might_beyond_own(caller, Action::Revoke, cluster) =>
                    {
                        match self.principals.id(asked).await {
                            Err(error) => {
                                may_end_others()?;
                                return Err(error.into());
                            }
                            Ok(id) => Some(id),
                        }
                    }
                    Some(asked) => match self.own_name(caller, asked).await {
                        None => return Err(denied(caller, Action::Revoke, None, Arc::default())),
                        own => own,
                    },
                };
                let selector = selector_of(caller, selector, principal);
                // What others have is not read where the caller may not end it, and does not see that it stays.
                let actions = [Action::Revoke, Action::ListGrants];
                let cluster = selector.cluster.as_ref();
                let (rules, own) = (&revoker.rules, revoker.own);
                revoker.scope = list_scope(rules, caller, own, &actions, cluster);
                let may = revoker.matching(&selector, *most, sight.as_ref()).await?;
                if may.grants.is_empty() {
                    if may.is_undecided {
                        return Err(BrokerError::ClustersNotListed);
                    }
                    may_end_others()?;
                    if let Some(error) = may.damaged {
                        return Err(error.into());
                    }
                }
                Ok(may)
            }
        }
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
        self.live_matches(&selector).await
    }

    /// All live grants that match.
    async fn live_matches(&self, selector: &GrantSelector) -> Result<Vec<Grant>, BrokerError> {
        let mut matched = Vec::new();
        let mut before = None;
        loop {
            let found = self
                .store
                .find_grants(selector, &ListScope::All, Lives::Live, before, LOOK)
                .await?;
            matched.extend(found.rows);
            if found.looked_to.is_none() {
                return Ok(matched);
            }
            before = found.looked_to;
        }
    }
}

/// What a caller may revoke, of what it asked for.
#[derive(Default)]
pub(super) struct Revocable {
    /// Live grants, and REVOKING ones, which may still give access. A grant that the request names is here in any
    /// state.
    pub(super) grants: Vec<Grant>,
    /// How many more grants match and stay as they are, as far as the caller may know.
    pub(super) left: u32,
    /// How many more match that it does not even see: for the audit trail. Of a caller that may end, and sees, nothing but
    /// its own, others' grants are not looked at, and not counted.
    unseen: u32,
    /// Of some of them nobody can say at the moment whether it may.
    is_undecided: bool,
    /// The error of a grant that is in the lists of the selector, and cannot be read.
    damaged: Option<StoreError>,
    /// The policies that allow it, of all of them.
    decision: Decision,
}

/// Asks the policies about one grant after another.
struct Revoker<'a> {
    broker: &'a Broker,
    rules: Arc<Rules>,
    caller: &'a Arc<Caller>,
    request: &'a RevokeRequest,
    own: Option<PrincipalId>,
    known: BTreeMap<ClusterId, Option<Arc<Cluster>>>,
    /// How much custom roles can do; `None`: they could not be read.
    powers: BTreeMap<(SubscriptionId, RoleDefinitionId), Option<Power>>,
    /// Of these a policy wants to know, and nobody can say.
    unknown: BTreeSet<ClusterId>,
    /// Until then Azure is asked what clusters and roles are like.
    deadline: Instant,
    /// The grants that are looked at.
    scope: ListScope,
}

/// How long a revocation waits for what policies want to know of clusters, all of them together.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

impl Revocable {
    /// How many match and stay; empty: none.
    fn left_in_all(&self) -> String {
        match self.left + self.unseen {
            0 => String::new(),
            left => left.to_string(),
        }
    }
}

impl Revoker<'_> {
    /// Taking access away waits neither for Azure nor for its directory: of a cluster that cannot be read only the id
    /// is known, and whose groups somebody is in is not asked.
    async fn may(&mut self, grant: &Grant) -> Result<Arc<Decision>, BrokerError> {
        let cluster = &grant.target.cluster;
        if !self.known.contains_key(cluster) {
            let facts = self
                .broker
                .facts(&self.rules, self.caller, Action::Revoke, cluster);
            let known = if let Ok(Ok(known)) = timeout_at(self.deadline, facts).await {
                known
            } else {
                self.unknown.insert(cluster.clone());
                None
            };
            self.known.insert(cluster.clone(), known);
        }
        let mut access = as_it_is(self.caller, self.own, grant, grant.expiry);
        access.power = self.power(grant).await;
        access.on_behalf_of.clone_from(&self.request.on_behalf_of);
        access.justification.clone_from(&self.request.justification);
        let wanted = Wanted {
            access,
            cluster,
            known: self.known.get(cluster).and_then(Option::as_deref),
        };
        Broker::may_change(&self.rules, self.caller, Action::Revoke, &wanted)
    }

    /// How much a grant's custom role can do, if a policy wants to know that of this caller. A role that cannot be read in
    /// time counts as everything.
    async fn power(&mut self, grant: &Grant) -> Option<Power> {
        let Role::Custom { id, .. } = grant.access.role else {
            return None;
        };
        let cluster = &grant.target.cluster;
        if !self.rules.want_power(self.caller, Action::Revoke, cluster) {
            return None;
        }
        let subscription = cluster.subscription();
        if let Some(known) = self.powers.get(&(subscription, id)) {
            return *known;
        }
        let read = timeout_at(self.deadline, self.broker.roles.get(subscription, id)).await;
        let power = read.ok().and_then(Result::ok).map(|role| role.power());
        self.powers.insert((subscription, id), power);
        power
    }

    /// Looks for live grants first, then for REVOKING ones. So a grant whose state changes meanwhile is found at least
    /// once, because no grant changes from REVOKING to live.
    async fn matching(
        &mut self,
        selector: &GrantSelector,
        most: usize,
        sight: Option<&Sight>,
    ) -> Result<Revocable, BrokerError> {
        let mut may = Revocable::default();
        self.add_live(selector, most, sight, &mut may).await?;
        self.add_revoking(selector, &mut may).await?;
        Ok(may)
    }

    async fn add_live(
        &mut self,
        selector: &GrantSelector,
        most: usize,
        sight: Option<&Sight>,
        may: &mut Revocable,
    ) -> Result<(), BrokerError> {
        let mut before = None;
        loop {
            let found = self.find(selector, Lives::Live, before, may).await?;
            for grant in found.rows {
                if let Ok(decision) = self.may(&grant).await {
                    may.decision.add(&decision);
                    may.grants.push(grant);
                } else {
                    let is_undecided = self.unknown.contains(&grant.target.cluster);
                    let is_seen = sight.is_some_and(|sight| {
                        let seen = sight.of_grant(Action::ListGrants, &grant);
                        seen.is_ok_and(|decision| decision.allowed)
                    });
                    // What is undecided is told: it must not look as if it were gone.
                    let is_told = is_undecided || is_seen;
                    may.is_undecided |= is_undecided;
                    may.left += u32::from(is_told);
                    may.unseen += u32::from(!is_told);
                }
            }
            if may.grants.len() > most {
                return Err(BrokerError::TooManyMatches { most });
            }
            before = found.looked_to;
            if before.is_none() {
                return Ok(());
            }
        }
    }

    /// Adds grants that are already REVOKING. The job waits for those that the caller may revoke. The others do not
    /// stay, so they do not count as left.
    async fn add_revoking(
        &mut self,
        selector: &GrantSelector,
        may: &mut Revocable,
    ) -> Result<(), BrokerError> {
        let live: BTreeSet<GrantId> = may.grants.iter().map(|grant| grant.id).collect();
        let most = may.grants.len() + MOST_WAITED_FOR;
        let mut before = None;
        loop {
            let found = self.find(selector, Lives::Revoking, before, may).await?;
            let rows = found.rows.into_iter();
            for grant in rows.filter(|grant| !live.contains(&grant.id)) {
                match self.may(&grant).await {
                    Ok(decision) if may.grants.len() < most => {
                        may.decision.add(&decision);
                        may.grants.push(grant);
                    }
                    Ok(_) => may.left += 1,
                    Err(_) if self.unknown.contains(&grant.target.cluster) => {
                        may.is_undecided = true;
                        may.left += 1;
                    }
                    Err(_) => {}
                }
            }
            before = found.looked_to;
            if before.is_none() {
                return Ok(());
            }
        }
    }

    /// Returns a page of the grants that match. A grant that cannot be read does not keep the others from ending. It
    /// counts as left, so that the caller learns that something stays. The log names its key for the operator.
    async fn find(
        &self,
        selector: &GrantSelector,
        of: Lives,
        before: Option<GrantId>,
        may: &mut Revocable,
    ) -> Result<Found<Grant, GrantId>, BrokerError> {
        let store = &self.broker.store;
        let found = store
            .find_each_grant(selector, &self.scope, of, before, LOOK)
            .await?;
        let mut rows = Vec::with_capacity(found.rows.len());
        for read in found.rows {
            match read {
                Ok(grant) => rows.push(grant),
                Err(damage) => {
                    metrics().skipped_entry(Loop::Revoke);
                    error!(error = %damage, "a revocation by selector skips a grant that the broker cannot read");
                    may.left += 1;
                    may.damaged.get_or_insert(damage);
                }
            }
        }
        let looked_to = found.looked_to;
        Ok(Found { rows, looked_to })
    }
}
