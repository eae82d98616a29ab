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
mod damage;
mod durability;
mod error;
mod events;
mod link;
mod lists;
mod pass;
mod read;
mod script;

pub use accept::{Accepted, End, NewExtension, NewGrant, NewRevocation, RequestKey, Revoked};
pub use audit::{Keep, Seal, SealHead, StoredEvent, TrailState};
pub use clock::{DueExpiry, Expired, Woken};
pub use error::StoreError;
pub use events::{Change, Changes, Event, Heard};
pub use lists::{Found, JobSelector, Lives};
pub use pass::{
    Begun, ClaimTerms, Claimed, Closing, LeaseCheck, NextLook, PassRecord, Recorded, TouchedEffect,
};
pub use read::TargetRecord;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::config;
use crate::domain::ids::InstanceId;

use damage::Damage;
use link::Link;
use script::Scripts;

/// How long the record of a request outlives its job.
const REQUEST_LIFE: Duration = Duration::from_hours(24);

/// A handle on the broker's keys, cheap to clone.
#[derive(Clone)]
pub struct Store {
    link: Arc<Link>,
    scripts: Arc<Scripts>,
    prefix: Arc<str>,
    retention: Duration,
    instance: Arc<OnceLock<InstanceId>>,
    damage: Arc<Damage>,
}

impl Store {
    /// Makes a handle; connects at the first call, and again whenever the connection is lost.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] where the address or the password cannot be used.
    pub fn new(redis: &config::Redis, retention: Duration) -> Result<Self, StoreError> {
        Ok(Self {
            link: Arc::new(Link::new(redis)?),
            scripts: Arc::new(Scripts::new()),
            prefix: format!("{{aab:{}}}:", redis.name).into(),
            retention,
            instance: Arc::default(),
            damage: Arc::default(),
        })
    }

    /// Connects if need be, checks that Redis can keep I1, and answers with the broker's instance id,
    /// which is made at the first call ever. O(1).
    ///
    /// # Errors
    /// [`StoreError::NotDurable`] where this Redis can forget or evict what was accepted;
    /// [`StoreError::Unavailable`] where it cannot be reached.
    pub async fn instance(&self) -> Result<InstanceId, StoreError> {
        if let Some(instance) = self.instance.get() {
            return Ok(*instance);
        }
        // Many at once all read the same, and none waits for another's failure.
        let instance = read::instance(self).await?;
        Ok(*self.instance.get_or_init(|| instance))
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
