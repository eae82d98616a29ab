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
    /// How many calls of one caller may be under way at once.
    pub in_flight_per_caller: usize,
    /// How many streams (`WatchJob`) of one caller may be open at once.
    pub streams_per_caller: usize,
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
            in_flight_per_caller: 256,
            streams_per_caller: 256,
        }
    }
}
