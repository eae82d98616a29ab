//! `ListAccess`: who has what on a cluster, and what somebody has everywhere; the broker's own grants and everyone
//! else's alike.

use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, stream};
use jiff::Timestamp;

use super::check::{CheckError, may_be_new};
use super::fresh_reads::Demand;
use super::names::Named;
use super::page::{InvalidPageToken, key_in, token_behind};
use super::permission::denied;
use super::record::{Of, of_question};
use super::request::{AccessOf, AccessQuery, RequestedPrincipal};
use super::sight::Seen;
use super::{Broker, BrokerError};
use crate::caller::Caller;
use crate::caller::policy::Action;
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::evaluate::{Asks, Held, Question};
use crate::domain::ids::{ClusterId, PrincipalId};
use crate::domain::kubernetes_request::KubernetesRequest;
use crate::domain::reason::Reason;
use crate::domain::snapshot::Snapshot;
use crate::store::StoreError;
use crate::view::{ClusterView, Groups, Loaded, ViewError};

/// So many clusters are read at once, where they have to be read.
const READ_AT_ONCE: usize = 8;

/// One assignment on one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessEntry {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who holds the assignment: groups are not taken apart.
    pub holder: PrincipalId,
    /// What kind of principal that is; `None` for kinds that the broker does not deal in.
    pub holder_kind: Option<PrincipalType>,
    /// The assignment; and, where somebody's access is listed, the groups that lead there.
    pub path: crate::domain::evaluate::Path,
}

/// A page of access.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessPage {
    /// By cluster, then by assignment.
    pub entries: Vec<AccessEntry>,
    /// The holders, and the groups in between, with their names, as far as the directory tells them.
    pub names: Named,
    /// Where the next page begins; empty: there is none.
    pub next: String,
    /// What it is true of.
    pub as_of: Timestamp,
    /// The subscriptions and clusters that could not be read, of those that this page is about: what is assigned there
    /// is missing.
    pub unreachable: Vec<String>,
}

/// Whose access is listed.
struct Somebody {
    principal: Principal,
    groups: Arc<Loaded<Groups>>,
}

impl Somebody {
    fn held(&self, snapshot: &Snapshot) -> Vec<Held> {
        snapshot.held_through(self.principal.id, &self.groups.value.ids)
    }

    /// What permits something there; nothing, where a check would have to say no.
    fn ways(&self, snapshot: &Snapshot, request: &KubernetesRequest) -> Vec<Held> {
        if !self.groups.value.is_known && !may_be_new(snapshot, self.principal.id) {
            return Vec::new();
        }
        snapshot.held_that_permits(&Question {
            principal: &self.principal,
            groups: &self.groups.value.ids,
            asks: Asks::Request(request),
        })
    }
}

/// A page in the making.
struct Filling {
    size: usize,
    after: Option<(String, String)>,
    entries: Vec<AccessEntry>,
    is_full: bool,
    oldest: Instant,
    unreachable: Vec<String>,
}

impl Filling {
    /// Takes what there is on a cluster, as far as there is room.
    fn take(&mut self, cluster: &ClusterId, held: Vec<Held>) {
        for held in held {
            let key = (cluster.as_str(), held.path.resource_id.as_str());
            let is_before = |after: &(String, String)| key <= (after.0.as_str(), after.1.as_str());
            if self.after.as_ref().is_some_and(is_before) {
                continue;
            }
            if self.entries.len() == self.size {
                self.is_full = true;
                return;
            }
            self.entries.push(AccessEntry {
                cluster: cluster.clone(),
                holder: held.holder,
                holder_kind: held.holder_kind,
                path: held.path,
            });
        }
    }

    fn rests_on(&mut self, read: Instant) {
        self.oldest = self.oldest.min(read);
    }
}

