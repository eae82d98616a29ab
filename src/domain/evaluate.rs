//! World × question → decision: does a principal hold every permission that an access gives?
//!
//! By permissions, never by the names of roles: a custom role, *Owner* or a role inherited from a
//! management group answers as well as the broker's own. What cannot be proved is not `Allowed` (I9):
//! patterns are compared so that the answer may be too careful, and is never too generous.

mod findings;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::cluster::{self, Cluster, Finding};
use super::grant::Expiry;
use super::ids::{ClusterId, GrantId, Namespace, PrincipalId, RoleDefinitionId, Scope};
use super::pattern::{overlap, subsumes};
use super::role::{BuiltInRole, RoleDefinition};
use findings::{
    condition_not_evaluated, kubernetes_bindings_not_read, no_cluster_user_role,
    permission_not_held, role_gives_nothing,
};

/// The control-plane action that fetches a cluster's credentials: the first of AKS's two questions.
pub const CLUSTER_ACCESS: &str =
    "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action";

/// How many roles may be laid over each other to make up one permission. Beyond that, roles that are
/// made to contradict each other could keep the evaluation busy; the answer is then too careful.
const DEEPEST_COMBINATION: usize = 4;

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

/// A question: would the access that `role` gives on the cluster, or on these namespaces of it, give the
/// principal anything that it does not hold already?
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who.
    pub principal: PrincipalId,
    /// Where.
    pub cluster: &'a Cluster,
    /// Empty: on the whole cluster.
    pub namespaces: &'a BTreeSet<Namespace>,
    /// What.
    pub role: &'a RoleDefinition,
}

/// A role assignment that counts for the principal: its own, or one of its groups'.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The assignment's ARM id.
    pub resource_id: String,
    /// Where it holds, in lower case. ARM must have said that it holds at the cluster or at one of the
    /// namespaces asked about: of a management group, nobody else knows.
    pub scope: String,
    /// Who it is assigned to.
    pub holder: PrincipalId,
    /// Its role.
    pub role: Arc<RoleDefinition>,
    /// Whether it hangs on a condition.
    pub conditional: bool,
    /// What the broker knows of it, if it made it.
    pub managed: Option<Managed>,
}

/// What the broker knows of an assignment that it made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Managed {
    /// The grants that called for it when it was last written.
    pub grants: Vec<GrantId>,
    /// When the last of them ends by itself.
    pub expiry: Expiry,
}

/// One chain from the principal to the permission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// The assignment's ARM id.
    pub resource_id: String,
    /// The role's GUID.
    pub role_id: RoleDefinitionId,
    /// The role's display name.
    pub role: String,
    /// Where it is assigned, in lower case.
    pub scope: String,
    /// Whether that is above the cluster.
    pub inherited: bool,
    /// The group between the principal and the assignment, if one is.
    pub via: Option<PrincipalId>,
    /// Whether the broker made it.
    pub managed: bool,
    /// The grants that called for it when it was last written; empty where the broker did not make it.
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

/// The answer to a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Both layers together.
    pub decision: Decision,
    /// May the principal fetch the cluster's credentials?
    pub cluster_access: Layer,
    /// May it do what the role gives, once connected?
    pub permission: Layer,
    /// When the broker's own clock ends an `Allowed`, if it ever does.
    pub expire_time: Option<Timestamp>,
}

/// Answers a question from every assignment that counts for the principal.
#[must_use]
pub fn evaluate(question: &Question<'_>, held: &[Held]) -> Answer {
    let all: Vec<&Held> = held.iter().collect();
    let cluster_access = cluster_access(question, &all);
    let permission = if is_cluster_user(question.role) {
        cluster_access.clone()
    } else {
        permission(question, &all)
    };
    let decision = cluster_access.decision.min(permission.decision);
    Answer {
        decision,
        expire_time: (decision == Decision::Allowed)
            .then(|| end(question, &all))
            .flatten(),
        cluster_access,
        permission,
    }
}

/// The first moment at which, with what has expired by then left out, the answer is no longer `Allowed`.
/// Not simply the latest end of any path: several together may make up what is asked for.
fn end(question: &Question<'_>, held: &[&Held]) -> Option<Timestamp> {
    let expiry = |held: &Held| {
        held.managed
            .as_ref()
            .and_then(|managed| managed.expiry.time())
    };
    let ends: BTreeSet<Timestamp> = held.iter().filter_map(|held| expiry(held)).collect();
    ends.into_iter().find(|end| {
        let left: Vec<&Held> = held
            .iter()
            .copied()
            .filter(|held| expiry(held).is_none_or(|expiry| expiry > *end))
            .collect();
        verdict(question, &left) != Decision::Allowed
    })
}

