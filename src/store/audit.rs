//! The audit trail as it is kept: events as scripts append them, and, once they are sealed, with their hashes.
//!
//! `audit` has the events that nobody has sealed yet, `audit:sealed` the others, under the same positions: they are
//! moved, oldest first, by whoever holds the sealer's lease. So an event is in exactly one of the two, and the bounds of
//! the trail are only ever drawn behind what has been exported.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use redis::streams::{StreamId, StreamRangeReply};
use serde::Serialize;
use uuid::Uuid;

use super::Store;
use super::error::StoreError;
use super::link::COMES_AGAIN_WITHIN;
use super::script::millis;
use crate::domain::freshness::Position;
use crate::domain::ids::LeaseToken;

/// How far the chain has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealHead {
    /// The last event's place; `None`: there is none yet.
    pub sequence: Option<u64>,
    /// Its hash, in hex; empty where there is none.
    pub hash: String,
}

/// An event of the trail, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEvent {
    /// Where it stands in its stream.
    pub position: Position,
    /// Its place in the trail.
    pub sequence: u64,
    /// When, by Redis's clock.
    pub time: Timestamp,
    /// The event, as JSON.
    pub event: String,
    /// Once it is sealed.
    pub seal: Option<Seal>,
}

/// What ties an event to the one before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal {
    /// SHA-256 over the event and the hash before it, in hex.
    pub hash: String,
    /// The hash before it; empty for the first event.
    pub previous: String,
}

/// How much of what is sealed is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Older ones go.
    pub age: Duration,
    /// Of more than so many the oldest go.
    pub count: u64,
}

/// What can be said of the trail as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrailState {
    /// The last sequence number that was given.
    pub last: u64,
    /// How far the chain has come.
    pub head: SealHead,
    /// The first sealed event that is kept, when that was last drawn; `None`: it was not yet, or none is.
    pub first: Option<u64>,
    /// How many events wait for their seal.
    pub unsealed: u64,
}

#[derive(Serialize)]
struct EventArgument<'a> {
    token: String,
    remembered: u64,
    audit_event: &'a str,
}

#[derive(Serialize)]
struct BeginArgument {
    token: String,
    lease: u64,
    count: usize,
}

#[derive(Serialize)]
struct EndArgument {
    token: String,
}

#[derive(Serialize)]
struct SealArgument<'a> {
    token: String,
    lease: u64,
    after: String,
    rows: Vec<SealRow<'a>>,
    age: u64,
    count: u64,
}

#[derive(Serialize)]
struct SealRow<'a> {
    id: String,
    sequence: String,
    time: i64,
    event: &'a str,
    previous: &'a str,
    hash: &'a str,
}

impl Store {
    /// Writes one event, as JSON, that stands alone: a refusal. `token` is of this event alone: where the answer is lost
    /// and the event is sent again, it is written once. O(1), one script.
    ///
    /// # Errors
    /// [`StoreError`]: it may have been written or not.
    pub async fn write_event(&self, token: Uuid, event: &str) -> Result<(), StoreError> {
        let argument = EventArgument {
            token: token.to_string(),
            remembered: millis(COMES_AGAIN_WITHIN),
            audit_event: event,
        };
        self.run::<_, ()>(&self.scripts.audit, &argument).await
    }

