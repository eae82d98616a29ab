//! Snapshot × question → decision: may a principal do something on a cluster, however it came by that?
//!
//! By permissions, never by the names of roles: a custom role, *Owner* or a role inherited from a management group
//! answers as well as the broker's own. What cannot be proved is not `Allowed` (I9). [`Snapshot::decide`] costs what
//! the principal holds and makes no words; [`Snapshot::explain`] says why.

mod book;
mod combine;
mod explain;
mod findings;
mod held;
mod judge;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::access::{Principal, PrincipalType};
use super::condition::Truth;
use super::deny::DenyAssignment;
use super::grant::Expiry;
use super::ids::{Namespace, PrincipalId};
use super::kubernetes_request::KubernetesRequest;
use super::role::{BuiltInRole, RoleDefinition};
use super::snapshot::{Entry, NO_NAMESPACE, Place, Snapshot};
pub use book::Judgements;
use book::Needs;
pub(in crate::domain) use book::{Book, RoleNumber};
pub use explain::{Answer, Layer, Path};
pub use held::Held;
use judge::Coverage;
pub(in crate::domain) use judge::{Judged, Taken};

/// The control-plane action that fetches a cluster's credentials: the first of AKS's two questions.
pub const CLUSTER_ACCESS: &str =
    "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action";

/// A service principal in more groups than this has no groups in its token, and AKS refuses it [azure.md §3].
pub const MOST_GROUPS_OF_SERVICE_PRINCIPALS: usize = 200;

/// An answer, or a layer's part of it. Ordered: of two, the lesser one holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Decision {
    /// No, or not provably.
    Denied,
    /// It hangs on a condition that the broker cannot evaluate.
    Conditional,
    /// Yes.
    Allowed,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who. The user principal name may be empty: AKS asks nobody about names that begin with `system:`, and Entra
    /// gives none.
    pub principal: &'a Principal,
    /// The groups that it is in, through other groups too.
    pub groups: &'a [PrincipalId],
    /// What.
    pub asks: Asks<'a>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Asks<'a> {
    /// Would the access that this role gives on the cluster, or on these namespaces of it, give the principal
    /// anything that it does not hold already?
    Access {
        /// The role.
        role: &'a Arc<RoleDefinition>,
        /// Empty: on the whole cluster.
        namespaces: &'a BTreeSet<Namespace>,
    },
    /// Would the API server let this request through?
    Request(&'a KubernetesRequest),
}

/// The answer alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// May the principal fetch the cluster's credentials?
    pub cluster_access: Decision,
    /// May it do what was asked, once connected?
    pub permission: Decision,
    /// When the broker's own clock ends an `Allowed`, if it ever does.
    pub expire_time: Option<Timestamp>,
}

impl Verdict {
    /// Both layers together.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.cluster_access.min(self.permission)
    }
}

/// A decision at one or more places, and until when it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Found {
    decision: Decision,
    /// Of an `Allowed`.
    end: Expiry,
}

impl Found {
    const DENIED: Self = Self {
        decision: Decision::Denied,
        end: Expiry::Never,
    };
    const ALLOWED: Self = Self {
        decision: Decision::Allowed,
        end: Expiry::Never,
    };

    /// Where either is enough.
    fn or(self, other: Self) -> Self {
        match self.decision.cmp(&other.decision) {
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Equal => Self {
                end: self.end.max(other.end),
                ..self
            },
        }
    }

    /// Where both are needed.
    fn and(self, other: Self) -> Self {
        Self {
            decision: self.decision.min(other.decision),
            end: self.end.min(other.end),
        }
    }
}

/// A question at work: what the principal holds, gathered once.
struct Case<'a> {
    snapshot: &'a Snapshot,
    principal: &'a Principal,
    groups: &'a [PrincipalId],
    /// By holder.
    held: Vec<&'a [Entry]>,
}

impl Snapshot {
    /// Answers a question.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Verdict {
        Case::new(self, question).verdict(&question.asks)
    }
}

impl<'a> Case<'a> {
    fn new(snapshot: &'a Snapshot, question: &Question<'a>) -> Self {
        let mut held = Vec::with_capacity(question.groups.len() + 1);
        held.push(snapshot.held_by(question.principal.id));
        let of_groups = question.groups.iter();
        held.extend(of_groups.map(|group| snapshot.held_by(*group)));
        held.retain(|held| !held.is_empty());
        Self {
            snapshot,
            principal: question.principal,
            groups: question.groups,
            held,
        }
    }

    fn verdict(&self, asks: &Asks<'_>) -> Verdict {
        let access = self.cluster_access();
        let permission = self.permission(asks);
        let both = access.and(permission);
        Verdict {
            cluster_access: access.decision,
            permission: permission.decision,
            expire_time: (both.decision == Decision::Allowed)
                .then(|| both.end.time())
                .flatten(),
        }
    }

