//! What is assigned and denied in a subscription, and what the roles give.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use uuid::Uuid;

use super::{Loaded, ViewError};
use crate::azure::{Azure, AzureError, DenyFilter, Filter, Place, RoleAssignment, RoleType};
use crate::domain::assignments::{Assignments, Listed};
use crate::domain::deny::DenyAssignment;
use crate::domain::ids::{InstanceId, RoleDefinitionId, SubscriptionId};
use crate::domain::role::RoleDefinition;
use crate::store::Store;

/// Role definitions by their GUID.
pub(super) type Roles = HashMap<RoleDefinitionId, Arc<RoleDefinition>>;

/// Azure's own roles, the same in every subscription.
#[derive(Debug)]
pub(super) struct BuiltIn {
    pub(super) roles: Roles,
}

impl BuiltIn {
    /// Through the first of the subscriptions that shows them.
    pub(super) async fn read(
        azure: Azure,
        subscriptions: Arc<BTreeSet<SubscriptionId>>,
    ) -> Result<Loaded<Self>, ViewError> {
        let begun = Instant::now();
        let mut problem = ViewError::NotFollowing;
        for subscription in subscriptions.iter() {
            match roles(&azure, *subscription, RoleType::BuiltIn).await {
                Ok(roles) => return Ok(Loaded::new(Self { roles }, begun)),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }
}

/// What holds in a subscription, above it and below it.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) assignments: Arc<Assignments>,
    pub(super) denies: Arc<[DenyAssignment]>,
    /// The tenant's own roles that can be assigned in it.
    pub(super) roles: Roles,
}

impl Subscription {
    /// How many assignments it is.
    pub(super) fn weight(&self) -> u32 {
        u32::try_from(self.assignments.rows().len() + 1).unwrap_or(u32::MAX)
    }

    /// Two lists of each kind: without a filter ARM lists what is at a scope and below it, with `atScope()` what is at
    /// it and above; whether either shows more is not relied on [azure.md §1].
    pub(super) async fn read(
        azure: Azure,
        store: Store,
        id: SubscriptionId,
        kept: Arc<Kept>,
    ) -> Result<Loaded<Self>, ViewError> {
        let begun = Instant::now();
        let instance = store.instance().await.map_err(ViewError::store)?;
        let place = Place::Subscription(id);
        let assignments = |filter| azure.role_assignments(&place, filter, Uuid::new_v4());
        let denies = |filter| azure.deny_assignments(&place, filter, Uuid::new_v4());
        let unread = |error: AzureError| ViewError::Assignments(error.into());
        let lists = async {
            tokio::try_join!(
                assignments(Filter::All),
                assignments(Filter::AtScope),
                denies(DenyFilter::All),
                denies(DenyFilter::AtScope),
            )
            .map_err(unread)
        };
        let (lists, roles) = tokio::try_join!(lists, roles(&azure, id, RoleType::Custom))?;
        let (below, above, denied_below, denied_above) = lists;
        let rows = below.into_iter().chain(above);
        let denies: HashMap<String, DenyAssignment> = denied_below
            .into_iter()
            .chain(denied_above)
            .map(|deny| (deny.resource_id.to_ascii_lowercase(), deny))
            .collect();
        let subscription = Self {
            assignments: kept.once(id, Assignments::new(rows.map(|row| listed(row, instance)))),
            denies: denies.into_values().collect(),
            roles,
        };
        Ok(Loaded::new(subscription, begun))
    }
}

/// The lists that somebody still holds. Most are read again without a change, and each cluster's view holds the one that it
/// was made of: kept as often as they are read, they would take many times the memory that they are given.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<HashMap<SubscriptionId, Weak<Assignments>>>);

impl Kept {
    /// The same list, as it is kept already if nothing in it has changed.
    fn once(&self, id: SubscriptionId, read: Assignments) -> Arc<Assignments> {
        // Nothing can panic half-way through a change, so a poisoned lock holds good data.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.get(&id).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| **known == read) {
            return known;
        }
        let read = Arc::new(read);
        kept.insert(id, Arc::downgrade(&read));
        read
    }
}

fn listed(row: RoleAssignment, instance: InstanceId) -> Listed {
    Listed {
        name: row.name,
        ours: row.made_by(instance).map(|ours| ours.expiry),
        scope: row.scope,
        role: row.role,
        holder: row.principal,
        holder_kind: row.principal_type,
        condition: row.condition,
    }
}

/// One role, as a subscription shows it; `None` where it does not, or not to the broker: then nobody knows what it gives.
pub(super) async fn role(
    azure: Azure,
    subscription: SubscriptionId,
    id: RoleDefinitionId,
) -> Result<Loaded<Option<Arc<RoleDefinition>>>, ViewError> {
    let begun = Instant::now();
    let read = azure.role_definition(subscription, id, Uuid::new_v4());
    match read.await {
        Ok(role) => Ok(Loaded::new(Some(Arc::new(role)), begun)),
        Err(error) if matches!(error.status, Some(403 | 404)) => Ok(Loaded::new(None, begun)),
        Err(error) => Err(ViewError::Roles(error.into())),
    }
}

async fn roles(
    azure: &Azure,
    subscription: SubscriptionId,
    kind: RoleType,
) -> Result<Roles, ViewError> {
    let listed = azure.role_definitions(subscription, kind, Uuid::new_v4());
    let roles = listed
        .await
        .map_err(|error| ViewError::Roles(error.into()))?;
    Ok(roles
        .into_iter()
        .map(|role| (role.id, Arc::new(role)))
        .collect())
}
