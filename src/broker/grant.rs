//! `Grant`: accepts a wish. Carrying it out is the reconciler's.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::clusters::ClusterError;
use super::permission::{Wanted, denied, duration, passes};
use super::preview::expiry_of;
use super::principals::PrincipalError;
use super::record::{Of, decided_by, of_grant};
use super::request::{GrantRequest, RequestedEnd, RequestedPrincipal, RequestedRole};
use super::roles::{Assignable, RoleError, power_told};
use super::{Broker, BrokerError, payload};
use crate::audit::{BROKER, Event, Outcome};
use crate::caller::Caller;
use crate::caller::policy::{AccessAsked, Action, Decision, Rules};
use crate::domain::access::{Access, Principal};
use crate::domain::cluster::{Cluster, Finding, azure_rbac_disabled, entra_integration_required};
use crate::domain::grant::{Expiry, Grant};
use crate::domain::ids::{GrantId, JobId, RoleDefinitionId, TargetId};
use crate::domain::job::Job;
use crate::domain::reason::Reason;
use crate::domain::role::{BuiltInRole, Role};
use crate::store::{Accepted, End, NewGrant, RequestKey};

impl Broker {
    /// Accepts a grant. Once it answers, the grant happens even if every process dies at that moment (I1);
    /// the same request again is the same grant (I3).
    ///
    /// # Errors
    /// [`BrokerError`]; nothing was queued, except where the store could not be reached in mid-call: the
    /// same request again then tells.
    pub async fn grant(
        &self,
        caller: &Arc<Caller>,
        request: GrantRequest,
    ) -> Result<Granted, BrokerError> {
        let event = of_grant(caller, &request);
        let granted = Box::pin(self.decide_grant(caller, request, event.clone())).await;
        self.recorded(Of::Change, || event, granted).await
    }

    async fn decide_grant(
        &self,
        caller: &Arc<Caller>,
        request: GrantRequest,
        event: Event<'static>,
    ) -> Result<Granted, BrokerError> {
        let key = payload::key(caller, request.request_id, &payload::of_grant(&request));
        // Before cluster and role are looked at: a replay is answered whatever has become of them.
        if let Some(accepted) = self.store.replayed(&key).await? {
            let granted = self.granted(&key, &accepted).await?;
            let grant = Some(&granted.grant);
            self.may_see_again(caller, Action::Grant, &granted.job, grant)
                .await?;
            return Ok(granted);
        }
        let checked = self.check_grant(caller, &request).await?;
        let event = decided_by(event, &checked.decision);
        let new = new_grant(request, checked, key, event);
        let accepted = self.store.accept_grant(&new).await?;
        self.work.notify_one();
        self.granted(&new.request, &accepted).await
    }

    /// Everything about a new grant that has to be looked up, and may refuse it. What policies say comes first: what
    /// is there and what is not learns only who may grant there.
    pub(super) async fn check_grant(
        &self,
        caller: &Caller,
        request: &GrantRequest,
    ) -> Result<CheckedGrant, BrokerError> {
        let rules = self.policies.current();
        let (action, place) = (Action::Grant, &request.cluster);
        if !rules.might(caller, action, place) {
            return Err(denied(caller, action, Some(place), Arc::default()));
        }
        let named = self.named_by_key(caller, request).await?;
        let (cluster, role, principal) = tokio::join!(
            self.clusters.get(place),
            self.assignable(request, named.as_ref()),
            self.certain(&rules, &request.principal),
        );
        let asked = self.asked_for(&rules, caller, request, &principal, named);
        let (mut access, unknown) = asked.await?;
        let wants_power = rules.want_power(caller, action, place);
        access.power = Some(power_told(&role, wants_power)?);
        let wants_cluster = rules.want_cluster(caller, action, place);
        let known = match &cluster {
            // A policy hangs on what nobody can say at the moment.
            Err(error) if wants_cluster && passes(error.reason()) => {
                return Err(ClusterError::clone(error).into());
            }
            known => known.as_deref().ok().filter(|_| wants_cluster),
        };
        let mut wanted = Wanted {
            access,
            cluster: place,
            known,
        };
        let decision = Self::may_change(&rules, caller, action, &wanted)?;
        if wanted.access.labels != request.labels {
            // The grant that its key names may end meanwhile: then the request's own count.
            wanted.access.labels.clone_from(&request.labels);
            Self::may_change(&rules, caller, action, &wanted)?;
        }
        // Whom the directory does not know hears of that now that he may ask.
        unknown.map_or(Ok(()), Err)?;
        ends_in_the_future(request.end, Timestamp::now())?;
        let (cluster, role) = (cluster?, role?.role);
        fits(&cluster, &role)?;
        Ok(CheckedGrant {
            principal: principal?,
            cluster,
            role,
            decision,
        })
    }

    /// The role that a request names. By its key a request may extend a grant that lives: then as the role is now.
    async fn assignable(
        &self,
        request: &GrantRequest,
        named: Option<&Grant>,
    ) -> Result<Assignable, RoleError> {
        let (subscription, asked) = (request.cluster.subscription(), request.access.role);
        match named {
            Some(_) => self.roles.assignable_now(subscription, asked).await,
            None => self.roles.assignable(subscription, asked).await,
        }
    }