    fn cluster_access(&self) -> Found {
        if !self.snapshot.cluster().entra_integration {
            return Found::DENIED;
        }
        let judged = &self.snapshot.book().cluster_access;
        self.at(judged, Place::Cluster, NO_NAMESPACE)
    }

    fn permission(&self, asks: &Asks<'_>) -> Found {
        let judgement = self.snapshot.book().of(asks);
        if matches!(judgement.needs, Needs::ClusterAccess) {
            return self.cluster_access();
        }
        if self.is_refused() {
            return Found::DENIED;
        }
        match &judgement.needs {
            Needs::Nothing => Found::ALLOWED,
            Needs::Actions {
                of_cluster,
                of_fleet,
            } => self.everywhere(asks, of_cluster, of_fleet.as_deref()),
            Needs::ClusterAccess | Needs::RoleGivesNothing | Needs::Unanswerable(_) => {
                Found::DENIED
            }
        }
    }

    /// Whether Azure RBAC permits nothing in the cluster, whatever is assigned.
    fn is_refused(&self) -> bool {
        let cluster = self.snapshot.cluster();
        !cluster.entra_integration
            || !cluster.azure_rbac
            || self.has_no_groups_in_its_token()
            || self.is_of_the_system()
    }

    fn has_no_groups_in_its_token(&self) -> bool {
        self.principal.kind == PrincipalType::ServicePrincipal
            && self.groups.len() > MOST_GROUPS_OF_SERVICE_PRINCIPALS
    }

    /// AKS's webhook has no opinion on such names.
    fn is_of_the_system(&self) -> bool {
        let name = self.principal.user_principal_name.as_bytes();
        name.get(..7)
            .is_some_and(|beginning| beginning.eq_ignore_ascii_case(b"system:"))
    }

    /// In each of the namespaces asked about, or on the whole cluster.
    fn everywhere(&self, asks: &Asks<'_>, of_cluster: &Judged, of_fleet: Option<&Judged>) -> Found {
        let namespaces = namespaces(asks, self.snapshot);
        let in_all = namespaces
            .map(|namespace| self.somewhere(namespace, of_cluster, of_fleet))
            .reduce(Found::and);
        in_all.unwrap_or(Found::DENIED)
    }

    /// At one of the places at which AKS asks about a namespace, or about the whole cluster.
    fn somewhere(
        &self,
        namespace: Option<u32>,
        of_cluster: &Judged,
        of_fleet: Option<&Judged>,
    ) -> Found {
        let mut best = Found::DENIED;
        for (place, judged) in self.asked_at(namespace, of_cluster, of_fleet) {
            best = best.or(self.at(judged, place, namespace.unwrap_or(NO_NAMESPACE)));
            if best == Found::ALLOWED {
                break;
            }
        }
        best
    }

