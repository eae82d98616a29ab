//! What Azure lists of a world, and the snapshot that the broker makes of that.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use super::rules::holds;
use super::world::{Assigned, CLUSTER, Clause, OTHER_SUBSCRIPTION, SUBSCRIPTION, World};
use crate::domain::assignments::{Assignments, Listed};
use crate::domain::cluster::{Cluster, tests::healthy};
use crate::domain::deny::DenyAssignment;
use crate::domain::evaluate::Judgements;
use crate::domain::fleet::FleetId;
use crate::domain::ids::ClusterId;
use crate::domain::kubernetes_request::Features;
use crate::domain::snapshot::{FleetParts, OwnChanges, Parts, Snapshot};

pub(super) fn snapshot(world: &World) -> Snapshot {
    let list = |subscription: &str| {
        let rows = world
            .assigned
            .iter()
            .filter(|it| is_listed(&it.listed.scope, subscription));
        Arc::new(Assignments::new(rows.map(listed)))
    };
    let taken_away = |subscription: &str| -> Arc<[DenyAssignment]> {
        let denies = world
            .denies
            .iter()
            .filter(|it| is_listed(&it.scope, subscription));
        denies.cloned().collect()
    };
    let (assignments, denies) = (list(SUBSCRIPTION), taken_away(SUBSCRIPTION));
    let fleet = world.fleet.as_deref().map(|fleet| {
        let subscription = if fleet.starts_with(SUBSCRIPTION) {
            SUBSCRIPTION
        } else {
            OTHER_SUBSCRIPTION
        };
        let shared = world.one_list && subscription == SUBSCRIPTION;
        FleetParts {
            id: FleetId::parse(fleet).unwrap(),
            assignments: if shared {
                Arc::clone(&assignments)
            } else {
                list(subscription)
            },
            denies: taken_away(subscription),
        }
    });
    let roles = world
        .roles
        .iter()
        .map(|(role, readable)| (role.id, readable.then(|| Arc::new(role.clone()))));
    Snapshot::new(&Parts {
        cluster: Arc::new(cluster(world)),
        assignments,
        denies,
        fleet,
        fleet_not_read: false,
        own: OwnChanges {
            present: world.made.iter().map(listed).collect(),
            known_best: world.made.iter().map(|made| made.listed.name).collect(),
            absent: world.removed.iter().copied().collect(),
        },
        roles: roles.collect(),
        judgements: judgements(world.features),
    })
}

/// All worlds share them, as all clusters do: whatever was called by the same name in another world is something else
/// here.
fn judgements(features: Features) -> Judgements {
    static ALL: LazyLock<[Judgements; 4]> = LazyLock::new(|| {
        [(false, false), (false, true), (true, false), (true, true)].map(
            |(custom_resources, subresources)| {
                Judgements::new(Features {
                    custom_resources,
                    subresources,
                })
            },
        )
    });
    let at = 2 * usize::from(features.custom_resources) + usize::from(features.subresources);
    ALL[at].clone()
}

/// ARM lists of a subscription what is at it, above and below.
fn is_listed(scope: &str, subscription: &str) -> bool {
    holds(scope, subscription) || holds(subscription, scope)
}

fn cluster(world: &World) -> Cluster {
    Cluster {
        id: ClusterId::parse(CLUSTER).unwrap(),
        entra_integration: world.entra_integration,
        azure_rbac: world.azure_rbac,
        ..healthy()
    }
}

fn listed(assigned: &Assigned) -> Listed {
    let mut text = String::new();
    Listed {
        condition: assigned.condition.as_ref().map(|clause| {
            write_clause(clause, &mut text);
            text
        }),
        ..assigned.listed.clone()
    }
}

/// In Azure's words.
fn write_clause(clause: &Clause, text: &mut String) {
    const OF: &str = "Microsoft.ContainerService/managedClusters";
    let mut joined = |one: &Clause, word: &str, other: &Clause| {
        text.push('(');
        write_clause(one, text);
        text.push_str(word);
        write_clause(other, text);
        text.push(')');
    };
    match clause {
        Clause::Both(one, other) => joined(one, " AND ", other),
        Clause::Either(one, other) => joined(one, " OR ", other),
        Clause::Not(part) => {
            text.push_str("(!(");
            write_clause(part, text);
            text.push_str("))");
        }
        Clause::Matches(pattern) => write!(text, "ActionMatches{{'{pattern}'}}").unwrap(),
        Clause::Group(name) => write!(
            text,
            "@Request[{OF}/customResources:group] StringEqualsIgnoreCase '{name}'"
        )
        .unwrap(),
        Clause::Kind(name) => write!(
            text,
            "@Request[{OF}/customResources:kind] StringEqualsIgnoreCase '{name}'"
        )
        .unwrap(),
        Clause::Subresource(name) => write!(
            text,
            "@Request[{OF}/resources:subresource] StringEquals '{name}'"
        )
        .unwrap(),
        Clause::Unknowable => text.push_str("@Resource[Microsoft.Storage/x:name] StringEquals 'x'"),
    }
}
