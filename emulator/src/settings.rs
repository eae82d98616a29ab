//! Azure's manners, each a setting.
//!
//! The defaults suit a developer's machine: small lags that one notices, Azure's own budgets, nothing that
//! fails by chance. Tests set what they are about.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::millis;

/// How this Azure behaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long lists take to show a write or a deletion (`list_lag_ms`). Raising it counts for changes made
    /// from then on: older states are forgotten as soon as no read can see them.
    #[serde(rename = "list_lag_ms", with = "millis")]
    pub list_lag: Duration,
    /// How long reads of one object take to show a write or a deletion (`read_lag_ms`).
    #[serde(rename = "read_lag_ms", with = "millis")]
    pub read_lag: Duration,
    /// How long a new principal is unknown to role assignments that do not send `principalType`
    /// (`principal_replication_ms`).
    #[serde(rename = "principal_replication_ms", with = "millis")]
    pub principal_replication: Duration,
    /// How long a new custom role is unknown to role assignments (`custom_role_replication_ms`); Azure
    /// takes a minute or two [errors.txt, `RoleDefinitionDoesNotExist`].
    #[serde(rename = "custom_role_replication_ms", with = "millis")]
    pub custom_role_replication: Duration,
    /// Request budgets.
    pub throttling: Throttling,
    /// How many items a page of a list holds.
    pub page_size: usize,
    /// Share of role assignment names, from 0 to 1, that are refused with a hash conflict. The name and the
    /// emulator's seed decide, so a name that was refused stays refused. About 0.01 in Azure
    /// [azure-cli#13368].
    pub hash_conflict_probability: f64,
    /// How the message of `RoleAssignmentExists` ends.
    pub role_assignment_exists_wording: RoleAssignmentExistsWording,
    /// The status of a PUT that changes an existing role assignment.
    pub put_existing_status: PutExistingStatus,
    /// Most role assignments of a subscription and everything below it [azure-docs limits.md].
    pub role_assignment_limit: usize,
    /// Most role assignments at one management group [azure-docs limits.md].
    pub management_group_role_assignment_limit: usize,
    /// Whether callers need a role for what they do. Tokens are checked in any case.
    pub authorization_enforced: bool,
    /// How long access tokens live (`token_lifetime_ms`).
    #[serde(rename = "token_lifetime_ms", with = "millis")]
    pub token_lifetime: Duration,
    /// Most events that the history keeps; the oldest go first.
    pub history_limit: usize,
    /// Which cloud this is: only the tokens of its own services are given out and taken.
    pub cloud: Cloud,
}

/// The clouds that Azure is run as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// Azure.
    #[default]
    Public,
    /// Azure Government.
    UsGovernment,
    /// Azure in China.
    China,
}

/// The three endings of the message of `RoleAssignmentExists`, by region and date [errors.txt].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleAssignmentExistsWording {
    /// "The role assignment already exists."
    Plain,
    /// "… The ID of the conflicting role assignment is {32 hex}."
    Conflicting,
    /// "… The ID of the existing role assignment is {32 hex}."
    #[default]
    Existing,
}

/// The status of a PUT that changes an existing role assignment. The swagger allows both; Azure was
/// recorded answering 201 [azure-cli recording `test_role_assignment_create_update`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutExistingStatus {
    /// `201 Created`, as recorded.
    #[default]
    Created,
    /// `200 OK`.
    Ok,
}

/// Token buckets [azure.md §5].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Throttling {
    /// Whether any budget is kept at all.
    pub enabled: bool,
    /// GET, per subscription (or tenant) and caller.
    pub reads: Bucket,
    /// PUT, PATCH and POST, per subscription (or tenant) and caller.
    pub writes: Bucket,
    /// DELETE, per subscription (or tenant) and caller.
    pub deletes: Bucket,
    /// How many times that all callers of a subscription have together.
    pub all_callers_factor: u32,
    /// The AKS resource provider: GET of one cluster, per cluster.
    pub cluster_reads: Bucket,
    /// The AKS resource provider: lists, per subscription.
    pub cluster_lists: Bucket,
}

/// One token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Requests that a full bucket allows at once.
    pub capacity: u32,
    /// Requests that come back each second.
    pub per_second: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            list_lag: Duration::from_secs(2),
            read_lag: Duration::from_millis(500),
            principal_replication: Duration::from_secs(5),
            custom_role_replication: Duration::from_secs(2),
            throttling: Throttling::default(),
            page_size: 100,
            hash_conflict_probability: 0.0,
            role_assignment_exists_wording: RoleAssignmentExistsWording::default(),
            put_existing_status: PutExistingStatus::default(),
            role_assignment_limit: 4_000,
            management_group_role_assignment_limit: 500,
            authorization_enforced: true,
            token_lifetime: Duration::from_secs(3_599),
            history_limit: 100_000,
            cloud: Cloud::default(),
        }
    }
}

impl Settings {
    /// Nothing lags, nothing is throttled: for tests that are about something else.
    #[must_use]
    pub fn immediate() -> Self {
        Self {
            list_lag: Duration::ZERO,
            read_lag: Duration::ZERO,
            principal_replication: Duration::ZERO,
            custom_role_replication: Duration::ZERO,
            throttling: Throttling {
                enabled: false,
                ..Throttling::default()
            },
            ..Self::default()
        }
    }

    /// The longest time back that any read can look.
    pub(crate) fn longest_lag(&self) -> Duration {
        self.list_lag.max(self.read_lag)
    }
}

impl Default for Throttling {
    fn default() -> Self {
        Self {
            enabled: true,
            reads: Bucket::new(250, 25.0),
            writes: Bucket::new(200, 10.0),
            deletes: Bucket::new(200, 10.0),
            all_callers_factor: 15,
            cluster_reads: Bucket::new(60, 1.0),
            cluster_lists: Bucket::new(500, 1.0),
        }
    }
}

impl Bucket {
    /// A bucket of `capacity` requests that regains `per_second` of them a second.
    #[must_use]
    pub const fn new(capacity: u32, per_second: f64) -> Self {
        Self {
            capacity,
            per_second,
        }
    }

    /// The bucket that `factor` callers would have together.
    pub(crate) fn times(self, factor: u32) -> Self {
        Self::new(
            self.capacity.saturating_mul(factor),
            self.per_second * f64::from(factor),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn settings_keep_their_defaults_where_json_is_silent_and_refuse_unknown_keys() {
        let settings: Settings = serde_json::from_str(r#"{"list_lag_ms": 250}"#).expect("settings");
        assert_eq!(settings.list_lag.as_millis(), 250);
        assert_eq!(settings.role_assignment_limit, 4_000);
        serde_json::from_str::<Settings>(r#"{"list_lag": 250}"#).expect_err("an unknown key");
    }
}
