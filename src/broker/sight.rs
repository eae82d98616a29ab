//! What a caller sees: each row of a list, each grant and each job is put before the policies as they were when it
//! asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::revoke::PATIENCE;
use super::{Broker, BrokerError};
use crate::caller::Caller;
use crate::caller::policy::{AccessAsked, Action, Context, Decision, Question, Resource, Rules};
use crate::domain::cluster::Cluster;
use crate::domain::grant::Grant;
use crate::domain::ids::{ClusterId, PrincipalId, SubscriptionId, TargetId};
use crate::domain::job::Job;
use crate::store::ListScope;

/// So many targets of a job are looked through in one go.
const LOOK: usize = 200;

/// What a caller sees.
pub(super) struct Sight {
    rules: Arc<Rules>,
    caller: Arc<Caller>,
    own: Option<PrincipalId>,
    /// Clusters that stand for all that policies tell apart by where they are.
    samples: Vec<ClusterId>,
    /// As Azure lists them; empty where no policy wants to know.
    clusters: BTreeMap<ClusterId, Arc<Cluster>>,
    /// What Azure did not list, of what a policy wants to know.
    unreachable: BTreeSet<SubscriptionId>,
}

/// What a list of clusters is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    /// The clusters themselves.
    Cluster,
    /// Who has what on them; or what the caller itself has.
    Access { to_self: bool },
}

impl Seen {
    const fn question(self) -> (Action, Context<'static>) {
        match self {
            Self::Cluster => (Action::ListClusters, Context::Nothing),
            Self::Access { to_self } => (Action::ListAccess, Context::Asked { to_self }),
        }
    }
}

impl Sight {
    fn decide(
        &self,
        action: Action,
        cluster: Option<&ClusterId>,
        context: Context<'_>,
    ) -> Result<Arc<Decision>, BrokerError> {
        if let Some(id) = cluster
            && self.unreachable.contains(&id.subscription())
            && self.rules.want_cluster(&self.caller, action, id)
        {
            return Err(BrokerError::ClustersNotListed);
        }
        Ok(self.decide_as_known(action, cluster, context))
    }

    /// The same, where what cannot be known counts as not there.
    fn decide_as_known(
        &self,
        action: Action,
        cluster: Option<&ClusterId>,
        context: Context<'_>,
    ) -> Arc<Decision> {
        let resource = cluster.map_or(Resource::Broker, |id| Resource::Cluster {
            id,
            known: self.clusters.get(id).map(AsRef::as_ref),
        });
        let question = Question {
            action,
            resource,
            context,
        };
        self.rules.decide(&self.caller, &question)
    }

    /// Decides about a grant or a job that is not there, as of one that is: so that time does not tell the two apart.
    pub(super) fn decide_of_nothing(&self, action: Action) {
        let context = Context::Owned {
            to_self: false,
            requested_by_self: false,
        };
        self.decide_as_known(action, self.samples.first(), context);
    }

    /// Whether a grant is seen.
    ///
    /// # Errors
    /// [`BrokerError::ClustersNotListed`] where a policy wants to know what its cluster is like, and Azure does not
    /// say.
    pub(super) fn of_grant(
        &self,
        action: Action,
        grant: &Grant,
    ) -> Result<Arc<Decision>, BrokerError> {
        let context = Context::Owned {
            to_self: self.own == Some(grant.target.principal),
            requested_by_self: grant.requested_by == self.caller.name(),
        };
        self.decide(action, Some(&grant.target.cluster), context)
    }

    /// Whether a cluster is seen, in a list of clusters or of access.
    ///
    /// # Errors
    /// Those of [`of_grant`](Self::of_grant).
    pub(super) fn sees_cluster(
        &self,
        cluster: &ClusterId,
        question: Seen,
    ) -> Result<bool, BrokerError> {
        let (action, context) = question.question();
        Ok(self.decide(action, Some(cluster), context)?.allowed)
    }

    /// Whether an event of the audit trail is seen: one about this cluster, or about none.
    ///
    /// # Errors
    /// Those of [`of_grant`](Self::of_grant).
    pub(super) fn sees_event(&self, cluster: Option<&ClusterId>) -> Result<bool, BrokerError> {
        let decision = self.decide(Action::ListAuditEvents, cluster, Context::Nothing)?;
        Ok(decision.allowed)
    }

    /// Whether the caller sees any event of the audit trail.
    pub(super) fn sees_events(&self) -> bool {
        let action = Action::ListAuditEvents;
        let places = self.samples.iter().chain(self.clusters.keys()).map(Some);
        let mut places = places.chain([None]);
        places.any(|id| self.decide_as_known(action, id, Context::Nothing).allowed)
    }

