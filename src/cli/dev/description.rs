//! What `dev.json` says: where everything is, and who and what there is to try it with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use azure_emulator::{Cluster, ServicePrincipal, World};
use serde::Serialize;
use serde_json::json;
use thiserror::Error;
use uuid::{Uuid, uuid};

use crate::cli::emulator::Ready;

use super::state_dir::{StateDir, StateDirError};

/// Azure's role *Owner*.
const OWNER: Uuid = uuid!("8e3af657-a8ff-443c-a75c-2fe8c4bcb635");

/// How far the emulator's reads may trail its writes, by its default settings, and some more.
const LAG: &str = "5s";

/// The world, as `dev.json` has it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Description {
    grpc: String,
    arm: String,
    graph: String,
    entra: String,
    emulator_admin: String,
    ca_file: PathBuf,
    redis: String,
    clusters: Vec<String>,
    principals: Vec<Principal>,
    /// With which applications may call the broker, by their names.
    tokens: BTreeMap<String, String>,
    pub(super) azure: Azure,
    /// The cluster that the next steps are about: one where Azure RBAC decides.
    #[serde(skip)]
    example_cluster: Option<String>,
}

/// Who is in the directory.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Principal {
    name: String,
    object_id: Uuid,
    /// As in ARM's `principalType`.
    r#type: &'static str,
}

/// Who the broker is in the emulated Azure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Azure {
    tenant_id: Uuid,
    subscription_ids: Vec<Uuid>,
    client_id: Uuid,
    pub(super) client_secret: String,
}

/// The world has nobody whom the broker could be.
#[derive(Debug, Error)]
#[error(
    "the world has no service principal with a secret that is an Owner anywhere: the broker needs one"
)]
pub(super) struct NoBrokerIdentity;

impl Description {
    /// Describes a world whose broker does not run yet.
    pub(super) fn new(
        redis: SocketAddr,
        azure: Ready,
        state: &StateDir,
    ) -> Result<Self, NoBrokerIdentity> {
        let world = azure.world;
        let identity = owner(&world).ok_or(NoBrokerIdentity)?;
        let client_secret = identity.secrets.first().ok_or(NoBrokerIdentity)?.clone();
        let subscriptions = world.subscriptions.iter();
        Ok(Self {
            grpc: String::new(),
            arm: azure.arm,
            graph: azure.graph,
            entra: azure.entra,
            emulator_admin: azure.admin,
            ca_file: state.join("ca.pem"),
            redis: format!("redis://{redis}"),
            clusters: world.clusters.iter().map(|c| c.id().to_string()).collect(),
            principals: principals(&world),
            tokens: azure.tokens,
            azure: Azure {
                tenant_id: world.tenant,
                subscription_ids: subscriptions.map(|subscription| subscription.id).collect(),
                client_id: identity.app_id,
                client_secret,
            },
            example_cluster: example_cluster(&world),
        })
    }

    /// The same, with the broker's address.
    pub(super) fn served_at(self, grpc: SocketAddr) -> Self {
        Self {
            grpc: grpc.to_string(),
            ..self
        }
    }

    /// The broker's address.
    pub(super) fn grpc(&self) -> &str {
        &self.grpc
    }

    /// Where else something listens, by what it is.
    pub(super) fn others(&self) -> [(&'static str, &str); 5] {
        [
            ("ARM", &self.arm),
            ("Graph", &self.graph),
            ("Entra ID", &self.entra),
            ("emulator's admin", &self.emulator_admin),
            ("Redis", &self.redis),
        ]
    }

    /// A cluster and a person to try things with.
    pub(super) fn example(&self) -> Option<(&str, Uuid)> {
        let user = self.principals.iter().find(|p| p.r#type == "User")?;
        Some((self.example_cluster.as_deref()?, user.object_id))
    }

    /// The token of one of the world's callers.
    pub(super) fn token(&self, caller: &str) -> &str {
        self.tokens.get(caller).map_or("", String::as_str)
    }

    /// The broker's configuration file.
    pub(super) fn broker_yaml(&self, port: u16, state: &StateDir) -> Result<String, StateDirError> {
        // JSON is YAML, and quotes every path as it has to be.
        Ok(serde_json::to_string_pretty(&json!({
            "server": {
                "listen": format!("127.0.0.1:{port}"),
                "allow_plaintext": true,
                "drain": "3s",
            },
            "authentication": { "audiences": [self.azure.client_id] },
            "redis": { "url": self.redis, "name": "dev" },
            "azure": {
                "tenant_id": self.azure.tenant_id,
                "subscriptions": self.azure.subscription_ids,
                "credential": {
                    "client_secret": {
                        "client_id": self.azure.client_id,
                        "client_secret_file": state.join("client-secret"),
                    },
                },
                "endpoints": {
                    "arm": self.arm,
                    "entra": self.entra,
                    "graph": self.graph,
                },
                "ca_file": self.ca_file,
            },
            "reconciler": {
                "allow_short_times": true,
                "settle_time": LAG,
                "lag": LAG,
                "cluster_cache": LAG,
            },
        }))?)
    }
}

/// A service principal that may look round and assign roles.
fn owner(world: &World) -> Option<&ServicePrincipal> {
    let owns = |id: Uuid| {
        let mut assigned = world.role_assignments.iter();
        assigned.any(|assignment| assignment.principal == id && assignment.role == OWNER)
    };
    world
        .service_principals
        .iter()
        .find(|principal| !principal.secrets.is_empty() && owns(principal.id))
}

/// One where Azure RBAC decides, and nothing else: no local accounts.
fn example_cluster(world: &World) -> Option<String> {
    let asks_azure = |cluster: &&Cluster| {
        cluster.local_accounts_disabled
            && cluster.entra.as_ref().is_some_and(|entra| entra.azure_rbac)
    };
    let found = world.clusters.iter().find(asks_azure)?;
    Some(found.id().to_string())
}

fn principals(world: &World) -> Vec<Principal> {
    let principal = |name: &String, object_id: Uuid, r#type| Principal {
        name: name.clone(),
        object_id,
        r#type,
    };
    let users = world.users.iter();
    let groups = world.groups.iter();
    let service_principals = world.service_principals.iter();
    users
        .map(|user| principal(&user.display_name, user.id, "User"))
        .chain(groups.map(|group| principal(&group.display_name, group.id, "Group")))
        .chain(service_principals.map(|sp| principal(&sp.display_name, sp.id, "ServicePrincipal")))
        .collect()
}
