//! What there is to walk among: few principals, clusters, roles, namespaces and names, so that wishes collide.

use std::collections::BTreeSet;

use aks_access_broker::grpc::proto::{Access, AzureRole, PrincipalType};
use azure_emulator::{Cluster as Aks, CustomRole, NewRoleAssignment, Permissions, Scope};
use tonic::Code;
use uuid::{Uuid, uuid};

use crate::support::World;

/// Namespaces that accesses are limited to.
pub(crate) const NAMESPACES: [&str; 3] = ["team-a", "team-b", "team-c"];
/// Labels that grants bear.
pub(crate) const LABELS: [(&str, &str); 4] = [
    ("team", "shop"),
    ("team", "till"),
    ("ticket", "INC-4711"),
    ("on-call", ""),
];
/// What platforms call grants of theirs.
pub(crate) const EXTERNAL_KEYS: [&str; 6] = ["order 1", "order 2", "order 3", "k/4", "k/5", "ключ"];
/// For whom platforms act.
pub(crate) const PEOPLE: [&str; 2] = [
    "ada@contoso.example",
    "10000000-0000-4000-8000-00000000000a",
];

/// Somebody or something that is granted access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Principal {
    pub(crate) id: Uuid,
    pub(crate) kind: PrincipalType,
    /// The group that it is in, of those that are granted access as well.
    pub(crate) group: Option<Uuid>,
}

const PAYMENTS: Uuid = uuid!("20000000-0000-4000-8000-000000000004");

/// Two of them are members of a third.
pub(crate) const PRINCIPALS: [Principal; 5] = [
    Principal {
        id: uuid!("10000000-0000-4000-8000-000000000001"),
        kind: PrincipalType::User,
        group: None,
    },
    Principal {
        id: uuid!("10000000-0000-4000-8000-000000000002"),
        kind: PrincipalType::User,
        group: None,
    },
    Principal {
        id: uuid!("10000000-0000-4000-8000-000000000005"),
        kind: PrincipalType::User,
        group: Some(PAYMENTS),
    },
    Principal {
        id: uuid!("30000000-0000-4000-8000-000000000002"),
        kind: PrincipalType::ServicePrincipal,
        group: Some(PAYMENTS),
    },
    Principal {
        id: PAYMENTS,
        kind: PrincipalType::Group,
        group: None,
    },
];

impl Principal {
    pub(crate) fn of_id(id: &str) -> Option<Self> {
        let id = Uuid::parse_str(id).ok()?;
        PRINCIPALS.into_iter().find(|one| one.id == id)
    }

    /// Those whose assignments count for it: itself and its group.
    pub(crate) fn holders(self) -> impl Iterator<Item = Uuid> {
        [Some(self.id), self.group].into_iter().flatten()
    }
}

/// A role. Each gives, in the cluster, all that those before it give, and more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Role {
    ClusterUser,
    PodReader,
    Reader,
    Writer,
    Admin,
    ClusterAdmin,
}

impl Role {
    pub(crate) const ALL: [Self; 6] = [
        Self::ClusterUser,
        Self::PodReader,
        Self::Reader,
        Self::Writer,
        Self::Admin,
        Self::ClusterAdmin,
    ];

    pub(crate) const fn id(self) -> Uuid {
        match self {
            Self::ClusterUser => uuid!("4abbcc35-e782-43d8-92c5-2d3f1bd2253f"),
            Self::PodReader => uuid!("60000000-0000-4000-8000-000000000001"),
            Self::Reader => uuid!("7f6c6a51-bcf8-42ba-9220-52d62157d7db"),
            Self::Writer => uuid!("a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb"),
            Self::Admin => uuid!("3498e952-d568-435e-9b2c-8d77e338d7f7"),
            Self::ClusterAdmin => uuid!("b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b"),
        }
    }

    pub(crate) const fn display_name(self) -> &'static str {
        match self {
            Self::ClusterUser => "Azure Kubernetes Service Cluster User Role",
            Self::PodReader => "Pod Reader",
            Self::Reader => "Azure Kubernetes Service RBAC Reader",
            Self::Writer => "Azure Kubernetes Service RBAC Writer",
            Self::Admin => "Azure Kubernetes Service RBAC Admin",
            Self::ClusterAdmin => "Azure Kubernetes Service RBAC Cluster Admin",
        }
    }

    pub(crate) const fn built_in(self) -> Option<AzureRole> {
        match self {
            Self::ClusterUser => Some(AzureRole::ClusterUser),
            Self::PodReader => None,
            Self::Reader => Some(AzureRole::RbacReader),
            Self::Writer => Some(AzureRole::RbacWriter),
            Self::Admin => Some(AzureRole::RbacAdmin),
            Self::ClusterAdmin => Some(AzureRole::RbacClusterAdmin),
        }
    }

    /// Whether it lets fetch a cluster's credentials, where it is assigned at the cluster.
    pub(crate) const fn opens_the_cluster(self) -> bool {
        matches!(self, Self::ClusterUser | Self::Admin | Self::ClusterAdmin)
    }

    /// The role of the walk that a request names by one of the two ways; `None`: another one.
    pub(crate) fn named(azure_role: i32, role_definition_id: &str) -> Option<Self> {
        let guid = role_definition_id.rsplit('/').next().unwrap_or_default();
        let by_id = Uuid::parse_str(guid).ok();
        let is_named = |role: &Self| match by_id {
            Some(id) => role.id() == id,
            None => role
                .built_in()
                .is_some_and(|built_in| i32::from(built_in) == azure_role),
        };
        Self::ALL.into_iter().find(is_named)
    }

    /// An access of this role, as answers name it.
    pub(crate) fn access(self, namespaces: &BTreeSet<String>) -> Access {
        Access {
            azure_role: self.built_in().unwrap_or_default().into(),
            role_definition_id: match self.built_in() {
                Some(_) => String::new(),
                None => self.id().to_string(),
            },
            namespaces: namespaces.iter().cloned().collect(),
            ..Access::default()
        }
    }
}

