//! Everything that decides who may do what on one cluster, as it was known at one moment.
//!
//! Made anew when any of it changes, and never changed: whoever asks a question asks one consistent state. Who holds
//! what is found by holder, so that a question costs what its principal holds, not what is assigned.

mod builder;
mod reach;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

use super::access::PrincipalType;
use super::assignments::{Assignment, Assignments, Listed};
use super::cluster::Cluster;
use super::deny::DenyAssignment;
use super::evaluate::{Book, Judged, Judgements, RoleNumber, Taken};
use super::fleet::FleetId;
use super::ids::{AssignmentName, PrincipalId, RoleDefinitionId};
use super::role::RoleDefinition;
use builder::Builder;
use reach::Around;
pub(in crate::domain) use reach::{NO_NAMESPACE, Reach};
pub use reach::{Place, holds_at};

/// The role definitions that are known; `None`: it was asked for and could not be had.
pub type Definitions = HashMap<RoleDefinitionId, Option<Arc<RoleDefinition>>>;

/// What a snapshot is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// What is assigned in its subscription and above.
    pub assignments: Arc<Assignments>,
    /// What is denied in its subscription and above.
    pub denies: Arc<[DenyAssignment]>,
    /// The fleet that it is a member of.
    pub fleet: Option<FleetParts>,
    /// Whether it could not be found out if it is in a fleet: what a fleet gives is missing then.
    pub fleet_not_read: bool,
    /// What we did so lately that the lists may not show it.
    pub own: OwnChanges,
    /// The roles of all of these that matter to it, as far as they could be read.
    pub roles: Definitions,
    /// What is known of roles and questions, of all clusters together.
    pub judgements: Judgements,
}

/// The fleet's part of a snapshot.
#[derive(Clone, Debug)]
pub struct FleetParts {
    /// Which.
    pub id: FleetId,
    /// What is assigned in its subscription and above.
    pub assignments: Arc<Assignments>,
    /// What is denied in its subscription and above.
    pub denies: Arc<[DenyAssignment]>,
}

/// What we did ourselves, laid over what Azure lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnChanges {
    /// What we assigned.
    pub present: Vec<Listed>,
    /// Those of them of which no list knows more.
    pub known_best: HashSet<AssignmentName>,
    /// What we removed.
    pub absent: HashSet<AssignmentName>,
}

/// One assignment that counts somewhere on the cluster. Small: what a question costs is how much of the memory it has
/// to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    namespace: u32,
    row: u32,
    /// Its role, of the book's.
    pub(super) role: RoleNumber,
    reach: u8,
    /// [`PLAIN`], and the source times two.
    bits: u8,
}

/// It hangs on no condition, and the broker never ends it: most questions need not look at the assignment.
const PLAIN: u8 = 1;

impl Entry {
    /// Where it counts.
    pub(super) const fn reach(&self) -> Reach {
        Reach::of(self.reach, self.namespace)
    }

    /// Whether it hangs on no condition, and the broker never ends it.
    pub(super) const fn is_plain(&self) -> bool {
        self.bits & PLAIN != 0
    }

    const fn source(&self) -> usize {
        (self.bits / 2) as usize
    }
}

/// A deny assignment that may bind somewhere on the cluster.
#[derive(Debug)]
pub(super) struct Deny {
    pub(super) reach: Reach,
    pub(super) assignment: DenyAssignment,
    /// What it takes away of what was asked for before.
    known: RwLock<HashMap<u64, Taken, RandomState>>,
}

/// Of so many questions it is remembered.
const MOST_TAKEN: usize = 1_000;

impl Deny {
    /// What it takes away of what is asked for.
    pub(super) fn takes(&self, judged: &Judged) -> Taken {
        // Nothing can panic half-way through a change, so a poisoned lock holds good data.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&judged.number) {
            return *known;
        }
        drop(known);
        let taken = judged.taken_by(&self.assignment);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_TAKEN {
            known.clear();
        }
        known.insert(judged.number, taken);
        taken
    }
}

/// A role that somebody holds.
#[derive(Debug)]
pub(in crate::domain) struct Role {
    pub(super) id: RoleDefinitionId,
    /// `None`: it could not be read, and nobody knows what it gives.
    pub(super) definition: Option<Arc<RoleDefinition>>,
}