impl Broker {
    /// A page of access.
    ///
    /// # Errors
    /// [`BrokerError::PageToken`] for a token of another query; of one cluster, what cannot be read. Of many clusters,
    /// those that cannot be read are named.
    pub async fn list_access(
        &self,
        caller: &Arc<Caller>,
        query: &AccessQuery,
    ) -> Result<AccessPage, BrokerError> {
        if let AccessOf::Cluster {
            cluster, principal, ..
        } = &query.of
        {
            let principal = principal.as_ref();
            let may = self.may_ask_about(caller, Action::ListAccess, cluster, principal);
            let event = || of_question(caller, Action::ListAccess).on_cluster(cluster);
            self.recorded(Of::Question, event, may.await).await?;
        }
        if let AccessOf::Principal(principal) = &query.of {
            let may = self.may_list_access_of(caller, principal);
            let event = || of_question(caller, Action::ListAccess);
            self.recorded(Of::Question, event, may.await).await?;
        }
        let filter = format!("access {:?}", query.of);
        let after = match query.token.as_str() {
            "" => None,
            token => {
                let key = key_in(token, &filter)?;
                let (cluster, assignment) = key.split_once('|').ok_or(InvalidPageToken)?;
                Some((cluster.to_owned(), assignment.to_owned()))
            }
        };
        let need = self.need(caller, query.freshness).await?;
        let mut page = Filling {
            size: query.size.rows(),
            after,
            entries: Vec::new(),
            is_full: false,
            oldest: need.need.now,
            unreachable: Vec::new(),
        };
        match &query.of {
            AccessOf::Cluster {
                cluster,
                principal,
                request,
            } => {
                let somebody = principal.as_ref();
                self.of_one_cluster(&mut page, cluster, somebody, request.as_ref(), &need)
                    .await?;
            }
            AccessOf::Principal(principal) => {
                self.of_all_clusters(caller, &mut page, principal, &need)
                    .await?;
            }
        }
        let next = match page.entries.last() {
            Some(last) if page.is_full => token_behind(
                &format!("{}|{}", last.cluster, last.path.resource_id),
                &filter,
            ),
            _ => String::new(),
        };
        let of_page = page.entries.iter_mut();
        let paths = of_page.map(|entry| (entry.holder, &entry.cluster, &mut entry.path));
        self.name_grants(paths.collect()).await?;
        let of_page = page.entries.iter();
        let named = of_page.flat_map(|entry| entry.path.via.iter().copied().chain([entry.holder]));
        Ok(AccessPage {
            names: self.names.of(named.collect()).await,
            entries: page.entries,
            next,
            as_of: self.check.as_of(page.oldest)?,
            unreachable: page.unreachable,
        })
    }

    /// Whether a caller may ask for somebody's access anywhere. Whether there is such a principal learns only who may ask
    /// about anybody.
    async fn may_list_access_of(
        &self,
        caller: &Arc<Caller>,
        principal: &RequestedPrincipal,
    ) -> Result<(), BrokerError> {
        if self.sight(caller).await.sees_others(Action::ListAccess) {
            return Ok(());
        }
        match self.own_name(caller, principal).await {
            Some(_) => Ok(()),
            None => Err(denied(caller, Action::ListAccess, None, Arc::default())),
        }
    }

    async fn of_one_cluster(
        &self,
        page: &mut Filling,
        cluster: &ClusterId,
        principal: Option<&RequestedPrincipal>,
        request: Option<&KubernetesRequest>,
        need: &Demand,
    ) -> Result<(), BrokerError> {
        let view = self.check.of_cluster(cluster, need).await?;
        page.rests_on(view.begun);
        let snapshot = &view.value.snapshot;
        let somebody = match principal {
            Some(principal) => Some(self.whose(principal, page, need).await?),
            None => None,
        };
        let held = match (&somebody, request) {
            (Some(somebody), Some(request)) => somebody.ways(snapshot, request),
            (Some(somebody), None) => somebody.held(snapshot),
            (None, Some(request)) => snapshot.who_may(request),
            (None, None) => snapshot.all_held(),
        };
        page.take(cluster, held);
        if let Some(somebody) = &somebody {
            self.name_groups_of(page, &somebody.principal).await;
        }
        if snapshot.lacks_fleet() {
            page.unreachable.push(cluster.to_string());
        }
        Ok(())
    }

