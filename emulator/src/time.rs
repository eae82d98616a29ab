//! One clock for everything that is ordered or delayed here.
//!
//! Lag, token buckets and the history must agree on what came first, and the wall clock may step back.
//! So each moment is taken twice: from the monotonic clock for order, from the wall for people and bodies.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A point in time of one emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Monotonic time since the emulator started; as JSON in whole microseconds, `elapsed_us`.
    #[serde(rename = "elapsed_us", with = "micros")]
    pub elapsed: Duration,
    /// The same moment on the wall clock.
    pub wall: Timestamp,
}

impl Moment {
    /// What Azure writes into bodies: UTC with seven digits, e.g. `2025-04-14T08:54:25.8958593Z`.
    pub(crate) fn in_azure_format(timestamp: Timestamp) -> String {
        timestamp.strftime("%Y-%m-%dT%H:%M:%S%.7fZ").to_string()
    }
}

/// Gives out moments.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment {
            elapsed: self.started.elapsed(),
            wall: Timestamp::now(),
        }
    }
}

/// Durations as whole microseconds in JSON.
mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}

/// Durations as whole milliseconds in settings and faults.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }

    /// The same, where there may be none.
    pub(crate) mod optional {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[expect(clippy::ref_option, reason = "what serde hands over")]
        pub(crate) fn serialize<S: Serializer>(
            value: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            value
                .map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
                .serialize(serializer)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
        }
    }
}
