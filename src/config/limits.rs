//! `limits`: how much one caller may ask of one replica.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The section `limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// `Grant` and `ExtendGrant`.
    pub grants: Rate,
    /// `Revoke`: more than grants, because somebody leaves at once.
    pub revocations: Rate,
    /// `CheckAccess`, and each check of a `BatchCheckAccess`.
    pub checks: Rate,
    /// Everything else.
    pub reads: Rate,
    /// Refusals (`PERMISSION_DENIED`, `NOT_FOUND`): each is an event of the audit trail. Whoever has had more is told to
    /// wait, whatever it asks.
    pub refusals: Rate,
    /// Reads of Azure that callers force, by asking for fresher data than `view.max_staleness`.
    pub fresh_reads: FreshReads,
    /// How many calls of one caller may be under way at once.
    pub in_flight_per_caller: usize,
    /// How many streams (`WatchJob`) of one caller may be open at once.
    pub streams_per_caller: usize,
}

/// How many calls to Azure the forced reads may take. A look at a subscription takes six, at a cluster and at a
/// principal's groups one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreshReads {
    /// Those of one caller.
    pub per_caller: ReadBudget,
    /// Those of all callers in one subscription; and as many more in the directory.
    pub per_subscription: ReadBudget,
}

impl Default for FreshReads {
    fn default() -> Self {
        Self {
            per_caller: ReadBudget::new(80, 60),
            per_subscription: ReadBudget::new(140, 100),
        }
    }
}

/// A token bucket that is filled by the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReadBudget {
    /// How many calls may follow each other at once.
    pub capacity: NonZeroU32,
    /// How many more each minute brings.
    pub per_minute: NonZeroU32,
}

impl ReadBudget {
    const fn new(capacity: u32, per_minute: u32) -> Self {
        let (Some(capacity), Some(per_minute)) =
            (NonZeroU32::new(capacity), NonZeroU32::new(per_minute))
        else {
            return Self {
                capacity: NonZeroU32::MIN,
                per_minute: NonZeroU32::MIN,
            };
        };
        Self {
            capacity,
            per_minute,
        }
    }
}

/// How often something may be asked: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many may follow each other at once.
    pub capacity: NonZeroU32,
    /// How many more each second brings.
    pub per_second: NonZeroU32,
}

impl Rate {
    const fn new(capacity: u32, per_second: u32) -> Self {
        let (Some(capacity), Some(per_second)) =
            (NonZeroU32::new(capacity), NonZeroU32::new(per_second))
        else {
            return Self {
                capacity: NonZeroU32::MIN,
                per_second: NonZeroU32::MIN,
            };
        };
        Self {
            capacity,
            per_second,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            grants: Rate::new(100, 20),
            revocations: Rate::new(1_000, 100),
            checks: Rate::new(10_000, 5_000),
            reads: Rate::new(500, 100),
            refusals: Rate::new(500, 10),
            fresh_reads: FreshReads::default(),
            in_flight_per_caller: 256,
            streams_per_caller: 256,
        }
    }
}
