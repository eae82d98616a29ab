//! What each role and each deny assignment has to say to a question, worked out once a snapshot.
//!
//! Portals ask the same few things of everybody: so what a role gives of it is a look at a table.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::{FixedState, RandomState};

use super::combine::{
    Block, Plane, Wanted, all_held, all_whole, blocks, given_whole, gives_part, takes_part,
    wanted_by,
};
use super::{Asks, CLUSTER_ACCESS};
use crate::domain::condition::Truth;
use crate::domain::deny::DenyAssignment;
use crate::domain::kubernetes_request::{
    DataAction, Demand, Features, KubernetesRequest, NoDemand, PREFIX,
};
use crate::domain::role::RoleDefinition;
use crate::domain::snapshot::{Role, Snapshot};

/// What data actions begin with where AKS asks at a fleet [azure.md §3].
const FLEET_PREFIX: &str = "Microsoft.ContainerService/fleets/members";

/// So many actions of different questions are remembered of one cluster; beyond that all are forgotten, and those that
/// are asked again are worked out again.
const MOST_ACTIONS: usize = 20_000;

/// So many different sets of roles are remembered of one question; further ones are worked out each time.
const MOST_COMBINATIONS: usize = 1024;

/// What a role gives of what is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Coverage {
    /// Nobody knows: its definition could not be read.
    Unread,
    /// Nothing.
    Nothing,
    /// Perhaps some of it.
    Part,
    /// All of it, where conditions in its own definition hold.
    AllIfConditional,
    /// All of it.
    All,
}

/// What a deny assignment may take away of what is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// Nothing.
    Nothing,
    /// Some of it, where conditions of its own hold.
    IfConditional,
    /// Some of it.
    Something,
}

/// What is asked for, and what is known of it so far.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) wanted: Vec<Wanted>,
    pub(super) plane: Plane,
    /// What conditions are asked about.
    actions: Vec<DataAction>,
    by_role: Box<[AtomicU8]>,
    /// What each role gives whole, of all that is asked for: see [`given_whole`].
    whole_by_role: Box<[AtomicU64]>,
    all_whole: u64,
    by_deny: Box<[AtomicU8]>,
    /// Whether these roles together give all of it, those with conditions of their own included or not.
    together: RwLock<HashMap<(Vec<u32>, bool), bool, RandomState>>,
}

impl Judged {
    fn new(wanted: Vec<Wanted>, plane: Plane, actions: Vec<DataAction>, sizes: Sizes) -> Self {
        let unknown = |count| (0..count).map(|_| AtomicU8::new(0)).collect();
        Self {
            all_whole: all_whole(&wanted),
            wanted,
            plane,
            actions,
            by_role: unknown(sizes.roles),
            whole_by_role: (0..sizes.roles).map(|_| AtomicU64::new(0)).collect(),
            by_deny: unknown(sizes.denies),
            together: RwLock::default(),
        }
    }

    fn of_actions(actions: Vec<DataAction>, plane: Plane, sizes: Sizes) -> Self {
        let wanted = Wanted {
            patterns: actions.iter().map(|action| action.id.clone()).collect(),
            left_out: Vec::new(),
        };
        Self::new(vec![wanted], plane, actions, sizes)
    }

    /// A pattern stands for actions of which nothing but their names is known.
    fn of_patterns(wanted: Vec<Wanted>, sizes: Sizes) -> Self {
        let patterns = wanted.iter().flat_map(|wanted| &wanted.patterns);
        let actions = patterns.map(|id| DataAction::named(id.clone())).collect();
        Self::new(wanted, Plane::Data, actions, sizes)
    }

    /// What a role of the snapshot's gives of it.
    pub(super) fn coverage(&self, roles: &[Role], index: u32) -> Coverage {
        let at = index as usize;
        match self.by_role[at].load(Ordering::Acquire) {
            1 => Coverage::Unread,
            2 => Coverage::Nothing,
            3 => Coverage::Part,
            4 => Coverage::AllIfConditional,
            5 => Coverage::All,
            _ => {
                let (coverage, code) = match roles[at].definition.as_deref() {
                    None => (Coverage::Unread, 1),
                    Some(role) => {
                        let whole = given_whole(&self.wanted, blocks(role, self.plane, true));
                        self.whole_by_role[at].store(whole, Ordering::Relaxed);
                        self.of_role(role)
                    }
                };
                self.by_role[at].store(code, Ordering::Release);
                coverage
            }
        }
    }