/// The decision alone.
fn verdict(question: &Question<'_>, held: &[&Held]) -> Decision {
    let access = cluster_access(question, held).decision;
    if is_cluster_user(question.role) {
        return access;
    }
    access.min(permission(question, held).decision)
}

fn is_cluster_user(role: &RoleDefinition) -> bool {
    role.id == BuiltInRole::ClusterUser.id()
}

fn cluster_access(question: &Question<'_>, held: &[&Held]) -> Layer {
    let cluster = question.cluster;
    if let Some(finding) = cluster::entra_integration_required(cluster) {
        return denied(vec![finding]);
    }
    let scope = Scope::Cluster(cluster.id.clone()).to_string();
    let wanted = [Wanted {
        patterns: vec![CLUSTER_ACCESS],
        left_out: &[],
    }];
    let mut layer = layer(question, &[scope], &wanted, Plane::Control, held);
    if layer.decision == Decision::Denied {
        layer.findings.push(no_cluster_user_role(question));
    }
    layer.findings.extend(cluster::cluster_stopped(cluster));
    layer
}

fn permission(question: &Question<'_>, held: &[&Held]) -> Layer {
    let cluster = question.cluster;
    let refused = cluster::entra_integration_required(cluster)
        .or_else(|| cluster::azure_rbac_disabled(cluster));
    if let Some(finding) = refused {
        return denied(vec![finding, kubernetes_bindings_not_read(cluster)]);
    }
    let wanted = wanted_by(question.role);
    if wanted.is_empty() {
        return denied(vec![role_gives_nothing(question.role)]);
    }
    let scopes = scopes(&cluster.id, question.namespaces);
    let mut layer = layer(question, &scopes, &wanted, Plane::Data, held);
    if layer.decision == Decision::Denied {
        layer.findings.push(permission_not_held(question));
        layer.findings.push(kubernetes_bindings_not_read(cluster));
    }
    layer
}

fn scopes(cluster: &ClusterId, namespaces: &BTreeSet<Namespace>) -> Vec<String> {
    if namespaces.is_empty() {
        return vec![cluster.to_string()];
    }
    namespaces
        .iter()
        .map(|namespace| Scope::Namespace(cluster.clone(), namespace.clone()).to_string())
        .collect()
}

/// One block of what is asked for: what matches one of the patterns and nothing that is left out.
struct Wanted<'a> {
    patterns: Vec<&'a str>,
    left_out: &'a [String],
}

/// The data actions that a role gives; empty if it gives none. A condition in its definition is left
/// aside: without it, more is asked for.
fn wanted_by(role: &RoleDefinition) -> Vec<Wanted<'_>> {
    role.permissions
        .iter()
        .map(|block| Wanted {
            patterns: block
                .data_actions
                .iter()
                .map(String::as_str)
                .filter(|pattern| !is_left_out(pattern, &block.not_data_actions))
                .collect(),
            left_out: &block.not_data_actions,
        })
        .filter(|wanted| !wanted.patterns.is_empty())
        .collect()
}

fn is_left_out(pattern: &str, left_out: &[String]) -> bool {
    left_out.iter().any(|out| subsumes(out, pattern))
}

/// Which half of a role definition counts: data actions have nothing to do with control-plane actions.
#[derive(Clone, Copy)]
enum Plane {
    Control,
    Data,
}

/// One block of a role that is held.
struct Block<'a> {
    gives: &'a [String],
    but_not: &'a [String],
}

/// The blocks of `held` that hold at `scope`. Those that hang on a condition count only if `conditional`.
fn blocks<'a>(held: &[&'a Held], scope: &str, plane: Plane, conditional: bool) -> Vec<Block<'a>> {
    let counts = |held: &&&Held| holds_at(&held.scope, scope) && (conditional || !held.conditional);
    held.iter()
        .filter(counts)
        .flat_map(|held| &held.role.permissions)
        .filter(|block| conditional || !block.conditional)
        .map(|block| match plane {
            Plane::Control => Block {
                gives: &block.actions,
                but_not: &block.not_actions,
            },
            Plane::Data => Block {
                gives: &block.data_actions,
                but_not: &block.not_data_actions,
            },
        })
        .collect()
}

