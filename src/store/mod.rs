//! Redis: where what was accepted is kept, and every transition of it is one script.
//!
//! Redis encodings stop here: what goes in and comes out are the domain's types. All keys of one broker
//! carry one hash tag, so each transition is atomic on a single server, behind Sentinel and on a cluster.
//! Every script is idempotent on the ids and the token that it is given, because a call whose answer was
//! lost is sent again.

mod accept;
mod audit;
mod clock;
mod codec;
mod durability;
mod error;
mod events;
mod link;
mod lists;
mod meta;
mod pass;
mod reach;
mod read;
mod script;
mod stream;

pub use accept::{Accepted, End, NewExtension, NewGrant, NewRevocation, RequestKey, Revoked};
pub use audit::{
    BROKER, DamagedEntry, Keep, Refusal, RefusalBounds, Seal, SealHead, SetAside, StoredEvent,
    TrailEntry, TrailState,
};
pub use clock::{DueExpiry, Expired, Woken};
pub use error::StoreError;
pub use events::{Change, Changes, Event, Heard};
pub use lists::{Found, JobSelector, ListScope, Lives};
pub use meta::Doubt;
pub use pass::{
    Begun, ClaimTerms, Claimed, Closing, LeaseCheck, NextLook, PassRecord, Recorded, TouchedEffect,
};
pub use read::TargetRecord;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::error;

use crate::config;
use crate::domain::ids::InstanceId;
use crate::telemetry::{Loop, Repeats, metrics};

use link::Link;
use script::Scripts;

/// How long the record of a request outlives its job.
const REQUEST_LIFE: Duration = Duration::from_hours(24);

/// How long the log stays silent about an unreadable entry after a line about it.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// A handle on the broker's keys, cheap to clone.
#[derive(Clone)]
pub struct Store {
    link: Arc<Link>,
    scripts: Arc<Scripts>,
    prefix: Arc<str>,
    retention: Duration,
    damage: Arc<Repeats>,
}

impl Store {
    /// Makes a handle; connects at the first call, and again whenever the connection is lost.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] where the address or the password cannot be used.
    pub fn new(redis: &config::Redis, retention: Duration) -> Result<Self, StoreError> {
        let prefix = format!("{{aab:{}}}:", redis.name);
        Ok(Self {
            link: Arc::new(Link::new(redis, format!("{prefix}meta"))?),
            scripts: Arc::new(Scripts::new()),
            prefix: prefix.into(),
            retention,
            damage: Arc::new(Repeats::every(SAY_AGAIN)),
        })
    }

    /// The broker's instance id, as this process began with it. The first call of any method connects, checks that
    /// Redis can keep I1, and reads the id, or makes one if there is none yet. From then on every method fails while
    /// Redis does not hold the same id and format. O(1).
    ///
    /// # Errors
    /// [`StoreError::NotDurable`] where this Redis can forget or evict what was accepted;
    /// [`StoreError::Unavailable`] where it cannot be reached.
    pub async fn instance(&self) -> Result<InstanceId, StoreError> {
        Ok(self.link.identity().await?.instance())
    }

    /// Why Redis is in doubt, as the last call found it; `None` while it is not. Every call of this store may change
    /// it. The reconciler's clock runs a script at every poll, so the value stays current without any request.
    #[must_use]
    pub fn doubt(&self) -> watch::Receiver<Option<Doubt>> {
        self.link.meta().doubt()
    }

    /// Whether Redis is away: it cannot be reached, or cannot keep what is accepted. It counts as away from the first
    /// call that finds so, and as back when calls have gone well for two seconds. The reader of the stream of changes
    /// calls Redis about once a second, so the value stays current without any request.
    #[must_use]
    pub fn away(&self) -> watch::Receiver<bool> {
        self.link.meta().reach().away()
    }

    /// Whether the store itself has logged what the error says: loops that would meet it at every turn say nothing.
    #[must_use]
    pub fn has_logged(&self, error: &StoreError) -> bool {
        matches!(error, StoreError::InDoubt(_)) || (error.is_trouble() && *self.away().borrow())
    }

    /// Fails if the last call found Redis in doubt. It sends nothing to Redis. O(1).
    ///
    /// # Errors
    /// [`StoreError::InDoubt`]
    pub fn check_known_doubt(&self) -> Result<(), StoreError> {
        let doubt = self.doubt().borrow().clone();
        doubt.map_or(Ok(()), |doubt| Err(StoreError::InDoubt(doubt)))
    }

    /// Counts and logs an entry that a loop skips because it cannot read it. It logs once a minute for the same entry.
    fn tell_skipped_entry(
        &self,
        of: Loop,
        key: &str,
        entry: &str,
        problem: &dyn std::fmt::Display,
    ) {
        metrics().skipped_entry(of);
        if self.damage.is_due(&format!("{key} {entry}")) {
            error!(key, entry, %problem, "the broker cannot read this entry, and skips it");
        }
    }

    /// Counts and logs the rows that a script skipped. It logs once a minute for the same row. Each row names a key and
    /// the problem.
    fn tell_skipped_rows(&self, of: Loop, rows: &[impl AsRef<[u8]>]) {
        for row in rows {
            metrics().skipped_entry(of);
            let damaged = String::from_utf8_lossy(row.as_ref());
            if self.damage.is_due(&damaged) {
                error!(%damaged, "the broker cannot read this row, and skips it until it is mended");
            }
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
