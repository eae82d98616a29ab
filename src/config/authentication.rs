//! `authentication`: how callers prove who they are.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::text;

/// The section `authentication`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    /// Whom callers' access tokens have to be for: the client id of the broker's own application registration and, for
    /// tokens of version 1, its application id URI. Required, at least one.
    #[serde(with = "text::list")]
    pub audiences: Vec<String>,
    /// The tenants whose applications and people may call. Empty: `azure.tenant_id` alone.
    #[serde(default, with = "text::list")]
    pub tenants: Vec<Uuid>,
    /// How far Entra's clock and this machine's may be apart, at most five minutes.
    #[serde(default = "clock_skew", with = "humantime_serde")]
    pub clock_skew: Duration,
}

const fn clock_skew() -> Duration {
    Duration::from_mins(1)
}
