//! `audit`: where the trail goes, and how much of it stays in Redis.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `audit`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// A file that every sealed event is appended to, one line of JSON each, before Redis may let go of it. Unset: the
    /// log has them, without the callers' justifications.
    pub file: Option<PathBuf>,
    /// How long sealed events stay in Redis.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// How many of them stay there at most.
    pub max_events: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            file: None,
            retention: Duration::from_hours(30 * 24),
            max_events: 1_000_000,
        }
    }
}