/// Whether what is assigned at `assigned` holds at `scope`, both in lower case.
#[must_use]
pub fn holds_at(assigned: &str, scope: &str) -> bool {
    if !assigned.starts_with('/') {
        return false;
    }
    let above = assigned.trim_end_matches('/');
    if let Some(group) = above.strip_prefix("/providers/microsoft.management/managementgroups/") {
        return !group.contains('/');
    }
    scope
        .strip_prefix(above)
        .is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

fn decide(scopes: &[String], wanted: &[Wanted<'_>], plane: Plane, held: &[&Held]) -> Decision {
    let suffices = |scope: &String, conditional: bool| {
        all_held(wanted, &blocks(held, scope, plane, conditional))
    };
    scopes
        .iter()
        .map(|scope| {
            if suffices(scope, false) {
                Decision::Allowed
            } else if suffices(scope, true) {
                Decision::Conditional
            } else {
                Decision::Denied
            }
        })
        .min()
        .unwrap_or(Decision::Denied)
}

fn all_held(wanted: &[Wanted<'_>], blocks: &[Block<'_>]) -> bool {
    let mut spent = vec![false; blocks.len()];
    wanted.iter().all(|wanted| {
        wanted
            .patterns
            .iter()
            .all(|pattern| covered(pattern, wanted.left_out, blocks, &mut spent, 0))
    })
}

/// Whether the blocks together give all that `pattern` matches, less what is left out.
///
/// One block must give the whole pattern; what that block takes out again must be left out anyway, or
/// come from the other blocks.
fn covered(
    pattern: &str,
    left_out: &[String],
    blocks: &[Block<'_>],
    spent: &mut [bool],
    depth: usize,
) -> bool {
    if is_left_out(pattern, left_out) {
        return true;
    }
    if depth == DEEPEST_COMBINATION {
        return false;
    }
    for (index, block) in blocks.iter().enumerate() {
        if spent[index] || !block.gives.iter().any(|gives| subsumes(gives, pattern)) {
            continue;
        }
        spent[index] = true;
        let whole = block
            .but_not
            .iter()
            .filter(|but_not| overlap(but_not, pattern))
            .all(|but_not| covered(but_not, left_out, blocks, spent, depth + 1));
        spent[index] = false;
        if whole {
            return true;
        }
    }
    false
}

fn layer(
    question: &Question<'_>,
    scopes: &[String],
    wanted: &[Wanted<'_>],
    plane: Plane,
    held: &[&Held],
) -> Layer {
    let decision = decide(scopes, wanted, plane, held);
    if decision == Decision::Denied {
        return denied(Vec::new());
    }
    let mut paths = Vec::new();
    for index in rests_on(
        scopes,
        wanted,
        plane,
        held,
        decision == Decision::Conditional,
    ) {
        paths.push(path(question, held[index]));
    }
    let findings = if decision == Decision::Conditional {
        vec![condition_not_evaluated(&paths)]
    } else {
        Vec::new()
    };
    Layer {
        decision,
        paths,
        findings,
    }
}

/// Which of `held` an answer rests on: at each scope those that suffice by themselves or, where none
/// does, all that give part of it.
fn rests_on(
    scopes: &[String],
    wanted: &[Wanted<'_>],
    plane: Plane,
    held: &[&Held],
    conditional: bool,
) -> BTreeSet<usize> {
    let mut chosen = BTreeSet::new();
    for scope in scopes {
        let among = |gives: &dyn Fn(&[Block<'_>]) -> bool| -> Vec<usize> {
            (0..held.len())
                .filter(|index| gives(&blocks(&[held[*index]], scope, plane, conditional)))
                .collect()
        };
        let sufficient = among(&|blocks| all_held(wanted, blocks));
        if sufficient.is_empty() {
            chosen.extend(among(&|blocks| gives_part(wanted, blocks)));
        } else {
            chosen.extend(sufficient);
        }
    }
    chosen
}

fn gives_part(wanted: &[Wanted<'_>], blocks: &[Block<'_>]) -> bool {
    let gives = |pattern: &str| {
        blocks
            .iter()
            .flat_map(|block| block.gives)
            .any(|gives| overlap(gives, pattern))
    };
    wanted
        .iter()
        .flat_map(|wanted| &wanted.patterns)
        .any(|pattern| gives(pattern))
}

fn path(question: &Question<'_>, held: &Held) -> Path {
    let cluster = question.cluster.id.as_str();
    Path {
        resource_id: held.resource_id.clone(),
        role_id: held.role.id,
        role: held.role.name.clone(),
        scope: held.scope.clone(),
        inherited: !holds_at(cluster, &held.scope),
        via: (held.holder != question.principal).then_some(held.holder),
        managed: held.managed.is_some(),
        grants: held
            .managed
            .as_ref()
            .map(|managed| managed.grants.clone())
            .unwrap_or_default(),
        expire_time: held
            .managed
            .as_ref()
            .and_then(|managed| managed.expiry.time()),
    }
}

const fn denied(findings: Vec<Finding>) -> Layer {
    Layer {
        decision: Decision::Denied,
        paths: Vec::new(),
        findings,
    }
}

#[cfg(test)]
mod tests;
