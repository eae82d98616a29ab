//! What others have assigned: worth knowing for whoever relies on a grant, because it outlives the grant.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use thiserror::Error;
use uuid::Uuid;

use super::Broker;
use crate::azure::{Azure, AzureError, Filter, Place, RoleAssignment};
use crate::domain::cluster::{Finding, Severity, findings};
use crate::domain::grant::Grant;
use crate::domain::ids::{ClusterId, InstanceId, Scope};
use crate::domain::reason::Reason;
use crate::domain::snapshot::holds_at;
use crate::store::StoreError;

/// How many assignments are remembered, over all clusters.
const MOST_ASSIGNMENTS: u64 = 200_000;

/// How long an answer waits for what is only worth knowing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The role assignments that others made, by cluster: those at it and above it, and, where Azure lists
/// them with it, at its namespaces. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Unmanaged {
    azure: Azure,
    known: Cache<ClusterId, Arc<Vec<RoleAssignment>>>,
}

impl Unmanaged {
    /// What was read is believed for `known_for`.
    pub(super) fn new(azure: Azure, known_for: Duration) -> Self {
        let weight = |_: &ClusterId, list: &Arc<Vec<RoleAssignment>>| {
            u32::try_from(list.len() + 1).unwrap_or(u32::MAX)
        };
        Self {
            azure,
            known: Cache::builder()
                .weigher(weight)
                .max_capacity(MOST_ASSIGNMENTS)
                .time_to_live(known_for)
                .build(),
        }
    }

    /// As it was at most a moment ago. Concurrent misses make one call, which goes on when nobody waits for
    /// it any more: a list that takes long is there for the next who asks.
    async fn at(
        &self,
        cluster: &ClusterId,
        instance: InstanceId,
    ) -> Result<Arc<Vec<RoleAssignment>>, Arc<AzureError>> {
        if let Some(known) = self.known.get(cluster).await {
            return Ok(known);
        }
        let (this, cluster) = (self.clone(), cluster.clone());
        let read = tokio::spawn(async move {
            let read = async {
                let list = this.listed(&cluster, Filter::All, instance).await?;
                Ok(Arc::new(list))
            };
            this.known.try_get_with_by_ref(&cluster, read).await
        });
        match read.await {
            Ok(read) => read,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    async fn listed(
        &self,
        cluster: &ClusterId,
        filter: Filter,
        instance: InstanceId,
    ) -> Result<Vec<RoleAssignment>, AzureError> {
        let place = Place::Scope(Scope::Cluster(cluster.clone()));
        let all = self
            .azure
            .role_assignments(&place, filter, Uuid::new_v4())
            .await?;
        Ok(all
            .into_iter()
            .filter(|found| found.made_by(instance).is_none())
            .collect())
    }
}

impl Broker {
    /// What is worth knowing beside a grant: how its cluster is set up, and who else has assigned the same,
    /// as it was at most a moment ago. What cannot be read in good time is no reason to fail: then that is
    /// what is said.
    pub(super) async fn findings_beside(&self, grant: &Grant) -> Vec<Finding> {
        let read = async {
            let instance = self.store.instance().await?;
            let others = self.unmanaged.at(&grant.target.cluster, instance).await?;
            Ok(of_the_same(grant, &others))
        };
        self.findings_of(grant, read).await.0
    }

    /// The same, from what Azure says now; and the assignments that it tells of.
    pub(super) async fn fresh_findings_beside(
        &self,
        grant: &Grant,
    ) -> (Vec<Finding>, Vec<RoleAssignment>) {
        let of_principal = Filter::Principal(grant.target.principal);
        let read = async {
            let instance = self.store.instance().await?;
            let cluster = &grant.target.cluster;
            let others = self
                .unmanaged
                .listed(cluster, of_principal, instance)
                .await?;
            Ok(of_the_same(grant, &others))
        };
        self.findings_of(grant, read).await
    }

    async fn findings_of(
        &self,
        grant: &Grant,
        others: impl Future<Output = Result<Vec<RoleAssignment>, NotRead>>,
    ) -> (Vec<Finding>, Vec<RoleAssignment>) {
        let cluster = self.clusters.get(&grant.target.cluster);
        let (cluster, others) = tokio::join!(
            tokio::time::timeout(PATIENCE, cluster),
            tokio::time::timeout(PATIENCE, others)
        );
        let mut found = match cluster {
            Ok(Ok(cluster)) => findings(&cluster),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        let problem = match others {
            Ok(Ok(others)) => {
                found.extend(others.iter().map(|other| finding(grant, other)));
                return (found, others);
            }
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => "it takes too long".to_owned(),
        };
        tracing::warn!(cluster = %grant.target.cluster, problem, "what others assigned cannot be read");
        found.push(assignments_not_read(grant));
        (found, Vec::new())
    }
}

/// Why what others assigned is not known.
#[derive(Debug, Error)]
enum NotRead {
    #[error(transparent)]
    Instance(#[from] StoreError),
    #[error(transparent)]
    Azure(#[from] AzureError),
    #[error(transparent)]
    AzureOfAll(#[from] Arc<AzureError>),
}

/// The assignments that give the grant's principal what the grant calls for.
fn of_the_same(grant: &Grant, others: &[RoleAssignment]) -> Vec<RoleAssignment> {
    let calls_for = grant.calls_for();
    let gives_the_same = |other: &&RoleAssignment| {
        other.principal == grant.target.principal
            && calls_for
                .iter()
                .any(|at| other.role == at.role && holds_at(&other.scope, &at.scope.to_string()))
    };
    others.iter().filter(gives_the_same).cloned().collect()
}

fn finding(grant: &Grant, other: &RoleAssignment) -> Finding {
    let id = other.resource_id();
    let in_the_way = grant.calls_for().iter().any(|at| other.is_at(at));
    let remediation = format!("az role assignment delete --ids {id}");
    match (&other.condition, in_the_way) {
        (Some(_), true) => Finding {
            severity: Severity::Error,
            reason: Reason::ConditionalAssignmentExists.as_str(),
            message: format!(
                "role assignment {id}, which this broker did not make, gives the same under a condition; Azure takes no \
                 second one, so the grant fails"
            ),
            remediation,
        },
        _ => Finding {
            severity: Severity::Warning,
            reason: "UNMANAGED_ASSIGNMENT",
            message: format!(
                "role assignment {id}, which this broker did not make, gives the same, and stays when the grant ends"
            ),
            remediation,
        },
    }
}

fn assignments_not_read(grant: &Grant) -> Finding {
    Finding {
        severity: Severity::Info,
        reason: "ASSIGNMENTS_NOT_READ",
        message: format!(
            "what others have assigned at {} could not be read in time: an assignment of somebody else's that gives the \
             same would outlive the grant",
            grant.target.cluster
        ),
        remediation: "Ask again with validate_only".to_owned(),
    }
}
