//! `Grant`: accepts a wish. Carrying it out is the reconciler's.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::request::{Caller, GrantRequest, RequestedEnd, RequestedRole};
use super::{Broker, BrokerError, payload};
use crate::audit::{BROKER, Event, Outcome};
use crate::domain::access::{Access, Principal};
use crate::domain::cluster::{Cluster, Finding, azure_rbac_disabled, entra_integration_required};
use crate::domain::grant::{Expiry, Grant};
use crate::domain::ids::{GrantId, JobId, TargetId};
use crate::domain::job::Job;
use crate::domain::reason::Reason;
use crate::domain::role::{BuiltInRole, Role};
use crate::store::{Accepted, End, NewGrant, RequestKey};

const ACTION: &str = "aks.access.v1.AccessBrokerService/Grant";

impl Broker {
    /// Accepts a grant. Once it answers, the grant happens even if every process dies at that moment (I1);
    /// the same request again is the same grant (I3).
    ///
    /// # Errors
    /// [`BrokerError`]; nothing was queued, except where the store could not be reached in mid-call: the
    /// same request again then tells.
    pub async fn grant(
        &self,
        caller: &Caller,
        request: GrantRequest,
    ) -> Result<Granted, BrokerError> {
        let key = payload::key(caller, request.request_id, &payload::of_grant(&request));
        // Before cluster and role are looked at: a replay is answered whatever has become of them.
        if let Some(accepted) = self.store.replayed(&key).await? {
            return self.granted(&key, &accepted).await;
        }
        let checked = self.check_grant(&request).await?;
        let new = new_grant(caller, request, checked, key);
        let accepted = self.store.accept_grant(&new).await?;
        self.work.notify_one();
        self.granted(&new.request, &accepted).await
    }

    /// Everything about a new grant that has to be looked up, and may refuse it.
    pub(super) async fn check_grant(
        &self,
        request: &GrantRequest,
    ) -> Result<CheckedGrant, BrokerError> {
        ends_in_the_future(request.end, Timestamp::now())?;
        let cluster = self.clusters.get(&request.cluster).await?;
        let role = self
            .roles
            .assignable(request.cluster.subscription(), request.access.role)
            .await?;
        fits(&cluster, &role)?;
        Ok(CheckedGrant {
            principal: self.principals.get(&request.principal).await?,
            cluster,
            role,
        })
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
}

fn new_grant(
    caller: &Caller,
    request: GrantRequest,
    checked: CheckedGrant,
    key: RequestKey,
) -> NewGrant {
    let CheckedGrant {
        principal,
        cluster,
        role,
    } = checked;
    let target = TargetId {
        cluster: request.cluster,
        principal: principal.id,
    };
    let (grant, job) = (GrantId::new(Uuid::now_v7()), JobId::new(Uuid::now_v7()));
    let event = Event::new(&caller.0, ACTION, Outcome::Accepted)
        .on(&target)
        .about(grant)
        .by_job(job)
        .on_behalf_of(request.on_behalf_of.as_ref());
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
    /// The role's name in a payload's canonical form.
    pub(super) fn canonical(self) -> String {
        match self {
            Self::BuiltIn(role) => role.id().to_string(),
            Self::Definition(id) => id.to_string(),
        }
    }
}
