//! The use cases: what each RPC means, from a well-formed request to an answer.
//!
//! Nothing here knows gRPC, Redis's encodings or Azure's JSON. Each use case is a file that reads like
//! its specification, top to bottom.

pub mod check;
pub mod clusters;
mod error;
mod explain;
mod extend;
mod follow;
mod grant;
mod lists;
pub mod page;
mod payload;
mod preview;
pub mod principals;
pub mod request;
mod revoke;
pub mod roles;
mod unmanaged;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::Notify;

pub use error::{BrokerError, RETRY_AFTER};
pub use follow::GrantWithEffects;
pub use grant::Granted;
pub use lists::Page;
pub use preview::{PlannedGrant, PlannedRevocation};
pub use revoke::MOST_REVOKED;

use crate::azure::Azure;
use crate::domain::cluster::{Cluster, Finding, findings};
use crate::domain::effect::{Effect, Known};
use crate::domain::grant::Expiry;
use crate::domain::ids::{ClusterId, SubscriptionId, TargetId};
use crate::store::{Changes, Store};
use check::{Asked, Check, Checked, OwnEffect, OwnRecord};
use clusters::{ClusterPage, ClusterQuery, Clusters};
use principals::Principals;
use request::CheckRequest;
use roles::Roles;
use unmanaged::Unmanaged;

/// The use cases, and what they need. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    store: Store,
    clusters: Clusters,
    roles: Roles,
    principals: Principals,
    check: Check,
    unmanaged: Unmanaged,
    lag: SignedDuration,
    changes: Changes,
    patience: Duration,
    work: Arc<Notify>,
}

/// What the use cases go by.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// The subscriptions whose clusters the broker manages.
    pub subscriptions: BTreeSet<SubscriptionId>,
    /// How long what was read of a cluster, a role or a principal is believed.
    pub known_for: Duration,
    /// The longest that Azure's reads may trail its writes.
    pub lag: Duration,
    /// How long a watcher waits for a store that has gone away.
    pub patience: Duration,
}

impl Broker {
    /// Puts the use cases together. `work` is notified when something has been accepted.
    #[must_use]
    pub fn new(
        store: Store,
        azure: Azure,
        changes: Changes,
        work: Arc<Notify>,
        settings: BrokerSettings,
    ) -> Self {
        let clusters = Clusters::new(azure.clone(), settings.subscriptions, settings.known_for);
        let roles = Roles::new(azure.clone(), settings.known_for);
        let principals = Principals::new(azure.clone(), settings.known_for);
        let lag = SignedDuration::try_from(settings.lag).unwrap_or(SignedDuration::MAX);
        Self {
            unmanaged: Unmanaged::new(azure.clone(), settings.known_for),
            check: Check::new(azure, clusters.clone(), roles.clone(), lag),
            lag,
            store,
            clusters,
            roles,
            principals,
            changes,
            patience: settings.patience,
            work,
        }
    }

    /// Whether a principal holds an access, from what Azure says now, with our own record laid over it; and
    /// who was meant.
    ///
    /// # Errors
    /// [`BrokerError`] wherever something that the answer hangs on cannot be read: it fails closed.
    pub async fn check_access(
        &self,
        request: CheckRequest,
    ) -> Result<(Asked, Checked), BrokerError> {
        let asked = Asked {
            principal: self.principals.get(&request.principal).await?,
            cluster: request.cluster,
            access: request.access,
        };
        let target = TargetId {
            cluster: asked.cluster.clone(),
            principal: asked.principal.id,
        };
        let instance = self.store.instance().await?;
        let record = self.store.target(&target).await?;
        let own = OwnRecord {
            instance,
            cluster_uid: record.cluster_uid,
            effects: record.effects.values().filter_map(own_effect).collect(),
        };
        let checked = self.check.check_access(&asked, &own, record.now).await?;
        Ok((asked, checked))
    }

    /// One cluster as Azure describes it now, and what is to be said of it.
    ///
    /// # Errors
    /// [`BrokerError::Cluster`]
    pub async fn get_cluster(
        &self,
        id: &ClusterId,
    ) -> Result<(Arc<Cluster>, Vec<Finding>), BrokerError> {
        let cluster = self.clusters.get_fresh(id).await?;
        let found = findings(&cluster);
        Ok((cluster, found))
    }

    /// A page of clusters.
    ///
    /// # Errors
    /// [`BrokerError::PageToken`]
    pub async fn list_clusters(&self, query: &ClusterQuery) -> Result<ClusterPage, BrokerError> {
        Ok(self.clusters.list(query).await?)
    }
}

/// What we know of an effect for certain; nothing while it is unsettled.
fn own_effect(effect: &Effect) -> Option<OwnEffect> {
    let present = match effect.known {
        Known::Present => true,
        Known::Absent => false,
        Known::NameRefused | Known::Foreign(_) => return None,
    };
    let written = effect.written.as_ref();
    (!effect.is_unsettled()).then(|| OwnEffect {
        name: effect.name,
        at: effect.at.clone(),
        present,
        changed: effect.changed,
        grants: written
            .map(|written| written.grants.clone())
            .unwrap_or_default(),
        expiry: written.map_or(Expiry::Never, |written| written.expiry),
    })
}
