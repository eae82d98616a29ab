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
    /// How many refusals of one caller are events of their own each minute. The others become one event that counts them.
    pub refusals_per_minute: u32,
    /// How much of `max_events`, in percent, the events of refusals may take in any `retention`. Once that is used up,
    /// one event a minute counts the refusals of all callers.
    pub refusals_percent: u8,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            file: None,
            retention: Duration::from_hours(30 * 24),
            max_events: 1_000_000,
            refusals_per_minute: 30,
            refusals_percent: 25,
        }
    }
}