    /// Clusters are looked at in the order of their ids, as many as it takes to fill the page.
    async fn of_all_clusters(
        &self,
        caller: &Arc<Caller>,
        page: &mut Filling,
        principal: &RequestedPrincipal,
        need: &Demand,
    ) -> Result<(), BrokerError> {
        let somebody = self.whose(principal, page, need).await?;
        let (clusters, unreachable, read) = self.clusters.all(need.need).await;
        page.rests_on(read);
        let sight = self.sight(caller).await;
        let seen = Seen::Access {
            to_self: self.own_id(caller) == Some(somebody.principal.id),
        };
        let unreachable = sight.tellable(unreachable, seen)?;
        let unreachable = unreachable.iter().map(|id| format!("/subscriptions/{id}"));
        page.unreachable.extend(unreachable);
        let after = page.after.as_ref().map(|(cluster, _)| cluster.clone());
        let mut left: Vec<ClusterId> = Vec::new();
        for cluster in &clusters {
            let id = &cluster.id;
            let is_left = after.as_deref().is_none_or(|after| id.as_str() >= after);
            if is_left && sight.sees_cluster(id, seen)? {
                left.push(id.clone());
            }
        }
        let reads = left.into_iter().map(|id| self.read(id, need));
        let mut reads = stream::iter(reads).buffered(READ_AT_ONCE);
        while let Some((id, read)) = reads.next().await {
            match read {
                Ok(view) => {
                    page.rests_on(view.begun);
                    let snapshot = &view.value.snapshot;
                    page.take(&id, somebody.held(snapshot));
                    if snapshot.lacks_fleet() {
                        page.unreachable.push(id.to_string());
                    }
                }
                // It went away since it was listed.
                Err(CheckError::Cluster(error)) if error.reason() == Reason::ClusterNotFound => {}
                Err(error) if !is_of_one_cluster(&error) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(cluster = %id, %error, "what is assigned on a cluster cannot be read");
                    page.unreachable.push(id.to_string());
                }
            }
            if page.is_full {
                break;
            }
        }
        drop(reads);
        self.name_groups_of(page, &somebody.principal).await;
        Ok(())
    }

    async fn read(
        &self,
        cluster: ClusterId,
        need: &Demand,
    ) -> (ClusterId, Result<Arc<Loaded<ClusterView>>, CheckError>) {
        let read = self.check.of_cluster(&cluster, need).await;
        (cluster, read)
    }

    /// Who is meant, and the groups.
    async fn whose(
        &self,
        asked: &RequestedPrincipal,
        page: &mut Filling,
        need: &Demand,
    ) -> Result<Somebody, BrokerError> {
        let mut principal = self.principals.get(asked).await?;
        let groups = self.check.groups_of(&principal, need).await?;
        page.rests_on(groups.begun);
        if groups.value.is_service_principal {
            principal.kind = PrincipalType::ServicePrincipal;
        }
        Ok(Somebody { principal, groups })
    }

    async fn name_groups_of(&self, page: &mut Filling, principal: &Principal) {
        let mut paths = Vec::new();
        for entry in &mut page.entries {
            if entry.holder != principal.id {
                entry.path.via = vec![entry.holder];
                paths.push(&mut entry.path);
            }
        }
        self.name_groups(principal, &mut paths).await;
    }
}

/// Whether a cluster cannot be read for a reason of its own: what is no cluster's fault would be the same for the next.
fn is_of_one_cluster(error: &CheckError) -> bool {
    match error {
        CheckError::View(ViewError::Store(error)) => {
            matches!(**error, StoreError::Unreadable { .. })
        }
        CheckError::View(ViewError::NotFollowing | ViewError::NotReached { .. })
        | CheckError::FreshReadsSpent(_) => false,
        _ => true,
    }
}
