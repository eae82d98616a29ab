//! Fleets: clusters that are looked after together, and on which roles may be assigned together.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::default_location;
use crate::scope::Scope;

/// A fleet of AKS clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// The subscription that it is in.
    pub subscription: Uuid,
    /// The resource group that it is in.
    pub resource_group: String,
    /// Its name.
    pub name: String,
    /// Its region.
    #[serde(default = "default_location")]
    pub location: String,
    /// The clusters in it, which may be in other subscriptions. A cluster is in one fleet at most.
    #[serde(default)]
    pub members: Vec<FleetMember>,
}

/// A cluster's place in a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetMember {
    /// Its name in the fleet.
    pub name: String,
    /// The cluster's ARM id. The cluster may be gone: its membership stays behind.
    pub cluster: Scope,
}

impl Fleet {
    /// Its ARM id.
    #[must_use]
    pub fn id(&self) -> Scope {
        Scope::of_fleet(self.subscription, &self.resource_group, &self.name)
    }

    /// The ARM id of its resource group.
    pub(crate) fn resource_group_id(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}",
            self.subscription, self.resource_group
        )
    }
}