    /// Whether the caller sees anything of others', anywhere: who does not learns not even whether somebody is in the
    /// directory.
    pub(super) fn sees_others(&self, action: Action) -> bool {
        let nobodys = AccessAsked::default();
        let context = || match action {
            Action::ListAccess | Action::CheckAccess => Context::Asked { to_self: false },
            Action::Revoke => Context::Access(&nobodys),
            _ => Context::Owned {
                to_self: false,
                requested_by_self: false,
            },
        };
        let places = self.samples.iter().chain(self.clusters.keys());
        let mut decisions = places.map(|id| self.decide_as_known(action, Some(id), context()));
        decisions.any(|decision| decision.allowed)
    }

    /// The rows that may be read for the caller: all, or only its own where no policy permits more. Goes by policies
    /// alone, so that it is the same while Azure does not answer.
    pub(super) fn list_scope(&self, actions: &[Action], cluster: Option<&ClusterId>) -> ListScope {
        list_scope(&self.rules, &self.caller, self.own, actions, cluster)
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
            let samples = self.samples.iter();
            for sample in samples.filter(|it| it.subscription() == subscription) {
                let (action, context) = question.question();
                if self.decide_as_known(action, Some(sample), context).allowed {
                    told.push(subscription);
                    break;
                }
                if self.rules.want_cluster(&self.caller, action, sample) {
                    return Err(BrokerError::ClustersNotListed);
                }
            }
        }
        Ok(told)
    }

    /// Whether Azure has not listed everything that policies want to know.
    pub(super) fn is_partial(&self) -> bool {
        !self.unreachable.is_empty()
    }
}

/// The rows that may be read for a caller that asks for any of these actions; `own` is its object id.
pub(super) fn list_scope(
    rules: &Rules,
    caller: &Caller,
    own: Option<PrincipalId>,
    actions: &[Action],
    cluster: Option<&ClusterId>,
) -> ListScope {
    let mut actions = actions.iter();
    if actions.any(|action| rules.might_beyond_own(caller, *action, cluster)) {
        return ListScope::All;
    }
    ListScope::Own {
        principal: own,
        caller: caller.name().to_owned(),
    }
}

impl Broker {
    /// Clusters that stand for all that policies tell apart by where they are.
    pub(super) fn samples(&self, rules: &Rules) -> Vec<ClusterId> {
        let subscriptions = self.clusters.subscriptions().iter();
        subscriptions.flat_map(|id| rules.samples_of(*id)).collect()
    }

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
            samples: self.samples(&rules),
            own: self.own_id(caller),
            rules,
            caller: Arc::clone(caller),
            clusters,
            unreachable,
        }
    }

    /// The same for whoever does not wait for Azure any longer than this; `None` then.
    pub(super) async fn sight_within(
        &self,
        caller: &Arc<Caller>,
        longest: Duration,
    ) -> Option<Sight> {
        tokio::time::timeout(longest, self.sight(caller)).await.ok()
    }

    /// Whether a caller may see the jobs that are about a grant and others of its target, whoever asked for them. What cannot be told
    /// within a moment, it may not.
    pub(super) async fn shows_jobs_of(&self, caller: &Arc<Caller>, grant: &Grant) -> bool {
        let Some(sight) = self.sight_within(caller, PATIENCE).await else {
            return false;
        };
        let context = Context::Owned {
            to_self: sight.own == Some(grant.target.principal),
            requested_by_self: false,
        };
        let decision = sight.decide(Action::GetJob, Some(&grant.target.cluster), context);
        decision.is_ok_and(|decision| decision.allowed)
    }

    /// Whether a caller sees a job: all that it is about. One that is about nothing is its requester's.
    ///
    /// # Errors
    /// What the store says, and [`BrokerError::ClustersNotListed`].
    pub(super) async fn of_job(
        &self,
        sight: &Sight,
        action: Action,
        job: &Job,
    ) -> Result<Arc<Decision>, BrokerError> {
        let requested_by_self = job.requested_by == sight.caller.name();
        if job.total_targets == 0 && requested_by_self {
            return Ok(Arc::new(Decision {
                allowed: true,
                ..Decision::default()
            }));
        }
        let principal = job.principal.as_ref();
        let context = Context::Owned {
            to_self: principal.is_some_and(|it| sight.own == Some(it.id)),
            requested_by_self,
        };
        if job.total_targets == 0 || job.cluster.is_some() {
            return sight.decide(action, job.cluster.as_ref(), context);
        }
        let mut after: Option<TargetId> = None;
        let mut seen: Option<(ClusterId, Arc<Decision>)> = None;
        loop {
            let found = self.store.job_targets(job.id, after.as_ref(), LOOK).await?;
            let found = found.ok_or(BrokerError::JobNotFound(job.id))?;
            for target in &found {
                // They are in the order of their clusters.
                let cluster = &target.id.cluster;
                if seen.as_ref().is_none_or(|(seen, _)| seen != cluster) {
                    let decision = sight.decide(action, Some(cluster), context.clone())?;
                    if !decision.allowed {
                        return Ok(decision);
                    }
                    seen = Some((cluster.clone(), decision));
                }
            }
            if found.len() < LOOK {
                return Ok(seen.map(|(_, decision)| decision).unwrap_or_default());
            }
            after = found.last().map(|target| target.id.clone());
        }
    }
}
