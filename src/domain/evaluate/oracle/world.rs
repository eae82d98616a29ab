//! Worlds, drawn at random: small, and close to the edges where one rule ends and another begins.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::domain::access::PrincipalType;
use crate::domain::assignments::Listed;
use crate::domain::deny::{DenyAssignment, Effect, Principals};
use crate::domain::evaluate::CLUSTER_ACCESS;
use crate::domain::grant::Expiry;
use crate::domain::ids::{AssignmentName, PrincipalId, RoleDefinitionId};
use crate::domain::kubernetes_request::Features;
use crate::domain::role::{BuiltInRole, Permissions, RoleDefinition};

pub(super) const OF_CLUSTERS: &str = "Microsoft.ContainerService/managedClusters/";
pub(super) const OF_FLEETS: &str = "Microsoft.ContainerService/fleets/members/";

pub(super) const SUBSCRIPTION: &str = "/subscriptions/11111111-1111-4111-8111-111111111111";
pub(super) const OTHER_SUBSCRIPTION: &str = "/subscriptions/22222222-2222-4222-8222-222222222222";
pub(super) const CLUSTER: &str = "/subscriptions/11111111-1111-4111-8111-111111111111/resourcegroups/rg/providers/\
                                  microsoft.containerservice/managedclusters/prod";
const FLEET: &str = "/resourcegroups/rg/providers/microsoft.containerservice/fleets/all";

/// Management groups: above both subscriptions, above the cluster's, above the other one.
pub(super) const ABOVE_ALL: &str = "/providers/microsoft.management/managementgroups/all";
pub(super) const ABOVE_ONE: &str = "/providers/microsoft.management/managementgroups/one";
pub(super) const ABOVE_OTHER: &str = "/providers/microsoft.management/managementgroups/other";

pub(super) const ME: PrincipalId = PrincipalId::new(Uuid::from_u128(1));
pub(super) const NAMESPACES: [&str; 3] = ["a", "ab", "b"];
const GROUPS: u128 = 6;

/// The ends of the data actions that patterns are made of.
pub(super) const ACTIONS: [&str; 14] = [
    "pods/read",
    "pods/write",
    "pods/delete",
    "pods/exec/action",
    "secrets/read",
    "secrets/delete",
    "apps/deployments/read",
    "apps/deployments/write",
    "namespaces/read",
    "users/impersonate/action",
    "customresources/read",
    "customresources/write",
    "kyverno.io/policies/read",
    "metrics/read",
];

/// A condition, in parts.
#[derive(Clone, Debug)]
pub(super) enum Clause {
    Matches(String),
    Not(Box<Clause>),
    Both(Box<Clause>, Box<Clause>),
    Either(Box<Clause>, Box<Clause>),
    Group(&'static str),
    Kind(&'static str),
    Subresource(&'static str),
    Unknowable,
}

#[derive(Clone, Debug)]
pub(super) struct Assigned {
    pub(super) listed: Listed,
    pub(super) condition: Option<Clause>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) entra_integration: bool,
    pub(super) azure_rbac: bool,
    pub(super) features: Features,
    pub(super) fleet: Option<String>,
    /// Whether the fleet's list is the cluster's very own, where both are of one subscription.
    pub(super) one_list: bool,
    pub(super) kind: PrincipalType,
    pub(super) user_principal_name: &'static str,
    /// Who is in which group, in person.
    pub(super) members: Vec<(PrincipalId, PrincipalId)>,
    /// So many groups more, in which nobody has anything.
    pub(super) idle_groups: usize,
    pub(super) roles: Vec<(RoleDefinition, bool)>,
    pub(super) assigned: Vec<Assigned>,
    pub(super) denies: Vec<DenyAssignment>,
    /// What was removed so lately that `assigned` may still have it.
    pub(super) removed: BTreeSet<AssignmentName>,
    /// What was assigned so lately that `assigned` may not have it.
    pub(super) made: Vec<Assigned>,
}

/// Chance, and what it decides.
pub(super) struct Dice(StdRng);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    pub(super) fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn some<T>(&mut self, most: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| draw(self)).collect()
    }
}

pub(super) fn group(number: usize) -> PrincipalId {
    PrincipalId::new(Uuid::from_u128(11 + number as u128))
}

