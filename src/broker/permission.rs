//! Who may do what: each request, and each row of a list, is put before the policies.
//!
//! A caller learns nothing of a cluster that it may not ask about: what it may not see is answered as what is not
//! there, and a refusal says neither whether the cluster exists nor which policy decided. The audit trail does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::clusters::ClusterError;
use super::request::RequestedPrincipal;
use super::{Broker, BrokerError};
use crate::caller::policy::{AccessAsked, Action, Context, Decision, Question, Resource, Rules};
use crate::caller::{Caller, Kind};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::cluster::Cluster;
use crate::domain::freshness::Freshness;
use crate::domain::grant::{Expiry, Grant};
use crate::domain::ids::{ClusterId, PrincipalId, SubscriptionId, TargetId};
use crate::domain::job::Job;
use crate::domain::naming::OnBehalfOf;
use crate::domain::reason::{Reason, code};
use crate::domain::user_principal_name::UserPrincipalName;
use crate::view::Need;

/// So many targets of a job are looked through in one go.
const LOOK: usize = 1_000;

/// What a caller sees, by the policies that counted when it asked.
pub(super) struct Sight {
    rules: Arc<Rules>,
    caller: Arc<Caller>,
    /// As Azure lists them; empty where no policy wants to know.
    clusters: BTreeMap<ClusterId, Arc<Cluster>>,
    /// What Azure did not list, of what a policy wants to know.
    unreachable: BTreeSet<SubscriptionId>,
}

impl Sight {
    fn sees(
        &self,
        action: Action,
        cluster: Option<&ClusterId>,
        context: Context<'_>,
    ) -> Result<bool, BrokerError> {
        let resource = match cluster {
            None => Resource::Broker,
            Some(id) if self.unreachable.contains(&id.subscription()) => {
                return Err(BrokerError::ClustersNotListed);
            }
            Some(id) => Resource::Cluster {
                id,
                known: self.clusters.get(id).map(AsRef::as_ref),
            },
        };
        let question = Question {
            action,
            resource,
            context,
        };
        Ok(self.rules.decide(&self.caller, &question).allowed)
    }

    /// Whether a grant is seen.
    ///
    /// # Errors
    /// [`BrokerError::ClustersNotListed`] where a policy wants to know what its cluster is like, and Azure does not
    /// say.
    pub(super) fn sees_grant(&self, action: Action, grant: &Grant) -> Result<bool, BrokerError> {
        let context = Context::Owned {
            to_self: is_caller(&self.caller, grant.target.principal),
            requested_by_self: grant.requested_by == self.caller.name(),
        };
        self.sees(action, Some(&grant.target.cluster), context)
    }

    /// Whether a cluster is seen, in a list of clusters or of access.
    ///
    /// # Errors
    /// Those of [`sees_grant`](Self::sees_grant).
    pub(super) fn sees_cluster(
        &self,
        cluster: &ClusterId,
        question: Seen,
    ) -> Result<bool, BrokerError> {
        match question {
            Seen::Cluster => self.sees(Action::ListClusters, Some(cluster), Context::Nothing),
            Seen::Access { to_self } => self.sees(
                Action::ListAccess,
                Some(cluster),
                Context::Asked { to_self },
            ),
        }
    }

    /// Whether an event of the audit trail is seen: one about this cluster, or about none.
    ///
    /// # Errors
    /// Those of [`sees_grant`](Self::sees_grant).
    pub(super) fn sees_event(&self, cluster: Option<&ClusterId>) -> Result<bool, BrokerError> {
        self.sees(Action::ListAuditEvents, cluster, Context::Nothing)
    }

