//! Who may do what: each request is put before the policies. Each row of a list is, too: `sight` has that.
//!
//! A caller learns nothing of a cluster that it may not ask about: what it may not see is answered as what is not
//! there, and a refusal says neither whether the cluster exists nor which policy decided. The audit trail does.

use std::sync::Arc;

use jiff::Timestamp;

use super::clusters::ClusterError;
use super::principals::PrincipalError;
use super::request::RequestedPrincipal;
use super::revoke::PATIENCE;
use super::{Broker, BrokerError};
use crate::caller::policy::{AccessAsked, Action, Context, Decision, Question, Resource, Rules};
use crate::caller::{Caller, Kind};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::cluster::Cluster;
use crate::domain::freshness::Freshness;
use crate::domain::grant::{Expiry, Grant};
use crate::domain::ids::{ApplicationId, ClusterId, PrincipalId};
use crate::domain::job::Job;
use crate::domain::naming::OnBehalfOf;
use crate::domain::reason::{Reason, code};
use crate::domain::user_principal_name::UserPrincipalName;
use crate::view::Need;

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
    /// The caller's own object id in the directory that access is given by. A caller of another tenant has none there,
    /// or one that nobody here knows of.
    pub(super) fn own_id(&self, caller: &Caller) -> Option<PrincipalId> {
        let identity = caller.identity?;
        (identity.tenant == self.tenant).then(|| PrincipalId::new(identity.object_id))
    }

    /// The same, to keep callers from giving access to themselves: of an application of another tenant the service
    /// principal that stands for it here.
    ///
    /// # Errors
    /// [`BrokerError::Denied`] for people of other tenants: as whose guest they are here nobody can tell.
    pub(super) async fn id_here(
        &self,
        rules: &Rules,
        caller: &Caller,
        action: Action,
        cluster: &ClusterId,
    ) -> Result<Option<PrincipalId>, BrokerError> {
        let own = self.own_id(caller);
        let Some(identity) = caller.identity.filter(|_| own.is_none()) else {
            return Ok(own);
        };
        if caller.kind == Kind::Application {
            let application = ApplicationId::new(identity.application_id);
            let named = RequestedPrincipal::ApplicationId(application);
            return match self.principals.id(&named).await {
                Ok(id) => Ok(Some(id)),
                Err(PrincipalError::NotFound(_)) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        if !rules.look_at_self() && !rules.look_at_own_groups() {
            return Ok(None);
        }
        let problem = "the caller is of another tenant, and who it is in this one cannot be told";
        let decision = Arc::new(Decision::failed(problem.to_owned()));
        Err(denied(caller, action, Some(cluster), decision))
    }

    /// What Azure says of a cluster, where a policy wants to know that of this caller; `None` where it is not there.
    ///
    /// # Errors
    /// [`ClusterError`]: nobody can say.
    pub(super) async fn facts(
        &self,
        rules: &Rules,
        caller: &Caller,
        action: Action,
        cluster: &ClusterId,
    ) -> Result<Option<Arc<Cluster>>, ClusterError> {
        if !rules.want_cluster(caller, action, cluster) {
            return Ok(None);
        }
        match self.clusters.get(cluster).await {
            Ok(known) => Ok(Some(known)),
            Err(ClusterError::NotFound { .. }) => Ok(None),
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
        let known = self.facts(&rules, caller, action, cluster).await?;
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

    /// Whether a caller may ask about anybody's access on a cluster, where that can be said at once. Most checks go no
    /// further, and this is the whole of what they pay.
    pub(super) fn may_surely_ask(
        &self,
        caller: &Caller,
        action: Action,
        cluster: &ClusterId,
    ) -> bool {
        let rules = self.policies.now();
        let question = Question {
            action,
            resource: Resource::Cluster {
                id: cluster,
                known: None,
            },
            context: Context::Asked { to_self: false },
        };
        !rules.look_at_clusters() && rules.decide(caller, &question).allowed
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
            let context = Context::Asked { to_self };
            self.may_ask(caller, action, cluster, context).await
        };
        let own = self.own_id(caller);
        let to_self = match principal {
            Some(RequestedPrincipal::ObjectId(id, _)) => own == Some(*id),
            _ => false,
        };
        match (may(to_self).await, principal) {
            (Err(BrokerError::Denied(_)), Some(principal))
                if !to_self && self.own_name(caller, principal).await.is_some() =>
            {
                may(true).await
            }
            (outcome, _) => outcome,
        }
    }

    /// The caller's own object id, if this names the caller. The directory is asked for the caller's names, and never for
    /// the one in the request: neither the answer nor how long it takes tells whether somebody else is there.
    pub(super) async fn own_name(
        &self,
        caller: &Caller,
        asked: &RequestedPrincipal,
    ) -> Option<PrincipalId> {
        let own = self.own_id(caller)?;
        let is_own = match (asked, caller.kind) {
            (RequestedPrincipal::ObjectId(id, _), _) => *id == own,
            (RequestedPrincipal::ApplicationId(id), Kind::Application) => caller
                .identity
                .is_some_and(|it| ApplicationId::new(it.application_id) == *id),
            (RequestedPrincipal::UserPrincipalName(name), Kind::User) => {
                let itself = RequestedPrincipal::ObjectId(own, None);
                let known = self.principals.get(&itself).await.ok()?;
                let itself = UserPrincipalName::parse(&known.user_principal_name).ok()?;
                itself.canonical() == name.canonical()
            }
            _ => false,
        };
        is_own.then_some(own)
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
        let question = Question {
            action,
            resource: Resource::Cluster {
                id: wanted.cluster,
                known: wanted.known,
            },
            context: Context::Access(&wanted.access),
        };
        let decision = rules.decide(caller, &question);
        allowed(caller, action, Some(wanted.cluster), decision)
    }

    /// A replay is answered to whoever might do the same today, or sees what it was answered with.
    ///
    /// # Errors
    /// [`BrokerError::Denied`] where neither holds any more.
    pub(super) async fn may_see_again(
        &self,
        caller: &Arc<Caller>,
        action: Action,
        job: &Job,
        grant: Option<&Grant>,
    ) -> Result<(), BrokerError> {
        let rules = self.policies.current();
        let might = |cluster: &ClusterId| rules.might(caller, action, cluster);
        let might_still = match &job.cluster {
            Some(cluster) => might(cluster),
            None => self.samples(&rules).iter().any(might),
        };
        if might_still {
            return Ok(());
        }
        let sight = self.sight_within(caller, PATIENCE).await;
        let sight = sight.ok_or(BrokerError::ClustersNotListed)?;
        let mut decision = self.of_job(&sight, Action::GetJob, job).await?;
        if let Some(grant) = grant.filter(|_| decision.allowed) {
            decision = sight.of_grant(Action::GetGrant, grant)?;
        }
        let cluster = job.cluster.as_ref();
        allowed(caller, action, cluster, decision).map(|_| ())
    }

    /// Whether a principal is a group that somebody is in. What kind of principal it is said to be does not matter:
    /// callers say that.
    ///
    /// # Errors
    /// What the directory says: nobody can tell.
    pub(super) async fn is_own_group(
        &self,
        rules: &Rules,
        caller: &Caller,
        own: Option<PrincipalId>,
        principal: PrincipalId,
    ) -> Result<bool, BrokerError> {
        let Some(own) = own.filter(|own| rules.look_at_own_groups() && *own != principal) else {
            return Ok(false);
        };
        let kind = match caller.kind {
            Kind::Application => PrincipalType::ServicePrincipal,
            Kind::User | Kind::Certificate => PrincipalType::User,
        };
        self.is_in(own, kind, principal).await
    }

    /// Whether a principal is the one on whose behalf somebody asks, or a group that this one is in.
    ///
    /// # Errors
    /// What the directory says: nobody can tell. It may know nobody of that name.
    pub(super) async fn is_beneficiary(
        &self,
        rules: &Rules,
        principal: PrincipalId,
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
        if whom == principal {
            return Ok(true);
        }
        self.is_in(whom, PrincipalType::User, principal).await
    }

    async fn is_in(
        &self,
        whom: PrincipalId,
        kind: PrincipalType,
        group: PrincipalId,
    ) -> Result<bool, BrokerError> {
        let need: Need = self.check.need(Freshness::Configured).await?;
        let groups = self
            .check
            .groups_of(&Principal::unnamed(whom, kind), &need.into())
            .await?;
        if !groups.value.is_known {
            let named = RequestedPrincipal::ObjectId(whom, Some(kind));
            return Err(PrincipalError::NotFound(named).into());
        }
        Ok(groups.value.ids.contains(&group))
    }

    /// A principal as policies have to know it: where one looks at its type the directory is asked, whatever the
    /// request says.
    pub(super) async fn certain(
        &self,
        rules: &Rules,
        asked: &RequestedPrincipal,
    ) -> Result<Principal, PrincipalError> {
        match asked {
            RequestedPrincipal::ObjectId(id, Some(_)) if rules.look_at_principal_types() => {
                let asked = RequestedPrincipal::ObjectId(*id, None);
                self.principals.get(&asked).await
            }
            asked => self.principals.get(asked).await,
        }
    }
}

impl Denied {
    pub(super) fn new(
        caller: &Caller,
        action: Action,
        cluster: Option<&ClusterId>,
        decision: Arc<Decision>,
    ) -> Self {
        Self {
            caller: caller.name().to_owned(),
            action,
            cluster: cluster.cloned(),
            decision,
        }
    }
}

/// A refusal.
pub(super) fn denied(
    caller: &Caller,
    action: Action,
    cluster: Option<&ClusterId>,
    decision: Arc<Decision>,
) -> BrokerError {
    BrokerError::Denied(Box::new(Denied::new(caller, action, cluster, decision)))
}

/// What was decided, or the refusal.
pub(super) fn allowed(
    caller: &Caller,
    action: Action,
    cluster: Option<&ClusterId>,
    decision: Arc<Decision>,
) -> Result<Arc<Decision>, BrokerError> {
    if decision.allowed {
        Ok(decision)
    } else {
        Err(denied(caller, action, cluster, decision))
    }
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

/// A grant as policies are told of it, before anything is looked up. `own`: the caller's object id.
pub(super) fn as_it_is(
    caller: &Caller,
    own: Option<PrincipalId>,
    grant: &Grant,
    end: Expiry,
) -> AccessAsked {
    AccessAsked {
        principal: Some(grant.target.principal),
        principal_type: Some(grant.principal.kind),
        role: Some(grant.access.role.id()),
        power: None,
        namespaces: grant.access.namespaces.clone(),
        duration_seconds: duration(grant.create_time, end),
        to_self: own == Some(grant.target.principal),
        to_own_group: false,
        to_beneficiary: false,
        requested_by_self: grant.requested_by == caller.name(),
        on_behalf_of: grant.on_behalf_of.clone(),
        justification: grant.justification.clone(),
        labels: grant.labels.clone(),
    }
}