impl World {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let fleet = dice.one_in(2).then(|| {
            let subscription = dice.pick(&[SUBSCRIPTION, OTHER_SUBSCRIPTION]);
            format!("{subscription}{FLEET}")
        });
        let count = 1 + dice.below(4);
        let roles: Vec<_> = (0..count).map(|number| role(dice, number)).collect();
        let mut names = 100;
        let mut draw = |dice: &mut Dice, fleet: Option<&str>| {
            names += 1;
            assigned(
                dice,
                AssignmentName::new(Uuid::from_u128(names)),
                fleet,
                roles.len(),
            )
        };
        let assigned: Vec<Assigned> = (0..2 + dice.below(5))
            .map(|_| draw(dice, fleet.as_deref()))
            .collect();
        let mut made = dice.some(1, |dice| Assigned {
            // The broker assigns nothing elsewhere.
            listed: Listed {
                scope: below_or_at(dice, CLUSTER),
                ..draw(dice, None).listed
            },
            condition: None,
        });
        let is_its_own = |it: &&Assigned| {
            it.listed.scope.starts_with(&format!("{CLUSTER}/")) || it.listed.scope == CLUSTER
        };
        for shown in assigned.iter().filter(is_its_own) {
            if !dice.one_in(6) {
                continue;
            }
            // Its end may have been moved since.
            let ours = if dice.one_in(2) {
                ours(dice)
            } else {
                shown.listed.ours
            };
            made.push(Assigned {
                condition: None,
                listed: Listed {
                    ours,
                    ..shown.listed.clone()
                },
            });
        }
        let made_again: BTreeSet<_> = made.iter().map(|made| made.listed.name).collect();
        let removed = assigned
            .iter()
            .map(|assigned| assigned.listed.name)
            .filter(|name| !made_again.contains(name) && dice.one_in(10))
            .collect();
        let denies = dice.some(2, |dice| deny(dice, fleet.as_deref()));
        Self {
            entra_integration: !dice.one_in(24),
            azure_rbac: !dice.one_in(24),
            features: Features {
                custom_resources: !dice.one_in(4),
                subresources: !dice.one_in(4),
            },
            one_list: !dice.one_in(4),
            kind: dice.pick(&[PrincipalType::User, PrincipalType::ServicePrincipal]),
            user_principal_name: if dice.one_in(32) {
                "System:me"
            } else {
                "me@contoso.com"
            },
            members: members(dice),
            idle_groups: if dice.one_in(24) {
                198 + dice.below(4)
            } else {
                0
            },
            fleet,
            roles,
            assigned,
            denies,
            removed,
            made,
        }
    }
}

/// Mostly upwards; rarely in a circle.
fn members(dice: &mut Dice) -> Vec<(PrincipalId, PrincipalId)> {
    let groups = dice.below(GROUPS as usize) + 1;
    let mut members = Vec::new();
    for number in 0..groups {
        if dice.one_in(3) {
            members.push((ME, group(number)));
        }
        if number > 0 && dice.one_in(2) {
            members.push((group(dice.below(number)), group(number)));
        }
    }
    if dice.one_in(16) {
        members.push((group(groups - 1), group(0)));
    }
    members
}

fn holder(dice: &mut Dice) -> PrincipalId {
    if dice.below(5) < 3 {
        ME
    } else {
        group(dice.below(GROUPS as usize))
    }
}

fn assigned(dice: &mut Dice, name: AssignmentName, fleet: Option<&str>, roles: usize) -> Assigned {
    let condition = (dice.below(5) < 2).then(|| clause(dice));
    let holder = holder(dice);
    let ours = ours(dice);
    Assigned {
        listed: Listed {
            name,
            scope: scope(dice, fleet),
            role: role_id(dice.below(roles)),
            holder,
            holder_kind: Some(if holder == ME {
                PrincipalType::User
            } else {
                PrincipalType::Group
            }),
            condition: None,
            ours,
        },
        condition,
    }
}

fn ours(dice: &mut Dice) -> Option<Expiry> {
    match dice.below(4) {
        0 => Some(Expiry::At(at(1 + dice.below(4)))),
        1 => Some(Expiry::Never),
        _ => None,
    }
}

pub(super) fn at(second: usize) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

fn scope(dice: &mut Dice, fleet: Option<&str>) -> String {
    let base = match fleet {
        Some(fleet) if dice.one_in(3) => fleet,
        _ => CLUSTER,
    };
    let subscription = &base[..SUBSCRIPTION.len()];
    match dice.below(16) {
        0 => "/".to_owned(),
        1 => dice.pick(&[ABOVE_ALL, ABOVE_ONE, ABOVE_OTHER]).to_owned(),
        2 => subscription.to_owned(),
        3 => format!("{subscription}/resourcegroups/rg"),
        4 => {
            let beside = ["2", "/agentpools/a", "/namespaces/a/pods/x"];
            format!("{base}{}", dice.pick(&beside))
        }
        5 => format!("{subscription}/resourcegroups/{}", dice.pick(&["r", "rg2"])),
        _ => below_or_at(dice, base),
    }
}

fn below_or_at(dice: &mut Dice, base: &str) -> String {
    let namespace = dice.pick(&NAMESPACES);
    match dice.below(5) {
        0 | 1 => format!("{base}/namespaces/{namespace}"),
        2 => format!("{base}/managednamespaces/{namespace}"),
        _ => base.to_owned(),
    }
}

