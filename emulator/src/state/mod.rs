//! The one truth of this Azure: what exists, what it was a lag ago, and who may do what.
//!
//! Changes come in as [`Record`]s and nowhere else, so that what a restart reads back is what was done.

mod directory;
mod journal;
mod live;
mod record;
mod store;
mod tree;
mod versions;

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

pub(crate) use record::Record;
pub use record::RoleAssignment;
pub(crate) use store::Store;
pub(crate) use tree::Missing;

use crate::scope::Scope;
use crate::time::Moment;
use crate::world::{
    BUILT_IN_ROLES, Cluster, CustomRole, DenyAssignment, Fleet, Lock, NewRoleAssignment, Principal,
    RoleDefinition, World,
};
use live::Live;
use versions::Versions;

/// Everything that exists.
#[derive(Debug)]
pub(crate) struct State {
    /// The parts that no call changes; everything else in it is empty.
    fixed: World,
    management_group_parents: BTreeMap<String, Option<String>>,
    /// Lower-case keys of all resource groups, those of deleted clusters included: a resource group
    /// outlives what was in it. With each its region.
    resource_groups: BTreeMap<String, (Scope, String)>,
    principals: BTreeMap<Uuid, Since<Principal>>,
    custom_roles: BTreeMap<Uuid, Since<CustomRole>>,
    clusters: Versions<String, Cluster>,
    fleets: Versions<String, Fleet>,
    role_assignments: Versions<Uuid, RoleAssignment>,
    deny_assignments: Versions<Uuid, DenyAssignment>,
    live: Live,
    locks: Vec<Lock>,
}

/// Something with the time at which it was made.
#[derive(Debug)]
struct Since<T> {
    since: Duration,
    value: T,
}

impl State {
    pub(crate) fn empty(fixed: World) -> Self {
        let mut state = Self {
            management_group_parents: fixed.management_group_parents(),
            resource_groups: BTreeMap::new(),
            principals: BTreeMap::new(),
            custom_roles: BTreeMap::new(),
            clusters: Versions::new(),
            fleets: Versions::new(),
            role_assignments: Versions::new(),
            deny_assignments: Versions::new(),
            live: Live::default(),
            locks: Vec::new(),
            fixed,
        };
        for group in state.fixed.resource_groups.clone() {
            let id = format!(
                "/subscriptions/{}/resourceGroups/{}",
                group.subscription, group.name
            );
            state.add_resource_group(Scope::parse(&id).ok(), group.location);
        }
        state
    }

    /// Takes one change in. `keep_from` is the earliest time that a read may still ask for.
    pub(crate) fn apply(&mut self, record: Record, now: Duration, keep_from: Duration) {
        match record {
            // The world is the journal's first line and is taken in by `Store`, before there is a state.
            Record::World(_) => {}
            Record::RoleAssignment(assignment) => {
                self.live.replace(
                    self.role_assignments.now(&assignment.name),
                    Some(&assignment),
                );
                self.role_assignments
                    .set(assignment.name, Some(assignment), now, keep_from);
            }
            Record::RoleAssignmentDeleted(name) => {
                self.live.replace(self.role_assignments.now(&name), None);
                self.role_assignments.set(name, None, now, keep_from);
            }
            Record::Cluster(cluster) => {
                self.add_resource_group(
                    Scope::parse(&cluster.resource_group_id()).ok(),
                    cluster.location.clone(),
                );
                self.clusters.set(
                    cluster.id().key().to_owned(),
                    Some(*cluster),
                    now,
                    keep_from,
                );
            }
            Record::ClusterDeleted(id) => {
                self.clusters.set(id.key().to_owned(), None, now, keep_from);
            }
            Record::Fleet(fleet) => {
                self.add_resource_group(
                    Scope::parse(&fleet.resource_group_id()).ok(),
                    fleet.location.clone(),
                );
                let key = fleet.id().key().to_owned();
                self.fleets.set(key, Some(*fleet), now, keep_from);
            }
            Record::FleetDeleted(id) => {
                self.fleets.set(id.key().to_owned(), None, now, keep_from);
            }
            Record::DenyAssignment(deny) => {
                self.deny_assignments
                    .set(deny.name_or_derived(), Some(*deny), now, keep_from);
            }
            Record::DenyAssignmentDeleted(name) => {
                self.deny_assignments.set(name, None, now, keep_from);
            }
            Record::Principal(principal) => {
                let since = self
                    .principals
                    .get(&principal.id())
                    .map_or(now, |known| known.since);
                self.principals.insert(
                    principal.id(),
                    Since {
                        since,
                        value: principal,
                    },
                );
            }
            Record::PrincipalDeleted(id) => {
                self.principals.remove(&id);
            }
            Record::CustomRole(role) => {
                let since = self
                    .custom_roles
                    .get(&role.id)
                    .map_or(now, |known| known.since);
                self.custom_roles
                    .insert(role.id, Since { since, value: role });
            }
            Record::Locked(lock) => {
                self.locks.retain(|other| other.scope != lock.scope);
                self.locks.push(lock);
            }
            Record::Unlocked(scope) => self.locks.retain(|lock| lock.scope != scope),
        }
    }

