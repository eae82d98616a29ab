//! A cluster's view, put together out of what was read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use futures::{StreamExt, stream};
use jiff::SignedDuration;

use super::fleets::Fleets;
use super::own::{Own, OwnOfCluster};
use super::subscription::{BuiltIn, Subscription};
use super::{BUILT_IN_ROLES_LAST, ClusterView, Fresh, Loaded, Need, ViewError};
use crate::azure::AzureError;
use crate::domain::cluster::Cluster;
use crate::domain::evaluate::Judgements;
use crate::domain::fleet::FleetId;
use crate::domain::ids::{ClusterId, RoleDefinitionId, SubscriptionId};
use crate::domain::role::RoleDefinition;
use crate::domain::snapshot::{
    Definitions, FleetParts, OwnChanges, Parts, Snapshot, roles_that_count,
};

/// Roles by a subscription and their GUID; `None`: there is none there, or the broker may not read it.
type MoreRoles = Fresh<(SubscriptionId, RoleDefinitionId), Option<Arc<RoleDefinition>>, ViewError>;

/// So many roles are read at once.
const READ_AT_ONCE: usize = 8;

/// Makes a cluster's view out of what was read.
pub(super) struct Maker {
    pub(super) own: Own,
    pub(super) clusters: Fresh<ClusterId, Arc<Cluster>, AzureError>,
    pub(super) subscriptions: Fresh<SubscriptionId, Subscription, ViewError>,
    pub(super) built_in: Fresh<(), BuiltIn, ViewError>,
    /// Those that a subscription's list does not show: it has what can be assigned at the subscription, and not what can be
    /// assigned in one of its resource groups alone [rest-api role-definitions/list].
    pub(super) more_roles: MoreRoles,
    pub(super) fleets: Fresh<(), Fleets, ViewError>,
    pub(super) lag: SignedDuration,
    pub(super) judgements: Judgements,
}

impl Maker {
    /// Forgets everything, and what is being read.
    pub(super) fn begin_anew(&self) {
        self.clusters.begin_anew();
        self.subscriptions.begin_anew();
        self.built_in.begin_anew();
        self.more_roles.begin_anew();
        self.fleets.begin_anew();
    }

    /// Everything about a cluster, as fresh as is needed.
    ///
    /// # Errors
    /// [`ViewError`]: but for a fleet's part, and what an unlisted role gives, nothing is left out.
    pub(super) async fn make(
        &self,
        id: ClusterId,
        need: Need,
    ) -> Result<Loaded<ClusterView>, ViewError> {
        let subscription = id.subscription();
        let hourly = Need {
            not_before: need
                .now
                .checked_sub(BUILT_IN_ROLES_LAST)
                .unwrap_or(need.not_before),
            ..need
        };
        let (cluster, of_subscription, of_azure, fleets) = tokio::join!(
            self.clusters.get(&id, need),
            self.subscriptions.get(&subscription, need),
            self.built_in.get(&(), hourly),
            self.fleets.get(&(), need),
        );
        let cluster = cluster.map_err(|error| ViewError::Cluster(error.into()))?;
        let (of_subscription, of_azure) = (of_subscription?, of_azure?);
        // A fleet only gives more: without it what the rest allows stays allowed.
        let fleets = fleets.ok();
        let mut fleet_not_read = fleets.as_ref().is_none_or(|it| it.value.may_lack(&id));
        let fleet = fleets.as_ref().and_then(|it| it.value.of(&id)).cloned();
        let fleet_subscription = fleet.as_ref().map_or(subscription, FleetId::subscription);
        let of_fleet = match &fleet {
            None => None,
            Some(fleet) => match self.subscriptions.get(&fleet_subscription, need).await {
                Ok(read) => Some(read),
                Err(error) => {
                    tracing::warn!(%fleet, %error, "what is assigned at a fleet cannot be read");
                    fleet_not_read = true;
                    None
                }
            },
        };
        let lists = [
            Some(of_subscription.begun),
            of_fleet.as_ref().map(|it| it.begun),
        ];
        let lists = lists.into_iter().flatten().min().unwrap_or(need.now);
        let begun = [
            Some(lists),
            Some(cluster.begun),
            fleets.as_ref().map(|it| it.begun),
        ];
        let begun = begun.into_iter().flatten().min().unwrap_or(lists);

        let checked = AtomicU64::new(self.own.newest_version());
        let own = self.own.of(&id);
        let own_version = own.as_ref().map_or(0, |own| own.version);
        if let Some(problem) = own.as_ref().and_then(|own| own.problem()) {
            return Err(ViewError::Store(problem));
        }
        let read = self.own.time_of(lists).ok_or(ViewError::NotFollowing)?;
        let own = own.map_or_else(OwnChanges::default, |own: Arc<OwnOfCluster>| {
            own.changes(&cluster.value.resource_uid, read, self.lag)
        });
        let fleet = fleet.zip(of_fleet.as_ref()).map(|(id, read)| FleetParts {
            id,
            assignments: Arc::clone(&read.value.assignments),
            denies: Arc::clone(&read.value.denies),
        });
        let mut lists = vec![(subscription, &of_subscription.value)];
        lists.extend(of_fleet.as_ref().map(|it| (fleet_subscription, &it.value)));
        let fleet_id = fleet.as_ref().map(|fleet| &fleet.id);
        let granted: BTreeSet<RoleDefinitionId> = own.present.iter().map(|row| row.role).collect();
        let in_use = roles_in_use(&granted, subscription, &cluster.value, fleet_id, &lists);
        let known = (&of_azure.value, lists.as_slice());
        let (roles, read) = self.roles(in_use, known, &granted, need).await?;
        let begun = read.map_or(begun, |read| read.min(begun));
        let snapshot = Snapshot::new(&Parts {
            cluster: Arc::clone(&cluster.value),
            assignments: Arc::clone(&of_subscription.value.assignments),
            denies: Arc::clone(&of_subscription.value.denies),
            fleet,
            fleet_not_read,
            own,
            roles,
            judgements: self.judgements.clone(),
        });
        let view = ClusterView {
            snapshot,
            of_azure,
            of_subscription,
            own_version,
            checked,
        };
        Ok(Loaded::new(view, begun))
    }

