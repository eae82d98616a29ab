//! The use cases: what each RPC means, from a well-formed request to an answer.
//!
//! Nothing here knows gRPC, Redis's encodings or Azure's JSON. Each use case is a file that reads like
//! its specification, top to bottom.

mod access;
pub mod check;
pub mod clusters;
mod error;
mod explain;
mod extend;
mod follow;
mod fresh_reads;
mod grant;
mod hidden;
mod lists;
mod names;
pub mod page;
mod payload;
mod permission;
mod preview;
pub mod principals;
mod record;
pub mod request;
mod revoke;
pub mod roles;
mod sight;
pub mod trail;
mod unmanaged;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::Notify;
use uuid::Uuid;

pub use access::{AccessEntry, AccessPage};
pub use error::{BrokerError, RETRY_AFTER};
pub use follow::GrantWithEffects;
pub use fresh_reads::Demand;
pub use grant::Granted;
pub use lists::Page;
pub use names::Named;
pub use permission::Denied;
pub use preview::{PlannedGrant, PlannedRevocation};
pub use revoke::MOST_REVOKED;

use crate::azure::Azure;
use crate::caller::Caller;
use crate::caller::policy::{Action, Context, Policies};
use crate::config;
use crate::domain::cluster::{Cluster, Finding, findings};
use crate::domain::freshness::Freshness;
use crate::domain::ids::{ClusterId, SubscriptionId};
use crate::store::{Changes, RefusalBounds, Store};
pub use crate::view::Need;
use crate::view::View;
use check::{Asked, Check, Checked, Staleness};
use clusters::{ClusterPage, ClusterQuery, Clusters};
use fresh_reads::FreshReads;
use names::Names;
use principals::Principals;
use record::{Of, of_question};
use request::CheckRequest;
use roles::Roles;
use sight::Seen;
use unmanaged::Unmanaged;

/// The use cases, and what they need. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    store: Store,
    clusters: Clusters,
    roles: Roles,
    principals: Principals,
    names: Names,
    check: Check,
    fresh_reads: FreshReads,
    policies: Policies,
    tenant: Uuid,
    unmanaged: Unmanaged,
    lag: SignedDuration,
    changes: Changes,
    patience: Duration,
    refusals: RefusalBounds,
    work: Arc<Notify>,
}

/// The first of some refusals, and how many there are.
fn denials(refused: &[&BrokerError]) -> Option<(Box<Denied>, usize)> {
    let denied = refused.iter().filter_map(|error| match error {
        BrokerError::Denied(denied) => Some(denied),
        _ => None,
    });
    let first = denied.clone().next()?;
    Some((first.clone(), denied.count()))
}

/// What the use cases go by.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// The tenant in whose directory those are that get access.
    pub tenant: Uuid,
    /// The subscriptions whose clusters the broker manages.
    pub subscriptions: BTreeSet<SubscriptionId>,
    /// How long what was read of a cluster, a role or a principal is believed.
    pub known_for: Duration,
    /// The longest that Azure's reads may trail its writes.
    pub lag: Duration,
    /// How long a watcher waits for a store that has gone away.
    pub patience: Duration,
    /// How old the data may be that answers about access rest on.
    pub staleness: Staleness,
    /// How often callers may have fresher data read than that.
    pub fresh_reads: config::FreshReads,
    /// How much of the audit log refusals may take.
    pub refusals: RefusalBounds,
}

impl Broker {
    /// Puts the use cases together. `work` is notified when something has been accepted.
    #[must_use]
    pub fn new(
        store: Store,
        azure: Azure,
        view: View,
        changes: Changes,
        policies: Policies,
        work: Arc<Notify>,
        settings: BrokerSettings,
    ) -> Self {
        let known_for = settings.known_for;
        let fresh_reads = FreshReads::new(settings.fresh_reads, &settings.subscriptions);
        let clusters = Clusters::new(
            azure.clone(),
            view.clone(),
            settings.subscriptions,
            known_for,
        );
        let roles = Roles::new(azure.clone(), settings.known_for);
        let principals = Principals::new(azure.clone(), settings.known_for);
        let names = Names::new(azure.clone(), settings.staleness.longest);
        let lag = SignedDuration::try_from(settings.lag).unwrap_or(SignedDuration::MAX);
        Self {
            unmanaged: Unmanaged::new(azure, store.clone(), known_for),
            check: Check::new(view, clusters.clone(), roles.clone(), settings.staleness),
            fresh_reads,
            policies,
            tenant: settings.tenant,
            lag,
            store,
            clusters,
            roles,
            principals,
            names,
            changes,
            patience: settings.patience,
            refusals: settings.refusals,
            work,
        }
    }

