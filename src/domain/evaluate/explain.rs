//! Why: every way by which an answer comes about, or what is missing.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::book::Needs;
use super::combine::blocks;
use super::findings;
use super::judge::{Coverage, Judged, Taken};
use super::{Asks, Case, Decision, Found, Question, namespaces};
use crate::domain::assignments::resource_id;
use crate::domain::cluster::{self, Finding};
use crate::domain::condition::Truth;
use crate::domain::ids::{GrantId, PrincipalId, RoleDefinitionId};
use crate::domain::role::RoleDefinition;
use crate::domain::snapshot::{Entry, NO_NAMESPACE, Place, Snapshot, holds_at};

/// One chain from a principal to a permission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// The assignment's ARM id.
    pub resource_id: String,
    /// The role's GUID.
    pub role_id: RoleDefinitionId,
    /// The role's display name; its GUID where it could not be read.
    pub role: String,
    /// Where it is assigned, in lower case.
    pub scope: String,
    /// Whether that is above the cluster, or at its fleet.
    pub inherited: bool,
    /// The groups in between, the principal's own first, the holder of the assignment last; empty where that is the
    /// principal itself.
    pub via: Vec<PrincipalId>,
    /// Whether the broker made it.
    pub managed: bool,
    /// The live grants that call for it, the one that ends last first, where they were looked up.
    pub grants: Vec<GrantId>,
    /// When the broker's own clock ends it, if it ever does.
    pub expire_time: Option<Timestamp>,
}

/// One of the two questions that AKS asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// Its answer.
    pub decision: Decision,
    /// What the answer rests on; nothing where it is `Denied`.
    pub paths: Vec<Path>,
    /// Why not, and what to do about it.
    pub findings: Vec<Finding>,
}

/// The answer to a question, with its reasons.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Both layers together.
    pub decision: Decision,
    /// May the principal fetch the cluster's credentials?
    pub cluster_access: Layer,
    /// May it do what was asked, once connected?
    pub permission: Layer,
    /// When the broker's own clock ends an `Allowed`, if it ever does.
    pub expire_time: Option<Timestamp>,
}

impl Snapshot {
    /// Answers a question, and says why. The decision is the one of [`decide`](Self::decide).
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Answer {
        let case = Case::new(self, question);
        let verdict = case.verdict(&question.asks);
        let cluster_access = case.explain_cluster_access(verdict.cluster_access);
        let judgement = self.book().of(&question.asks);
        let permission = match &judgement.needs {
            Needs::ClusterAccess => cluster_access.clone(),
            needs => case.explain_permission(&question.asks, needs, verdict.permission),
        };
        Answer {
            decision: verdict.decision(),
            cluster_access,
            permission,
            expire_time: verdict.expire_time,
        }
    }

    /// The paths by which the permission layer of an answer comes about, as [`explain`](Self::explain) tells them.
    pub(super) fn ways(&self, question: &Question<'_>) -> Vec<Path> {
        let case = Case::new(self, question);
        let decision = case.permission(&question.asks).decision;
        if decision == Decision::Denied {
            return Vec::new();
        }
        let layer = match &self.book().of(&question.asks).needs {
            Needs::ClusterAccess => case.explain_cluster_access(decision),
            needs => case.explain_permission(&question.asks, needs, decision),
        };
        layer.paths
    }

    /// An assignment as a path from `principal`.
    pub(super) fn path(&self, entry: &Entry, principal: PrincipalId) -> Path {
        let (row, scope) = self.assignment(entry);
        let role = self.role(entry);
        let name = |role: &RoleDefinition| role.name.clone();
        Path {
            resource_id: resource_id(scope, row.name),
            role_id: role.id,
            role: role
                .definition
                .as_deref()
                .map_or_else(|| role.id.to_string(), name),
            scope: scope.to_owned(),
            inherited: !holds_at(self.cluster().id.as_str(), scope),
            via: (row.holder != principal)
                .then_some(row.holder)
                .into_iter()
                .collect(),
            managed: row.ours.is_some(),
            grants: Vec::new(),
            expire_time: row.end().time(),
        }
    }
}