    /// What these roles give, as far as that can be read; and when reading what is in no list began, where something is.
    /// A role only gives more: of one that cannot be read nobody knows what it gives, and what the rest allows stays
    /// allowed. But what we have `granted` a moment ago has to be in the answer.
    async fn roles(
        &self,
        in_use: BTreeSet<(SubscriptionId, RoleDefinitionId)>,
        (of_azure, lists): (&BuiltIn, &[(SubscriptionId, &Subscription)]),
        granted: &BTreeSet<RoleDefinitionId>,
        need: Need,
    ) -> Result<(Definitions, Option<Instant>), ViewError> {
        let mut roles = Definitions::new();
        let mut unlisted = Vec::new();
        for (of, id) in in_use {
            let mut custom = lists.iter().filter_map(|(_, list)| list.roles.get(&id));
            match of_azure.roles.get(&id).or_else(|| custom.next()) {
                Some(known) => drop(roles.insert(id, Some(Arc::clone(known)))),
                None => unlisted.push((of, id)),
            }
        }
        let reads = unlisted.into_iter().map(|role| async move {
            let read = self.more_roles.get(&role, need).await;
            (role.1, read)
        });
        let mut reads = stream::iter(reads).buffer_unordered(READ_AT_ONCE);
        let mut begun: Option<Instant> = None;
        while let Some((id, read)) = reads.next().await {
            let known = roles.entry(id).or_insert(None);
            match read {
                Ok(read) => {
                    begun = begun.into_iter().chain([read.begun]).min();
                    *known = known.take().or_else(|| read.value.clone());
                }
                Err(error) if granted.contains(&id) => return Err(error),
                Err(error) => {
                    tracing::warn!(role = %id, %error, "what a role gives cannot be read");
                }
            }
        }
        Ok((roles, begun))
    }
}

/// The roles whose definitions decide something on a cluster, each with a subscription that it can be read by: those that
/// are assigned where it counts, and those that we have just granted.
fn roles_in_use(
    granted: &BTreeSet<RoleDefinitionId>,
    subscription: SubscriptionId,
    cluster: &Cluster,
    fleet: Option<&FleetId>,
    lists: &[(SubscriptionId, &Subscription)],
) -> BTreeSet<(SubscriptionId, RoleDefinitionId)> {
    let counting = lists.iter().flat_map(|(id, list)| {
        let roles = roles_that_count(cluster, fleet, &list.assignments);
        roles.into_iter().map(|role| (*id, role))
    });
    let granted = granted.iter().map(|role| (subscription, *role));
    granted.chain(counting).collect()
}