pub(super) fn role_id(number: usize) -> RoleDefinitionId {
    match number {
        3 => BuiltInRole::ClusterUser.id(),
        _ => RoleDefinitionId::new(Uuid::from_u128(51 + number as u128)),
    }
}

/// A role, and whether its definition can be read.
pub(super) fn role(dice: &mut Dice, number: usize) -> (RoleDefinition, bool) {
    let count = if dice.one_in(3) { 2 } else { 1 };
    let role = RoleDefinition {
        id: role_id(number),
        name: format!("Role {number}"),
        custom: true,
        permissions: (0..count)
            .map(|_| {
                let conditional = dice.one_in(6);
                block(dice, conditional)
            })
            .collect(),
    };
    (role, !dice.one_in(12))
}

fn block(dice: &mut Dice, conditional: bool) -> Permissions {
    Permissions {
        actions: dice.some(1, control),
        not_actions: if dice.one_in(5) {
            vec![control(dice)]
        } else {
            Vec::new()
        },
        data_actions: dice.some(3, pattern),
        not_data_actions: if dice.one_in(2) {
            dice.some(2, pattern)
        } else {
            Vec::new()
        },
        conditional,
    }
}

fn control(dice: &mut Dice) -> String {
    let patterns = [
        CLUSTER_ACCESS,
        "microsoft.containerservice/MANAGEDCLUSTERS/*",
        "*",
        "*/action",
        "*/read",
        "Microsoft.ContainerService/managedClusters/read",
        "Microsoft.ContainerService/managedClusters/list*Credential/action",
        "Microsoft.ContainerService/managedClusters/runCommand/action",
    ];
    dice.pick(&patterns).to_owned()
}

pub(super) fn pattern(dice: &mut Dice) -> String {
    let prefix = if dice.one_in(5) {
        OF_FLEETS
    } else {
        OF_CLUSTERS
    };
    let end = dice.pick(&ACTIONS);
    let whole = format!("{prefix}{end}");
    let broad = [
        "*",
        "*/read",
        "Microsoft.ContainerService/*",
        "*/pods/*",
        "*/delete",
    ];
    let below = [
        "*",
        "*",
        "*/read",
        "pods/*",
        "apps/*",
        "*/action",
        "customresources/*",
        "secrets/*",
    ];
    match dice.below(16) {
        0..3 => whole,
        3..5 => whole.to_ascii_uppercase(),
        5..7 => dice.pick(&broad).to_owned(),
        7..13 => format!("{prefix}{}", dice.pick(&below)),
        _ => {
            // A star in place of any run of characters, an empty one as well.
            let from = prefix.len() - 3 + dice.below(end.len() + 3);
            let to = from + dice.below(whole.len() - from + 1);
            format!("{}*{}", &whole[..from], &whole[to..])
        }
    }
}

fn clause(dice: &mut Dice) -> Clause {
    let matches = |dice: &mut Dice| match dice.below(4) {
        0 => Clause::Matches(control(dice)),
        _ => Clause::Matches(pattern(dice)),
    };
    match dice.below(8) {
        0 | 1 => matches(dice),
        2 => Clause::Not(Box::new(matches(dice))),
        3 => Clause::Unknowable,
        4 => Clause::Subresource(dice.pick(&["exec", "scale"])),
        5 => Clause::Either(Box::new(matches(dice)), Box::new(Clause::Unknowable)),
        _ => {
            let of_others = Clause::Not(Box::new(Clause::Matches(format!(
                "{OF_CLUSTERS}customresources/read"
            ))));
            let group = Clause::Group(dice.pick(&["kyverno.io", "KYVERNO.IO", "example.com"]));
            let kind = Clause::Kind(dice.pick(&["policies", "widgets"]));
            let one = Clause::Both(Box::new(group), Box::new(kind));
            Clause::Either(Box::new(of_others), Box::new(one))
        }
    }
}

fn deny(dice: &mut Dice, fleet: Option<&str>) -> DenyAssignment {
    let principals = |dice: &mut Dice, everyone: usize| Principals {
        everyone: dice.one_in(everyone),
        ids: dice.some(2, holder).into_iter().collect(),
    };
    let name = dice.below(1_000_000);
    DenyAssignment {
        resource_id: format!("/deny/{name}"),
        display_name: format!("Deny {name}"),
        scope: scope(dice, fleet),
        at_its_scope_only: dice.one_in(3),
        effect: if dice.one_in(3) {
            Effect::Audit
        } else {
            Effect::Enforced
        },
        // All of its blocks hang on conditions or none does: of a mixture the evaluator makes a firm no.
        permissions: {
            let conditional = dice.one_in(3);
            (0..=dice.below(2))
                .map(|_| block(dice, conditional))
                .collect()
        },
        principals: principals(dice, 3),
        excluded: if dice.one_in(2) {
            principals(dice, 8)
        } else {
            Principals::default()
        },
        conditional: dice.one_in(4),
    }
}
