//! `Grant`: accepts a wish. Carrying it out is the reconciler's.

use jiff::Timestamp;
use uuid::Uuid;

use super::request::{Caller, GrantRequest, RequestedEnd, RequestedRole};
use super::{Broker, BrokerError, payload};
use crate::audit::{BROKER, Event, Outcome};
use crate::domain::access::{Access, Principal};
use crate::domain::cluster::{Cluster, azure_rbac_disabled, entra_integration_required};
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
    ) -> Result<(Grant, Job), BrokerError> {
        let key = payload::key(caller, request.request_id, &payload::of_grant(&request));
        // Before cluster and role are looked at: a replay is answered whatever has become of them.
        if let Some(accepted) = self.store.replayed(&key).await? {
            return self.granted(&key, accepted).await;
        }
        ends_in_the_future(request.end, Timestamp::now())?;
        let cluster = self.clusters.get(&request.cluster).await?;
        let role = self
            .roles
            .assignable(request.cluster.subscription(), request.access.role)
            .await?;
        fits(&cluster, &role)?;
        let principal = self.principals.get(&request.principal).await?;
        let new = new_grant(caller, request, &principal, role, &cluster, key);
        let accepted = self.store.accept_grant(&new).await?;
        self.work.notify_one();
        self.granted(&new.request, accepted).await
    }

    async fn granted(
        &self,
        key: &RequestKey,
        accepted: Accepted,
    ) -> Result<(Grant, Job), BrokerError> {
        let job = self.accepted_job(key, &accepted).await?;
        let grant = job
            .targets
            .iter()
            .flat_map(|target| &target.grants)
            .next()
            .copied();
        let grant = match grant {
            Some(id) => self
                .store
                .grant(id)
                .await?
                .ok_or(BrokerError::GrantNotFound(id))?,
            None => return Err(BrokerError::JobNotFound(job.id)),
        };
        Ok((grant, job))
    }
}

fn new_grant(
    caller: &Caller,
    request: GrantRequest,
    principal: &Principal,
    role: Role,
    cluster: &Cluster,
    key: RequestKey,
) -> NewGrant {
    let target = TargetId {
        cluster: request.cluster,
        principal: principal.id,
    };
    let (grant, job) = (GrantId::new(Uuid::now_v7()), JobId::new(Uuid::now_v7()));
    let event = Event::new(&caller.0, ACTION, Outcome::Accepted)
        .on(&target)
        .about(grant)
        .by_job(job);
    let mut gone = Event::new(BROKER, "", Outcome::Applied).on(&target);
    gone.reason = Reason::ClusterGone.as_str();
    NewGrant {
        audit_event: event.to_json(),
        gone_event: gone.to_json(),
        grant,
        job,
        request: key,
        target,
        principal_type: principal.kind,
        access: Access {
            role,
            namespaces: request.access.namespaces,
        },
        cluster_uid: cluster.resource_uid.clone(),
        end: match request.end {
            RequestedEnd::Ttl(ttl) => End::After(ttl),
            RequestedEnd::At(time) => End::At(Expiry::At(time)),
            RequestedEnd::Permanent => End::At(Expiry::Never),
        },
        justification: request.justification,
    }
}

fn ends_in_the_future(end: RequestedEnd, now: Timestamp) -> Result<(), BrokerError> {
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
