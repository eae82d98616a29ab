//! What stands in the streams of the trail: events, and what cannot be read as one.

use jiff::Timestamp;

use super::super::error::StoreError;
use super::super::stream::{Entry, RawEntry};
use super::{Seal, StoredEvent};
use crate::domain::freshness::Position;

/// The format of the trail's entries that this version reads.
const FORMAT: &str = "1";

/// An entry of the trail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrailEntry {
    /// An event.
    Event(StoredEvent),
    /// Something that cannot be read as an event. It may have been one, about anything.
    Damaged(DamagedEntry),
}

/// An entry of the trail that cannot be read as an event. What it holds is not repeated here: it may be anything, about
/// anybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedEntry {
    /// Where it stands in its stream.
    pub position: Position,
    /// Its place in the trail, where that can be read.
    pub sequence: Option<u64>,
    /// What is wrong with it.
    pub problem: String,
    /// It is of another format: a newer broker can read it.
    pub is_of_another_format: bool,
}

impl TrailEntry {
    /// Where it stands in its stream.
    #[must_use]
    pub const fn position(&self) -> Position {
        match self {
            Self::Event(event) => event.position,
            Self::Damaged(damaged) => damaged.position,
        }
    }

    /// # Errors
    /// [`StoreError::Unreadable`] where even its place in the stream cannot be read: then the answer is not Redis's.
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
        return Err("it is of another format than this broker reads");
    }
    let seal = match (entry.bytes("hash"), entry.bytes("previous")) {
        (None, _) => None,
        (Some(_), previous) => Some(Seal {
            hash: entry.text("hash").ok_or("its hash is no text")?.to_owned(),
            previous: match previous {
                None => String::new(),
                Some(_) => entry
                    .text("previous")
                    .ok_or("the hash before it is no text")?
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
        time: time.ok_or("its time is none that there can be")?,
        event: entry
            .text("event")
            .ok_or("its event is no text")?
            .to_owned(),
        seal,
    })
}

fn number(entry: &Entry, name: &str) -> Result<u64, ()> {
    entry.text(name).ok_or(())?.parse().map_err(drop)
}
