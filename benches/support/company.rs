//! A company to ask about: clusters, people in nested groups, and a thousand role assignments a cluster.
//!
//! What holds on a cluster is the same in a small company and in a large one, so that two of them differ in nothing but
//! how much is stored. Everything follows from numbers: each run asks the same. Azure allows a subscription 4,000
//! assignments, so it has four clusters here.

use aks_access_broker::domain::role::BuiltInRole;
use uuid::{Uuid, uuid};

/// Its people.
pub(crate) const USERS: usize = 500;
/// Its teams. Everybody is in [`TEAMS_OF_EACH`] of them.
pub(crate) const TEAMS: usize = 160;
/// Its departments: each holds every fourth team, and so everybody is in all of them.
pub(crate) const DEPARTMENTS: usize = 4;
/// With the departments: twenty groups.
const TEAMS_OF_EACH: usize = 16;
/// Of each cluster.
pub(crate) const NAMESPACES: usize = 50;
/// Of each subscription.
pub(crate) const CLUSTERS_OF_EACH: usize = 4;

/// *Contributor*, of the roles that were not made for AKS the one that most often opens clusters.
const CONTRIBUTOR: Uuid = uuid!("b24988ac-6180-42a0-ab88-20f7382dd24c");
/// What is given inside namespaces.
const IN_NAMESPACES: [BuiltInRole; 3] = [
    BuiltInRole::RbacReader,
    BuiltInRole::RbacWriter,
    BuiltInRole::RbacAdmin,
];

/// Who holds something.
#[derive(Clone, Copy)]
pub(crate) enum Holder {
    /// A person, by number.
    User(usize),
    /// A team or, after the last team, a department.
    Group(usize),
}

impl Holder {
    /// The object id.
    pub(crate) fn id(self) -> Uuid {
        match self {
            Self::User(number) => guid("user", number),
            Self::Group(number) => guid("group", number),
        }
    }
}

/// One role assignment.
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: Uuid,
    /// Where, as an ARM id.
    pub(crate) scope: String,
    /// The role's GUID.
    pub(crate) role: Uuid,
    /// Whose.
    pub(crate) holder: Holder,
}

/// A company of so many clusters.
#[derive(Clone, Copy)]
pub(crate) struct Company {
    /// How many.
    pub(crate) clusters: usize,
}

/// An id that looks as random as Entra's and ARM's do.
pub(crate) fn guid(kind: &str, number: usize) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{kind} {number}").as_bytes())
}

/// The groups of a person: sixteen teams, and the departments that those are in.
pub(crate) fn groups_of(user: usize) -> impl Iterator<Item = usize> {
    let teams = (0..TEAMS_OF_EACH).map(move |nth| (user + 7 * nth) % TEAMS);
    teams.chain(TEAMS..TEAMS + DEPARTMENTS)
}

/// The name of a namespace.
pub(crate) fn namespace(number: usize) -> String {
    format!("team-{number:02}")
}

impl Company {
    /// How many subscriptions it has.
    pub(crate) fn subscriptions(self) -> usize {
        self.clusters.div_ceil(CLUSTERS_OF_EACH)
    }

    /// The clusters of a subscription, by their numbers.
    pub(crate) fn clusters_in(self, subscription: usize) -> impl Iterator<Item = usize> {
        let first = subscription * CLUSTERS_OF_EACH;
        first..(first + CLUSTERS_OF_EACH).min(self.clusters)
    }

    /// Everything that is assigned in a subscription.
    pub(crate) fn rows_in(self, subscription: usize) -> impl Iterator<Item = Row> {
        let above = of_subscription(subscription);
        let rows = above.chain(self.clusters_in(subscription).flat_map(of_cluster));
        rows.enumerate()
            .map(move |(nth, (scope, role, holder))| Row {
                name: guid("assignment", subscription * 10_000 + nth),
                scope,
                role,
                holder,
            })
    }
}

/// The id of a subscription.
pub(crate) fn subscription_id(subscription: usize) -> Uuid {
    guid("subscription", subscription)
}

