//! Managed clusters, as far as access to them depends on how they are set up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::default_location;
use crate::scope::Scope;

/// An AKS cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The subscription that it is in.
    pub subscription: Uuid,
    /// The resource group that it is in.
    pub resource_group: String,
    /// Its name.
    pub name: String,
    /// Its region.
    #[serde(default = "default_location")]
    pub location: String,
    /// Its Kubernetes version.
    #[serde(default = "default_version")]
    pub kubernetes_version: String,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// How it is tied to Entra; none is a cluster with certificates only (`aadProfile` null).
    #[serde(default)]
    pub entra: Option<EntraIntegration>,
    /// Whether the local accounts (certificates that Entra knows nothing of) are off.
    #[serde(default)]
    pub local_accounts_disabled: bool,
    /// Whether its API server has a private address only.
    #[serde(default)]
    pub private: bool,
    /// `Running` or `Stopped`.
    #[serde(default = "running")]
    pub power_state: String,
    /// `Succeeded`, `Updating`, `Failed`, …
    #[serde(default = "succeeded")]
    pub provisioning_state: String,
    /// `resourceUID`, which tells this cluster from another one made later under the same id
    /// [azure.md §4]; a new one is made if it is left out.
    #[serde(default)]
    pub resource_uid: Option<String>,
}

/// A cluster's `aadProfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntraIntegration {
    /// Whether Azure role assignments decide inside the cluster (`enableAzureRBAC`).
    #[serde(default)]
    pub azure_rbac: bool,
    /// Groups whose members are administrators without any role assignment.
    #[serde(default)]
    pub admin_groups: Vec<Uuid>,
}

fn default_version() -> String {
    "1.34.2".to_owned()
}

fn running() -> String {
    "Running".to_owned()
}

fn succeeded() -> String {
    "Succeeded".to_owned()
}

impl Cluster {
    /// A running cluster with Azure RBAC on and local accounts off: one that a broker can give access to.
    #[must_use]
    pub fn healthy(subscription: Uuid, resource_group: &str, name: &str) -> Self {
        Self {
            subscription,
            resource_group: resource_group.to_owned(),
            name: name.to_owned(),
            location: default_location(),
            kubernetes_version: default_version(),
            tags: BTreeMap::new(),
            entra: Some(EntraIntegration {
                azure_rbac: true,
                admin_groups: Vec::new(),
            }),
            local_accounts_disabled: true,
            private: false,
            power_state: running(),
            provisioning_state: succeeded(),
            resource_uid: None,
        }
    }

    /// The ARM id of its resource group.
    pub(crate) fn resource_group_id(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}",
            self.subscription, self.resource_group
        )
    }

    /// Its ARM id as AKS spells it: `resourcegroups` in lower case
    /// [azure-cli recording `test_aks_create_enable_azure_rbac`].
    #[must_use]
    pub fn id(&self) -> Scope {
        Scope::of_cluster(self.subscription, &self.resource_group, &self.name)
    }
}
