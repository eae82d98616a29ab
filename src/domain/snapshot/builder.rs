//! Puts a snapshot together: what counts on the cluster, found by holder, with what we did ourselves laid over it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};

use foldhash::fast::RandomState;

use super::reach::{Around, Reach};
use super::{Deny, Entry, PLAIN, Parts, Role, Snapshot};
use crate::domain::assignments::{Assignment, Assignments};
use crate::domain::deny::{DenyAssignment, Effect};
use crate::domain::evaluate::RoleNumber;
use crate::domain::grant::Expiry;
use crate::domain::ids::{AssignmentName, PrincipalId, RoleDefinitionId};
use crate::domain::pattern::overlap;
use crate::domain::role::RoleDefinition;

/// An assignment that counts, before its role has a number.
struct Counting {
    holder: PrincipalId,
    reach: Reach,
    /// Of the builder's.
    role: usize,
    is_plain: bool,
    source: u8,
    row: u32,
}

impl Counting {
    const fn entry(&self, role: RoleNumber) -> Entry {
        Entry {
            namespace: self.reach.namespace(),
            row: self.row,
            role,
            reach: self.reach.bits(),
            bits: 2 * self.source + if self.is_plain { PLAIN } else { 0 },
        }
    }
}

pub(super) struct Builder<'a> {
    parts: &'a Parts,
    sources: Vec<Arc<Assignments>>,
    namespaces: HashMap<Box<str>, u32>,
    roles: Vec<Role>,
    role_indices: HashMap<RoleDefinitionId, usize>,
    entries: Vec<Counting>,
    names: HashSet<AssignmentName>,
    denies: Vec<Deny>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(parts: &'a Parts) -> Self {
        Self {
            parts,
            sources: Vec::new(),
            namespaces: HashMap::new(),
            roles: Vec::new(),
            role_indices: HashMap::new(),
            entries: Vec::new(),
            names: HashSet::new(),
            denies: Vec::new(),
        }
    }

    pub(super) fn take(
        &mut self,
        around: &Around<'_>,
        assignments: &Arc<Assignments>,
        denies: &[DenyAssignment],
    ) {
        let parts = self.parts;
        let own = &parts.own;
        // Of what we wrote lately our own word is the newer one: when it ends, the list may not know yet. A condition was
        // put there by somebody else, and counts.
        self.take_rows(around, assignments, |row| {
            own.absent.contains(&row.name)
                || (own.known_best.contains(&row.name) && row.condition.is_none())
        });
        for deny in denies.iter().filter(|deny| deny.effect == Effect::Enforced) {
            let reach = self.reach(around, &deny.scope);
            let reach = if deny.at_its_scope_only {
                reach.alone(&deny.scope, around)
            } else {
                reach
            };
            if !reach.is_nowhere() {
                self.denies.push(Deny {
                    reach,
                    assignment: deny.clone(),
                    known: RwLock::default(),
                });
            }
        }
    }

    /// But for what was taken as the lists show it.
    pub(super) fn take_own(&mut self, around: &Around<'_>) {
        if self.parts.own.present.is_empty() {
            return;
        }
        let own = Arc::new(Assignments::new(self.parts.own.present.iter().cloned()));
        let shown = self.names.clone();
        self.take_rows(around, &own, |row| shown.contains(&row.name));
    }

    fn take_rows(
        &mut self,
        around: &Around<'_>,
        assignments: &Arc<Assignments>,
        leave_out: impl Fn(&Assignment) -> bool,
    ) {
        // The cluster's, the fleet's, and our own.
        let source = u8::try_from(self.sources.len()).unwrap_or(u8::MAX);
        let scopes = assignments.scopes().iter();
        let reaches: Vec<Reach> = scopes.map(|scope| self.reach(around, scope)).collect();
        for (row, assignment) in assignments.rows().iter().enumerate() {
            let reach = reaches[assignment.scope_index()];
            if reach.is_nowhere() || leave_out(assignment) {
                continue;
            }
            let role = self.role(assignment.role);
            let definition = self.roles[role].definition.as_deref();
            if definition.is_some_and(|definition| !matters(definition)) {
                continue;
            }
            self.names.insert(assignment.name);
            self.entries.push(Counting {
                holder: assignment.holder,
                reach,
                role,
                is_plain: assignment.condition.is_none() && assignment.end() == Expiry::Never,
                source,
                row: number(row),
            });
        }
        self.sources.push(Arc::clone(assignments));
    }

    fn reach(&mut self, around: &Around<'_>, scope: &str) -> Reach {
        around.reach(scope, |name| {
            let next = number(self.namespaces.len());
            match self.namespaces.get(name) {
                Some(known) => *known,
                None => *self.namespaces.entry(name.into()).or_insert(next),
            }
        })
    }

    fn role(&mut self, id: RoleDefinitionId) -> usize {
        *self.role_indices.entry(id).or_insert_with(|| {
            self.roles.push(Role {
                id,
                definition: self.parts.roles.get(&id).cloned().flatten(),
            });
            self.roles.len() - 1
        })
    }

    pub(super) fn finish(mut self) -> Snapshot {
        // In the order in which they came, of one holder.
        self.entries.sort_by_key(|entry| entry.holder);
        let (book, numbers) = self.parts.judgements.of_roles(&self.roles);
        // One whose role has no number, beyond all that is ever read, gives nothing.
        self.entries.retain(|entry| entry.role < numbers.len());
        let entries = self.entries.iter();
        let mut by_holder: HashMap<PrincipalId, (u32, u32), RandomState> = HashMap::default();
        for (at, entry) in entries.clone().enumerate() {
            let at = number(at);
            by_holder.entry(entry.holder).or_insert((at, at)).1 = at + 1;
        }
        by_holder.shrink_to_fit();
        Snapshot {
            cluster: Arc::clone(&self.parts.cluster),
            fleet: self.parts.fleet.as_ref().map(|fleet| fleet.id.clone()),
            fleet_not_read: self.parts.fleet_not_read,
            book,
            sources: self.sources,
            namespaces: self.namespaces,
            entries: entries.map(|it| it.entry(numbers[it.role])).collect(),
            roles: numbers.into_iter().zip(self.roles).collect(),
            by_holder,
            denies: self.denies,
            given_lately: self
                .parts
                .own
                .present
                .iter()
                .map(|own| own.holder)
                .collect(),
        }
    }
}

/// No list that the broker reads is as long.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Control-plane actions that open a cluster: fetching the users' credentials, and what goes round them [azure.md §3].
const WAYS_IN: [&str; 4] = [
    "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action",
    "Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action",
    "Microsoft.ContainerService/managedClusters/accessProfiles/listCredential/action",
    "Microsoft.ContainerService/managedClusters/runCommand/action",
];

/// Whether a role can matter to anybody who asks about clusters: by data actions, or by a way into a cluster.
fn matters(role: &RoleDefinition) -> bool {
    role.permissions.iter().any(|block| {
        !block.data_actions.is_empty()
            || block
                .actions
                .iter()
                .any(|action| WAYS_IN.iter().any(|way| overlap(action, way)))
    })
}