impl Case<'_> {
    fn explain_cluster_access(&self, decision: Decision) -> Layer {
        let cluster = self.snapshot.cluster();
        if let Some(finding) = cluster::entra_integration_required(cluster) {
            return denied(vec![finding]);
        }
        let judged = &self.snapshot.book().cluster_access;
        let asked = [(Place::Cluster, NO_NAMESPACE, judged)];
        let mut layer = self.layer(decision, &asked);
        if decision == Decision::Denied && !self.is_taken_away(&asked) {
            layer
                .findings
                .push(findings::no_cluster_user_role(self.principal.id, cluster));
            layer.findings.extend(self.missing_groups(&asked));
        }
        layer.findings.extend(cluster::cluster_stopped(cluster));
        layer
    }

    fn explain_permission(&self, asks: &Asks<'_>, needs: &Needs, decision: Decision) -> Layer {
        let cluster = self.snapshot.cluster();
        let bindings = findings::kubernetes_bindings_not_read(cluster);
        let off = cluster::entra_integration_required(cluster)
            .or_else(|| cluster::azure_rbac_disabled(cluster));
        if let Some(finding) = off {
            let admins = self.admins();
            return denied(
                [finding]
                    .into_iter()
                    .chain(admins)
                    .chain([bindings])
                    .collect(),
            );
        }
        if let Some(finding) = self.refusal() {
            return denied(vec![finding, bindings]);
        }
        match (needs, asks) {
            (Needs::Nothing, _) => Layer {
                decision,
                paths: Vec::new(),
                findings: vec![findings::open_to_everybody()],
            },
            (Needs::Unanswerable(problem), _) => {
                let problem = findings::unanswerable(problem);
                denied(
                    [problem]
                        .into_iter()
                        .chain(self.admins())
                        .chain([bindings])
                        .collect(),
                )
            }
            (Needs::RoleGivesNothing, Asks::Access { role, .. }) => {
                denied(vec![findings::role_gives_nothing(role)])
            }
            (
                Needs::Actions {
                    of_cluster,
                    of_fleet,
                },
                _,
            ) => {
                let namespaces: Vec<Option<u32>> = namespaces(asks, self.snapshot).collect();
                let asked: Vec<(Place, u32, &Judged)> = namespaces
                    .into_iter()
                    .flat_map(|namespace| {
                        let number = namespace.unwrap_or(NO_NAMESPACE);
                        self.asked_at(namespace, of_cluster, of_fleet.as_deref())
                            .map(move |(place, judged)| (place, number, judged))
                    })
                    .collect();
                let mut layer = self.layer(decision, &asked);
                if decision == Decision::Denied {
                    layer.findings.extend(self.what_is_missing(asks, &asked));
                    layer.findings.extend(self.admins());
                    layer.findings.push(bindings);
                }
                layer
            }
            (Needs::ClusterAccess | Needs::RoleGivesNothing, _) => denied(Vec::new()),
        }
    }

    /// Why AKS permits the principal nothing through Azure, whatever it holds.
    fn refusal(&self) -> Option<Finding> {
        if self.has_no_groups_in_its_token() {
            return Some(findings::too_many_groups(
                self.principal.id,
                self.groups.len(),
            ));
        }
        self.is_of_the_system()
            .then(|| findings::name_of_the_system(&self.principal.user_principal_name))
    }

    /// Administrators without any role assignment.
    fn admins(&self) -> Option<Finding> {
        let cluster = self.snapshot.cluster();
        let group = cluster.admin_group_ids.iter().find(|id| {
            let id = PrincipalId::parse(id).ok();
            id.is_some_and(|id| id == self.principal.id || self.groups.contains(&id))
        })?;
        Some(findings::in_admin_group(group, cluster))
    }

    fn layer(&self, decision: Decision, asked: &[(Place, u32, &Judged)]) -> Layer {
        let mut denying = BTreeSet::new();
        let (mut chosen, mut conditional) = (BTreeSet::new(), BTreeSet::new());
        for (place, namespace, judged) in asked {
            let found = self.at(judged, *place, *namespace);
            if found.decision != Decision::Allowed {
                let binding = self.binding(judged, *place, *namespace);
                denying.extend(binding.map(|(deny, taken)| {
                    let hangs = deny.conditional || taken == Taken::IfConditional;
                    (hangs, &deny.resource_id, &deny.display_name)
                }));
            }
            if found.decision != Decision::Denied && found.decision >= decision {
                let rests_on = self.rests_on(judged, *place, *namespace, found);
                let hangs = |(_, entry): &(usize, &Entry)| self.hangs_on_a_condition(judged, entry);
                if found.decision == Decision::Conditional {
                    conditional.extend(rests_on.iter().copied().filter(hangs).map(|(at, _)| at));
                }
                chosen.extend(rests_on.into_iter().map(|(at, _)| at));
            }
        }
        let mut layer = denied(Vec::new());
        layer.decision = decision;
        if decision != Decision::Denied {
            let all: Vec<&Entry> = self.held().collect();
            let held = chosen.into_iter().map(|at| all[at]);
            layer.paths = held
                .map(|entry| self.snapshot.path(entry, self.principal.id))
                .collect();
        }
        if decision != Decision::Allowed {
            let denying = denying.iter();
            let told = denying.map(|(hangs, id, name)| findings::deny_assignment(id, name, *hangs));
            layer.findings.extend(told);
        }
        if decision == Decision::Conditional {
            let all: Vec<&Entry> = self.held().collect();
            let held = conditional.into_iter().map(|at| {
                let (row, scope) = self.snapshot.assignment(all[at]);
                resource_id(scope, row.name)
            });
            let denying = denying.into_iter().filter(|(hangs, ..)| *hangs);
            let of = held.chain(denying.map(|(_, id, _)| id.clone())).collect();
            layer.findings.push(findings::condition_not_evaluated(&of));
        }
        layer
    }

    /// Whether it is a condition, its own or one of its role's, that leaves open what an assignment gives.
    fn hangs_on_a_condition(&self, judged: &Judged, entry: &Entry) -> bool {
        let role = self.snapshot.role(entry).definition.as_deref();
        let of_role = role.is_some_and(|role| role.permissions.iter().any(|it| it.conditional));
        of_role || self.terms(judged, entry).1 == Truth::Unknown
    }

    /// Which of what is held an answer rests on: what suffices by itself or, where nothing does, all that gives part
    /// of it.
    fn rests_on(
        &self,
        judged: &Judged,
        place: Place,
        namespace: u32,
        found: Found,
    ) -> Vec<(usize, &Entry)> {
        let book = self.snapshot.book();
        let sure = found.decision == Decision::Allowed;
        let counting = || {
            let held = self.held().enumerate();
            held.filter(|(_, entry)| {
                entry.reach().covers(place, namespace)
                    && self.counts_towards(judged, entry, None, !sure)
            })
        };
        let suffices = |entry: &Entry| {
            let coverage = judged.coverage(book, entry.role);
            coverage == Coverage::All || (!sure && coverage == Coverage::AllIfConditional)
        };
        let alone: Vec<(usize, &Entry)> = counting().filter(|(_, entry)| suffices(entry)).collect();
        if !alone.is_empty() {
            return alone;
        }
        counting()
            .filter(|(_, entry)| {
                let definition = self.snapshot.role(entry).definition.as_ref();
                definition.is_some_and(|role| {
                    let blocks = blocks(role, judged.plane, !sure);
                    super::combine::gives_part(&judged.wanted, blocks)
                })
            })
            .collect()
    }

    /// Whether roles give it somewhere, and a deny assignment takes it away: another role would change nothing.
    fn is_taken_away(&self, asked: &[(Place, u32, &Judged)]) -> bool {
        asked.iter().any(|(place, namespace, judged)| {
            let given = self.given(judged, *place, *namespace, None).decision;
            given != Decision::Denied && self.most(judged, *place, *namespace) == Decision::Denied
        })
    }

    /// Where more would have to be given: in the namespaces where nothing is taken away, and not enough is held.
    fn what_is_missing(&self, asks: &Asks<'_>, asked: &[(Place, u32, &Judged)]) -> Vec<Finding> {
        let namespaces: BTreeSet<u32> = asked.iter().map(|(_, namespace, _)| *namespace).collect();
        let mut lacking = Vec::new();
        for namespace in namespaces {
            let there: Vec<_> = asked
                .iter()
                .filter(|it| it.1 == namespace)
                .copied()
                .collect();
            let is_held = there.iter().any(|(place, namespace, judged)| {
                self.at(judged, *place, *namespace).decision != Decision::Denied
            });
            if !is_held && !self.is_taken_away(&there) {
                lacking.extend(there);
            }
        }
        if lacking.is_empty() {
            return Vec::new();
        }
        let mut found = vec![findings::permission_not_held(self.principal.id, asks)];
        found.extend(self.elsewhere(asked));
        found.extend(self.missing_groups(&lacking));
        found.extend(self.unread_roles());
        if self.snapshot.lacks_fleet() {
            found.push(findings::fleet_not_read(self.snapshot.cluster()));
        }
        found
    }

    /// Whether the principal has what was asked for in other namespaces.
    fn elsewhere(&self, asked: &[(Place, u32, &Judged)]) -> Option<Finding> {
        let (_, _, judged) = asked.first()?;
        let is_asked = |entry: &Entry| {
            let mut places = asked.iter();
            places.any(|(place, namespace, _)| entry.reach().covers(*place, *namespace))
        };
        let gives = |entry: &&Entry| {
            entry.reach().is_of_one_namespace()
                && !is_asked(entry)
                && self.suffices_unconditionally(judged, entry)
        };
        let scopes: BTreeSet<&str> = self
            .held()
            .filter(gives)
            .map(|entry| self.snapshot.assignment(entry).1)
            .collect();
        (!scopes.is_empty()).then(|| findings::role_at_other_namespace(&scopes))
    }

    /// Groups whose members may, where the principal is none.
    fn missing_groups(&self, asked: &[(Place, u32, &Judged)]) -> Option<Finding> {
        let mine =
            |holder: PrincipalId| holder == self.principal.id || self.groups.contains(&holder);
        let gives = |entry: &&Entry| {
            asked.iter().any(|(place, namespace, judged)| {
                entry.reach().covers(*place, *namespace)
                    && self.suffices_unconditionally(judged, entry)
            })
        };
        let groups: BTreeSet<PrincipalId> = self
            .snapshot
            .entries()
            .iter()
            .filter(gives)
            .map(|entry| self.snapshot.assignment(entry).0)
            .filter(|row| {
                row.holder_kind == Some(crate::domain::access::PrincipalType::Group)
                    && !mine(row.holder)
            })
            .map(|row| row.holder)
            .collect();
        (!groups.is_empty()).then(|| findings::group_membership_missing(&groups))
    }

    fn suffices_unconditionally(&self, judged: &Judged, entry: &Entry) -> bool {
        judged.coverage(self.snapshot.book(), entry.role) == Coverage::All
            && self.counts_towards(judged, entry, None, false)
    }

    fn unread_roles(&self) -> Option<Finding> {
        let unread: BTreeSet<RoleDefinitionId> = self
            .held()
            .map(|entry| self.snapshot.role(entry))
            .filter(|role| role.definition.is_none())
            .map(|role| role.id)
            .collect();
        (!unread.is_empty()).then(|| findings::role_not_read(&unread))
    }
}

const fn denied(findings: Vec<Finding>) -> Layer {
    Layer {
        decision: Decision::Denied,
        paths: Vec::new(),
        findings,
    }
}