    /// How fresh the data must be that answers rest on.
    ///
    /// # Errors
    /// [`BrokerError::Check`] where what a token names has not been heard of here in good time.
    pub async fn need(&self, caller: &Caller, freshness: Freshness) -> Result<Demand, BrokerError> {
        let need = self.check.need(freshness).await?;
        Ok(if self.check.is_stricter_than_usual(need) {
            Demand::forced(need, caller, &self.fresh_reads)
        } else {
            need.into()
        })
    }

    /// Whether a principal may do something; and who was meant. With `explain`, also why.
    ///
    /// # Errors
    /// [`BrokerError`] wherever something that the answer hangs on cannot be read: it fails closed.
    pub async fn check_access(
        &self,
        caller: &Caller,
        request: CheckRequest,
        need: Demand,
        explain: bool,
    ) -> Result<(Asked, Checked), BrokerError> {
        let cluster = request.cluster.clone();
        match self.check_one_of_many(caller, request, need, explain).await {
            Ok(answer) => Ok(answer),
            Err(refused) => Err(Box::pin(self.refused_check(caller, &cluster, refused)).await),
        }
    }

    /// A check that has no answer, written down where policies decided that.
    async fn refused_check(
        &self,
        caller: &Caller,
        cluster: &ClusterId,
        refused: BrokerError,
    ) -> BrokerError {
        let event = || of_question(caller, Action::CheckAccess).on_cluster(cluster);
        let recorded = self.recorded::<std::convert::Infallible>(Of::Question, event, Err(refused));
        match recorded.await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// The same for one of many: whoever asks has the refusals recorded, by
    /// [`record_refused_checks`](Self::record_refused_checks).
    ///
    /// # Errors
    /// As above.
    pub async fn check_one_of_many(
        &self,
        caller: &Caller,
        request: CheckRequest,
        need: Demand,
        explain: bool,
    ) -> Result<(Asked, Checked), BrokerError> {
        let (cluster, principal) = (&request.cluster, Some(&request.principal));
        if !self.may_surely_ask(caller, Action::CheckAccess, cluster) {
            let may = self.may_ask_about(caller, Action::CheckAccess, cluster, principal);
            Box::pin(may).await?;
        }
        let asked = Asked {
            principal: self.principals.get(&request.principal).await?,
            cluster: request.cluster,
            asks: request.asks,
        };
        let mut checked = self.check.check_access(&asked, need, explain).await?;
        if explain {
            Box::pin(self.explain(&asked, &mut checked)).await?;
        }
        Ok((asked, checked))
    }

    /// Writes down that a batch of checks had refusals among them: the first one, and how many.
    ///
    /// # Errors
    /// What the store says.
    pub async fn record_refused_checks(
        &self,
        caller: &Caller,
        refused: &[&BrokerError],
    ) -> Result<(), BrokerError> {
        let Some((first, count)) = denials(refused) else {
            return Ok(());
        };
        let event = || {
            let event = of_question(caller, Action::CheckAccess).with("refused", count.to_string());
            match &first.cluster {
                Some(cluster) => event.on_cluster(cluster),
                None => event,
            }
        };
        let refusal = Err::<(), _>(BrokerError::Denied(first.clone()));
        match self.recorded(Of::Question, event, refusal).await {
            Err(BrokerError::Denied(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One cluster as Azure describes it now, and what is to be said of it.
    ///
    /// # Errors
    /// [`BrokerError::Cluster`]
    pub async fn get_cluster(
        &self,
        caller: &Caller,
        id: &ClusterId,
    ) -> Result<(Arc<Cluster>, Vec<Finding>), BrokerError> {
        let may = self.may_ask(caller, Action::GetCluster, id, Context::Nothing);
        let event = || of_question(caller, Action::GetCluster).on_cluster(id);
        self.recorded(Of::Question, event, may.await).await?;
        let cluster = self.clusters.get_fresh(id).await?;
        let found = findings(&cluster);
        Ok((cluster, found))
    }

    /// A page of the clusters that the caller sees.
    ///
    /// # Errors
    /// [`BrokerError::PageToken`]
    pub async fn list_clusters(
        &self,
        caller: &Arc<Caller>,
        query: &ClusterQuery,
    ) -> Result<ClusterPage, BrokerError> {
        let sight = self.sight(caller).await;
        let sees = |cluster: &Cluster| sight.sees_cluster(&cluster.id, Seen::Cluster);
        let page = self.clusters.list::<BrokerError>(query, sees).await?;
        let unreachable = sight.tellable(page.unreachable, Seen::Cluster)?;
        Ok(ClusterPage {
            unreachable,
            ..page
        })
    }
}