/// AKS's Cluster Admin role, which is never assigned.
pub(crate) const CLUSTER_ADMIN_ROLE: &str = "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8";
/// A role that holds more than data actions of clusters.
pub(crate) const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
/// A role definition that there is not.
pub(crate) const NO_ROLE: &str = "60000000-0000-4000-8000-0000000000ff";

/// What can be granted on a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Takes {
    /// Every role.
    Everything,
    /// It does not ask Azure RBAC: *Cluster User* only.
    ClusterUser,
    /// Nothing, and why.
    Nothing(Code, &'static str),
}

/// A cluster, or an id that looks like one's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cluster {
    /// As its owner spells it.
    pub(crate) id: String,
    pub(crate) takes: Takes,
    /// The reasons of what there is to say of it.
    pub(crate) findings: &'static [&'static str],
}

impl Cluster {
    /// As answers spell it.
    pub(crate) fn canonical(&self) -> String {
        self.id.to_lowercase()
    }
}

/// An assignment that somebody else made before the walk began, and that stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Foreign {
    pub(crate) holder: Uuid,
    pub(crate) role: Role,
    /// Lower case: a cluster, or the resource group above some.
    pub(crate) scope: String,
}

/// Who and what there is.
pub(crate) struct Company {
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) foreign: Vec<Foreign>,
}

impl Company {
    /// Makes it in a world.
    pub(crate) fn settle_in(world: &World) -> Self {
        let emulator = &world.emulator;
        let development = world.emulator.world().subscriptions[1].id;
        // A name that goes on where another one ends: the order of targets must not take them for each other.
        let second = Aks::healthy(development, "rg-development", "aks-development-2");
        emulator.put_cluster(second).expect("a cluster");
        let contoso = "/providers/Microsoft.Management/managementGroups/contoso";
        let pod_reader = CustomRole {
            id: Role::PodReader.id(),
            name: Role::PodReader.display_name().to_owned(),
            description: String::new(),
            assignable_scopes: vec![Scope::parse(contoso).expect("a scope")],
            permissions: vec![Permissions {
                data_actions: vec![
                    "Microsoft.ContainerService/managedClusters/pods/read".to_owned(),
                ],
                ..Permissions::default()
            }],
        };
        emulator.add_custom_role(pod_reader).expect("a role");
        let company = Self {
            clusters: clusters(world),
            foreign: foreign(world),
        };
        for theirs in &company.foreign {
            let new = NewRoleAssignment {
                scope: Scope::parse(&theirs.scope).expect("a scope"),
                role: theirs.role.id(),
                principal: theirs.holder,
                name: None,
                description: None,
                condition: None,
            };
            let made = emulator.put_role_assignment_as_somebody_else(&new);
            made.expect("an assignment");
        }
        company
    }

    /// The cluster of this id, in any case.
    pub(crate) fn cluster(&self, id: &str) -> Option<&Cluster> {
        let canonical = id.to_lowercase();
        self.clusters
            .iter()
            .find(|cluster| cluster.canonical() == canonical)
    }
}

fn clusters(world: &World) -> Vec<Cluster> {
    let cluster = |name, takes, findings| Cluster {
        id: world.cluster(name),
        takes,
        findings,
    };
    let production = world.cluster("aks-production");
    let not_found = |id| Cluster {
        id,
        takes: Takes::Nothing(Code::NotFound, "CLUSTER_NOT_FOUND"),
        findings: &[],
    };
    vec![
        cluster("aks-production", Takes::Everything, &[]),
        cluster("aks-development", Takes::Everything, &[]),
        cluster("aks-development-2", Takes::Everything, &[]),
        cluster(
            "aks-local-accounts",
            Takes::Everything,
            &["LOCAL_ACCOUNTS_ENABLED"],
        ),
        cluster(
            "aks-kubernetes-rbac",
            Takes::ClusterUser,
            &["AZURE_RBAC_DISABLED", "ADMIN_GROUPS"],
        ),
        cluster(
            "aks-no-entra",
            Takes::Nothing(Code::FailedPrecondition, "ENTRA_INTEGRATION_REQUIRED"),
            &[],
        ),
        not_found(format!("{production}-that-is-not-there")),
        not_found(production.replace(
            "00000000-0000-4000-8000-000000000001",
            "00000000-0000-4000-8000-0000000000ff",
        )),
    ]
}

fn foreign(world: &World) -> Vec<Foreign> {
    let production = world.cluster("aks-production").to_lowercase();
    let (group, _) = production
        .split_once("/providers/")
        .expect("a cluster's id");
    vec![
        Foreign {
            holder: PRINCIPALS[1].id,
            role: Role::Reader,
            scope: production.clone(),
        },
        Foreign {
            holder: PRINCIPALS[0].id,
            role: Role::Writer,
            scope: group.to_owned(),
        },
    ]
}
