//! What others have assigned: worth knowing for whoever relies on a grant, because it outlives the grant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use uuid::Uuid;

use super::Broker;
use crate::azure::{Azure, AzureError, Filter, Place, RoleAssignment};
use crate::domain::cluster::{Finding, Severity, findings};
use crate::domain::grant::Grant;
use crate::domain::ids::{ClusterId, PrincipalId, Scope};
use crate::domain::reason::Reason;
use crate::domain::snapshot::holds_at;
use crate::store::{Store, StoreError};
use crate::view::{Fresh, Loaded, Need, Waits};

/// How many assignments are remembered, over all clusters.
const MOST_ASSIGNMENTS: u64 = 200_000;

/// How long an answer waits for what is only worth knowing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The role assignments that others made, by cluster: those at it and above it, and, where Azure lists
/// them with it, at its namespaces. Cheap to clone.
#[derive(Clone)]
pub(super) struct Unmanaged {
    azure: Azure,
    store: Store,
    known: Fresh<ClusterId, Vec<RoleAssignment>, NotRead>,
    known_for: Duration,
}

impl Unmanaged {
    /// What was read is believed for `known_for`.
    pub(super) fn new(azure: Azure, store: Store, known_for: Duration) -> Self {
        let weight = |list: &Vec<RoleAssignment>| u32::try_from(list.len() + 1).unwrap_or(u32::MAX);
        let load = {
            let (azure, store) = (azure.clone(), store.clone());
            move |cluster, _| {
                let (azure, store) = (azure.clone(), store.clone());
                async move {
                    let begun = Instant::now();
                    let list = listed(&azure, &store, &cluster, Filter::All).await?;
                    Ok(Loaded::new(list, begun))
                }
            }
        };
        Self {
            known: Fresh::new(MOST_ASSIGNMENTS, weight, known_for, load),
            azure,
            store,
            known_for,
        }
    }

    /// As it was at most a moment ago. Concurrent misses make one call, which goes on when nobody waits for
    /// it any more: a list that takes long is there for the next who asks.
    async fn at(&self, cluster: &ClusterId) -> Result<Arc<Loaded<Vec<RoleAssignment>>>, NotRead> {
        self.known.get(cluster, Need::within(self.known_for)).await
    }

    /// As it is now, of one principal.
    async fn of(
        &self,
        cluster: &ClusterId,
        principal: PrincipalId,
    ) -> Result<Vec<RoleAssignment>, NotRead> {
        listed(
            &self.azure,
            &self.store,
            cluster,
            Filter::Principal(principal),
        )
        .await
    }
}

async fn listed(
    azure: &Azure,
    store: &Store,
    cluster: &ClusterId,
    filter: Filter,
) -> Result<Vec<RoleAssignment>, NotRead> {
    let instance = store
        .instance()
        .await
        .map_err(|error| NotRead::Instance(Arc::new(error)))?;
    let place = Place::Scope(Scope::Cluster(cluster.clone()));
    let all = azure
        .role_assignments(&place, filter, Uuid::new_v4())
        .await?;
    Ok(all
        .into_iter()
        .filter(|found| found.made_by(instance).is_none())
        .collect())
}

impl Broker {
    /// What is worth knowing beside a grant: how its cluster is set up, and who else has assigned the same,
    /// as it was at most a moment ago. What cannot be read in good time is no reason to fail: then that is
    /// what is said.
    pub(super) async fn findings_beside(&self, grant: &Grant) -> Vec<Finding> {
        let read = async {
            let others = self.unmanaged.at(&grant.target.cluster).await?;
            Ok(of_the_same(grant, &others.value))
        };
        self.findings_of(grant, read).await.0
    }

    /// The same, from what Azure says now; and the assignments that it tells of.
    pub(super) async fn fresh_findings_beside(
        &self,
        grant: &Grant,
    ) -> (Vec<Finding>, Vec<RoleAssignment>) {
        let read = async {
            let target = &grant.target;
            let others = self.unmanaged.of(&target.cluster, target.principal).await?;
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
#[derive(Clone, Debug, Error)]
enum NotRead {
    #[error(transparent)]
    Instance(Arc<StoreError>),
    #[error(transparent)]
    Azure(#[from] AzureError),
}

impl Waits for NotRead {
    fn wait(&self) -> Option<Duration> {
        match self {
            Self::Instance(_) => None,
            Self::Azure(error) => error.wait(),
        }
    }
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
