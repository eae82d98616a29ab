//! `view`: what is known of who has what, and how old it may get.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `view`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct View {
    /// The oldest data that an answer rests on where its caller says nothing.
    #[serde(with = "humantime_serde")]
    pub max_staleness: Duration,
    /// The oldest data that an answer rests on whatever its caller says.
    #[serde(with = "humantime_serde")]
    pub longest_staleness: Duration,
    /// Data that somebody asks about are read anew in the background once they are older than this.
    #[serde(with = "humantime_serde")]
    pub renew_after: Duration,
    /// How many role assignments are remembered, over all subscriptions. Each takes at most 300 bytes.
    pub max_assignments: u64,
    /// Of how many principals the groups are remembered.
    pub max_principals: u64,
    /// Whether the clusters ask about custom resources by data actions of their own, which conditions can narrow to
    /// some of them.
    pub custom_resource_conditions: bool,
    /// Whether the clusters let conditions name subresources.
    pub subresource_conditions: bool,
}

impl Default for View {
    fn default() -> Self {
        Self {
            max_staleness: Duration::from_mins(1),
            longest_staleness: Duration::from_mins(10),
            renew_after: Duration::from_secs(20),
            max_assignments: 2_000_000,
            max_principals: 100_000,
            custom_resource_conditions: true,
            subresource_conditions: true,
        }
    }
}
