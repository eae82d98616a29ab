//! `reconciler`: how Azure is made to agree with what was accepted.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `reconciler`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconciler {
    /// How many targets are worked on at once.
    pub workers: NonZeroUsize,
    /// How long a worker holds a target before others may take it over.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// The longest a call can still take effect after its sender has given up: the HTTP timeout and what
    /// Azure may do behind it.
    #[serde(with = "humantime_serde")]
    pub settle_time: Duration,
    /// The longest that Azure's reads may trail its writes.
    #[serde(with = "humantime_serde")]
    pub lag: Duration,
    /// Takes a settle time and a lag below a minute, down to a second. For the emulator, whose lag is set;
    /// against Azure it breaks revocations.
    pub allow_short_times: bool,
    /// The wait after the first failure. It doubles with each, and is drawn from zero up to that.
    #[serde(with = "humantime_serde")]
    pub backoff_initial: Duration,
    /// The longest wait between two tries.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// How long a grant is tried before it fails for good. Revocations never give up.
    #[serde(with = "humantime_serde")]
    pub grant_give_up: Duration,
    /// How often an idle worker looks for work that nobody woke it for.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How many calls a subscription is sent, by all replicas together.
    pub lane: LaneBudget,
    /// How long ended grants and finished jobs are kept.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// How long what was read of a cluster, a role or a principal is taken for true.
    #[serde(with = "humantime_serde")]
    pub cluster_cache: Duration,
}

impl Default for Reconciler {
    fn default() -> Self {
        Self {
            workers: WORKERS,
            lease: Duration::from_mins(1),
            settle_time: Duration::from_mins(5),
            lag: Duration::from_mins(10),
            allow_short_times: false,
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_mins(5),
            grant_give_up: Duration::from_hours(24),
            poll: Duration::from_millis(250),
            lane: LaneBudget::default(),
            retention: Duration::from_hours(7 * 24),
            cluster_cache: Duration::from_mins(1),
        }
    }
}

const WORKERS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// What one subscription may be sent. The defaults are ARM's own limits for one service principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneBudget {
    /// PUTs.
    pub writes: Bucket,
    /// DELETEs.
    pub deletes: Bucket,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bucket {
    /// How many calls may follow each other at once.
    pub capacity: NonZeroU32,
    /// How many more each second brings.
    pub per_second: NonZeroU32,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            capacity: CAPACITY,
            per_second: PER_SECOND,
        }
    }
}

const CAPACITY: NonZeroU32 = NonZeroU32::new(200).unwrap();
const PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
