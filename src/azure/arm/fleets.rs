//! Fleets: `Microsoft.ContainerService/fleets` [azure.md §4; the bodies from general knowledge of the API].

use serde::Deserialize;
use uuid::Uuid;

use super::super::Azure;
use super::super::error::AzureError;
use crate::domain::fleet::{Fleet, FleetId, FleetMember};
use crate::domain::ids::{ClusterId, SubscriptionId};

const API_VERSION: &str = "2025-03-01";

#[derive(Deserialize)]
struct WireFleet {
    id: String,
    name: String,
}

impl WireFleet {
    fn parse(self) -> Result<Fleet, String> {
        Ok(Fleet {
            id: FleetId::parse(&self.id).map_err(|e| format!("its id: {e}"))?,
            name: self.name,
        })
    }
}

#[derive(Deserialize)]
struct WireMember {
    name: String,
    properties: WireMemberProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMemberProperties {
    cluster_resource_id: String,
}

impl WireMember {
    /// [`None`] for a cluster of Azure Arc: a fleet may hold some, and they are none of the broker's.
    fn parse(self) -> Result<Option<FleetMember>, String> {
        let id = self.properties.cluster_resource_id;
        if id
            .to_ascii_lowercase()
            .contains("/providers/microsoft.kubernetes/connectedclusters/")
        {
            return Ok(None);
        }
        let cluster = ClusterId::parse(&id)
            .map_err(|e| format!("the cluster of member {:?}: {e}", self.name))?;
        Ok(Some(FleetMember {
            name: self.name,
            cluster,
        }))
    }
}

impl Azure {
    /// All fleets of a subscription, all pages of them.
    ///
    /// # Errors
    /// An [`AzureError`], also where one row cannot be read.
    pub async fn fleets(
        &self,
        subscription: SubscriptionId,
        request: Uuid,
    ) -> Result<Vec<Fleet>, AzureError> {
        let what = format!("list of fleets in subscription {subscription}");
        let path =
            format!("/subscriptions/{subscription}/providers/Microsoft.ContainerService/fleets");
        let url = self.arm.url(&path, API_VERSION, None);
        self.arm.list(&what, url, request, WireFleet::parse).await
    }

    /// The managed clusters in a fleet, all pages of them.
    ///
    /// # Errors
    /// An [`AzureError`], also where one row cannot be read; [`AzureError::is_gone`] tells whether the fleet is.
    pub async fn fleet_members(
        &self,
        fleet: &FleetId,
        request: Uuid,
    ) -> Result<Vec<FleetMember>, AzureError> {
        let what = format!("list of members of fleet {fleet}");
        let url = self.arm.url(&format!("{fleet}/members"), API_VERSION, None);
        let members = self
            .arm
            .list(&what, url, request, WireMember::parse)
            .await?;
        Ok(members.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str) -> Result<Option<FleetMember>, String> {
        let wire = serde_json::json!({"name": "m", "properties": {"clusterResourceId": id}});
        serde_json::from_value::<WireMember>(wire).unwrap().parse()
    }

    #[test]
    fn members_are_managed_clusters_and_those_of_arc_are_passed_over() {
        let cluster = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/RG/providers/\
                       Microsoft.ContainerService/managedClusters/Prod";
        let read = member(cluster).unwrap().unwrap();
        assert_eq!(read.cluster.as_str(), cluster.to_ascii_lowercase());
        let arc = cluster.replace(
            "Microsoft.ContainerService/managedClusters",
            "Microsoft.Kubernetes/connectedClusters",
        );
        assert_eq!(member(&arc), Ok(None));
        assert!(member(&cluster.replace("managedClusters", "others")).is_err());
    }
}
