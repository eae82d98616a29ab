//! What each role has to say to one question: worked out once, and then a look at a table.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

use super::book::{Book, RoleNumber};
use super::combine::{
    Block, Plane, Wanted, all_held, all_whole, blocks, given_whole, gives_part, takes_part,
};
use crate::domain::condition::{Condition, Truth};
use crate::domain::deny::DenyAssignment;
use crate::domain::kubernetes_request::DataAction;
use crate::domain::role::RoleDefinition;

/// So many different sets of roles are remembered of one question; further ones are worked out each time.
const MOST_COMBINATIONS: usize = 1024;

/// Of so many conditions it is remembered what they come to.
const MOST_CONDITIONS: usize = 64;

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
pub(in crate::domain) enum Taken {
    /// Nothing.
    Nothing,
    /// Some of it, where conditions of its own hold.
    IfConditional,
    /// Some of it.
    Something,
}

/// What is asked for, and what is known of it so far.
#[derive(Debug)]
pub(in crate::domain) struct Judged {
    pub(super) wanted: Vec<Wanted>,
    pub(super) plane: Plane,
    /// What conditions are asked about.
    actions: Vec<DataAction>,
    by_role: Box<[AtomicU8]>,
    /// What each role gives whole, of all that is asked for: see [`given_whole`].
    whole_by_role: Box<[AtomicU64]>,
    all_whole: u64,
    /// Tells it from all others.
    pub(in crate::domain) number: u64,
    /// Whether these roles together give all of it, those with conditions of their own included or not.
    together: RwLock<HashMap<(Vec<RoleNumber>, bool), bool, RandomState>>,
    /// What conditions come to, by where they are in memory: each is kept, so that no other takes its place there.
    truths: RwLock<HashMap<usize, (Arc<Condition>, Truth), RandomState>>,
}

impl Judged {
    fn new(wanted: Vec<Wanted>, plane: Plane, actions: Vec<DataAction>, roles: usize) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self {
            all_whole: all_whole(&wanted),
            wanted,
            plane,
            actions,
            by_role: (0..roles).map(|_| AtomicU8::new(0)).collect(),
            whole_by_role: (0..roles).map(|_| AtomicU64::new(0)).collect(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            together: RwLock::default(),
            truths: RwLock::default(),
        }
    }

    pub(super) fn of_actions(actions: Vec<DataAction>, plane: Plane, roles: usize) -> Self {
        let wanted = Wanted {
            patterns: actions.iter().map(|action| action.id.clone()).collect(),
            left_out: Vec::new(),
        };
        Self::new(vec![wanted], plane, actions, roles)
    }

    /// A pattern stands for actions of which nothing but their names is known.
    pub(super) fn of_patterns(wanted: Vec<Wanted>, roles: usize) -> Self {
        let patterns = wanted.iter().flat_map(|wanted| &wanted.patterns);
        let actions = patterns.map(|id| DataAction::named(id.clone())).collect();
        Self::new(wanted, Plane::Data, actions, roles)
    }

    /// What a role of the book's gives of it.
    pub(super) fn coverage(&self, book: &Book, role: RoleNumber) -> Coverage {
        let at = role.index();
        match self.by_role[at].load(Ordering::Acquire) {
            1 => Coverage::Unread,
            2 => Coverage::Nothing,
            3 => Coverage::Part,
            4 => Coverage::AllIfConditional,
            5 => Coverage::All,
            _ => {
                let (coverage, code) = match book.definition(role).as_deref() {
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
    pub(super) fn whole(&self, role: RoleNumber) -> u64 {
        self.whole_by_role[role.index()].load(Ordering::Relaxed)
    }

    /// Whether roles that give such parts whole may give all of it together.
    pub(super) const fn may_be_made_up(&self, whole: u64) -> bool {
        whole & self.all_whole == self.all_whole
    }

    /// Whether these roles of the book's together give all of it.
    pub(super) fn made_up(&self, book: &Book, mut of: Vec<RoleNumber>, conditional: bool) -> bool {
        of.sort_unstable();
        of.dedup();
        let key = (of, conditional);
        // Nothing can panic half-way through a change, so a poisoned lock holds good data.
        let known = self.together.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&key) {
            return *known;
        }
        drop(known);
        let roles = key.0.iter().filter_map(|role| book.definition(*role));
        let roles: Vec<Arc<RoleDefinition>> = roles.collect();
        let blocks: Vec<Block<'_>> = roles
            .iter()
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

    /// How many actions are asked for.
    pub(super) fn actions(&self) -> usize {
        self.actions.len()
    }

    /// What a deny assignment takes away of it.
    pub(in crate::domain) fn taken_by(&self, deny: &DenyAssignment) -> Taken {
        let blocks = deny.permissions.iter();
        let mut taking = blocks
            .filter(|block| takes_part(&self.wanted, Block::of(block, self.plane)))
            .peekable();
        if taking.peek().is_none() {
            Taken::Nothing
        } else if taking.all(|block| block.conditional) {
            Taken::IfConditional
        } else {
            Taken::Something
        }
    }

    /// What a condition comes to for all of it.
    pub(super) fn truth(&self, condition: &Arc<Condition>) -> Truth {
        let key = Arc::as_ptr(condition).addr();
        let known = self.truths.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, truth)) = known.get(&key) {
            return *truth;
        }
        drop(known);
        let truth = self.worked_out(condition);
        let mut known = self.truths.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_CONDITIONS {
            known.clear();
        }
        known.insert(key, (Arc::clone(condition), truth));
        truth
    }

    fn worked_out(&self, condition: &Condition) -> Truth {
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
