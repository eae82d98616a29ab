//! `authentication`: how callers prove who they are.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::text;

/// The section `authentication`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authentication {
    /// Whom callers' access tokens have to be for: the client id of the broker's own application registration and, for
    /// tokens of version 1, its application id URI. Without any no token is taken, and callers have to bring
    /// certificates.
    #[serde(with = "text::list")]
    pub audiences: Vec<String>,
    /// The tenants whose applications and people may call. Empty: `azure.tenant_id` alone.
    #[serde(with = "text::list")]
    pub tenants: Vec<Uuid>,
    /// How far Entra's clock and this machine's may be apart, at most five minutes.
    #[serde(with = "humantime_serde")]
    pub clock_skew: Duration,
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            audiences: Vec::new(),
            tenants: Vec::new(),
            clock_skew: Duration::from_mins(1),
        }
    }
}
