//! Changes that come from outside Azure's API: by a test, or by an operator at the admin listener.
//!
//! The portal, other tools and other people change a world too; a broker must live with it.

use std::io;

use thiserror::Error;
use uuid::Uuid;

use crate::core::Core;
use crate::scope::{InvalidScope, Scope};
use crate::state::{Record, RoleAssignment, with_resource_uid};
use crate::world::{
    Cluster, CustomRole, DenyAssignment, EVERYONE, Fleet, Lock, NewRoleAssignment, Principal,
};

/// Who makes the role assignments that are made round the broker: nobody in the directory.
pub const SOMEBODY_ELSE: Uuid = Uuid::from_u128(0x5000_0000_0000_4000_8000_0000_0000_0001);

/// The world cannot be changed so.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The text is no ARM scope.
    #[error(transparent)]
    InvalidScope(#[from] InvalidScope),
    /// There is nothing at this scope.
    #[error("there is nothing at '{0}'")]
    NoSuchScope(Scope),
    /// Nobody in the directory has this object id.
    #[error("there is no principal '{0}'")]
    NoSuchPrincipal(Uuid),
    /// No role definition has this GUID.
    #[error("there is no role definition '{0}'")]
    NoSuchRole(Uuid),
    /// The name is taken by another assignment, or the same one is there under another name.
    #[error("role assignment '{0}' is in the way")]
    Conflict(Uuid),
    /// A cluster is in one fleet at most: the cluster, and the fleet that it is in.
    #[error("'{0}' is in fleet '{1}' already")]
    InAnotherFleet(Scope, Scope),
    /// The change could not be written down.
    #[error("state directory: {0}")]
    State(#[from] io::Error),
}

impl Core {
    fn change(&self, records: Vec<Record>) -> Result<(), ChangeError> {
        let mut store = self.store();
        Ok(self.commit(&mut store, records, None, self.clock.now())?)
    }

    /// Makes a cluster, or changes the one with this id.
    pub(crate) fn put_cluster(&self, cluster: Cluster) -> Result<Cluster, ChangeError> {
        let mut store = self.store();
        let id = Scope::parse(cluster.id().as_str())?;
        let subscription = Scope::parse(&format!("/subscriptions/{}", cluster.subscription))?;
        store
            .state
            .exists(&subscription)
            .map_err(|_| ChangeError::NoSuchScope(subscription))?;
        let cluster = with_resource_uid(cluster, store.state.cluster(id.key()));
        let records = vec![Record::Cluster(Box::new(cluster.clone()))];
        self.commit(&mut store, records, None, self.clock.now())?;
        Ok(cluster)
    }

    /// Deletes a cluster with its role assignments and those of its namespaces [azure.md §1]; says whether
    /// there was one.
    pub(crate) fn delete_cluster(&self, id: &str) -> Result<bool, ChangeError> {
        let id = Scope::parse(id)?;
        let mut store = self.store();
        if store.state.cluster(id.key()).is_none() {
            return Ok(false);
        }
        let mut records = store.state.deletions_within(id.key());
        records.push(Record::ClusterDeleted(id));
        self.commit(&mut store, records, None, self.clock.now())?;
        Ok(true)
    }

    /// Makes a fleet, or changes the one with this id.
    pub(crate) fn put_fleet(&self, fleet: Fleet) -> Result<(), ChangeError> {
        let mut store = self.store();
        let id = Scope::parse(fleet.id().as_str())?;
        let subscription = Scope::parse(&format!("/subscriptions/{}", fleet.subscription))?;
        store
            .state
            .exists(&subscription)
            .map_err(|_| ChangeError::NoSuchScope(subscription))?;
        for member in &fleet.members {
            let cluster = &member.cluster;
            if cluster.cluster_key() != Some(cluster.key()) {
                return Err(ChangeError::NoSuchScope(cluster.clone()));
            }
            if let Some(other) = store.state.fleet_of(cluster).filter(|it| it.id() != id) {
                return Err(ChangeError::InAnotherFleet(cluster.clone(), other.id()));
            }
        }
        let records = vec![Record::Fleet(Box::new(fleet))];
        Ok(self.commit(&mut store, records, None, self.clock.now())?)
    }

    /// Deletes a fleet with what is assigned at it and its namespaces; says whether there was one.
    pub(crate) fn delete_fleet(&self, id: &str) -> Result<bool, ChangeError> {
        let id = Scope::parse(id)?;
        let mut store = self.store();
        if store.state.fleet(id.key()).is_none() {
            return Ok(false);
        }
        let mut records = store.state.deletions_within(id.key());
        records.push(Record::FleetDeleted(id));
        self.commit(&mut store, records, None, self.clock.now())?;
        Ok(true)
    }

    /// Makes a deny assignment, or changes the one with this name; gives it back under its name.
    pub(crate) fn put_deny_assignment(
        &self,
        deny: DenyAssignment,
    ) -> Result<DenyAssignment, ChangeError> {
        let deny = deny.named();
        let mut store = self.store();
        let state = &store.state;
        state
            .exists(&deny.scope)
            .map_err(|_| ChangeError::NoSuchScope(deny.scope.clone()))?;
        for id in deny.principals.iter().chain(&deny.exclude_principals) {
            if *id != EVERYONE && state.principal(*id).is_none() {
                return Err(ChangeError::NoSuchPrincipal(*id));
            }
        }
        let records = vec![Record::DenyAssignment(Box::new(deny.clone()))];
        self.commit(&mut store, records, None, self.clock.now())?;
        Ok(deny)
    }

    /// Deletes a deny assignment; says whether there was one.
    pub(crate) fn delete_deny_assignment(&self, name: Uuid) -> Result<bool, ChangeError> {
        let known = self.store().state.deny_assignment(name).is_some();
        if known {
            self.change(vec![Record::DenyAssignmentDeleted(name)])?;
        }
        Ok(known)
    }

    /// Adds somebody, or changes whoever has this object id.
    pub(crate) fn add_principal(&self, principal: Principal) -> Result<(), ChangeError> {
        self.change(vec![Record::Principal(principal)])
    }

    /// Deletes somebody; their role assignments stay behind [azure.md §1]. Says whether there was anybody.
    pub(crate) fn delete_principal(&self, id: Uuid) -> Result<bool, ChangeError> {
        let known = self.store().state.principal(id).is_some();
        if known {
            self.change(vec![Record::PrincipalDeleted(id)])?;
        }
        Ok(known)
    }

    /// Adds a custom role, or changes the one with this GUID.
    pub(crate) fn add_custom_role(&self, role: CustomRole) -> Result<(), ChangeError> {
        self.change(vec![Record::CustomRole(role)])
    }

    /// Locks a scope, in place of a lock that is already there.
    pub(crate) fn lock(&self, lock: Lock) -> Result<(), ChangeError> {
        self.change(vec![Record::Locked(lock)])
    }

    /// Takes the lock of a scope away.
    pub(crate) fn unlock(&self, scope: &str) -> Result<(), ChangeError> {
        self.change(vec![Record::Unlocked(Scope::parse(scope)?)])
    }

    /// Makes a role assignment round the API, as somebody else.
    pub(crate) fn put_foreign(
        &self,
        new: &NewRoleAssignment,
    ) -> Result<RoleAssignment, ChangeError> {
        let mut store = self.store();
        let state = &store.state;
        state
            .exists(&new.scope)
            .map_err(|_| ChangeError::NoSuchScope(new.scope.clone()))?;
        state
            .role_definition(new.role)
            .ok_or(ChangeError::NoSuchRole(new.role))?;
        let principal = state
            .principal(new.principal)
            .ok_or(ChangeError::NoSuchPrincipal(new.principal))?;
        let now = self.clock.now();
        let mut assignment = new.at(principal.principal_type(), Some(SOMEBODY_ELSE), now);
        let twin = state.twin(new.principal, new.role, &new.scope);
        if let Some(twin) = twin.filter(|twin| twin.name != assignment.name) {
            return Err(ChangeError::Conflict(twin.name));
        }
        match state.role_assignment(assignment.name) {
            Some(other) if twin.is_none() => return Err(ChangeError::Conflict(other.name)),
            Some(same) => {
                assignment.created_on = same.created_on;
                assignment.created_by = same.created_by;
            }
            None => {}
        }
        self.commit(
            &mut store,
            vec![Record::RoleAssignment(assignment.clone())],
            None,
            now,
        )?;
        Ok(assignment)
    }

    /// Deletes a role assignment round the API; says whether there was one.
    pub(crate) fn delete_foreign(&self, name: Uuid) -> Result<bool, ChangeError> {
        let mut store = self.store();
        let known = store.state.role_assignment(name).is_some();
        if known {
            self.commit(
                &mut store,
                vec![Record::RoleAssignmentDeleted(name)],
                None,
                self.clock.now(),
            )?;
        }
        Ok(known)
    }
}