    /// The places at which AKS asks, and by which words.
    fn asked_at<'j>(
        &self,
        namespace: Option<u32>,
        of_cluster: &'j Judged,
        of_fleet: Option<&'j Judged>,
    ) -> impl Iterator<Item = (Place, &'j Judged)> + use<'j> {
        let places: &'static [Place] = match namespace {
            None => &Place::OF_CLUSTER,
            Some(_) => &Place::OF_NAMESPACE,
        };
        let of_fleet = of_fleet.filter(|_| self.snapshot.fleet().is_some());
        places.iter().filter_map(move |place| {
            let judged = if place.is_of_fleet() {
                of_fleet?
            } else {
                of_cluster
            };
            Some((*place, judged))
        })
    }

    /// At one place.
    fn at(&self, judged: &Judged, place: Place, namespace: u32) -> Found {
        let most = self.most(judged, place, namespace);
        if most == Decision::Denied {
            return Found::DENIED;
        }
        let found = self.given(judged, place, namespace, None);
        Found {
            decision: found.decision.min(most),
            ..found
        }
    }

    /// What deny assignments leave of an `Allowed`.
    fn most(&self, judged: &Judged, place: Place, namespace: u32) -> Decision {
        self.binding(judged, place, namespace)
            .map(|(deny, taken)| {
                if deny.conditional || taken == Taken::IfConditional {
                    Decision::Conditional
                } else {
                    Decision::Denied
                }
            })
            .min()
            .unwrap_or(Decision::Allowed)
    }

    /// The deny assignments that take something of it away from the principal.
    fn binding<'s>(
        &'s self,
        judged: &'s Judged,
        place: Place,
        namespace: u32,
    ) -> impl Iterator<Item = (&'s DenyAssignment, Taken)> {
        let denies = self.snapshot.denies().iter();
        denies.filter_map(move |deny| {
            let binds = deny.reach.covers(place, namespace)
                && deny.assignment.binds(self.principal.id, self.groups);
            let taken = binds.then(|| deny.takes(judged))?;
            (taken != Taken::Nothing).then_some((&deny.assignment, taken))
        })
    }

    /// What roles give, deny assignments aside. `after`: what has ended by then is left out.
    fn given(
        &self,
        judged: &Judged,
        place: Place,
        namespace: u32,
        after: Option<Timestamp>,
    ) -> Found {
        let book = self.snapshot.book();
        let mut found = Found::DENIED;
        let (mut parts, mut whole) = (false, 0);
        for entry in self.counting(place, namespace) {
            let coverage = judged.coverage(book, entry.role);
            if coverage <= Coverage::Nothing {
                continue;
            }
            whole |= judged.whole(entry.role);
            let (end, truth) = self.terms(judged, entry);
            if is_over(end, after) {
                continue;
            }
            let decision = match (coverage, truth) {
                (_, Truth::False) => continue,
                (Coverage::All, Truth::True) => Decision::Allowed,
                (Coverage::All | Coverage::AllIfConditional, _) => Decision::Conditional,
                _ => {
                    parts = true;
                    continue;
                }
            };
            found = found.or(Found { decision, end });
            if found == Found::ALLOWED {
                return found;
            }
        }
        if parts && found.decision < Decision::Allowed && judged.may_be_made_up(whole) {
            return found.or(self.together(judged, place, namespace, after));
        }
        found
    }

    /// Several roles may make up together what none of them gives alone.
    fn together(
        &self,
        judged: &Judged,
        place: Place,
        namespace: u32,
        after: Option<Timestamp>,
    ) -> Found {
        let held = |after: Option<Timestamp>, conditional: bool| {
            let book = self.snapshot.book();
            let of = self
                .counting(place, namespace)
                .filter(|entry| judged.coverage(book, entry.role) > Coverage::Nothing)
                .filter(|entry| self.counts_towards(judged, entry, after, conditional))
                .map(|entry| entry.role);
            judged.made_up(book, of.collect(), conditional)
        };
        if held(after, false) {
            let ends: BTreeSet<Timestamp> = self
                .counting(place, namespace)
                .filter_map(|entry| self.snapshot.assignment(entry).0.end().time())
                .filter(|end| after.is_none_or(|after| *end > after))
                .collect();
            let end = ends.into_iter().find(|end| !held(Some(*end), false));
            return Found {
                decision: Decision::Allowed,
                end: end.map_or(Expiry::Never, Expiry::At),
            };
        }
        if held(after, true) {
            return Found {
                decision: Decision::Conditional,
                end: Expiry::Never,
            };
        }
        Found::DENIED
    }

    /// When an assignment ends, and what its condition comes to.
    fn terms(&self, judged: &Judged, entry: &Entry) -> (Expiry, Truth) {
        if entry.is_plain() {
            return (Expiry::Never, Truth::True);
        }
        let (row, _) = self.snapshot.assignment(entry);
        let truth = row.condition.as_ref();
        (
            row.end(),
            truth.map_or(Truth::True, |condition| judged.truth(condition)),
        )
    }

    /// Whether an assignment may be laid together with others.
    fn counts_towards(
        &self,
        judged: &Judged,
        entry: &Entry,
        after: Option<Timestamp>,
        conditional: bool,
    ) -> bool {
        let (end, truth) = self.terms(judged, entry);
        let holds = match truth {
            Truth::True => true,
            Truth::Unknown => conditional,
            Truth::False => false,
        };
        holds && !is_over(end, after)
    }

    /// What the principal holds, in person and through its groups.
    fn held(&self) -> impl Iterator<Item = &'a Entry> + use<'a, '_> {
        self.held.iter().copied().flatten()
    }

    /// What the principal holds that counts at a place.
    fn counting(&self, place: Place, namespace: u32) -> impl Iterator<Item = &'a Entry> {
        let held = self.held();
        held.filter(move |entry| entry.reach().covers(place, namespace))
    }
}

/// Whether what ends then has ended by that time.
fn is_over(end: Expiry, by: Option<Timestamp>) -> bool {
    by.is_some_and(|by| end <= Expiry::At(by))
}

/// The numbers of the namespaces asked about; `None` for the whole cluster.
fn namespaces<'s>(
    asks: &'s Asks<'_>,
    snapshot: &'s Snapshot,
) -> impl Iterator<Item = Option<u32>> + 's {
    let (several, one) = match asks {
        Asks::Access { namespaces, .. } => (Some(*namespaces), None),
        Asks::Request(request) => (None, request.namespace()),
    };
    let whole = several.is_none_or(BTreeSet::is_empty) && one.is_none();
    let names = several.into_iter().flatten().chain(one);
    names
        .map(|name| Some(snapshot.namespace(name.as_str())))
        .chain(whole.then_some(None))
}

fn is_cluster_user(role: &RoleDefinition) -> bool {
    role.id == BuiltInRole::ClusterUser.id()
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
