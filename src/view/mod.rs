//! What the broker knows of who has what: the source of every answer about access.
//!
//! Read when somebody asks, renewed while somebody does, and never older than whoever asks takes it. Assignments are
//! read a subscription at a time, not a cluster: one list holds what is assigned at, above and below all of its
//! clusters, and Azure allows a subscription few lists a minute. What the broker itself did lately, on any replica, is
//! laid over what Azure lists.

mod error;
mod fleets;
mod fresh;
mod groups;
mod maker;
mod own;
mod subscription;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::azure::{Azure, AzureError, GraphError};
use crate::domain::access::PrincipalType;
use crate::domain::cluster::Cluster;
use crate::domain::evaluate::Judgements;
use crate::domain::freshness::Position;
use crate::domain::ids::{ClusterId, InstanceId, PrincipalId, RoleDefinitionId, SubscriptionId};
use crate::domain::kubernetes_request::Features;
use crate::domain::role::RoleDefinition;
use crate::domain::snapshot::Snapshot;
use crate::store::{Changes, Store};
pub use error::ViewError;
use fleets::Fleets;
pub use fresh::{Fresh, Loaded, Need, Unread, Waits};
pub use groups::Groups;
use maker::Maker;
use own::{Lost, Own};
use subscription::{BuiltIn, Kept, Subscription};

/// How many clusters are remembered; more are read again.
const MOST_CLUSTERS: u64 = 10_000;
/// How many roles are remembered that no list of a subscription shows.
const MOST_ROLES: u64 = 10_000;
/// Of what there is one of. The bound is shared out, and each part of it has to hold that one.
const MOST_ALONE: u64 = 1_000;
/// Azure changes its own roles a few times a year.
const BUILT_IN_ROLES_LAST: Duration = Duration::from_hours(1);
/// How long a caller waits for changes that a token names to get here.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the view goes by.
#[derive(Clone, Debug)]
pub struct ViewSettings {
    /// The subscriptions whose clusters the broker manages.
    pub subscriptions: BTreeSet<SubscriptionId>,
    /// The oldest data that anybody may be answered from.
    pub longest_staleness: Duration,
    /// Data in use are read anew when they are older than this.
    pub renew_after: Duration,
    /// The longest that ARM's reads may trail its writes.
    pub lag: SignedDuration,
    /// How many role assignments are remembered, over all subscriptions.
    pub most_assignments: u64,
    /// Of how many principals the groups are remembered, each of which is in some fifty.
    pub most_principals: u64,
    /// Which of AKS's newer features the clusters have.
    pub features: Features,
}

/// Everything about one cluster.
#[derive(Debug)]
pub struct ClusterView {
    /// What decides who may do what.
    pub snapshot: Snapshot,
    of_azure: Arc<Loaded<BuiltIn>>,
    of_subscription: Arc<Loaded<Subscription>>,
    own_version: u64,
    /// Of our changes up to this version, on any cluster, none is missing.
    checked: AtomicU64,
}

impl ClusterView {
    /// A role that can be assigned on the cluster, if it is among those that are known.
    #[must_use]
    pub fn role(&self, id: RoleDefinitionId) -> Option<&Arc<RoleDefinition>> {
        let custom = || self.of_subscription.value.roles.get(&id);
        self.of_azure.value.roles.get(&id).or_else(custom)
    }
}