    /// Of the subscriptions that could not be listed, those that the caller may hear of: where it could see something.
    ///
    /// # Errors
    /// [`BrokerError::ClustersNotListed`] where nobody can say what it may see there: the list would lack clusters,
    /// and not say so.
    pub(super) fn tellable(
        &self,
        unreachable: Vec<SubscriptionId>,
        question: Seen,
    ) -> Result<Vec<SubscriptionId>, BrokerError> {
        let mut told = Vec::new();
        for subscription in unreachable {
            let mut sees = false;
            for sample in self.rules.samples_of(subscription) {
                let known = Sight {
                    rules: Arc::clone(&self.rules),
                    caller: Arc::clone(&self.caller),
                    clusters: BTreeMap::new(),
                    unreachable: BTreeSet::new(),
                };
                sees = sees || known.sees_cluster(&sample, question)?;
            }
            match (sees, self.rules.look_at_clusters()) {
                (true, _) => told.push(subscription),
                (false, true) => return Err(BrokerError::ClustersNotListed),
                (false, false) => {}
            }
        }
        Ok(told)
    }
}

/// What a list of clusters is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    /// The clusters themselves.
    Cluster,
    /// Who has what on them; or what the caller itself has.
    Access { to_self: bool },
}

/// Whether a principal is the caller.
pub(super) fn is_caller(caller: &Caller, principal: PrincipalId) -> bool {
    caller.object_id() == Some(principal.guid())
}

/// A decision and who asked for what, for the audit trail.
#[derive(Clone, Debug)]
pub struct Denied {
    /// Who.
    pub caller: String,
    /// What it wanted to do.
    pub action: Action,
    /// Where.
    pub cluster: Option<ClusterId>,
    /// By which policies it may not.
    pub decision: Arc<Decision>,
}

/// A grant that somebody wants to make or to change, as far as it is known.
pub(super) struct Wanted<'a> {
    pub(super) access: AccessAsked,
    pub(super) cluster: &'a ClusterId,
    pub(super) known: Option<&'a Cluster>,
}

impl Broker {
    /// What a caller sees.
    pub(super) async fn sight(&self, caller: &Arc<Caller>) -> Sight {
        let rules = self.policies.current();
        let (clusters, unreachable) = if rules.look_at_clusters() {
            let (all, unreachable, _) = self.clusters.all(self.clusters.usual()).await;
            let by_id = all.into_iter().map(|cluster| (cluster.id.clone(), cluster));
            (by_id.collect(), unreachable.into_iter().collect())
        } else {
            (BTreeMap::new(), BTreeSet::new())
        };
        Sight {
            rules,
            caller: Arc::clone(caller),
            clusters,
            unreachable,
        }
    }

    /// Whether a caller sees a job: all that it is about.
    ///
    /// # Errors
    /// What the store says, and [`BrokerError::ClustersNotListed`].
    pub(super) async fn sees_job(
        &self,
        sight: &Sight,
        action: Action,
        job: &Job,
    ) -> Result<bool, BrokerError> {
        let principal = job.principal.as_ref();
        let context = Context::Owned {
            to_self: principal.is_some_and(|it| is_caller(&sight.caller, it.id)),
            requested_by_self: job.requested_by == sight.caller.name(),
        };
        if job.total_targets == 0 || job.cluster.is_some() {
            return sight.sees(action, job.cluster.as_ref(), context);
        }
        let mut after: Option<TargetId> = None;
        let mut seen: Option<ClusterId> = None;
        loop {
            let found = self.store.job_targets(job.id, after.as_ref(), LOOK).await?;
            let found = found.ok_or(BrokerError::JobNotFound(job.id))?;
            for target in &found {
                // They are in the order of their clusters.
                if seen.as_ref() != Some(&target.id.cluster) {
                    if !sight.sees(action, Some(&target.id.cluster), context.clone())? {
                        return Ok(false);
                    }
                    seen = Some(target.id.cluster.clone());
                }
            }
            if found.len() < LOOK {
                return Ok(true);
            }
            after = found.last().map(|target| target.id.clone());
        }
    }