    /// A grant as policies are told of it, and what the directory does not know of it. Of a principal that is not there
    /// they hear what was asked. `named`: the live grant that the request's external key names.
    async fn asked_for(
        &self,
        rules: &Rules,
        caller: &Caller,
        request: &GrantRequest,
        principal: &Result<Principal, PrincipalError>,
        named: Option<Grant>,
    ) -> Result<(AccessAsked, Option<BrokerError>), BrokerError> {
        let now = Timestamp::now();
        let own = self
            .id_here(rules, caller, Action::Grant, &request.cluster)
            .await?;
        let (made, before) = match &named {
            Some(grant) => (grant.create_time, grant.expiry),
            None => (now, Expiry::At(now)),
        };
        // It keeps those that it has.
        let labels = named.map_or_else(|| request.labels.clone(), |grant| grant.labels);
        let end = expiry_of(request.end, now);
        let mut access = AccessAsked {
            role: Some(request.access.role.id()),
            namespaces: request.access.namespaces.clone(),
            duration_seconds: duration(made, end.max(before)),
            requested_by_self: true,
            on_behalf_of: request.on_behalf_of.clone(),
            justification: request.justification.clone(),
            labels,
            ..AccessAsked::default()
        };
        match principal {
            Ok(principal) => {
                access.principal = Some(principal.id);
                access.principal_type = Some(principal.kind);
            }
            Err(error) if passes(error.reason()) => return Err(error.clone().into()),
            Err(_) => {
                if let RequestedPrincipal::ObjectId(id, kind) = &request.principal {
                    access.principal = Some(*id);
                    access.principal_type = *kind;
                }
            }
        }
        let mut unknown = None;
        if let Some(principal) = access.principal {
            let whom = request.on_behalf_of.as_ref();
            access.to_self = own == Some(principal);
            access.to_own_group = self.is_own_group(rules, caller, own, principal).await?;
            match self.is_beneficiary(rules, principal, whom).await {
                Ok(is) => access.to_beneficiary = is,
                Err(error) if passes(error.reason()) => return Err(error),
                Err(error) => unknown = Some(error),
            }
        }
        Ok((access, unknown))
    }

    async fn granted(&self, key: &RequestKey, accepted: &Accepted) -> Result<Granted, BrokerError> {
        let (job, grant) = self.accepted_with_grant(key, accepted).await?;
        let findings = self.findings_beside(&grant).await;
        Ok(Granted {
            grant,
            job,
            findings,
        })
    }
}

/// A grant that was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    /// The grant, as it is by now.
    pub grant: Grant,
    /// The job that carries it out.
    pub job: Job,
    /// What is worth knowing before one relies on it.
    pub findings: Vec<Finding>,
}

/// What a grant was found to be about.
pub(super) struct CheckedGrant {
    pub(super) principal: Principal,
    pub(super) cluster: Arc<Cluster>,
    pub(super) role: Role,
    /// By which policies it is allowed.
    pub(super) decision: Arc<Decision>,
}

fn new_grant(
    request: GrantRequest,
    checked: CheckedGrant,
    key: RequestKey,
    event: Event<'static>,
) -> NewGrant {
    let CheckedGrant {
        principal,
        cluster,
        role,
        decision: _,
    } = checked;
    let target = TargetId {
        cluster: request.cluster,
        principal: principal.id,
    };
    let (grant, job) = (GrantId::new(Uuid::now_v7()), JobId::new(Uuid::now_v7()));
    let event = event.on(&target).about(grant).by_job(job);
    let mut gone = Event::new(BROKER, "", Outcome::Applied).on(&target);
    gone.reason = Reason::ClusterGone.as_str();
    NewGrant {
        audit_event: event.to_json(),
        gone_event: gone.to_json(),
        grant,
        job,
        request: key,
        target,
        principal,
        access: Access {
            role,
            namespaces: request.access.namespaces,
        },
        cluster_uid: cluster.resource_uid.clone(),
        end: request.end.into(),
        justification: request.justification,
        labels: request.labels,
        external_key: request.external_key,
        on_behalf_of: request.on_behalf_of,
    }
}

impl From<RequestedEnd> for End {
    fn from(end: RequestedEnd) -> Self {
        match end {
            RequestedEnd::Ttl(ttl) => Self::After(ttl),
            RequestedEnd::At(time) => Self::At(Expiry::At(time)),
            RequestedEnd::Permanent => Self::At(Expiry::Never),
        }
    }
}

pub(super) fn ends_in_the_future(end: RequestedEnd, now: Timestamp) -> Result<(), BrokerError> {
    match end {
        RequestedEnd::At(time) if time <= now => Err(BrokerError::ExpireTimeIsPast { time, now }),
        RequestedEnd::At(_) | RequestedEnd::Ttl(_) | RequestedEnd::Permanent => Ok(()),
    }
}

/// Whether the role means on this cluster what whoever asks for it expects.
fn fits(cluster: &Cluster, role: &Role) -> Result<(), BrokerError> {
    if let Some(finding) = entra_integration_required(cluster) {
        return Err(BrokerError::EntraIntegrationRequired {
            cluster: cluster.id.clone(),
            remedy: finding.remediation,
        });
    }
    match azure_rbac_disabled(cluster) {
        Some(finding) if *role != Role::BuiltIn(BuiltInRole::ClusterUser) => {
            Err(BrokerError::AzureRbacDisabled {
                cluster: cluster.id.clone(),
                remedy: finding.remediation,
            })
        }
        _ => Ok(()),
    }
}

impl RequestedRole {
    /// The role definition's GUID.
    pub(super) const fn id(self) -> RoleDefinitionId {
        match self {
            Self::BuiltIn(role) => role.id(),
            Self::Definition(id) => id,
        }
    }

    /// The role's name in a payload's canonical form.
    pub(super) fn canonical(self) -> String {
        self.id().to_string()
    }
}
