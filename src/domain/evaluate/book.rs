//! What is known of roles and questions, worked out once for all clusters.
//!
//! Portals ask the same few things of everybody, everywhere. What is known is all clusters' together: so it stays near
//! the processor however many clusters there are, and outlasts their snapshots, which are made anew every minute.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use foldhash::fast::{FixedState, RandomState};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::combine::{Plane, Wanted, wanted_by};
use super::judge::Judged;
use super::{Asks, CLUSTER_ACCESS};
use crate::domain::ids::RoleDefinitionId;
use crate::domain::kubernetes_request::{
    DataAction, Demand, Features, KubernetesRequest, NoDemand, PREFIX,
};
use crate::domain::role::RoleDefinition;
use crate::domain::snapshot::Role;

/// What data actions begin with where AKS asks at a fleet [azure.md §3].
const FLEET_PREFIX: &str = "Microsoft.ContainerService/fleets/members";

/// So many actions of different questions are remembered; what was not asked for lately is forgotten first, and worked
/// out again when it is asked for again.
const MOST_ACTIONS: u64 = 20_000;

/// So many roles in a judgement's tables weigh as much as an action.
const ROLES_AN_ACTION: usize = 64;

/// So many questions are expected.
const EXPECTED: usize = 1_000;

/// A book has room for so many roles at least. More than a few dozen matter in few places.
const FEWEST_ROLES: usize = 64;
/// And for no more than so many, unless one cluster has more.
const MOST_ROLES: usize = 4_096;

/// The number of a role, of a book's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(in crate::domain) struct RoleNumber(u16);

impl RoleNumber {
    /// Where it is in a table.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
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
        let of = |judged: &Judged| judged.actions();
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

/// The judgements that all snapshots of a view share. Cheap to clone; clones share what they know.
#[derive(Clone, Debug)]
pub struct Judgements(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    features: Features,
    /// The one in use. When it is full another is begun, and whoever has the old one keeps it.
    book: Mutex<Arc<Book>>,
}

impl Judgements {
    /// For clusters that have these features.
    #[must_use]
    pub fn new(features: Features) -> Self {
        Self(Arc::new(Shared {
            features,
            book: Mutex::new(Arc::new(Book::new(features, FEWEST_ROLES))),
        }))
    }

