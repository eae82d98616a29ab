//! An event as it is read back from the trail.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::DAMAGED;
use crate::store::{DamagedEntry, StoredEvent, TrailEntry};

/// The action of what cannot be read.
const UNREADABLE: &str = "unreadable";
/// Details of an unreadable entry: what is wrong with it, and its text if it is text.
const PROBLEM: &str = "problem";
const TEXT: &str = "event";

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
    /// Reads an entry. A damaged entry becomes an event as well, so that the auditor sees it.
    #[must_use]
    pub fn of(chain: &str, entry: &TrailEntry) -> Self {
        match entry {
            TrailEntry::Event(stored) => Self::from_stored(chain, stored),
            TrailEntry::Damaged(damaged) => Self::from_damaged(chain, damaged),
        }
    }

    fn from_stored(chain: &str, stored: &StoredEvent) -> Self {
        let says = read(&stored.event).unwrap_or_else(|error| Says {
            action: UNREADABLE.to_owned(),
            details: BTreeMap::from([
                (PROBLEM.to_owned(), error.to_string()),
                (TEXT.to_owned(), stored.event.clone()),
            ]),
            ..Says::default()
        });
        let seal = stored.seal.as_ref();
        Self {
            id: id(chain, stored.sequence, stored.time),
            time: stored.time,
            sequence: stored.sequence,
            hash: seal.map(|seal| seal.hash.clone()).unwrap_or_default(),
            says,
        }
    }

    /// Takes the time from the entry's position, because scripts append an event at its own time.
    fn from_damaged(chain: &str, damaged: &DamagedEntry) -> Self {
        let millis = i64::try_from(damaged.position.millis).ok();
        let time = millis.and_then(|millis| Timestamp::from_millisecond(millis).ok());
        let time = time.unwrap_or(Timestamp::MAX);
        let sequence = damaged.sequence.unwrap_or_default();
        Self {
            id: match damaged.sequence {
                Some(sequence) => id(chain, sequence, time),
                None => id(chain, damaged.position, time),
            },
            time,
            sequence,
            hash: String::new(),
            says: Says {
                action: UNREADABLE.to_owned(),
                details: BTreeMap::from([
                    (PROBLEM.to_owned(), damaged.problem.clone()),
                    ("entry".to_owned(), damaged.position.to_string()),
                ]),
                ..Says::default()
            },
        }
    }

    /// Whether this stands for an event that cannot be read, and that may have been about anything.
    #[must_use]
    pub fn may_be_about_anything(&self) -> bool {
        [UNREADABLE, DAMAGED].contains(&self.says.action.as_str())
    }

    /// The same event without what is left of the entry's text, which may be about any person.
    #[must_use]
    pub fn without_its_text(mut self) -> Self {
        if self.says.details.remove(TEXT).is_some() {
            // The problem may quote the text.
            let problem = "its event cannot be read".to_owned();
            self.says.details.insert(PROBLEM.to_owned(), problem);
        }
        self
    }
}

/// Accepts only a JSON object. serde would also accept a list of values as the fields.
fn read(event: &str) -> Result<Says, serde_json::Error> {
    let fields: Map<String, Value> = serde_json::from_str(event)?;
    Says::deserialize(Value::Object(fields))
}

/// Made from the event's place: nothing else tells one event from another, and scripts draw no random numbers.
fn id(chain: &str, place: impl std::fmt::Display, time: Timestamp) -> Uuid {
    let digest = Sha256::digest(format!("{chain} {place}"));
    let mut random = [0; 10];
    random.copy_from_slice(&digest[..10]);
    let millis = u64::try_from(time.as_millisecond()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(event: &str) -> TrailEntry {
        TrailEntry::Event(StoredEvent {
            position: "1795744511984-3".parse().unwrap(),
            sequence: 7,
            time: Timestamp::from_millisecond(1_795_744_511_984).unwrap(),
            event: event.to_owned(),
            seal: None,
        })
    }

    #[test]
    fn i10_what_is_no_event_may_be_about_anything_and_its_text_can_be_kept_back() {
        for event in ["no JSON", "[]", r#"{"actor":["alice@contoso.example"]}"#] {
            let told = TrailEvent::of("c", &stored(event));
            assert!(told.may_be_about_anything());
            assert_eq!(told.says.details["event"], event);
            let kept_back = told.without_its_text();
            let details = format!("{:?}", kept_back.says);
            assert!(
                !details.contains(event) && !details.contains("alice"),
                "{details}"
            );
            assert!(!kept_back.says.details["problem"].is_empty());
        }
        let sound = TrailEvent::of("c", &stored(r#"{"action":"grant/active"}"#));
        assert!(!sound.may_be_about_anything());
        let aside = TrailEvent::of("c", &stored(r#"{"action":"audit/damaged"}"#));
        assert!(aside.may_be_about_anything());
    }

    #[test]
    fn i10_an_entry_that_cannot_be_read_is_told_with_its_place_in_time() {
        let damaged = |sequence| {
            let entry = TrailEntry::Damaged(DamagedEntry {
                position: "1795744511984-3".parse().unwrap(),
                sequence,
                problem: "it has no event".to_owned(),
                is_of_another_format: false,
            });
            TrailEvent::of("c", &entry)
        };
        let known = damaged(Some(7));
        assert_eq!(
            (known.time.as_millisecond(), known.sequence),
            (1_795_744_511_984, 7)
        );
        assert_eq!(
            known.id,
            TrailEvent::of("c", &stored("{}")).id,
            "it is that event"
        );
        assert_eq!(known.says.details["entry"], "1795744511984-3");
        let unknown = damaged(None);
        assert_eq!(unknown.sequence, 0);
        assert_ne!(unknown.id, known.id);
    }
}
