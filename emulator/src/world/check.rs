//! Does a world hold together? A typing error in a YAML file must say so at start, not as a 404 later.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::scope::Scope;

use super::{BUILT_IN_ROLES, EVERYONE, InvalidWorld, World};

impl World {
    /// # Errors
    /// [`InvalidWorld::Inconsistent`] names the first thing that is there twice or leads nowhere.
    pub(crate) fn check(&self) -> Result<(), InvalidWorld> {
        self.check_tree()?;
        let principals = self.check_principals()?;
        self.check_clusters()?;
        self.check_fleets()?;
        self.check_role_assignments(&principals)?;
        self.check_deny_assignments(&principals)
    }

    fn check_tree(&self) -> Result<(), InvalidWorld> {
        let mut groups = BTreeSet::new();
        for group in &self.management_groups {
            unique(
                &mut groups,
                group.id.to_ascii_lowercase(),
                "management group",
            )?;
        }
        let parents = self
            .management_groups
            .iter()
            .filter_map(|group| group.parent.as_ref());
        let of_subscriptions = self
            .subscriptions
            .iter()
            .filter_map(|it| it.management_group.as_ref());
        for id in parents.chain(of_subscriptions) {
            known(&groups, &id.to_ascii_lowercase(), "management group")?;
        }
        let subscriptions = self.subscription_ids()?;
        for group in &self.resource_groups {
            known(&subscriptions, &group.subscription, "subscription")?;
        }
        self.check_for_rings()
    }

    fn check_for_rings(&self) -> Result<(), InvalidWorld> {
        let parents = self.management_group_parents();
        for start in parents.keys() {
            let mut at = start;
            for _ in 0..=parents.len() {
                match parents.get(at) {
                    Some(Some(parent)) => at = parent,
                    _ => break,
                }
            }
            if parents.get(at).is_some_and(Option::is_some) {
                return Err(inconsistent(format!(
                    "management group '{start}' lies in itself"
                )));
            }
        }
        Ok(())
    }

    fn subscription_ids(&self) -> Result<BTreeSet<Uuid>, InvalidWorld> {
        let mut ids = BTreeSet::new();
        for subscription in &self.subscriptions {
            unique(&mut ids, subscription.id, "subscription")?;
        }
        Ok(ids)
    }

    fn check_principals(&self) -> Result<BTreeSet<Uuid>, InvalidWorld> {
        let mut ids = BTreeSet::new();
        for principal in self.principals() {
            unique(&mut ids, principal.id(), "principal")?;
        }
        let mut objects = ids.clone();
        for device in &self.devices {
            unique(&mut objects, device.id, "directory object")?;
        }
        let mut applications = BTreeSet::new();
        for application in &self.service_principals {
            unique(&mut applications, application.app_id, "application")?;
        }
        for group in &self.groups {
            for member in &group.members {
                known(&ids, member, "principal")?;
            }
        }
        Ok(ids)
    }

    fn check_clusters(&self) -> Result<(), InvalidWorld> {
        let subscriptions = self.subscription_ids()?;
        let mut ids = BTreeSet::new();
        for cluster in &self.clusters {
            known(&subscriptions, &cluster.subscription, "subscription")?;
            Scope::parse(cluster.id().as_str()).map_err(|error| inconsistent(error.to_string()))?;
            unique(&mut ids, cluster.id().key().to_owned(), "cluster")?;
        }
        Ok(())
    }

    fn check_fleets(&self) -> Result<(), InvalidWorld> {
        let subscriptions = self.subscription_ids()?;
        let (mut ids, mut members) = (BTreeSet::new(), BTreeSet::new());
        for fleet in &self.fleets {
            known(&subscriptions, &fleet.subscription, "subscription")?;
            Scope::parse(fleet.id().as_str()).map_err(|error| inconsistent(error.to_string()))?;
            unique(&mut ids, fleet.id().key().to_owned(), "fleet")?;
            let mut names = BTreeSet::new();
            for member in &fleet.members {
                unique(&mut names, member.name.to_ascii_lowercase(), "fleet member")?;
                if member.cluster.cluster_key() != Some(member.cluster.key()) {
                    return Err(inconsistent(format!(
                        "'{}', a member of fleet '{}', is no cluster's id",
                        member.cluster, fleet.name
                    )));
                }
                unique(
                    &mut members,
                    member.cluster.key().to_owned(),
                    "member of a fleet",
                )?;
            }
        }
        Ok(())
    }

    fn check_deny_assignments(&self, principals: &BTreeSet<Uuid>) -> Result<(), InvalidWorld> {
        let mut names = BTreeSet::new();
        for deny in &self.deny_assignments {
            unique(&mut names, deny.name_or_derived(), "deny assignment")?;
            let all = deny.principals.iter().chain(&deny.exclude_principals);
            for id in all.filter(|id| **id != EVERYONE) {
                known(principals, id, "principal")?;
            }
        }
        Ok(())
    }

    fn check_role_assignments(&self, principals: &BTreeSet<Uuid>) -> Result<(), InvalidWorld> {
        let mut roles: BTreeSet<Uuid> = BUILT_IN_ROLES.keys().copied().collect();
        for role in &self.custom_roles {
            unique(&mut roles, role.id, "role definition")?;
        }
        let (mut names, mut given) = (BTreeSet::new(), BTreeSet::new());
        for assignment in &self.role_assignments {
            known(&roles, &assignment.role, "role definition")?;
            known(principals, &assignment.principal, "principal")?;
            unique(&mut names, assignment.name_or_derived(), "role assignment")?;
            let what = format!(
                "{} for {} at {}",
                assignment.role,
                assignment.principal,
                assignment.scope.key()
            );
            unique(&mut given, what, "role assignment")?;
        }
        Ok(())
    }
}

fn unique<T: Ord + ToString>(
    seen: &mut BTreeSet<T>,
    id: T,
    what: &str,
) -> Result<(), InvalidWorld> {
    let text = id.to_string();
    if seen.insert(id) {
        Ok(())
    } else {
        Err(inconsistent(format!("{what} '{text}' is there twice")))
    }
}

fn known<T: Ord + ToString>(all: &BTreeSet<T>, id: &T, what: &str) -> Result<(), InvalidWorld> {
    if all.contains(id) {
        Ok(())
    } else {
        Err(inconsistent(format!(
            "there is no {what} '{}'",
            id.to_string()
        )))
    }
}

fn inconsistent(text: String) -> InvalidWorld {
    InvalidWorld::Inconsistent(text)
}

#[cfg(test)]
mod tests {
    use super::super::World;

    #[test]
    fn the_built_in_world_holds_together() {
        World::built_in().check().expect("consistent");
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_named() {
        let mut world = World::built_in();
        world.subscriptions[0].management_group = Some("nowhere".to_owned());
        let error = world.check().expect_err("inconsistent").to_string();
        assert_eq!(
            error,
            "the world does not hold together: there is no management group 'nowhere'"
        );
    }

    #[test]
    fn a_management_group_cannot_lie_in_itself() {
        let mut world = World::built_in();
        world.management_groups[0].parent = Some(world.management_groups[0].id.clone());
        let error = world.check().expect_err("inconsistent").to_string();
        assert!(error.ends_with("lies in itself"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = World::from_yaml(
            "tenant: 00000000-0000-0000-0000-000000000001\nsubscriptions: []\nx: 1\n",
        )
        .expect_err("unknown key");
        assert!(error.to_string().contains('x'), "{error}");
    }
}