    /// A book that has all of these roles, and their numbers in it.
    pub(in crate::domain) fn of_roles(&self, roles: &[Role]) -> (Arc<Book>, Vec<RoleNumber>) {
        // Nothing can panic half-way through a change, so a poisoned lock holds good data.
        let mut book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(numbers) = book.numbers(roles) {
            return (Arc::clone(&book), numbers);
        }
        // Room for both: else two sets of roles would push each other out for ever.
        let room = 2 * (book.known_roles() + roles.len());
        let room = room.clamp(FEWEST_ROLES, MOST_ROLES.max(2 * roles.len()));
        *book = Arc::new(Book::new(self.0.features, room));
        let numbers = book.numbers(roles).unwrap_or_default();
        (Arc::clone(&book), numbers)
    }
}

/// What is known of roles and questions.
#[derive(Debug)]
pub(in crate::domain) struct Book {
    features: Features,
    /// How many roles there is room for.
    room: usize,
    roles: RwLock<Roles>,
    pub(super) cluster_access: Judged,
    /// By the hash of the question.
    known: Cache<u64, Arc<Judgement>, Actions, RandomState>,
}

#[derive(Debug, Default)]
struct Roles {
    /// One that was changed has another number than before.
    numbers: HashMap<RoleDefinitionId, RoleNumber, RandomState>,
    definitions: Vec<Option<Arc<RoleDefinition>>>,
}

/// A judgement weighs what it is about.
#[derive(Clone, Debug)]
struct Actions {
    room: usize,
}

impl Weighter<u64, Arc<Judgement>> for Actions {
    fn weight(&self, _: &u64, judgement: &Arc<Judgement>) -> u64 {
        // Its tables have a few bytes for each role.
        (judgement.needs.actions() + self.room / ROLES_AN_ACTION) as u64
    }
}

impl Book {
    fn new(features: Features, room: usize) -> Self {
        let access = vec![DataAction::named(CLUSTER_ACCESS.to_owned())];
        Self {
            features,
            room,
            roles: RwLock::default(),
            cluster_access: Judged::of_actions(access, Plane::Control, room),
            known: Cache::with(
                EXPECTED,
                MOST_ACTIONS,
                Actions { room },
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
        }
    }

    /// How many roles it has, each once.
    fn known_roles(&self) -> usize {
        let known = self.roles.read().unwrap_or_else(PoisonError::into_inner);
        known.numbers.len()
    }

    /// The numbers of these roles; `None`: there is no room for all of them.
    fn numbers(&self, roles: &[Role]) -> Option<Vec<RoleNumber>> {
        let mut known = self.roles.write().unwrap_or_else(PoisonError::into_inner);
        let numbers = roles.iter().map(|role| known.number(role, self.room));
        numbers.collect()
    }

    pub(super) fn definition(&self, role: RoleNumber) -> Option<Arc<RoleDefinition>> {
        let known = self.roles.read().unwrap_or_else(PoisonError::into_inner);
        known.definitions.get(role.index()).cloned().flatten()
    }

    /// The judgement of a question.
    pub(super) fn of(&self, asks: &Asks<'_>) -> Arc<Judgement> {
        let key = key(asks);
        let known = self.known.get(&key);
        if let Some(known) = known.filter(|known| known.of.is_asked(asks)) {
            return known;
        }
        let new = Arc::new(self.judge(asks));
        self.known.insert(key, Arc::clone(&new));
        new
    }

    fn judge(&self, asks: &Asks<'_>) -> Judgement {
        match asks {
            Asks::Access { role, .. } => Judgement {
                of: Of::Role(Arc::clone(role)),
                needs: self.of_access(role),
            },
            Asks::Request(request) => Judgement {
                of: Of::Request((*request).clone()),
                needs: self.of_request(request),
            },
        }
    }

    fn of_access(&self, role: &RoleDefinition) -> Needs {
        if super::is_cluster_user(role) {
            return Needs::ClusterAccess;
        }
        let wanted = wanted_by(role);
        if wanted.is_empty() {
            return Needs::RoleGivesNothing;
        }
        let in_fleets_words: Option<Vec<Wanted>> = wanted.iter().map(of_fleet).collect();
        let judged = |wanted| Box::new(Judged::of_patterns(wanted, self.room));
        Needs::Actions {
            of_fleet: in_fleets_words.map(judged),
            of_cluster: judged(wanted),
        }
    }

    fn of_request(&self, request: &KubernetesRequest) -> Needs {
        let actions = match request.demand(self.features) {
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
        let of_fleet: Option<Vec<DataAction>> = actions.iter().map(translated).collect();
        let judged = |actions| Box::new(Judged::of_actions(actions, Plane::Data, self.room));
        Needs::Actions {
            of_fleet: of_fleet.map(judged),
            of_cluster: judged(actions),
        }
    }
}

impl Roles {
    fn number(&mut self, role: &Role, room: usize) -> Option<RoleNumber> {
        if let Some(known) = self.numbers.get(&role.id)
            && is_same(
                self.definitions[known.index()].as_ref(),
                role.definition.as_ref(),
            )
        {
            return Some(*known);
        }
        let next = u16::try_from(self.definitions.len()).ok();
        let next = next.filter(|next| usize::from(*next) < room)?;
        self.definitions.push(role.definition.clone());
        self.numbers.insert(role.id, RoleNumber(next));
        Some(RoleNumber(next))
    }
}

fn is_same(one: Option<&Arc<RoleDefinition>>, other: Option<&Arc<RoleDefinition>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
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

#[cfg(test)]
mod tests {
    use super::super::judge::Coverage;
    use super::*;
    use crate::domain::role::Permissions;

    const FEATURES: Features = Features {
        custom_resources: true,
        subresources: true,
    };

    /// A role that gives one data action, or one of which nobody knows what it gives.
    fn role(number: u128, action: Option<&str>) -> Role {
        let id = RoleDefinitionId::new(uuid::Uuid::from_u128(number));
        let given = |action: &str| RoleDefinition {
            id,
            name: format!("role {number}"),
            custom: true,
            permissions: vec![Permissions {
                data_actions: vec![format!("{PREFIX}/{action}")],
                ..Permissions::default()
            }],
        };
        Role {
            id,
            definition: action.map(|action| Arc::new(given(action))),
        }
    }

    /// What one role gives of reading pods, by a book.
    fn of_pods(book: &Book, number: RoleNumber) -> Coverage {
        let pods = vec![DataAction::named(format!("{PREFIX}/pods/read"))];
        Judged::of_actions(pods, Plane::Data, book.room).coverage(book, number)
    }

    #[test]
    fn a_role_that_was_changed_is_another_and_whoever_has_the_old_one_keeps_it() {
        let judgements = Judgements::new(FEATURES);
        let of = |action| judgements.of_roles(&[role(1, action)]);
        let (book, reads) = of(Some("pods/read"));
        let (_, again) = of(Some("pods/read"));
        let (_, writes) = of(Some("pods/write"));
        let (_, unread) = of(None);
        assert_eq!(reads, again);
        let covered = [&reads, &writes, &unread].map(|of| of_pods(&book, of[0]));
        assert_eq!(
            covered,
            [Coverage::All, Coverage::Nothing, Coverage::Unread]
        );
    }

    #[test]
    fn a_full_book_is_followed_by_one_with_room_for_the_roles_of_both() {
        let judgements = Judgements::new(FEATURES);
        let some = |from: u128| -> Vec<Role> {
            let numbers = from..from + 50;
            numbers
                .map(|number| role(number, Some("pods/read")))
                .collect()
        };
        let (first, numbers) = judgements.of_roles(&some(0));
        let (second, others) = judgements.of_roles(&some(1_000));
        assert!(!Arc::ptr_eq(&first, &second));
        for (book, number) in [(&first, numbers[49]), (&second, others[49])] {
            assert_eq!(of_pods(book, number), Coverage::All);
        }
        // Those of the first fit in beside them: the two do not push each other out for ever.
        for from in [0, 1_000, 0] {
            let (book, _) = judgements.of_roles(&some(from));
            assert!(Arc::ptr_eq(&book, &second));
        }
    }
}
