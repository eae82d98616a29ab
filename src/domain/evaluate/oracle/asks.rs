//! Questions, each beside what guard makes of it according to [azure.md §3].

use std::collections::BTreeSet;
use std::sync::Arc;

use super::rules::{Asked, Needed, gives};
use super::world::{ACTIONS, Dice, NAMESPACES, OF_CLUSTERS, World, pattern, role};
use crate::domain::evaluate::Asks;
use crate::domain::ids::Namespace;
use crate::domain::kubernetes_request::{Features, KubernetesRequest, ResourceRequest};
use crate::domain::role::{BuiltInRole, Permissions, RoleDefinition};

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Ask {
    Access(Arc<RoleDefinition>, BTreeSet<Namespace>),
    Request(KubernetesRequest),
}

/// A question, and what it comes down to.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) ask: Ask,
    pub(super) namespaces: Vec<&'static str>,
    pub(super) needed: Needed,
    /// Whether one action decides it: then nothing excuses another answer.
    pub(super) exact: bool,
}

/// A verb, a group, a resource and a subresource; the ends of the data actions that they ask for; those that they ask
/// for as a custom resource, if they are one; the subresource that conditions hear of.
type Known = (
    [&'static str; 4],
    &'static [&'static str],
    Option<&'static [&'static str]>,
    Option<&'static str>,
);

const SINGLE: [Known; 20] = [
    (["get", "", "pods", ""], &["pods/read"], None, None),
    (["watch", "", "pods", "log"], &["pods/read"], None, None),
    (["create", "", "pods", ""], &["pods/write"], None, None),
    (
        ["create", "", "pods", "exec"],
        &["pods/exec/action"],
        None,
        Some("exec"),
    ),
    (
        ["get", "", "pods", "exec"],
        &["pods/exec/action"],
        None,
        Some("exec"),
    ),
    (
        ["create", "", "pods", "portforward"],
        &["pods/write"],
        None,
        Some("portforward"),
    ),
    (
        ["deletecollection", "", "pods", ""],
        &["pods/delete"],
        None,
        None,
    ),
    (["approve", "", "pods", ""], &["pods"], None, None),
    (["list", "", "secrets", ""], &["secrets/read"], None, None),
    (
        ["delete", "", "secrets", ""],
        &["secrets/delete"],
        None,
        None,
    ),
    (
        ["get", "apps", "deployments", ""],
        &["apps/deployments/read"],
        None,
        None,
    ),
    (
        ["update", "apps", "deployments", ""],
        &["apps/deployments/write"],
        None,
        None,
    ),
    (
        ["patch", "apps", "deployments", "scale"],
        &["apps/deployments/write"],
        None,
        Some("scale"),
    ),
    (
        ["get", "", "namespaces", ""],
        &["namespaces/read"],
        None,
        None,
    ),
    (
        ["impersonate", "", "users", ""],
        &["users/impersonate/action"],
        None,
        None,
    ),
    (
        ["get", "kyverno.io", "policies", ""],
        &["kyverno.io/policies/read"],
        Some(&["customresources/read"]),
        None,
    ),
    (
        ["list", "example.com", "policies", ""],
        &["example.com/policies/read"],
        Some(&["customresources/read"]),
        None,
    ),
    (
        ["watch", "example.com", "widgets", ""],
        &["example.com/widgets/read"],
        Some(&["customresources/read"]),
        None,
    ),
    (
        ["patch", "example.com", "widgets", ""],
        &["example.com/widgets/write"],
        Some(&["customresources/write"]),
        None,
    ),
    (
        ["use", "kyverno.io", "policies", ""],
        &["kyverno.io/policies/use/action"],
        Some(&[]),
        None,
    ),
];

const SEVERAL: [Known; 3] = [
    (
        ["*", "", "pods", ""],
        &["pods/read", "pods/write", "pods/delete", "pods/exec/action"],
        None,
        None,
    ),
    (
        ["*", "", "secrets", ""],
        &["secrets/read", "secrets/write", "secrets/delete"],
        None,
        None,
    ),
    (
        ["*", "kyverno.io", "policies", ""],
        &[],
        Some(&[
            "customresources/read",
            "customresources/write",
            "customresources/delete",
        ]),
        None,
    ),
];

/// These stand for hundreds of actions; here are some: who is allowed all is allowed them.
const HUNDREDS: [Known; 3] = [
    (
        ["get", "", "*", ""],
        &["pods/read", "secrets/read"],
        None,
        None,
    ),
    (
        ["*", "apps", "*", ""],
        &["apps/deployments/read", "apps/deployments/write"],
        None,
        None,
    ),
    (
        ["*", "*", "*", ""],
        &["pods/read", "pods/write", "secrets/read", "secrets/delete"],
        None,
        None,
    ),
];

const PATHS: [(&str, &str, &[&str]); 8] = [
    ("get", "/metrics", &["metrics/read"]),
    ("post", "/metrics", &["metrics"]),
    ("get", "/pods/exec", &["pods/exec/read"]),
    ("delete", "/healthz", &["healthz/delete"]),
    ("get", "/", &["read"]),
    ("head", "/metrics/", &["metrics"]),
    ("get", "/healthz/etcd", &[]),
    ("get", "/apis/apps", &[]),
];

