//! How much a role can do in a cluster, judged by its data actions and never by its name.
//!
//! Policies decide by it. So an overlap counts: a role has a power if one of its patterns may give an action of that
//! kind and nothing is sure to take the action out again. More actions never make a role less powerful.

use super::kubernetes_request::PREFIX;
use super::pattern::{overlap, subsumes};
use super::role::{BuiltInRole, Permissions, RoleDefinition};

/// What a role can do, wherever it is assigned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, under the names that policies have for them"
)]
pub struct Power {
    /// Reads something.
    pub reads: bool,
    /// Does something else than reading: creates, changes or deletes objects, or acts (exec, bind, impersonate, …).
    pub writes: bool,
    /// Reads, writes or deletes secrets.
    pub secrets: bool,
    /// Runs commands in pods by `exec`.
    pub execs: bool,
    /// Can get more access than it gives: writes roles or their bindings, or may bind, escalate or impersonate.
    pub grants_roles: bool,
    /// All of the above, exec aside, and the writing of namespaces or quotas, which is what *RBAC Admin* leaves out; or
    /// every data action of clusters, less a few.
    pub everything: bool,
}

/// Writes that give access to others, and actions that get more of it [azure.md §2, Kubernetes' RBAC].
const GRANTS_ROLES: &[&str] = &[
    "rbac.authorization.k8s.io/roles/write",
    "rbac.authorization.k8s.io/clusterroles/write",
    "rbac.authorization.k8s.io/rolebindings/write",
    "rbac.authorization.k8s.io/clusterrolebindings/write",
    "rbac.authorization.k8s.io/roles/bind/action",
    "rbac.authorization.k8s.io/clusterroles/bind/action",
    "rbac.authorization.k8s.io/roles/escalate/action",
    "rbac.authorization.k8s.io/clusterroles/escalate/action",
    "users/impersonate/action",
    "groups/impersonate/action",
    "serviceaccounts/impersonate/action",
    "authentication.k8s.io/userextras/impersonate/action",
    "authentication.k8s.io/uids/impersonate/action",
];

const SECRETS: &[&str] = &["secrets/read", "secrets/write", "secrets/delete"];

/// Every word for what is not reading.
const WRITES: &[&str] = &["*/write", "*/delete", "*/action"];

/// What *RBAC Admin* leaves out of all data actions [azure.md §2].
const BEYOND_RBAC_ADMIN: &[&str] = &[
    "namespaces/write",
    "namespaces/delete",
    "resourcequotas/write",
    "resourcequotas/delete",
];

impl Power {
    /// Of a role that gives nothing in a cluster.
    pub const NONE: Self = Self {
        reads: false,
        writes: false,
        secrets: false,
        execs: false,
        grants_roles: false,
        everything: false,
    };

    /// All there is: what a role has to be taken for that cannot be read.
    pub const EVERYTHING: Self = Self {
        reads: true,
        writes: true,
        secrets: true,
        execs: true,
        grants_roles: true,
        everything: true,
    };

    /// The power of these blocks of a role definition together. What hangs on a condition counts as given.
    #[must_use]
    pub fn from_permissions(blocks: &[Permissions]) -> Self {
        let has = |actions: &[&str]| actions.iter().any(|action| may_give(blocks, action));
        let power = Self {
            reads: has(&["*/read"]),
            writes: has(WRITES) || blocks.iter().any(acts_by_unknown_words),
            secrets: has(SECRETS),
            execs: has(&["pods/exec/action"]),
            grants_roles: has(GRANTS_ROLES),
            everything: false,
        };
        let all = Self {
            everything: false,
            ..Self::EVERYTHING
        };
        // Whoever has all else can give itself exec.
        let but_exec = Self {
            execs: true,
            ..power
        };
        let is_unbounded = but_exec == all || blocks.iter().any(names_all);
        Self {
            everything: is_unbounded && has(BEYOND_RBAC_ADMIN),
            ..power
        }
    }

    /// Each power by the name that policies have for it.
    #[must_use]
    pub const fn named(self) -> [(&'static str, bool); 6] {
        [
            ("reads", self.reads),
            ("writes", self.writes),
            ("secrets", self.secrets),
            ("execs", self.execs),
            ("grants_roles", self.grants_roles),
            ("everything", self.everything),
        ]
    }
}

impl RoleDefinition {
    /// How much the role can do in a cluster.
    #[must_use]
    pub fn power(&self) -> Power {
        Power::from_permissions(&self.permissions)
    }
}

impl BuiltInRole {
    /// How much the role can do in a cluster, by the definition that Azure publishes.
    #[must_use]
    pub const fn power(self) -> Power {
        match self {
            Self::ClusterUser => Power::NONE,
            Self::RbacReader => Power {
                reads: true,
                ..Power::NONE
            },
            // Writer has `serviceaccounts/*`, impersonation included.
            Self::RbacWriter | Self::RbacAdmin => Power {
                everything: false,
                ..Power::EVERYTHING
            },
            Self::RbacClusterAdmin => Power::EVERYTHING,
        }
    }
}

/// Whether the blocks may give some of the actions of this pattern, which stands below the clusters' prefix.
fn may_give(blocks: &[Permissions], action: &str) -> bool {
    let wanted = format!("{PREFIX}/{action}");
    blocks.iter().any(|block| {
        let mut given = block.data_actions.iter();
        given.any(|given| {
            let mut taken_out = block.not_data_actions.iter();
            overlap(given, &wanted)
                && !taken_out.any(|out| subsumes(out, &wanted) || subsumes(out, given))
        })
    })
}

/// Whether a block has an action of clusters that ends with a word that is not known here.
fn acts_by_unknown_words(block: &Permissions) -> bool {
    let below = format!("{PREFIX}/*");
    let known = |given: &str| {
        let mut words = WRITES.iter();
        subsumes("*/read", given) || words.any(|word| overlap(given, &format!("{PREFIX}/{word}")))
    };
    let mut given = block.data_actions.iter();
    given.any(|given| {
        let mut taken_out = block.not_data_actions.iter();
        overlap(given, &below) && !known(given) && !taken_out.any(|out| subsumes(out, given))
    })
}

/// Whether one pattern of a block is of all data actions of clusters.
fn names_all(block: &Permissions) -> bool {
    let all = format!("{PREFIX}/*");
    block.data_actions.iter().any(|given| subsumes(given, &all))
}

#[cfg(test)]
mod tests;