/// The view. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct View {
    store: Store,
    own: Own,
    clusters: Fresh<ClusterId, Arc<Cluster>, AzureError>,
    groups: Fresh<(PrincipalId, PrincipalType), Groups, GraphError>,
    views: Fresh<ClusterId, ClusterView, ViewError>,
    maker: Arc<Maker>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    /// A view that knows nothing yet. It gives no answers before [`follow`](Self::follow) has begun.
    #[must_use]
    pub fn new(store: Store, azure: &Azure, settings: &ViewSettings) -> Self {
        let renew = settings.renew_after;
        let oldest = SignedDuration::try_from(settings.longest_staleness);
        let own = Own::new(settings.lag, oldest.unwrap_or(SignedDuration::MAX));
        let clusters = {
            let azure = azure.clone();
            Fresh::new(
                MOST_CLUSTERS,
                |_| 1,
                renew,
                move |id, _| read_cluster(azure.clone(), id),
            )
        };
        let groups = {
            let azure = azure.clone();
            Fresh::new(
                settings.most_principals,
                Groups::weight,
                renew,
                move |(id, kind), _| Groups::read(azure.clone(), id, kind),
            )
        };
        let subscriptions = {
            let (azure, store, kept) = (azure.clone(), store.clone(), Arc::new(Kept::default()));
            Fresh::new(
                settings.most_assignments,
                Subscription::weight,
                renew,
                move |id, _| {
                    Subscription::read(azure.clone(), store.clone(), id, Arc::clone(&kept))
                },
            )
        };
        let built_in = {
            let azure = azure.clone();
            let ids = Arc::new(settings.subscriptions.clone());
            Fresh::new(
                MOST_ALONE,
                |_| 1,
                BUILT_IN_ROLES_LAST / 2,
                move |(), _| BuiltIn::read(azure.clone(), Arc::clone(&ids)),
            )
        };
        let more_roles = {
            let azure = azure.clone();
            Fresh::new(
                MOST_ROLES,
                |_| 1,
                renew,
                move |(subscription, id), _| subscription::role(azure.clone(), subscription, id),
            )
        };
        let fleets = {
            let (azure, ids) = (azure.clone(), Arc::new(settings.subscriptions.clone()));
            Fresh::new(
                MOST_ALONE,
                |_| 1,
                renew,
                move |(), _| Fleets::read(azure.clone(), Arc::clone(&ids)),
            )
        };
        let maker = Arc::new(Maker {
            own: own.clone(),
            clusters: clusters.clone(),
            subscriptions,
            built_in,
            more_roles,
            fleets,
            lag: settings.lag,
            judgements: Judgements::new(settings.features),
        });
        let weigh = |view: &ClusterView| u32::try_from(view.snapshot.len() + 1).unwrap_or(u32::MAX);
        let views = {
            let maker = Arc::clone(&maker);
            Fresh::new(settings.most_assignments, weigh, renew, move |id, need| {
                let maker = Arc::clone(&maker);
                async move { maker.make(id, need).await }
            })
        };
        Self {
            store,
            own,
            clusters,
            groups,
            views,
            maker,
        }
    }

    /// Follows what the broker does, on all replicas, for good.
    pub async fn follow(self, changes: Changes) {
        let Self {
            own,
            store,
            groups,
            views,
            maker,
            ..
        } = self;
        let lost = move |lost| match lost {
            Lost::Changes => {
                views.forget_all();
                maker.subscriptions.forget_all();
            }
            Lost::Time => {
                maker.begin_anew();
                groups.begin_anew();
                views.begin_anew();
            }
        };
        own.follow(store, changes, lost).await;
    }

    /// How a cluster is set up.
    ///
    /// # Errors
    /// What Azure says. Once it says that the cluster is gone, what was known of it is forgotten.
    pub async fn cluster(
        &self,
        id: &ClusterId,
        need: Need,
    ) -> Result<Arc<Loaded<Arc<Cluster>>>, AzureError> {
        let read = self.clusters.get(id, need).await;
        if read.as_ref().is_err_and(AzureError::is_gone) {
            self.clusters.forget(id);
            self.views.forget(id);
        }
        read
    }

    /// Takes in how a cluster is set up, from a list whose reading began then.
    pub fn put_cluster(&self, cluster: &Arc<Cluster>, begun: Instant) {
        self.clusters
            .put(cluster.id.clone(), Arc::clone(cluster), begun);
    }

    /// Everything about a cluster. What the broker did up to now, as far as it is heard of here, is in it. `may_read`
    /// is asked before Azure is.
    ///
    /// # Errors
    /// [`Unread`]: what cannot be read is never left out.
    pub async fn of_cluster<P>(
        &self,
        id: &ClusterId,
        need: Need,
        may_read: impl Fn() -> Result<(), P>,
    ) -> Result<Arc<Loaded<ClusterView>>, Unread<P, ViewError>> {
        if !self.own.is_current_since(need.not_before) {
            // In a box, as all that is seldom: what a check carries with it, it pays for.
            let heard = Box::pin(self.hear_of_everything()).await;
            heard.map_err(Unread::Failed)?;
        }
        // Nothing that is shared is written, or locked, while nothing has changed.
        let newest = self.own.newest_version();
        let wanted = OnceLock::new();
        let wanted = || *wanted.get_or_init(|| self.own.of(id).map_or(0, |own| own.version));
        let is_new_enough = |view: &ClusterView| {
            if view.checked.load(Ordering::Acquire) >= newest {
                return true;
            }
            let is_new_enough = view.own_version >= wanted();
            if is_new_enough {
                view.checked.fetch_max(newest, Ordering::AcqRel);
            }
            is_new_enough
        };
        self.views
            .get_permitted(id, need, is_new_enough, may_read)
            .await
    }

    /// The groups that a principal is in, through other groups too. `may_read` is asked before the directory is.
    ///
    /// # Errors
    /// [`Unread`]: what the directory says.
    pub async fn groups_of<P>(
        &self,
        principal: PrincipalId,
        kind: PrincipalType,
        need: Need,
        may_read: impl Fn() -> Result<(), P>,
    ) -> Result<Arc<Loaded<Groups>>, Unread<P, GraphError>> {
        self.groups
            .get_permitted(&(principal, kind), need, |_| true, may_read)
            .await
    }

    /// A position in the broker's own changes: whoever has taken in everything up to there knows all of them that are
    /// known here by now.
    #[must_use]
    pub fn position(&self) -> Position {
        self.own.told()
    }

    /// The broker whose changes these are.
    ///
    /// # Errors
    /// [`ViewError`] where the store never was there.
    pub async fn instance(&self) -> Result<InstanceId, ViewError> {
        self.store.instance().await.map_err(ViewError::store)
    }

    /// Waits until the broker's own changes are taken in up to there.
    ///
    /// # Errors
    /// [`ViewError::NotReached`] after ten seconds, or at once where nothing leads there.
    pub async fn reach(&self, position: Position) -> Result<(), ViewError> {
        let not_reached = || ViewError::NotReached {
            position,
            own: self.own.position(),
        };
        if self.own.position() >= position {
            return Ok(());
        }
        // One that nothing leads to is not waited for.
        if self.store.newest_change().await.map_err(ViewError::store)? < position {
            return Err(not_reached());
        }
        let reached = tokio::time::timeout(PATIENCE, self.own.reaches(position)).await;
        reached.map_err(|_| not_reached())
    }

    /// A moment by the store's clock, or a little earlier.
    ///
    /// # Errors
    /// [`ViewError::NotFollowing`] before the store was there.
    pub fn time_of(&self, moment: Instant) -> Result<Timestamp, ViewError> {
        self.own.time_of(moment).ok_or(ViewError::NotFollowing)
    }

    /// Takes in everything that the broker has done by now.
    async fn hear_of_everything(&self) -> Result<(), ViewError> {
        let tip = self.store.newest_change().await.map_err(ViewError::store)?;
        let reached = tokio::time::timeout(PATIENCE, self.own.reaches(tip)).await;
        reached.map_err(|_| ViewError::NotFollowing)
    }
}

async fn read_cluster(azure: Azure, id: ClusterId) -> Result<Loaded<Arc<Cluster>>, AzureError> {
    let begun = Instant::now();
    let cluster = azure.managed_cluster(&id, Uuid::new_v4()).await?;
    Ok(Loaded::new(Arc::new(cluster), begun))
}