impl Case {
    pub(super) fn draw(dice: &mut Dice, world: &World) -> Self {
        // Seldom what costs a thousand times as much as the rest.
        match dice.below(2_000) {
            0..2 => of_request(dice, world.features, &HUNDREDS),
            2..80 => of_path(dice),
            80..360 => of_request(dice, world.features, &SEVERAL),
            360..760 => of_access(dice, world),
            _ => of_request(dice, world.features, &SINGLE),
        }
    }

    /// The same in every namespace, if it is asked in one: they share what the evaluator remembers, and must not share
    /// its answer.
    pub(super) fn in_each_namespace(self) -> Vec<Self> {
        let Ask::Request(KubernetesRequest::Resource(request)) = &self.ask else {
            return vec![self];
        };
        if request.namespace.is_none() {
            return vec![self];
        }
        let moved = NAMESPACES.iter().map(|name| {
            let request = ResourceRequest {
                namespace: Some(Namespace::parse(name).unwrap()),
                ..request.clone()
            };
            Self {
                ask: Ask::Request(KubernetesRequest::Resource(request)),
                namespaces: vec![name],
                ..self.clone()
            }
        });
        moved.collect()
    }
}

impl Ask {
    pub(super) fn asks(&self) -> Asks<'_> {
        match self {
            Self::Access(role, namespaces) => Asks::Access { role, namespaces },
            Self::Request(request) => Asks::Request(request),
        }
    }
}

fn plain(end: &'static str) -> Asked {
    Asked {
        end,
        subresource: None,
        custom: None,
    }
}

fn of_path(dice: &mut Dice) -> Case {
    let (verb, path, ends) = dice.pick(&PATHS);
    Case {
        ask: Ask::Request(KubernetesRequest::Path {
            path: path.to_owned(),
            verb: verb.to_owned(),
        }),
        namespaces: Vec::new(),
        needed: match ends {
            [] => Needed::Nothing,
            ends => Needed::Together(ends.iter().copied().map(plain).collect()),
        },
        exact: true,
    }
}

fn of_request(dice: &mut Dice, features: Features, known: &[Known]) -> Case {
    let ([verb, group, resource, subresource], built_in, custom, named) = dice.pick(known);
    let namespace = (!dice.one_in(3)).then(|| dice.pick(&NAMESPACES));
    let (ends, custom) = match custom.filter(|_| features.custom_resources) {
        Some(ends) => (ends, Some((group, resource))),
        None => (built_in, None),
    };
    let asked = ends.iter().map(|end| Asked {
        subresource: named.filter(|_| features.subresources),
        custom,
        ..plain(end)
    });
    let request = ResourceRequest {
        verb: verb.to_owned(),
        api_group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.map(|name| Namespace::parse(name).unwrap()),
    };
    Case {
        ask: Ask::Request(KubernetesRequest::Resource(request)),
        namespaces: namespace.into_iter().collect(),
        needed: match ends {
            [] => Needed::Never,
            _ => Needed::Together(asked.collect()),
        },
        exact: ends.len() < 2,
    }
}

fn of_access(dice: &mut Dice, world: &World) -> Case {
    let namespaces: BTreeSet<&'static str> = match dice.below(4) {
        0 => BTreeSet::new(),
        1 => [dice.pick(&NAMESPACES), dice.pick(&NAMESPACES)].into(),
        _ => [dice.pick(&NAMESPACES)].into(),
    };
    let (role, needed, exact) = match dice.below(3) {
        0 => {
            let end = dice.pick(&ACTIONS);
            (
                role_of(&format!("{OF_CLUSTERS}{end}")),
                Needed::Each(vec![plain(end)]),
                true,
            )
        }
        1 => of_role(dice.pick(&world.roles).0),
        _ if dice.one_in(2) => of_role(role_of(&pattern(dice))),
        _ => of_role(role(dice, 4).0),
    };
    let names = namespaces
        .iter()
        .map(|name| Namespace::parse(name).unwrap());
    Case {
        ask: Ask::Access(Arc::new(role), names.collect()),
        namespaces: namespaces.into_iter().collect(),
        needed,
        exact,
    }
}

fn role_of(pattern: &str) -> RoleDefinition {
    RoleDefinition {
        id: super::world::role_id(5),
        name: "One pattern".to_owned(),
        custom: true,
        permissions: vec![Permissions {
            data_actions: vec![pattern.to_owned()],
            ..Permissions::default()
        }],
    }
}

/// Every action that the role gives, of those that patterns are made of, and of one that only stars can match.
fn of_role(role: RoleDefinition) -> (RoleDefinition, Needed, bool) {
    if role.id == BuiltInRole::ClusterUser.id() {
        return (role, Needed::ClusterAccess, true);
    }
    let custom = |end: &'static str| -> Vec<Asked> {
        if !end.starts_with("customresources/") {
            return vec![plain(end)];
        }
        let ones = [("kyverno.io", "policies"), ("example.com", "widgets")];
        let ones = ones.into_iter().map(|one| Asked {
            custom: Some(one),
            ..plain(end)
        });
        ones.collect()
    };
    let given = ACTIONS.into_iter().chain(["unheard/of/verb"]);
    let given: Vec<Asked> = given
        .filter(|end| gives(&role, end))
        .flat_map(custom)
        .collect();
    (role, Needed::Each(given), false)
}