/// Everything that decides who may do what on one cluster.
#[derive(Debug)]
pub struct Snapshot {
    cluster: Arc<Cluster>,
    fleet: Option<FleetId>,
    fleet_not_read: bool,
    sources: Vec<Arc<Assignments>>,
    namespaces: HashMap<Box<str>, u32>,
    roles: Vec<(RoleNumber, Role)>,
    entries: Box<[Entry]>,
    by_holder: HashMap<PrincipalId, (u32, u32), RandomState>,
    denies: Vec<Deny>,
    /// To whom we assigned something so lately that the lists may not show it.
    given_lately: HashSet<PrincipalId>,
    book: Arc<Book>,
}

/// The roles of those of `assignments` that count on a cluster or its fleet: whose definitions a snapshot asks for.
#[must_use]
pub fn roles_that_count(
    cluster: &Cluster,
    fleet: Option<&FleetId>,
    assignments: &Assignments,
) -> HashSet<RoleDefinitionId> {
    let around = Around {
        cluster: Some(&cluster.id),
        fleet,
    };
    let counts: Vec<bool> = assignments
        .scopes()
        .iter()
        .map(|scope| !around.reach(scope, |_| 0).is_nowhere())
        .collect();
    let rows = assignments.rows().iter();
    rows.filter(|row| counts.get(row.scope_index()) == Some(&true))
        .map(|row| row.role)
        .collect()
}

impl Snapshot {
    /// Puts one together.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        let mut builder = Builder::new(parts);
        let of_cluster = Around {
            cluster: Some(&parts.cluster.id),
            fleet: None,
        };
        match &parts.fleet {
            Some(fleet) if Arc::ptr_eq(&fleet.assignments, &parts.assignments) => {
                let around = Around {
                    fleet: Some(&fleet.id),
                    ..of_cluster
                };
                builder.take(&around, &parts.assignments, &parts.denies);
            }
            Some(fleet) => {
                builder.take(&of_cluster, &parts.assignments, &parts.denies);
                let around = Around {
                    cluster: None,
                    fleet: Some(&fleet.id),
                };
                builder.take(&around, &fleet.assignments, &fleet.denies);
            }
            None => builder.take(&of_cluster, &parts.assignments, &parts.denies),
        }
        builder.take_own(&of_cluster);
        builder.finish()
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// How many assignments count on the cluster.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody has anything there.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether somebody's groups might take away what is held without them: by a deny assignment that names anybody.
    #[must_use]
    pub fn may_deny_by_group(&self) -> bool {
        let mut denies = self.denies.iter();
        denies.any(|deny| !deny.assignment.principals.ids.is_empty())
    }

    /// Whether the broker assigned something to somebody so lately that Azure's lists, and its directory, may not show it.
    #[must_use]
    pub fn was_given_lately(&self, principal: PrincipalId) -> bool {
        self.given_lately.contains(&principal)
    }

    /// Whether Azure has taken a principal for a service principal when something was assigned to it.
    #[must_use]
    pub fn is_service_principal(&self, principal: PrincipalId) -> bool {
        let mut held = self.held_by(principal).iter();
        held.any(|entry| {
            self.assignment(entry).0.holder_kind == Some(PrincipalType::ServicePrincipal)
        })
    }

    pub(super) const fn fleet(&self) -> Option<&FleetId> {
        self.fleet.as_ref()
    }

    /// Whether it could not be found out if the cluster is in a fleet.
    #[must_use]
    pub const fn lacks_fleet(&self) -> bool {
        self.fleet_not_read
    }

    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// The role that an entry assigns.
    #[expect(
        clippy::expect_used,
        reason = "`finish` numbers the roles of all entries"
    )]
    pub(super) fn role(&self, entry: &Entry) -> &Role {
        let mut roles = self.roles.iter();
        let of_entry = roles.find(|(number, _)| *number == entry.role);
        &of_entry
            .expect("the entry's role is among the snapshot's")
            .1
    }

    pub(super) fn denies(&self) -> &[Deny] {
        &self.denies
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What one holder has.
    pub(super) fn held_by(&self, holder: PrincipalId) -> &[Entry] {
        let range = self.by_holder.get(&holder).copied().unwrap_or_default();
        self.entries
            .get(range.0 as usize..range.1 as usize)
            .unwrap_or_default()
    }

    /// The assignment that an entry stands for, and its scope.
    pub(super) fn assignment(&self, entry: &Entry) -> (&Assignment, &str) {
        let source = &self.sources[entry.source()];
        let row = &source.rows()[entry.row as usize];
        (row, source.scope_of(row))
    }

    /// The number of a namespace.
    pub(super) fn namespace(&self, name: &str) -> u32 {
        self.namespaces.get(name).copied().unwrap_or(NO_NAMESPACE)
    }
}
