//! An event as it is read back from the trail.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::store::StoredEvent;

/// An event of the trail, as [`Event`](super::Event) was written down. What it does not have is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrailEvent {
    /// A UUID (version 7), always the same for one event of one chain.
    pub id: Uuid,
    /// When, by the store's clock.
    pub time: Timestamp,
    /// Its place in the chain.
    pub sequence: u64,
    /// SHA-256 in hex; empty until it is sealed.
    pub hash: String,
    /// What it says.
    pub says: Says,
}

/// What an event says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Says {
    /// The calling application or user, or the broker itself.
    pub actor: String,
    /// What was asked or done.
    pub action: String,
    /// `ACCEPTED`, `REFUSED`, `APPLIED`, `FAILED` or `UNKNOWN`.
    pub outcome: String,
    /// A stable reason.
    pub reason: String,
    /// The principal's object id.
    pub principal: String,
    /// The cluster's ARM id.
    pub cluster: String,
    /// The grant.
    pub grant: String,
    /// The job.
    pub job: String,
    /// The object in Azure.
    pub resource: String,
    /// For whom the actor acted.
    pub on_behalf_of: String,
    /// Azure's correlation id.
    pub azure_correlation_id: String,
    /// What else there is to say.
    pub details: BTreeMap<String, String>,
}

impl TrailEvent {
    /// Reads one. What is damaged is told as it is: that is what somebody who looks here has to see.
    #[must_use]
    pub fn of(chain: &str, stored: &StoredEvent) -> Self {
        let says = serde_json::from_str(&stored.event).unwrap_or_else(|error| Says {
            action: "unreadable".to_owned(),
            details: BTreeMap::from([
                ("problem".to_owned(), error.to_string()),
                ("event".to_owned(), stored.event.clone()),
            ]),
            ..Says::default()
        });
        let seal = stored.seal.as_ref();
        Self {
            id: id(chain, stored),
            time: stored.time,
            sequence: stored.sequence,
            hash: seal.map(|seal| seal.hash.clone()).unwrap_or_default(),
            says,
        }
    }
}

/// Made from the event's place: nothing else tells one event from another, and scripts draw no random numbers.
fn id(chain: &str, stored: &StoredEvent) -> Uuid {
    let digest = Sha256::digest(format!("{chain} {}", stored.sequence));
    let mut random = [0; 10];
    random.copy_from_slice(&digest[..10]);
    let millis = u64::try_from(stored.time.as_millisecond()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}
