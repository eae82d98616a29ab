//! The clusters that the broker manages: one by its id, or all of them by page.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use thiserror::Error;
use uuid::Uuid;

use super::page::{InvalidPageToken, PageSize, key_in, token_behind};
use crate::azure::{Azure, AzureError};
use crate::domain::cluster::Cluster;
use crate::domain::ids::{ClusterId, SubscriptionId};
use crate::domain::reason::Reason;
use crate::view::{Fresh, Loaded, Need, View};

/// How many clusters of all lists are remembered; more are listed again. The bound is shared out among up to a few dozen
/// parts, and each of them has to hold the longest list that a subscription can have: 5,000 clusters
/// [azure-docs azure-resource-manager/management/azure-subscription-service-limits.md].
const MOST_LISTED: u64 = 250_000;

/// What is known of the clusters. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Clusters {
    view: View,
    subscriptions: Arc<BTreeSet<SubscriptionId>>,
    known_for: Duration,
    listed: Fresh<SubscriptionId, Vec<Arc<Cluster>>, AzureError>,
}

impl std::fmt::Debug for Clusters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut told = f.debug_struct("Clusters");
        told.field("subscriptions", &self.subscriptions)
            .finish_non_exhaustive()
    }
}

/// Why a cluster cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ClusterError {
    /// There is none, or the broker does not manage its subscription.
    #[error("there is no cluster {cluster} (ListClusters says which there are): {why}")]
    NotFound {
        /// Which.
        cluster: ClusterId,
        /// How the broker knows.
        why: String,
    },
    /// The broker's own identity may not read it. Nobody can tell whether it exists.
    #[error(
        "the broker may not read {cluster}: give its identity Microsoft.ContainerService/managedClusters/read \
         there or above ({error})"
    )]
    NotReadable {
        /// Which.
        cluster: ClusterId,
        /// What Azure says.
        error: Box<AzureError>,
    },
    /// Azure did not answer, or not sensibly: try again.
    #[error("the cluster cannot be read at the moment: {0}")]
    Unavailable(Box<AzureError>),
}

impl ClusterError {
    /// The stable reason that callers see.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::ClusterNotFound,
            Self::NotReadable { .. } => Reason::ClusterNotReadable,
            Self::Unavailable(error) => unavailable(error),
        }
    }

    /// The cluster that it is about, where the caller can do something about that.
    #[must_use]
    pub const fn cluster(&self) -> Option<&ClusterId> {
        match self {
            Self::NotFound { cluster, .. } | Self::NotReadable { cluster, .. } => Some(cluster),
            Self::Unavailable(_) => None,
        }
    }

    pub(super) fn of(cluster: &ClusterId, error: AzureError) -> Self {
        if error.is_gone() {
            return Self::NotFound {
                cluster: cluster.clone(),
                // Not Azure's whole words, which are the cluster's name once more.
                why: format!("Azure answers {}", error.code),
            };
        }
        // A subscription that is not found is one that the broker's identity does not see.
        if error.suggests_cluster_is_gone() {
            return Self::NotReadable {
                cluster: cluster.clone(),
                error: error.into(),
            };
        }
        Self::Unavailable(error.into())
    }
}

/// The reason of a read that did not work and may work later. Whatever the table says of the code, a
/// question that could not be asked is unanswered, not refused.
pub(super) fn unavailable(error: &AzureError) -> Reason {
    match error.reason() {
        reason
        @ (Reason::AzureThrottled | Reason::AzureError | Reason::AzureCredentialsRefused) => reason,
        _ => Reason::AzureUnavailable,
    }
}

/// Which clusters to list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterQuery {
    /// Only those of this name, in any case; `None`: all.
    pub name: Option<String>,
    /// How many at most.
    pub size: PageSize,
    /// Where the last page ended; empty: the first page.
    pub token: String,
}

/// A page of clusters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterPage {
    /// In the order of their ids.
    pub clusters: Vec<Arc<Cluster>>,
    /// Where the next page begins; empty: there is none.
    pub next: String,
    /// The subscriptions that could not be listed: their clusters are missing.
    pub unreachable: Vec<SubscriptionId>,
}

impl Clusters {
    /// What is known of a cluster is believed for `known_for`.
    #[must_use]
    pub fn new(
        azure: Azure,
        view: View,
        subscriptions: BTreeSet<SubscriptionId>,
        known_for: Duration,
    ) -> Self {
        let weigh = |list: &Vec<_>| u32::try_from(list.len() + 1).unwrap_or(u32::MAX);
        let listed = {
            let view = view.clone();
            // One that is asked for is read when it is too old, and not before: most are asked for once.
            Fresh::new(MOST_LISTED, weigh, known_for, move |id, _| {
                read_all(azure.clone(), view.clone(), id)
            })
        };
        Self {
            view,
            known_for,
            listed,
            subscriptions: Arc::new(subscriptions),
        }
    }

