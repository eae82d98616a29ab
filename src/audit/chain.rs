//! The hash chain over the trail: each event's hash covers the event and the hash before it, so that none can be
//! changed, dropped or put elsewhere without all later ones showing it.
//!
//! The hash is unkeyed: whoever can write to Redis can make another chain. It is what has been exported, elsewhere and
//! earlier, that gives such a one away.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::domain::hex::hex;
use crate::store::StoredEvent;

/// A sealed event, as it is exported: one line of JSON.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Which chain: the instance id of the broker's store.
    pub chain: String,
    /// Its place there.
    pub sequence: u64,
    /// When, by the clock of the store, to the millisecond.
    pub time: Timestamp,
    /// The event.
    pub event: Value,
    /// The hash of the event before it; empty for the first.
    pub previous: String,
    /// SHA-256 in hex.
    pub hash: String,
}

impl Record {
    /// The next event of a chain.
    #[must_use]
    pub fn of(chain: &str, event: &StoredEvent, previous: &str) -> Self {
        let mut record = Self {
            chain: chain.to_owned(),
            sequence: event.sequence,
            time: event.time,
            event: read(&event.event),
            previous: previous.to_owned(),
            hash: String::new(),
        };
        record.hash = record.hashed();
        record
    }

    /// A sealed event, as it is kept; `None` for one that is not sealed.
    #[must_use]
    pub fn kept(chain: &str, event: &StoredEvent) -> Option<Self> {
        let seal = event.seal.as_ref()?;
        Some(Self {
            chain: chain.to_owned(),
            sequence: event.sequence,
            time: event.time,
            event: read(&event.event),
            previous: seal.previous.clone(),
            hash: seal.hash.clone(),
        })
    }

    /// The hash that it ought to have.
    #[must_use]
    pub fn hashed(&self) -> String {
        let Self {
            chain,
            sequence,
            time,
            event,
            previous,
            hash: _,
        } = self;
        // The event comes last: no other part can hold a line's end.
        let (time, event) = (time.as_millisecond(), canonical(event));
        let text = format!("{previous}\n{chain}\n{sequence}\n{time}\n{event}");
        let digest = Sha256::digest(text.as_bytes());
        hex(&digest)
    }
}

/// An event as JSON; what is none is kept as it is.
fn read(event: &str) -> Value {
    serde_json::from_str(event).unwrap_or_else(|_| Value::String(event.to_owned()))
}

/// One text for one value, whoever wrote it: Redis's scripts and this program spell the same JSON differently.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            let fields = sorted.into_iter().map(|(name, value)| {
                format!("{}:{}", Value::String(name.clone()), canonical(value))
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(canonical).collect();
            format!("[{}]", values.join(","))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::freshness::Position;

    fn stored(sequence: u64, event: &str) -> StoredEvent {
        StoredEvent {
            position: Position::default(),
            sequence,
            time: Timestamp::from_millisecond(1_795_744_511_984).unwrap(),
            event: event.to_owned(),
            seal: None,
        }
    }

    #[test]
    fn a_hash_is_the_same_however_the_event_is_spelled() {
        let one = Record::of("c", &stored(1, r#"{"a":"x/y","b":{"d":"1","c":"ä"}}"#), "");
        let other = Record::of(
            "c",
            &stored(1, r#"{"b":{"c":"\u00e4","d":"1"},"a":"x\/y"}"#),
            "",
        );
        assert_eq!(one.hash, other.hash);
        let line = serde_json::to_string(&one).unwrap();
        let again: Record = serde_json::from_str(&line).unwrap();
        assert_eq!((again.hashed(), &again), (one.hash.clone(), &one));
    }

    #[test]
    fn a_hash_covers_everything() {
        let one = Record::of("c", &stored(1, r#"{"a":"b"}"#), "p");
        for other in [
            Record::of("d", &stored(1, r#"{"a":"b"}"#), "p"),
            Record::of("c", &stored(2, r#"{"a":"b"}"#), "p"),
            Record::of("c", &stored(1, r#"{"a":"c"}"#), "p"),
            Record::of("c", &stored(1, r#"{"a":"b"}"#), "q"),
            Record::of("c", &stored(1, "nonsense"), "p"),
        ] {
            assert_ne!(one.hash, other.hash);
        }
        let mut later = one.clone();
        later.time = Timestamp::from_millisecond(1).unwrap();
        assert_ne!(one.hash, later.hashed());
    }
}