    fn add_resource_group(&mut self, id: Option<Scope>, location: String) {
        if let Some(id) = id {
            self.resource_groups
                .entry(id.key().to_owned())
                .or_insert((id, location));
        }
    }

    /// The tenant's id.
    pub(crate) fn tenant(&self) -> Uuid {
        self.fixed.tenant
    }

    /// The role assignment of this name as it is.
    pub(crate) fn role_assignment(&self, name: Uuid) -> Option<&RoleAssignment> {
        self.role_assignments.now(&name)
    }

    /// The role assignment of this name as it was at `time`.
    pub(crate) fn role_assignment_at(&self, name: Uuid, time: Duration) -> Option<&RoleAssignment> {
        self.role_assignments.at(&name, time)
    }

    /// All role assignments as they were at `time`, by name.
    pub(crate) fn role_assignments_at(
        &self,
        time: Duration,
    ) -> impl Iterator<Item = &RoleAssignment> {
        self.role_assignments
            .all_at(time)
            .map(|(_, assignment)| assignment)
    }

    /// All role assignments as they are, by name.
    pub(crate) fn role_assignments(&self) -> impl Iterator<Item = &RoleAssignment> {
        self.role_assignments
            .all_now()
            .map(|(_, assignment)| assignment)
    }

    /// What a principal has been given directly.
    pub(crate) fn role_assignments_of(
        &self,
        principal: Uuid,
    ) -> impl Iterator<Item = &RoleAssignment> {
        self.live
            .names_of(principal)
            .filter_map(|name| self.role_assignment(name))
    }

    /// The assignment that gives this role to this principal at this scope.
    pub(crate) fn twin(
        &self,
        principal: Uuid,
        role: Uuid,
        scope: &Scope,
    ) -> Option<&RoleAssignment> {
        self.role_assignment(self.live.twin(principal, role, scope)?)
    }

    /// How many role assignments count against the limit of this scope's subscription or management group.
    pub(crate) fn count_beside(&self, scope: &Scope) -> usize {
        self.live.count_beside(scope)
    }

    /// All deny assignments as they were at `time`, by name.
    pub(crate) fn deny_assignments_at(
        &self,
        time: Duration,
    ) -> impl Iterator<Item = &DenyAssignment> {
        self.deny_assignments.all_at(time).map(|(_, deny)| deny)
    }

    /// All deny assignments as they are, by name.
    pub(crate) fn deny_assignments(&self) -> impl Iterator<Item = &DenyAssignment> {
        self.deny_assignments.all_now().map(|(_, deny)| deny)
    }

    /// The deny assignment of this name as it is.
    pub(crate) fn deny_assignment(&self, name: Uuid) -> Option<&DenyAssignment> {
        self.deny_assignments.now(&name)
    }

    /// A built-in or custom role, with the time since when it has existed (zero for built-in ones).
    pub(crate) fn role_definition(&self, id: Uuid) -> Option<(RoleDefinition, Duration)> {
        let built_in = BUILT_IN_ROLES
            .get(&id)
            .map(|role| (role.clone(), Duration::ZERO));
        built_in.or_else(|| {
            let custom = self.custom_roles.get(&id)?;
            Some(((&custom.value).into(), custom.since))
        })
    }

    /// All roles that can be assigned at `scope`, built-in ones first.
    pub(crate) fn role_definitions(&self, scope: &Scope) -> Vec<RoleDefinition> {
        let custom = self.custom_roles.values().map(|role| (&role.value).into());
        let all = BUILT_IN_ROLES.values().cloned().chain(custom);
        all.filter(|role| self.is_assignable(role, scope)).collect()
    }

    /// Do the assignable scopes of this role take `scope` in?
    pub(crate) fn is_assignable(&self, role: &RoleDefinition, scope: &Scope) -> bool {
        let upwards = self.keys_upwards(scope);
        let takes_in = |assignable: &Scope| upwards.iter().any(|key| key == assignable.key());
        role.assignable_scopes.iter().any(takes_in)
    }

    pub(crate) fn locks_over(&self, scope: &Scope) -> Vec<&Lock> {
        let upwards = self.keys_upwards(scope);
        let binds = |lock: &&Lock| upwards.iter().any(|key| key == lock.scope.key());
        self.locks.iter().filter(binds).collect()
    }

    /// The world as it is: a start with it leads to the same state.
    pub(crate) fn world(&self) -> World {
        let mut world = self.fixed.clone();
        world.set_principals(
            self.principals
                .values()
                .map(|principal| principal.value.clone()),
        );
        world.clusters = self
            .clusters
            .all_now()
            .map(|(_, cluster)| cluster.clone())
            .collect();
        world.custom_roles = self
            .custom_roles
            .values()
            .map(|role| role.value.clone())
            .collect();
        world.fleets = self.fleets.all_now().map(|(_, it)| it.clone()).collect();
        world.deny_assignments = self.deny_assignments().cloned().collect();
        world.locks.clone_from(&self.locks);
        world.role_assignments = self
            .role_assignments()
            .map(NewRoleAssignment::from)
            .collect();
        world
    }