    /// A cluster as it was at most a moment ago. Concurrent misses make one call.
    ///
    /// # Errors
    /// [`ClusterError`]; an error is not remembered.
    pub async fn get(&self, cluster: &ClusterId) -> Result<Arc<Cluster>, ClusterError> {
        self.read(cluster, Need::within(self.known_for)).await
    }

    /// A cluster as it is now.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn get_fresh(&self, cluster: &ClusterId) -> Result<Arc<Cluster>, ClusterError> {
        self.read(cluster, Need::within(Duration::ZERO)).await
    }

    /// The subscriptions that are managed.
    pub(super) fn subscriptions(&self) -> &BTreeSet<SubscriptionId> {
        &self.subscriptions
    }

    /// How fresh what is told of clusters is, usually.
    pub(super) fn usual(&self) -> Need {
        Need::within(self.known_for)
    }

    /// A page of the clusters of all configured subscriptions, of those that somebody `sees`.
    ///
    /// # Errors
    /// [`InvalidPageToken`] for a token of another filter. A subscription that cannot be listed is no
    /// error: the page names it.
    pub async fn list<E: From<InvalidPageToken>>(
        &self,
        query: &ClusterQuery,
        sees: impl Fn(&Cluster) -> Result<bool, E>,
    ) -> Result<ClusterPage, E> {
        let name = query.name.as_ref().map(|name| name.to_lowercase());
        let filter = format!("clusters {}", name.as_deref().unwrap_or_default());
        let after = match query.token.as_str() {
            "" => String::new(),
            token => key_in(token, &filter)?,
        };
        let (all, unreachable, _) = self.all(Need::within(self.known_for)).await;
        let rest = all.into_iter().filter(|cluster| {
            cluster.id.as_str() > after.as_str()
                && query
                    .name
                    .as_ref()
                    .is_none_or(|name| cluster.name.eq_ignore_ascii_case(name))
        });
        let mut clusters: Vec<Arc<Cluster>> = Vec::new();
        let mut next = String::new();
        for cluster in rest {
            if !sees(&cluster)? {
                continue;
            }
            if let Some(last) = clusters
                .last()
                .filter(|_| clusters.len() == query.size.rows())
            {
                next = token_behind(last.id.as_str(), &filter);
                break;
            }
            clusters.push(cluster);
        }
        Ok(ClusterPage {
            clusters,
            next,
            unreachable,
        })
    }

    /// All clusters in the order of their ids, the subscriptions that could not be listed, and since when that is known.
    pub(super) async fn all(
        &self,
        need: Need,
    ) -> (Vec<Arc<Cluster>>, Vec<SubscriptionId>, Instant) {
        let lists = self.subscriptions.iter().map(|id| async {
            let list = self.listed.get(id, need).await;
            (*id, list)
        });
        let mut clusters = Vec::new();
        let mut unreachable = Vec::new();
        let mut oldest = need.now;
        for (subscription, list) in join_all(lists).await {
            match list {
                Ok(list) => {
                    oldest = oldest.min(list.begun);
                    clusters.extend(list.value.iter().map(Arc::clone));
                }
                Err(error) => {
                    tracing::warn!(%subscription, %error, "the clusters of a subscription cannot be listed");
                    unreachable.push(subscription);
                }
            }
        }
        clusters.sort_by(|one, other| one.id.cmp(&other.id));
        (clusters, unreachable, oldest)
    }

    /// Whether the broker manages it at all.
    pub(super) fn must_be_managed(&self, cluster: &ClusterId) -> Result<(), ClusterError> {
        if self.subscriptions.contains(&cluster.subscription()) {
            return Ok(());
        }
        Err(ClusterError::NotFound {
            cluster: cluster.clone(),
            why: format!(
                "this broker does not manage subscription {}",
                cluster.subscription()
            ),
        })
    }

    async fn read(&self, cluster: &ClusterId, need: Need) -> Result<Arc<Cluster>, ClusterError> {
        self.must_be_managed(cluster)?;
        match self.view.cluster(cluster, need).await {
            Ok(read) => Ok(Arc::clone(&read.value)),
            Err(error) => Err(ClusterError::of(cluster, error)),
        }
    }
}

/// All clusters of a subscription; what a list tells of each needs no look at it.
async fn read_all(
    azure: Azure,
    view: View,
    id: SubscriptionId,
) -> Result<Loaded<Vec<Arc<Cluster>>>, AzureError> {
    let begun = Instant::now();
    let clusters = azure.managed_clusters(id, Uuid::new_v4()).await?;
    let clusters: Vec<Arc<Cluster>> = clusters.into_iter().map(Arc::new).collect();
    for cluster in &clusters {
        view.put_cluster(cluster, begun);
    }
    Ok(Loaded::new(clusters, begun))
}