    /// What Azure says of a cluster, where a policy wants to know; `None` where it is not there, or cannot be read by
    /// the broker at all.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`]: nobody can say at the moment.
    pub(super) async fn facts(
        &self,
        rules: &Rules,
        cluster: &ClusterId,
    ) -> Result<Option<Arc<Cluster>>, ClusterError> {
        if !rules.look_at_clusters() {
            return Ok(None);
        }
        match self.clusters.get(cluster).await {
            Ok(known) => Ok(Some(known)),
            Err(ClusterError::NotFound { .. } | ClusterError::NotReadable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a caller may see one cluster, or ask about access there.
    ///
    /// # Errors
    /// [`BrokerError::Denied`] where it may not.
    pub(super) async fn may_ask(
        &self,
        caller: &Caller,
        action: Action,
        cluster: &ClusterId,
        context: Context<'_>,
    ) -> Result<(), BrokerError> {
        let rules = self.policies.current();
        let known = self.facts(&rules, cluster).await?;
        let question = Question {
            action,
            resource: Resource::Cluster {
                id: cluster,
                known: known.as_deref(),
            },
            context,
        };
        let decision = rules.decide(caller, &question);
        allowed(caller, action, Some(cluster), decision).map(|_| ())
    }

    /// Whether a caller may ask about a principal's access on a cluster: anybody's, or its own. That somebody is not in
    /// the directory learns only who may ask about anybody.
    ///
    /// # Errors
    /// [`BrokerError::Denied`] where it may not.
    pub(super) async fn may_ask_about(
        &self,
        caller: &Caller,
        action: Action,
        cluster: &ClusterId,
        principal: Option<&RequestedPrincipal>,
    ) -> Result<(), BrokerError> {
        let may = async |to_self| {
            self.may_ask(caller, action, cluster, Context::Asked { to_self })
                .await
        };
        let to_self = match principal {
            Some(RequestedPrincipal::ObjectId(id, _)) => is_caller(caller, *id),
            _ => false,
        };
        let refused = match (may(to_self).await, principal) {
            (Err(refused @ BrokerError::Denied(_)), Some(principal)) if !to_self => {
                match self.principals.id(principal).await {
                    Ok(id) if is_caller(caller, id) => return may(true).await,
                    _ => refused,
                }
            }
            (outcome, _) => return outcome,
        };
        Err(refused)
    }

    /// Whether a caller may have a grant made or changed.
    ///
    /// # Errors
    /// [`BrokerError::Denied`] where it may not.
    pub(super) fn may_change(
        rules: &Rules,
        caller: &Caller,
        action: Action,
        wanted: &Wanted<'_>,
    ) -> Result<Arc<Decision>, BrokerError> {
        let known = wanted.known.filter(|_| rules.look_at_clusters());
        let question = Question {
            action,
            resource: Resource::Cluster {
                id: wanted.cluster,
                known,
            },
            context: Context::Access(&wanted.access),
        };
        let decision = rules.decide(caller, &question);
        allowed(caller, action, Some(wanted.cluster), decision)
    }

    /// A grant that the caller may not change: refused, if it may at least see it; else there is none.
    pub(super) async fn denied_or_hidden(
        &self,
        caller: &Arc<Caller>,
        grant: &Grant,
        refused: BrokerError,
    ) -> BrokerError {
        let BrokerError::Denied(denied) = refused else {
            return refused;
        };
        let sees = self.sight(caller).await.sees_grant(Action::GetGrant, grant);
        match sees {
            Ok(true) => BrokerError::Denied(denied),
            _ => BrokerError::Hidden {
                as_if: Box::new(BrokerError::GrantNotFound(grant.id)),
                denied,
            },
        }
    }

    /// A replay is answered to whoever may see what it was answered with.
    ///
    /// # Errors
    /// [`BrokerError::Denied`] where the caller may not any more.
    pub(super) async fn may_see_again(
        &self,
        caller: &Arc<Caller>,
        job: &Job,
    ) -> Result<(), BrokerError> {
        let sight = self.sight(caller).await;
        if self.sees_job(&sight, Action::GetJob, job).await? {
            return Ok(());
        }
        Err(BrokerError::Denied(Box::new(Denied {
            caller: caller.name().to_owned(),
            action: Action::GetJob,
            cluster: job.cluster.clone(),
            decision: Arc::default(),
        })))
    }

    /// Whether a principal is a group that the caller is in.
    ///
    /// # Errors
    /// What the directory says: nobody can tell.
    pub(super) async fn is_own_group(
        &self,
        rules: &Rules,
        caller: &Caller,
        principal: &Principal,
    ) -> Result<bool, BrokerError> {
        if principal.kind != PrincipalType::Group || !rules.look_at_own_groups() {
            return Ok(false);
        }
        let kind = match caller.kind {
            Kind::Application => PrincipalType::ServicePrincipal,
            Kind::User | Kind::Certificate => PrincipalType::User,
        };
        match caller.object_id() {
            Some(id) => self.is_in(PrincipalId::new(id), kind, principal.id).await,
            None => Ok(false),
        }
    }

    /// Whether a principal is the one on whose behalf somebody asks, or a group that this one is in.
    ///
    /// # Errors
    /// What the directory says: nobody can tell.
    pub(super) async fn is_beneficiary(
        &self,
        rules: &Rules,
        principal: &Principal,
        whom: Option<&OnBehalfOf>,
    ) -> Result<bool, BrokerError> {
        let Some(whom) = whom.filter(|_| rules.look_at_beneficiaries()) else {
            return Ok(false);
        };
        let whom = match (
            PrincipalId::parse(whom.as_str()),
            UserPrincipalName::parse(whom.as_str()),
        ) {
            (Ok(id), _) => id,
            (_, Ok(name)) => {
                let named = RequestedPrincipal::UserPrincipalName(name);
                self.principals.id(&named).await?
            }
            // It was read once, so it is one of the two.
            (Err(_), Err(_)) => return Ok(true),
        };
        if whom == principal.id {
            return Ok(true);
        }
        if principal.kind != PrincipalType::Group {
            return Ok(false);
        }
        self.is_in(whom, PrincipalType::User, principal.id).await
    }

    async fn is_in(
        &self,
        whom: PrincipalId,
        kind: PrincipalType,
        group: PrincipalId,
    ) -> Result<bool, BrokerError> {
        let need: Need = self.check.need(Freshness::Configured).await?;
        let whom = Principal::unnamed(whom, kind);
        let groups = self.check.groups_of(&whom, need).await?;
        Ok(groups.value.ids.contains(&group))
    }
}

/// What was decided, or the refusal.
fn allowed(
    caller: &Caller,
    action: Action,
    cluster: Option<&ClusterId>,
    decision: Arc<Decision>,
) -> Result<Arc<Decision>, BrokerError> {
    if decision.allowed {
        return Ok(decision);
    }
    Err(BrokerError::Denied(Box::new(Denied {
        caller: caller.name().to_owned(),
        action,
        cluster: cluster.cloned(),
        decision,
    })))
}

/// An error that may pass by itself, and says nothing of what is there.
pub(super) fn passes(reason: Reason) -> bool {
    reason.code() == code::UNAVAILABLE
}

/// From when a grant was made to when it ends, in whole seconds, rounded up; `None`: it is permanent.
pub(super) fn duration(made: Timestamp, end: Expiry) -> Option<i64> {
    let length = end.time()?.duration_since(made);
    let seconds = length.as_secs();
    Some(seconds + i64::from(length.subsec_nanos() > 0))
}

/// A grant as policies are told of it, before anything is looked up.
pub(super) fn as_it_is(caller: &Caller, grant: &Grant, end: Expiry) -> AccessAsked {
    AccessAsked {
        principal: Some(grant.target.principal),
        principal_type: Some(grant.principal.kind),
        role: Some(grant.access.role.id()),
        namespaces: grant.access.namespaces.clone(),
        duration_seconds: duration(grant.create_time, end),
        to_self: is_caller(caller, grant.target.principal),
        to_own_group: false,
        to_beneficiary: false,
        requested_by_self: grant.requested_by == caller.name(),
        on_behalf_of: grant.on_behalf_of.clone(),
        justification: grant.justification.clone(),
        labels: grant.labels.clone(),
    }
}
