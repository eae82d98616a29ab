//! The directory: who exists, who is in which group, and what that lets them do.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::State;
use crate::scope::Scope;
use crate::world::{DenyAssignment, Device, Group, Principal, ServicePrincipal, User};

impl State {
    /// Somebody or something, by object id.
    pub(crate) fn principal(&self, id: Uuid) -> Option<&Principal> {
        self.principals.get(&id).map(|principal| &principal.value)
    }

    /// A computer, by object id.
    pub(crate) fn device(&self, id: Uuid) -> Option<&Device> {
        self.fixed.devices.iter().find(|device| device.id == id)
    }

    /// When somebody was added; zero for whom the world began with.
    pub(crate) fn principal_since(&self, id: Uuid) -> Option<Duration> {
        self.principals.get(&id).map(|principal| principal.since)
    }

    /// A user by object id or sign-in name, both in any case.
    pub(crate) fn user(&self, id_or_name: &str) -> Option<&User> {
        let by_id = Uuid::try_parse(id_or_name).ok();
        self.users().find(|user| {
            Some(user.id) == by_id
                || user.user_principal_name.to_lowercase() == id_or_name.to_lowercase()
        })
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &User> {
        self.principals
            .values()
            .filter_map(|principal| match &principal.value {
                Principal::User(user) => Some(user),
                Principal::Group(_) | Principal::ServicePrincipal(_) => None,
            })
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.principals
            .values()
            .filter_map(|principal| match &principal.value {
                Principal::Group(group) => Some(group),
                Principal::User(_) | Principal::ServicePrincipal(_) => None,
            })
    }

    /// An application's identity, by its application (client) id.
    pub(crate) fn application(&self, app_id: Uuid) -> Option<&ServicePrincipal> {
        self.principals
            .values()
            .find_map(|principal| match &principal.value {
                Principal::ServicePrincipal(application) if application.app_id == app_id => {
                    Some(application)
                }
                _ => None,
            })
    }

    /// All groups that `id` is in, through other groups too, in the order of their ids.
    pub(crate) fn groups_of(&self, id: Uuid) -> Vec<&Group> {
        let mut groups_of: HashMap<Uuid, Vec<&Group>> = HashMap::new();
        for group in self.groups() {
            for member in &group.members {
                groups_of.entry(*member).or_default().push(group);
            }
        }
        let mut found = BTreeMap::new();
        let mut open = VecDeque::from([id]);
        while let Some(member) = open.pop_front() {
            for group in groups_of.get(&member).into_iter().flatten() {
                if found.insert(group.id, *group).is_none() {
                    open.push_back(group.id);
                }
            }
        }
        found.into_values().collect()
    }

    /// `id` and the groups through which it gets roles: mailing lists give none.
    pub(crate) fn identities_of(&self, id: Uuid) -> BTreeSet<Uuid> {
        let groups = self
            .groups_of(id)
            .into_iter()
            .filter(|group| group.security_enabled);
        groups.map(|group| group.id).chain([id]).collect()
    }

    /// May `caller` do `action` at `scope`?
    ///
    /// An assignment with a condition gives nothing: conditions are not evaluated here, and a permission
    /// that nobody has checked is none.
    pub(crate) fn may(&self, caller: Uuid, action: &str, scope: &Scope) -> bool {
        let upwards = self.keys_upwards(scope);
        let identities = self.identities_of(caller);
        identities
            .into_iter()
            .flat_map(|identity| self.role_assignments_of(identity))
            .filter(|assignment| assignment.condition.is_none())
            .filter(|assignment| upwards.iter().any(|key| key == assignment.scope.key()))
            .filter_map(|assignment| self.role_definition(assignment.role))
            .any(|(role, _)| role.gives_action(action))
    }

    /// The deny assignment that keeps `caller` from doing `action` at `scope`, whatever roles they have.
    pub(crate) fn denied(
        &self,
        caller: Uuid,
        action: &str,
        scope: &Scope,
    ) -> Option<&DenyAssignment> {
        let upwards = self.keys_upwards(scope);
        let identities = self.identities_of(caller);
        let binds_here = |deny: &DenyAssignment| {
            deny.scope == *scope
                || (!deny.do_not_apply_to_child_scopes
                    && upwards.iter().any(|key| key == deny.scope.key()))
        };
        self.deny_assignments()
            .find(|deny| binds_here(deny) && deny.denies(&identities, action))
    }
}