    fn of_role(&self, role: &RoleDefinition) -> (Coverage, u8) {
        let held = |conditional| -> bool {
            let blocks: Vec<Block<'_>> = blocks(role, self.plane, conditional).collect();
            all_held(&self.wanted, &blocks)
        };
        if !gives_part(&self.wanted, blocks(role, self.plane, true)) {
            (Coverage::Nothing, 2)
        } else if held(false) {
            (Coverage::All, 5)
        } else if held(true) {
            (Coverage::AllIfConditional, 4)
        } else {
            (Coverage::Part, 3)
        }
    }

    /// Which parts of it a role gives whole, once its coverage was asked for.
    pub(super) fn whole(&self, index: u32) -> u64 {
        self.whole_by_role[index as usize].load(Ordering::Relaxed)
    }

    /// Whether roles that give such parts whole may give all of it together.
    pub(super) const fn may_be_made_up(&self, whole: u64) -> bool {
        whole & self.all_whole == self.all_whole
    }

    /// Whether these roles of the snapshot's together give all of it.
    pub(super) fn made_up(&self, roles: &[Role], mut of: Vec<u32>, conditional: bool) -> bool {
        of.sort_unstable();
        of.dedup();
        let key = (of, conditional);
        // Nothing can panic half-way through a change, so a poisoned lock holds good data.
        let known = self.together.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&key) {
            return *known;
        }
        drop(known);
        let definitions = key
            .0
            .iter()
            .filter_map(|at| roles[*at as usize].definition.as_deref());
        let blocks: Vec<Block<'_>> = definitions
            .flat_map(|role| blocks(role, self.plane, conditional))
            .collect();
        let held = all_held(&self.wanted, &blocks);
        let mut known = self
            .together
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST_COMBINATIONS {
            known.insert(key, held);
        }
        held
    }

    /// What a deny assignment of the snapshot's takes away of it.
    pub(super) fn taken(&self, index: usize, deny: &DenyAssignment) -> Taken {
        match self.by_deny[index].load(Ordering::Relaxed) {
            1 => Taken::Nothing,
            2 => Taken::IfConditional,
            3 => Taken::Something,
            _ => {
                let blocks = deny.permissions.iter();
                let taking: Vec<bool> = blocks
                    .filter(|block| takes_part(&self.wanted, Block::of(block, self.plane)))
                    .map(|block| block.conditional)
                    .collect();
                let (taken, code) = match taking.as_slice() {
                    [] => (Taken::Nothing, 1),
                    all if all.iter().all(|conditional| *conditional) => (Taken::IfConditional, 2),
                    _ => (Taken::Something, 3),
                };
                self.by_deny[index].store(code, Ordering::Relaxed);
                taken
            }
        }
    }

    /// What a condition comes to for all of it.
    pub(super) fn truth(&self, condition: &crate::domain::condition::Condition) -> Truth {
        let mut truths = self
            .actions
            .iter()
            .map(|action| condition.holds_for(action));
        let Some(first) = truths.next() else {
            return Truth::Unknown;
        };
        if truths.all(|truth| truth == first) {
            first
        } else {
            Truth::Unknown
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    roles: usize,
    denies: usize,
}

/// What has to be held for an answer of yes.
#[derive(Debug)]
pub(super) enum Needs {
    /// Nothing: everybody may who is known.
    Nothing,
    /// The cluster access itself.
    ClusterAccess,
    /// These data actions.
    Actions {
        of_cluster: Box<Judged>,
        /// The same in a fleet's words; `None`: there are none.
        of_fleet: Option<Box<Judged>>,
    },
    /// What cannot be had: the role gives nothing.
    RoleGivesNothing,
    /// What cannot be had: AKS's webhook has no answer but an error.
    Unanswerable(NoDemand),
}

impl Needs {
    /// How much it is, in actions.
    fn actions(&self) -> usize {
        let of = |judged: &Judged| judged.actions.len();
        match self {
            Self::Actions {
                of_cluster,
                of_fleet,
            } => 1 + of(of_cluster) + of_fleet.as_deref().map_or(0, of),
            _ => 1,
        }
    }
}

/// Which question a judgement is of.
#[derive(Debug)]
enum Of {
    Role(Arc<RoleDefinition>),
    Request(KubernetesRequest),
}

impl Of {
    fn is_asked(&self, asks: &Asks<'_>) -> bool {
        match (self, asks) {
            (Self::Role(known), Asks::Access { role, .. }) => {
                Arc::ptr_eq(known, role) || known == *role
            }
            (Self::Request(known), Asks::Request(asked)) => known.asks_the_same(asked),
            _ => false,
        }
    }
}

/// A question, and what is known of its answers.
#[derive(Debug)]
pub(super) struct Judgement {
    of: Of,
    pub(super) needs: Needs,
}

/// All judgements of one snapshot.
#[derive(Debug)]
pub struct Judgements {
    sizes: Sizes,
    pub(super) cluster_access: Judged,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// How many actions they are about.
    actions: usize,
    /// By the hash of the question.
    by_key: HashMap<u64, Arc<Judgement>, RandomState>,
}

impl Judgements {
    /// For a snapshot with so many roles and deny assignments.
    #[must_use]
    pub fn new(roles: usize, denies: usize) -> Self {
        let sizes = Sizes { roles, denies };
        let access = vec![DataAction::named(CLUSTER_ACCESS.to_owned())];
        Self {
            sizes,
            cluster_access: Judged::of_actions(access, Plane::Control, sizes),
            known: RwLock::default(),
        }
    }

    /// The judgement of a question.
    pub(super) fn of(&self, asks: &Asks<'_>, snapshot: &Snapshot) -> Arc<Judgement> {
        let key = key(asks);
        // Nothing can panic half-way through a change, so a poisoned lock holds good data.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.by_key.get(&key);
        let found = found.filter(|known| known.of.is_asked(asks));
        if let Some(found) = found {
            return Arc::clone(found);
        }
        drop(known);
        let new = Arc::new(self.judge(asks, snapshot));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.actions += new.needs.actions();
        if known.actions > MOST_ACTIONS {
            *known = Known::default();
        } else {
            known.by_key.insert(key, Arc::clone(&new));
        }
        new
    }

    fn judge(&self, asks: &Asks<'_>, snapshot: &Snapshot) -> Judgement {
        let is_in_fleet = snapshot.fleet().is_some();
        match asks {
            Asks::Access { role, .. } => Judgement {
                of: Of::Role(Arc::clone(role)),
                needs: self.of_access(role, is_in_fleet),
            },
            Asks::Request(request) => Judgement {
                of: Of::Request((*request).clone()),
                needs: self.of_request(request, snapshot.features(), is_in_fleet),
            },
        }
    }

    fn of_access(&self, role: &RoleDefinition, is_in_fleet: bool) -> Needs {
        if super::is_cluster_user(role) {
            return Needs::ClusterAccess;
        }
        let wanted = wanted_by(role);
        if wanted.is_empty() {
            return Needs::RoleGivesNothing;
        }
        let in_fleets_words = is_in_fleet
            .then(|| wanted.iter().map(of_fleet).collect())
            .flatten();
        Needs::Actions {
            of_fleet: in_fleets_words
                .map(|wanted| Box::new(Judged::of_patterns(wanted, self.sizes))),
            of_cluster: Box::new(Judged::of_patterns(wanted, self.sizes)),
        }
    }

    fn of_request(
        &self,
        request: &KubernetesRequest,
        features: Features,
        is_in_fleet: bool,
    ) -> Needs {
        let actions = match request.demand(features) {
            Ok(Demand::Nothing) => return Needs::Nothing,
            Ok(Demand::All(actions)) => actions,
            Err(problem) => return Needs::Unanswerable(problem),
        };
        let translated = |action: &DataAction| {
            Some(DataAction {
                id: in_fleets_words(&action.id)?,
                ..action.clone()
            })
        };
        let of_fleet: Option<Vec<DataAction>> = is_in_fleet
            .then(|| actions.iter().map(translated).collect())
            .flatten();
        let judged = |actions| Box::new(Judged::of_actions(actions, Plane::Data, self.sizes));
        Needs::Actions {
            of_fleet: of_fleet.map(judged),
            of_cluster: judged(actions),
        }
    }
}

fn key(asks: &Asks<'_>) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    match asks {
        Asks::Access { role, .. } => role.id.hash(&mut hasher),
        Asks::Request(request) => request.hash_what_is_asked(&mut hasher),
    }
    hasher.finish()
}

/// A data action of clusters as a fleet says it; `None` for what is not one of clusters alone.
fn in_fleets_words(action: &str) -> Option<String> {
    let (prefix, rest) = action.split_at_checked(PREFIX.len())?;
    (prefix.eq_ignore_ascii_case(PREFIX) && rest.starts_with('/'))
        .then(|| format!("{FLEET_PREFIX}{rest}"))
}

/// What is left out in other words is not left out: then more is asked for.
fn of_fleet(wanted: &Wanted) -> Option<Wanted> {
    let patterns = wanted.patterns.iter();
    Some(Wanted {
        patterns: patterns
            .map(|pattern| in_fleets_words(pattern))
            .collect::<Option<_>>()?,
        left_out: wanted
            .left_out
            .iter()
            .filter_map(|pattern| in_fleets_words(pattern))
            .collect(),
    })
}
