//! Managed clusters: `Microsoft.ContainerService/managedClusters` [azure.md §4].

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use super::super::Azure;
use super::super::error::AzureError;
use crate::domain::cluster::Cluster;
use crate::domain::ids::{ClusterId, SubscriptionId};

const API_VERSION: &str = "2024-05-01";

#[derive(Deserialize)]
struct Wire {
    id: String,
    name: String,
    location: String,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
    properties: WireProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    #[serde(default)]
    power_state: Option<WirePowerState>,
    #[serde(default)]
    kubernetes_version: Option<String>,
    #[serde(default)]
    current_kubernetes_version: Option<String>,
    #[serde(default)]
    disable_local_accounts: Option<bool>,
    #[serde(default, rename = "resourceUID")]
    resource_uid: Option<String>,
    #[serde(default)]
    aad_profile: Option<WireAadProfile>,
    #[serde(default)]
    api_server_access_profile: Option<WireApiServerAccessProfile>,
}

#[derive(Deserialize)]
struct WirePowerState {
    code: String,
}

#[derive(Deserialize)]
struct WireAadProfile {
    #[serde(default, rename = "enableAzureRBAC")]
    enable_azure_rbac: Option<bool>,
    #[serde(default, rename = "adminGroupObjectIDs")]
    admin_group_object_ids: Option<Vec<String>>,
    #[serde(default, rename = "tenantID")]
    tenant_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireApiServerAccessProfile {
    #[serde(default)]
    enable_private_cluster: Option<bool>,
}

impl Wire {
    /// What is left out is taken for its less safe value: without an `aadProfile` there is no Entra
    /// integration, without `enableAzureRBAC` no Azure RBAC, and local accounts are on.
    fn parse(self) -> Result<Cluster, String> {
        let properties = self.properties;
        let aad = properties.aad_profile.as_ref();
        Ok(Cluster {
            id: ClusterId::parse(&self.id).map_err(|e| format!("its id: {e}"))?,
            name: self.name,
            location: self.location,
            tags: self.tags.unwrap_or_default(),
            kubernetes_version: properties
                .current_kubernetes_version
                .or(properties.kubernetes_version)
                .unwrap_or_default(),
            tenant_id: aad
                .and_then(|aad| aad.tenant_id.clone())
                .unwrap_or_default(),
            entra_integration: aad.is_some(),
            azure_rbac: aad.and_then(|aad| aad.enable_azure_rbac).unwrap_or(false),
            local_accounts_disabled: properties.disable_local_accounts.unwrap_or(false),
            private_cluster: properties
                .api_server_access_profile
                .and_then(|profile| profile.enable_private_cluster)
                .unwrap_or(false),
            power_state: properties
                .power_state
                .map(|state| state.code)
                .unwrap_or_default(),
            resource_uid: properties.resource_uid.unwrap_or_default(),
            admin_group_ids: aad
                .and_then(|aad| aad.admin_group_object_ids.clone())
                .unwrap_or_default(),
        })
    }
}

impl Azure {
    /// Reads one cluster.
    ///
    /// # Errors
    /// An [`AzureError`]; [`AzureError::is_gone`] tells whether the cluster is.
    pub async fn managed_cluster(
        &self,
        cluster: &ClusterId,
        request: Uuid,
    ) -> Result<Cluster, AzureError> {
        let what = format!("GET of cluster {cluster}");
        let url = self.arm.url(cluster.as_str(), API_VERSION, None);
        let read = self
            .arm
            .get::<Wire>(&what, url, request)
            .await?
            .parse()
            .map_err(|problem| super::unreadable_answer(&what, &problem))?;
        if read.id == *cluster {
            Ok(read)
        } else {
            Err(super::unreadable_answer(
                &what,
                "it tells of another cluster",
            ))
        }
    }

    /// All clusters of a subscription, all pages of them.
    ///
    /// # Errors
    /// An [`AzureError`], also where one row cannot be read.
    pub async fn managed_clusters(
        &self,
        subscription: SubscriptionId,
        request: Uuid,
    ) -> Result<Vec<Cluster>, AzureError> {
        let what = format!("list of clusters in subscription {subscription}");
        let path = format!(
            "/subscriptions/{subscription}/providers/Microsoft.ContainerService/managedClusters"
        );
        let url = self.arm.url(&path, API_VERSION, None);
        self.arm.list(&what, url, request, Wire::parse).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(properties: &serde_json::Value) -> Cluster {
        let wire: Wire = serde_json::from_value(serde_json::json!({
            "id": "/subscriptions/11111111-1111-4111-8111-111111111111/resourcegroups/RG/providers/Microsoft.ContainerService/managedClusters/Prod",
            "type": "Microsoft.ContainerService/ManagedClusters",
            "name": "Prod", "location": "westeurope", "tags": {"Environment": "production"},
            "properties": properties,
        }))
        .unwrap();
        wire.parse().unwrap()
    }

    #[test]
    fn a_recorded_cluster_is_read() {
        let cluster = read(&serde_json::json!({
            "aadProfile": {"managed": true, "adminGroupObjectIDs": null, "adminUsers": null,
                           "enableAzureRBAC": true, "tenantID": "t"},
            "powerState": {"code": "Running"}, "provisioningState": "Succeeded",
            "disableLocalAccounts": true, "enableRBAC": true, "resourceUID": "uid",
            "kubernetesVersion": "1.34", "currentKubernetesVersion": "1.34.2",
            "apiServerAccessProfile": {"enablePrivateCluster": true}
        }));
        assert_eq!(cluster.name, "Prod");
        assert_eq!(cluster.tags["Environment"], "production");
        assert!(cluster.entra_integration && cluster.azure_rbac && cluster.local_accounts_disabled);
        assert!(cluster.private_cluster);
        assert_eq!(cluster.kubernetes_version, "1.34.2");
    }

    #[test]
    fn i9_what_azure_leaves_out_counts_as_its_less_safe_value() {
        let cluster = read(&serde_json::json!({"aadProfile": null}));
        assert!(
            !cluster.entra_integration && !cluster.azure_rbac && !cluster.local_accounts_disabled
        );
    }
}
