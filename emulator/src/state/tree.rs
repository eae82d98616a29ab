//! The tree of scopes: what exists, and what lies in what.

use std::time::Duration;

use uuid::Uuid;

use super::State;
use crate::scope::{Level, Scope};
use crate::world::{Cluster, Fleet, InvalidWorld, ManagementGroup, ResourceGroup, Subscription};

/// A scope that is not there, in the words that ARM has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    ManagementGroup,
    Subscription,
    ResourceGroup,
    Resource,
}

impl State {
    /// Is there something at `scope`? A namespace needs only its cluster or fleet: ARM cannot know namespaces.
    /// Managed namespaces it does know, but nothing here depends on whether they are there.
    pub(crate) fn exists(&self, scope: &Scope) -> Result<(), Missing> {
        if scope.level() == Level::Root {
            return Ok(());
        }
        if let Some(group) = scope.management_group() {
            let known = self.management_group_parents.contains_key(group);
            return known.then_some(()).ok_or(Missing::ManagementGroup);
        }
        self.subscription(scope.subscription().unwrap_or_default())
            .ok_or(Missing::Subscription)?;
        if scope.level() == Level::Subscription {
            return Ok(());
        }
        self.resource_group(scope).ok_or(Missing::ResourceGroup)?;
        if scope.level() == Level::ResourceGroup {
            return Ok(());
        }
        let cluster = scope.cluster_key().and_then(|key| self.cluster(key));
        let fleet = scope.fleet_key().and_then(|key| self.fleet(key));
        let known = cluster.is_some() || fleet.is_some();
        known.then_some(()).ok_or(Missing::Resource)
    }

    /// Does every assignment stand somewhere? What the world says of them is known only here.
    pub(crate) fn check_scopes(&self) -> Result<(), InvalidWorld> {
        let roles = self.role_assignments().map(|it| &it.scope);
        let denied = self.deny_assignments().map(|it| &it.scope);
        let lost = roles
            .chain(denied)
            .find(|scope| self.exists(scope).is_err());
        lost.map_or(Ok(()), |lost| {
            let text = format!("there is nothing at '{lost}', where a role is assigned or denied");
            Err(InvalidWorld::Inconsistent(text))
        })
    }

    /// The keys of `scope` and of everything that it lies in, management groups and the root included.
    pub(crate) fn keys_upwards(&self, scope: &Scope) -> Vec<String> {
        let mut keys: Vec<String> = scope
            .keys_upwards()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let mut group = match scope.subscription() {
            Some(id) => self
                .subscription(id)
                .and_then(|it| it.management_group.clone()),
            None => scope.management_group().and_then(|id| self.parent_of(id)),
        };
        while let Some(id) = group {
            let id = id.to_ascii_lowercase();
            group = self.parent_of(&id);
            keys.push(format!(
                "/providers/microsoft.management/managementgroups/{id}"
            ));
        }
        if scope.level() != Level::Root {
            keys.push("/".to_owned());
        }
        keys
    }

    /// Does `outer` contain `inner`, or is it the same?
    pub(crate) fn contains(&self, outer: &Scope, inner: &Scope) -> bool {
        inner.is_below(outer.key())
            || self
                .keys_upwards(inner)
                .iter()
                .any(|key| key == outer.key())
    }

    fn parent_of(&self, management_group: &str) -> Option<String> {
        self.management_group_parents
            .get(management_group)
            .cloned()
            .flatten()
    }

    /// A subscription, by its id in any case.
    pub(crate) fn subscription(&self, id: &str) -> Option<&Subscription> {
        let id = Uuid::try_parse(id).ok()?;
        self.fixed
            .subscriptions
            .iter()
            .find(|subscription| subscription.id == id)
    }

    pub(crate) fn subscriptions(&self) -> &[Subscription] {
        &self.fixed.subscriptions
    }

    /// A management group, by its id in any case.
    pub(crate) fn management_group(&self, id: &str) -> Option<&ManagementGroup> {
        self.fixed
            .management_groups
            .iter()
            .find(|group| group.id.eq_ignore_ascii_case(id))
    }

    pub(crate) fn management_groups(&self) -> &[ManagementGroup] {
        &self.fixed.management_groups
    }

    /// The resource group that `scope` is or lies in: its id and region.
    pub(crate) fn resource_group(&self, scope: &Scope) -> Option<&(Scope, String)> {
        let key = format!(
            "/subscriptions/{}/resourcegroups/{}",
            scope.subscription()?,
            scope.resource_group()?
        );
        self.resource_groups.get(&key)
    }

    /// All resource groups of a subscription.
    pub(crate) fn resource_groups_of(
        &self,
        subscription: &str,
    ) -> impl Iterator<Item = &(Scope, String)> {
        self.resource_groups
            .values()
            .filter(move |(id, _)| id.subscription() == Some(subscription))
    }

    pub(super) fn listed_resource_groups(&self) -> Vec<ResourceGroup> {
        let listed = self.resource_groups.values().filter_map(|(id, location)| {
            Some(ResourceGroup {
                subscription: Uuid::try_parse(id.subscription()?).ok()?,
                name: id.as_str().rsplit('/').next()?.to_owned(),
                location: location.clone(),
            })
        });
        listed.collect()
    }

    /// The cluster with this key, as it is.
    pub(crate) fn cluster(&self, key: &str) -> Option<&Cluster> {
        self.clusters.now(&key.to_owned())
    }

    /// The cluster with this key, as it was at `time`.
    pub(crate) fn cluster_at(&self, key: &str, time: Duration) -> Option<&Cluster> {
        self.clusters.at(&key.to_owned(), time)
    }

    /// The fleet with this key, as it is.
    pub(crate) fn fleet(&self, key: &str) -> Option<&Fleet> {
        self.fleets.now(&key.to_owned())
    }

    /// The fleet with this key, as it was at `time`.
    pub(crate) fn fleet_at(&self, key: &str, time: Duration) -> Option<&Fleet> {
        self.fleets.at(&key.to_owned(), time)
    }

    /// The fleet that a cluster is in.
    pub(crate) fn fleet_of(&self, cluster: &Scope) -> Option<&Fleet> {
        let mut all = self.fleets.all_now().map(|(_, fleet)| fleet);
        all.find(|fleet| fleet.members.iter().any(|it| it.cluster == *cluster))
    }

    /// The fleets of a subscription as they were at `time`, by key.
    pub(crate) fn fleets_at(
        &self,
        subscription: Uuid,
        time: Duration,
    ) -> impl Iterator<Item = &Fleet> {
        let all = self.fleets.all_at(time).map(|(_, fleet)| fleet);
        all.filter(move |fleet| fleet.subscription == subscription)
    }

    /// The clusters of a subscription as they were at `time`, by key.
    pub(crate) fn clusters_at(
        &self,
        subscription: Uuid,
        time: Duration,
    ) -> impl Iterator<Item = &Cluster> {
        let all = self.clusters.all_at(time).map(|(_, cluster)| cluster);
        all.filter(move |cluster| cluster.subscription == subscription)
    }
}
