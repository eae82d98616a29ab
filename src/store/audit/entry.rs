//! The entries in the streams of the audit log: events, and entries that cannot be read as events.

use jiff::Timestamp;

use super::super::error::StoreError;
use super::super::stream::{Entry, RawEntry};
use super::{Seal, StoredEvent};
use crate::domain::freshness::Position;

/// The format of audit entries that this version reads.
const FORMAT: &str = "1";

/// An entry of the audit log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrailEntry {
    /// An event.
    Event(StoredEvent),
    /// An entry that cannot be read as an event. It may have been an event about anything.
    Damaged(DamagedEntry),
}

/// An entry of the audit log that cannot be read as an event. This value does not repeat the entry's content, because
/// that may be about anything and any person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedEntry {
    /// Its position in its stream.
    pub position: Position,
    /// Its place in the audit log, if that can be read.
    pub sequence: Option<u64>,
    /// What is wrong with it.
    pub problem: String,
    /// Whether it has another format: then a newer broker can read it.
    pub is_of_another_format: bool,
}

impl TrailEntry {
    /// The entry's position in its stream.
    #[must_use]
    pub const fn position(&self) -> Position {
        match self {
            Self::Event(event) => event.position,
            Self::Damaged(damaged) => damaged.position,
        }
    }

    /// # Errors
    /// [`StoreError::Unreadable`] if even the position cannot be read: then the answer does not come from Redis.
    pub(super) fn read(raw: &RawEntry, key: &str) -> Result<Self, StoreError> {
        let entry = Entry::read(raw, key)?;
        Ok(match read_event(&entry) {
            Ok(event) => Self::Event(event),
            Err(problem) => Self::Damaged(DamagedEntry {
                position: entry.position,
                sequence: number(&entry, "sequence").ok(),
                problem: problem.to_owned(),
                is_of_another_format: is_of_another_format(&entry),
            }),
        })
    }
}

fn is_of_another_format(entry: &Entry) -> bool {
    let format = entry
        .text("v")
        .and_then(|format| format.parse::<u32>().ok());
    format.is_some_and(|format| format.to_string() != FORMAT)
}

fn read_event(entry: &Entry) -> Result<StoredEvent, &'static str> {
    if is_of_another_format(entry) {
        return Err("its format is not the one that this broker reads");
    }
    let seal = match (entry.bytes("hash"), entry.bytes("previous")) {
        (None, _) => None,
        (Some(_), previous) => Some(Seal {
            hash: entry.text("hash").ok_or("its hash is not text")?.to_owned(),
            previous: match previous {
                None => String::new(),
                Some(_) => entry
                    .text("previous")
                    .ok_or("the hash of the event before it is not text")?
                    .to_owned(),
            },
        }),
    };
    let millis = number(entry, "time").map_err(|()| "it has no time")?;
    let time = i64::try_from(millis)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok());
    if entry.bytes("event").is_none() {
        return Err("it has no event");
    }
    Ok(StoredEvent {
        position: entry.position,
        sequence: number(entry, "sequence").map_err(|()| "it has no sequence number")?,
        time: time.ok_or("its time is out of range")?,
        event: entry
            .text("event")
            .ok_or("its event is not text")?
            .to_owned(),
        seal,
    })
}

fn number(entry: &Entry, name: &str) -> Result<u64, ()> {
    entry.text(name).ok_or(())?.parse().map_err(drop)
}
