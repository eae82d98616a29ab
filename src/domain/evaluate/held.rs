//! Who holds what on a cluster, and who may do something there.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asks, Path, Question};
use crate::domain::access::{Principal, PrincipalType};
use crate::domain::ids::PrincipalId;
use crate::domain::kubernetes_request::KubernetesRequest;
use crate::domain::snapshot::{Entry, Snapshot};

/// An assignment, and who holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Who.
    pub holder: PrincipalId,
    /// What kind of principal that is; `None` for kinds that the broker does not deal in.
    pub holder_kind: Option<PrincipalType>,
    /// The assignment.
    pub path: Path,
}

impl Snapshot {
    /// Everything that anybody holds on the cluster and its fleet, by assignment's ARM id.
    #[must_use]
    pub fn all_held(&self) -> Vec<Held> {
        self.in_order(self.entries().iter())
    }

    /// What one principal holds there, in person and through these groups.
    #[must_use]
    pub fn held_through(&self, principal: PrincipalId, groups: &[PrincipalId]) -> Vec<Held> {
        let through = groups.iter().flat_map(|group| self.held_by(*group));
        self.in_order(self.held_by(principal).iter().chain(through))
    }

    /// All by which its holder may do something there, as far as Azure RBAC permits it: by what each holder has itself, its
    /// groups' aside, which are holders of their own. Where it hangs on a condition, too.
    #[must_use]
    pub fn who_may(&self, request: &KubernetesRequest) -> Vec<Held> {
        let mut ways: BTreeMap<PrincipalId, BTreeSet<String>> = BTreeMap::new();
        self.all_held()
            .into_iter()
            .filter(|held| {
                let ways = ways
                    .entry(held.holder)
                    .or_insert_with(|| self.ways_of(held, request));
                ways.contains(&held.path.resource_id)
            })
            .collect()
    }

    /// Those of what one principal holds by which it may do what is asked: all that it holds, and all that is denied to
    /// it, in person and through its groups, is taken together.
    #[must_use]
    pub fn held_that_permits(&self, question: &Question<'_>) -> Vec<Held> {
        let ways = ids(self.ways(question));
        let mut held = self.held_through(question.principal.id, question.groups);
        held.retain(|held| ways.contains(&held.path.resource_id));
        held
    }

    /// The assignments by which a holder may do something.
    fn ways_of(&self, held: &Held, request: &KubernetesRequest) -> BTreeSet<String> {
        let kind = held.holder_kind.unwrap_or(PrincipalType::User);
        let principal = Principal::unnamed(held.holder, kind);
        ids(self.ways(&Question {
            principal: &principal,
            groups: &[],
            asks: Asks::Request(request),
        }))
    }

    fn in_order<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Vec<Held> {
        let held = entries.map(|entry| {
            let (row, _) = self.assignment(entry);
            let path = self.path(entry, row.holder);
            let row = Held {
                holder: row.holder,
                holder_kind: row.holder_kind,
                path,
            };
            (row.path.resource_id.clone(), row)
        });
        // What counts both on the cluster and on its fleet is one assignment.
        let by_id: BTreeMap<String, Held> = held.collect();
        by_id.into_values().collect()
    }
}

fn ids(ways: Vec<Path>) -> BTreeSet<String> {
    ways.into_iter().map(|path| path.resource_id).collect()
}
