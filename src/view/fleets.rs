//! Which cluster is a member of which fleet. Fleets are listed by subscription, and a member may be in another one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::{Loaded, ViewError};
use crate::azure::{Azure, AzureError};
use crate::domain::fleet::FleetId;
use crate::domain::ids::{ClusterId, SubscriptionId};

/// So many fleets are asked for their members at once.
const READ_AT_ONCE: usize = 8;

/// All fleets in the broker's subscriptions.
#[derive(Debug)]
pub(super) struct Fleets {
    by_member: HashMap<ClusterId, FleetId>,
    /// Whether those of some subscription could not be read.
    are_some_missing: bool,
}

impl Fleets {
    /// What cannot be read is known to be missing.
    pub(super) async fn read(
        azure: Azure,
        subscriptions: Arc<BTreeSet<SubscriptionId>>,
    ) -> Result<Loaded<Self>, ViewError> {
        let begun = Instant::now();
        let lists = subscriptions.iter().map(|id| async {
            let read = members(&azure, *id).await;
            (*id, read)
        });
        let mut fleets = Self {
            by_member: HashMap::new(),
            are_some_missing: false,
        };
        for (subscription, read) in join_all(lists).await {
            match read {
                Ok(members) => fleets.by_member.extend(members),
                Err(error) => {
                    tracing::warn!(%subscription, %error, "the fleets of a subscription cannot be read");
                    fleets.are_some_missing = true;
                }
            }
        }
        Ok(Loaded::new(fleets, begun))
    }

    /// The fleet of a cluster.
    pub(super) fn of(&self, cluster: &ClusterId) -> Option<&FleetId> {
        self.by_member.get(cluster)
    }

    /// Whether a cluster may be in a fleet that could not be read.
    pub(super) fn may_lack(&self, cluster: &ClusterId) -> bool {
        self.of(cluster).is_none() && self.are_some_missing
    }
}

async fn members(
    azure: &Azure,
    subscription: SubscriptionId,
) -> Result<Vec<(ClusterId, FleetId)>, AzureError> {
    let fleets = azure.fleets(subscription, Uuid::new_v4()).await?;
    let reads = fleets.into_iter().map(|fleet| async move {
        match azure.fleet_members(&fleet.id, Uuid::new_v4()).await {
            Ok(members) => Ok(members
                .into_iter()
                .map(|member| (member.cluster, fleet.id.clone()))
                .collect()),
            Err(error) if error.is_gone() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    });
    let lists: Vec<Vec<_>> = stream::iter(reads)
        .buffer_unordered(READ_AT_ONCE)
        .try_collect()
        .await?;
    Ok(lists.into_iter().flatten().collect())
}