    /// The records that lead from an empty state to this one.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut fixed = self.fixed.clone();
        // Resource groups of deleted clusters are implied by nothing any more.
        fixed.resource_groups = self.listed_resource_groups();
        let mut records = vec![Record::World(Box::new(fixed))];
        records.extend(
            self.principals
                .values()
                .map(|it| Record::Principal(it.value.clone())),
        );
        records.extend(
            self.custom_roles
                .values()
                .map(|it| Record::CustomRole(it.value.clone())),
        );
        records.extend(
            self.clusters
                .all_now()
                .map(|(_, it)| Record::Cluster(Box::new(it.clone()))),
        );
        let fleets = self.fleets.all_now();
        records.extend(fleets.map(|(_, it)| Record::Fleet(Box::new(it.clone()))));
        records.extend(self.locks.iter().cloned().map(Record::Locked));
        records.extend(self.role_assignments().cloned().map(Record::RoleAssignment));
        let denied = self.deny_assignments();
        records.extend(denied.map(|it| Record::DenyAssignment(Box::new(it.clone()))));
        records
    }

    /// The deletions of everything that is assigned at and below `key`: it goes with what it was assigned at.
    pub(crate) fn deletions_within(&self, key: &str) -> Vec<Record> {
        let within = |scope: &Scope| scope.key() == key || scope.is_below(key);
        let roles = self.role_assignments().filter(|it| within(&it.scope));
        let denied = self.deny_assignments().filter(|it| within(&it.scope));
        let denied = denied.map(|it| Record::DenyAssignmentDeleted(it.name_or_derived()));
        roles
            .map(|it| Record::RoleAssignmentDeleted(it.name))
            .chain(denied)
            .collect()
    }
}

impl From<&RoleAssignment> for NewRoleAssignment {
    fn from(assignment: &RoleAssignment) -> Self {
        Self {
            scope: assignment.scope.clone(),
            role: assignment.role,
            principal: assignment.principal,
            name: Some(assignment.name),
            description: assignment.description.clone(),
            condition: assignment.condition.clone(),
        }
    }
}

/// The records that make a world out of nothing.
pub(crate) fn records_of(world: &World, at: Moment) -> Vec<Record> {
    let mut fixed = world.clone();
    fixed.set_principals(std::iter::empty());
    fixed.clusters.clear();
    fixed.custom_roles.clear();
    fixed.fleets.clear();
    fixed.locks.clear();
    fixed.role_assignments.clear();
    fixed.deny_assignments.clear();
    let mut records = vec![Record::World(Box::new(fixed))];
    records.extend(world.principals().map(Record::Principal));
    records.extend(world.custom_roles.iter().cloned().map(Record::CustomRole));
    records.extend(
        world
            .clusters
            .iter()
            .map(|it| Record::Cluster(Box::new(with_resource_uid(it.clone(), None)))),
    );
    let fleets = world.fleets.iter().cloned();
    records.extend(fleets.map(|it| Record::Fleet(Box::new(it))));
    records.extend(world.locks.iter().cloned().map(Record::Locked));
    let denied = world
        .deny_assignments
        .iter()
        .cloned()
        .map(DenyAssignment::named);
    records.extend(denied.map(|it| Record::DenyAssignment(Box::new(it))));
    let types: BTreeMap<Uuid, _> = world
        .principals()
        .map(|it| (it.id(), it.principal_type()))
        .collect();
    records.extend(world.role_assignments.iter().filter_map(|new| {
        let principal_type = *types.get(&new.principal)?;
        Some(Record::RoleAssignment(new.at(principal_type, None, at)))
    }));
    records
}

/// A cluster that is put over another keeps being that one unless it says that it is not.
pub(crate) fn with_resource_uid(mut cluster: Cluster, before: Option<&Cluster>) -> Cluster {
    let kept = before.and_then(|before| before.resource_uid.clone());
    cluster.resource_uid = cluster.resource_uid.or(kept).or_else(|| {
        let random = Uuid::new_v4().simple().to_string();
        Some(random[..24].to_owned())
    });
    cluster
}

impl NewRoleAssignment {
    /// The assignment that this makes at `at`.
    pub(crate) fn at(
        &self,
        principal_type: crate::world::PrincipalType,
        created_by: Option<Uuid>,
        at: Moment,
    ) -> RoleAssignment {
        RoleAssignment {
            name: self.name_or_derived(),
            scope: self.scope.clone(),
            role: self.role,
            principal: self.principal,
            principal_type,
            description: self.description.clone(),
            condition: self.condition.clone(),
            condition_version: self.condition.as_ref().map(|_| "2.0".to_owned()),
            created_on: at.wall,
            updated_on: at.wall,
            created_by,
            updated_by: created_by,
        }
    }
}