    /// Takes the sealer's lease, or renews it, and says how far the chain has come, and which up to `count` events come
    /// next; `None`: somebody else has it. O(count), one script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn begin_seal(
        &self,
        token: LeaseToken,
        lease: Duration,
        count: usize,
    ) -> Result<Option<(SealHead, Vec<StoredEvent>)>, StoreError> {
        let argument = BeginArgument {
            token: token.to_string(),
            lease: millis(lease),
            count,
        };
        let (answer, events): (Vec<String>, StreamRangeReply) =
            self.run(&self.scripts.seal_begin, &argument).await?;
        match answer.as_slice() {
            [word] if word == "taken" => Ok(None),
            [word, sequence, hash] if word == "held" => {
                let key = self.key("audit");
                let events = events.ids.iter().map(|entry| event_of(entry, &key));
                Ok(Some((
                    self.head(sequence, hash)?,
                    events.collect::<Result<_, _>>()?,
                )))
            }
            other => Err(self.odd("seal_begin", other)),
        }
    }

    /// Gives the sealer's lease back. O(1), one script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn end_seal(&self, token: LeaseToken) -> Result<(), StoreError> {
        let argument = EndArgument {
            token: token.to_string(),
        };
        self.run::<_, ()>(&self.scripts.seal_end, &argument).await
    }

    /// Up to `count` sealed events behind a position, the oldest first. O(count).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn sealed_behind(
        &self,
        position: Option<Position>,
        count: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let from = position.map_or_else(|| "-".to_owned(), |it| format!("({it}"));
        self.events_of("audit:sealed", "XRANGE", &from, "+", count)
            .await
    }

    /// Moves events, in their order, to those that are sealed, and draws the bounds of what is kept; `false`: the lease
    /// is somebody else's, or the chain has moved. O(events), one script.
    ///
    /// # Errors
    /// [`StoreError`]: it may have been done or not.
    pub async fn seal(
        &self,
        token: LeaseToken,
        lease: Duration,
        after: &SealHead,
        events: &[StoredEvent],
        keep: Keep,
    ) -> Result<bool, StoreError> {
        // Those without a seal stay where they are, and so does what is behind them.
        let sealed = events
            .iter()
            .map_while(|event| Some((event, event.seal.as_ref()?)));
        let rows = sealed.map(|(event, seal)| SealRow {
            id: event.position.to_string(),
            sequence: event.sequence.to_string(),
            time: event.time.as_millisecond(),
            event: &event.event,
            previous: &seal.previous,
            hash: &seal.hash,
        });
        let sequence = after.sequence.map(|it| it.to_string());
        let argument = SealArgument {
            token: token.to_string(),
            lease: millis(lease),
            after: sequence.unwrap_or_default(),
            rows: rows.collect(),
            age: millis(keep.age),
            count: keep.count,
        };
        let answer: Vec<String> = self.run(&self.scripts.seal, &argument).await?;
        match answer.as_slice() {
            [word] if word == "sealed" => Ok(true),
            [word] if word == "moved" => Ok(false),
            other => Err(self.odd("seal", other)),
        }
    }

    /// Up to `count` events before a position, the newest first, and none from before a time. O(count).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn trail(
        &self,
        before: Option<Position>,
        not_before: Option<Timestamp>,
        count: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let until =
            |before: Option<Position>| before.map_or_else(|| "+".to_owned(), |it| format!("({it}"));
        let from =
            not_before.map_or_else(|| "-".to_owned(), |time| time.as_millisecond().to_string());
        // What is sealed between the two looks was in the first, and is passed over in the second.
        let mut events = self
            .events_of("audit", "XREVRANGE", &until(before), &from, count)
            .await?;
        if events.len() < count {
            let before = events.last().map(|event| event.position).or(before);
            let left = count - events.len();
            let until = until(before);
            let sealed = self.events_of("audit:sealed", "XREVRANGE", &until, &from, left);
            events.extend(sealed.await?);
        }
        Ok(events)
    }

    /// The trail as a whole. O(1).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn trail_state(&self) -> Result<TrailState, StoreError> {
        let [sequence, seal, audit] =
            ["audit:sequence", "audit:seal", "audit"].map(|it| self.key(it));
        let mut read = redis::pipe();
        read.get(&sequence).hgetall(&seal).xlen(&audit);
        let (last, head, unsealed): (Option<u64>, HashMap<String, String>, u64) =
            self.plain(&read).await?;
        let field = |name: &str| head.get(name).map_or("", String::as_str);
        Ok(TrailState {
            last: last.unwrap_or_default(),
            head: self.head(field("sequence"), field("hash"))?,
            first: field("first").parse().ok(),
            unsealed,
        })
    }

    fn head(&self, sequence: &str, hash: &str) -> Result<SealHead, StoreError> {
        let sequence = match sequence {
            "" => None,
            text => Some(text.parse().map_err(|_| StoreError::Unreadable {
                key: self.key("audit:seal"),
                problem: format!("sequence is {text:?}"),
            })?),
        };
        Ok(SealHead {
            sequence,
            hash: hash.to_owned(),
        })
    }

    async fn events_of(
        &self,
        stream: &str,
        command: &'static str,
        from: &str,
        to: &str,
        count: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let key = self.key(stream);
        let mut read = redis::pipe();
        read.cmd(command)
            .arg(&key)
            .arg(from)
            .arg(to)
            .arg("COUNT")
            .arg(count);
        let (found,): (StreamRangeReply,) = self.plain(&read).await?;
        let events = found.ids.iter().map(|entry| event_of(entry, &key));
        events.collect()
    }

    fn odd(&self, script: &str, answer: &[String]) -> StoreError {
        StoreError::Unreadable {
            key: self.key("audit:seal"),
            problem: format!("the script {script} answered {answer:?}"),
        }
    }
}

fn event_of(entry: &StreamId, key: &str) -> Result<StoredEvent, StoreError> {
    let unreadable = |problem: String| StoreError::Unreadable {
        key: format!("{key} {}", entry.id),
        problem,
    };
    let number = |name: &str| {
        let text: Option<String> = entry.get(name);
        let number = text.as_deref().and_then(|text| text.parse::<u64>().ok());
        number.ok_or_else(|| unreadable(format!("{name} is {text:?}")))
    };
    let hash: Option<String> = entry.get("hash");
    let seal = hash.map(|hash| Seal {
        hash,
        previous: entry.get("previous").unwrap_or_default(),
    });
    let millis = i64::try_from(number("time")?).unwrap_or(i64::MAX);
    Ok(StoredEvent {
        position: super::stream::position(entry.id.as_bytes(), key)?,
        sequence: number("sequence")?,
        time: Timestamp::from_millisecond(millis).map_err(|error| unreadable(error.to_string()))?,
        event: entry
            .get("event")
            .ok_or_else(|| unreadable("it has no event".to_owned()))?,
        seal,
    })
}
