//! What is assigned and denied in a subscription, and what the roles give.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
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
            assignments: Arc::new(Assignments::new(rows.map(|row| listed(row, instance)))),
            denies: denies.into_values().collect(),
            roles,
        };
        Ok(Loaded::new(subscription, begun))
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