/// The resource group of a cluster, and its name there.
pub(crate) fn names_of(cluster: usize) -> (String, String) {
    (format!("rg-{cluster:04}"), format!("aks-{cluster:04}"))
}

/// The ARM id of a cluster.
pub(crate) fn cluster_id(cluster: usize) -> String {
    let (group, name) = names_of(cluster);
    let subscription = subscription_id(cluster / CLUSTERS_OF_EACH);
    format!(
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerService/managedClusters/{name}"
    )
}

type Given = (String, Uuid, Holder);

/// Sixteen assignments at a subscription itself.
fn of_subscription(subscription: usize) -> impl Iterator<Item = Given> {
    let scope = format!("/subscriptions/{}", subscription_id(subscription));
    (0..16).map(move |nth| {
        let role = match nth {
            0..6 => BuiltInRole::RbacReader,
            6..12 => BuiltInRole::ClusterUser,
            _ => BuiltInRole::RbacAdmin,
        };
        let team = (subscription * 7 + nth * 10) % TEAMS;
        (scope.clone(), role.id().guid(), Holder::Group(team))
    })
}

/// 996 assignments at a cluster, in its namespaces and at its resource group.
fn of_cluster(cluster: usize) -> impl Iterator<Item = Given> {
    let id = cluster_id(cluster);
    let rows = at_resource_group(cluster).chain(at_cluster(cluster));
    rows.chain(in_namespaces(cluster).map(move |(number, role, holder)| {
        let scope = format!("{id}/namespaces/{}", namespace(number));
        (scope, role.id().guid(), holder)
    }))
}

/// Six.
fn at_resource_group(cluster: usize) -> impl Iterator<Item = Given> {
    let subscription = subscription_id(cluster / CLUSTERS_OF_EACH);
    let scope = format!(
        "/subscriptions/{subscription}/resourceGroups/{}",
        names_of(cluster).0
    );
    (0..6).map(move |nth| {
        let role = match nth {
            0..3 => BuiltInRole::RbacReader.id().guid(),
            3..5 => BuiltInRole::ClusterUser.id().guid(),
            _ => CONTRIBUTOR,
        };
        let team = (cluster * 5 + nth * 29) % TEAMS;
        (scope.clone(), role, Holder::Group(team))
    })
}

/// 300 people and ten teams may connect; twenty teams may read everything.
fn at_cluster(cluster: usize) -> impl Iterator<Item = Given> {
    let id = cluster_id(cluster);
    let people = people_of(cluster).map(|user| (BuiltInRole::ClusterUser, Holder::User(user)));
    let teams = (0..30).map(move |nth| {
        let role = if nth < 10 {
            BuiltInRole::ClusterUser
        } else {
            BuiltInRole::RbacReader
        };
        (role, Holder::Group((cluster * 13 + nth) % TEAMS))
    });
    let rows = people.chain(teams);
    rows.map(move |(role, holder)| (id.clone(), role.id().guid(), holder))
}

/// The same 300 people have a namespace each; 359 times a team has one, and a department has one.
fn in_namespaces(cluster: usize) -> impl Iterator<Item = (usize, BuiltInRole, Holder)> {
    let role = |nth: usize| IN_NAMESPACES[nth % IN_NAMESPACES.len()];
    let people = people_of(cluster).enumerate();
    let people = people.map(move |(nth, user)| (nth % NAMESPACES, role(nth), Holder::User(user)));
    let teams = (0..359).map(move |nth| {
        let team = (nth * 11 + cluster) % TEAMS;
        (
            (nth * 7 + cluster) % NAMESPACES,
            role(nth),
            Holder::Group(team),
        )
    });
    let department = Holder::Group(TEAMS + cluster % DEPARTMENTS);
    let shared = (cluster % NAMESPACES, BuiltInRole::RbacReader, department);
    people.chain(teams).chain([shared])
}

fn people_of(cluster: usize) -> impl Iterator<Item = usize> {
    (0..300).map(move |nth| (cluster * 37 + nth) % USERS)
}
