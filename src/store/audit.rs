//! The audit trail as it is kept: events as scripts append them, and, once they are sealed, with their hashes.
//!
//! `audit` has the events that nobody has sealed yet, `audit:sealed` the others, under the same positions: they are
//! moved, oldest first, by whoever holds the sealer's lease. So an event is in exactly one of the two, and the bounds of
//! the trail are only ever drawn behind what has been exported.
//!
//! An entry that cannot be read as an event stops neither the sealer nor a list. The sealer moves it to
//! `audit:damaged`, with all its bytes, instead of sealing it. An event of the audit log reports it.

mod entry;

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

pub use entry::{DamagedEntry, TrailEntry};

use super::Store;
use super::error::StoreError;
use super::link::COMES_AGAIN_WITHIN;
use super::read::{Fields, text};
use super::script::millis;
use super::stream::RawEntry;
use crate::domain::freshness::Position;
use crate::domain::ids::LeaseToken;
use crate::telemetry::Loop;

/// How far the chain has come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SealHead {
    /// The last event's place; `None`: there is none yet.
    pub sequence: Option<u64>,
    /// Its hash, in hex; empty where there is none.
    pub hash: String,
    /// The last place in the audit log that the sealer gave up, because the entry there could not be read.
    pub aside: Option<u64>,
}

/// An entry to move out of the audit log, because it cannot be read as an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAside {
    /// Its position in its stream.
    pub position: Position,
    /// Its place in the audit log, as far as that is known.
    pub sequence: u64,
    /// What is wrong with it.
    pub problem: String,
    /// The event that reports it, as JSON.
    pub audit_event: String,
}

/// An event of the trail, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEvent {
    /// Its position in its stream.
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

/// The broker's own name as an actor.
pub const BROKER: &str = "aks-access-broker";

/// How much of what is sealed is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Older ones go.
    pub age: Duration,
    /// Of more than so many the oldest go.
    pub count: u64,
}

/// How much of the audit log refusals may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefusalBounds {
    /// How many events of refusals one caller has each minute. The others are counted.
    pub per_minute: u32,
    /// How many events of refusals there are at most in any time of this length.
    pub share: u64,
    /// See `share`.
    pub over: Duration,
}

/// A refused request, as the audit log has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Belongs to this refusal alone: if it is sent again, because the answer was lost, it is written once.
    pub token: Uuid,
    /// Who was refused.
    pub actor: String,
    /// How many refusals it stands for.
    pub count: u64,
    /// The audit event, as JSON.
    pub audit_event: String,
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
    actor: &'a str,
    count: u64,
    broker: &'static str,
    per_minute: u32,
    share: u64,
    over: u64,
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
struct AsideArgument<'a> {
    token: String,
    after: String,
    rows: Vec<AsideRow<'a>>,
}

#[derive(Serialize)]
struct AsideRow<'a> {
    id: String,
    sequence: String,
    problem: &'a str,
    audit_event: &'a str,
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
    /// Writes the event of a refusal, or counts it where the bounds leave no room: then one event tells the count after a
    /// minute. O(1), one script.
    ///
    /// # Errors
    /// [`StoreError`]: it may have been written or not.
    pub async fn write_refusal(
        &self,
        refusal: &Refusal,
        bounds: RefusalBounds,
    ) -> Result<(), StoreError> {
        let argument = EventArgument {
            token: refusal.token.to_string(),
            remembered: millis(COMES_AGAIN_WITHIN),
            audit_event: &refusal.audit_event,
            actor: &refusal.actor,
            count: refusal.count,
            broker: BROKER,
            per_minute: bounds.per_minute,
            share: bounds.share,
            over: millis(bounds.over),
        };
        self.run::<_, ()>(&self.scripts.audit, &argument).await
    }

    /// Appends the events that tell how many refusals were counted, for all callers whose minute is over. O(callers), one
    /// script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn tell_counted_refusals(&self, bounds: RefusalBounds) -> Result<(), StoreError> {
        let nothing = Refusal {
            token: Uuid::nil(),
            actor: String::new(),
            count: 0,
            audit_event: String::new(),
        };
        self.write_refusal(&nothing, bounds).await
    }

    /// Takes the sealer's lease, or renews it, and says how far the chain has come, and which up to `count` entries
    /// come next; `None` if another replica has the lease. O(count), one script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn begin_seal(
        &self,
        token: LeaseToken,
        lease: Duration,
        count: usize,
    ) -> Result<Option<(SealHead, Vec<TrailEntry>)>, StoreError> {
        let argument = BeginArgument {
            token: token.to_string(),
            lease: millis(lease),
            count,
        };
        let (is_held, seal, entries): (u8, Fields, Vec<RawEntry>) =
            self.run(&self.scripts.seal_begin, &argument).await?;
        if is_held == 0 {
            return Ok(None);
        }
        Ok(Some((
            self.head(seal)?.0,
            read_entries(&entries, &self.key("audit"))?,
        )))
    }

    /// Moves unreadable entries out of the audit log, each with all its bytes, and appends the events that report them.
    /// Returns `false` if the lease or the chain's end is another one. O(rows), one script.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn set_aside(
        &self,
        token: LeaseToken,
        after: &SealHead,
        rows: &[SetAside],
    ) -> Result<bool, StoreError> {
        let sequence = after.sequence.map(|it| it.to_string());
        let argument = AsideArgument {
            token: token.to_string(),
            after: sequence.unwrap_or_default(),
            rows: rows
                .iter()
                .map(|row| AsideRow {
                    id: row.position.to_string(),
                    sequence: row.sequence.to_string(),
                    problem: &row.problem,
                    audit_event: &row.audit_event,
                })
                .collect(),
        };
        let answer: Vec<String> = self.run(&self.scripts.seal_aside, &argument).await?;
        match answer.as_slice() {
            [word] if word == "aside" => Ok(true),
            [word] if word == "moved" => Ok(false),
            other => Err(self.odd("seal_aside", other)),
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

    /// Up to `count` sealed entries behind a position, the oldest first. O(count).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn sealed_behind(
        &self,
        position: Option<Position>,
        count: usize,
    ) -> Result<Vec<TrailEntry>, StoreError> {
        let from = position.map_or_else(|| "-".to_owned(), |it| format!("({it}"));
        self.entries_of("audit:sealed", "XRANGE", &from, "+", count)
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

    /// Up to `count` entries before a position, the newest first, and none from before a time. Unreadable
    /// entries are among them; the log names each, once a minute. O(count).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn trail(
        &self,
        before: Option<Position>,
        not_before: Option<Timestamp>,
        count: usize,
    ) -> Result<Vec<TrailEntry>, StoreError> {
        let until =
            |before: Option<Position>| before.map_or_else(|| "+".to_owned(), |it| format!("({it}"));
        let from =
            not_before.map_or_else(|| "-".to_owned(), |time| time.as_millisecond().to_string());
        // What is sealed between the two looks was in the first, and is passed over in the second.
        let mut entries = self
            .entries_of("audit", "XREVRANGE", &until(before), &from, count)
            .await?;
        if entries.len() < count {
            let before = entries.last().map(TrailEntry::position).or(before);
            let left = count - entries.len();
            let until = until(before);
            let sealed = self.entries_of("audit:sealed", "XREVRANGE", &until, &from, left);
            entries.extend(sealed.await?);
        }
        Ok(entries)
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
        let (last, seal, unsealed): (Option<u64>, Fields, u64) = self.plain(&read).await?;
        let (head, first) = self.head(seal)?;
        Ok(TrailState {
            last: last.unwrap_or_default(),
            head,
            first,
            unsealed,
        })
    }

    /// How far the chain has come, and the first event that is kept, from the record of the sealer.
    fn head(&self, seal: Fields) -> Result<(SealHead, Option<u64>), StoreError> {
        let key = self.key("audit:seal");
        let seal = text(&key, seal)?;
        let field = |name: &str| seal.get(name).filter(|value| !value.is_empty());
        let sequence = match field("sequence") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| StoreError::Unreadable {
                key,
                problem: format!("sequence is {text:?}"),
            })?),
        };
        let head = SealHead {
            sequence,
            hash: field("hash").cloned().unwrap_or_default(),
            aside: field("aside").and_then(|text| text.parse().ok()),
        };
        Ok((head, field("first").and_then(|text| text.parse().ok())))
    }

    async fn entries_of(
        &self,
        stream: &str,
        command: &'static str,
        from: &str,
        to: &str,
        count: usize,
    ) -> Result<Vec<TrailEntry>, StoreError> {
        let key = self.key(stream);
        let mut read = redis::pipe();
        read.cmd(command)
            .arg(&key)
            .arg(from)
            .arg(to)
            .arg("COUNT")
            .arg(count);
        let (entries,): (Vec<RawEntry>,) = self.plain(&read).await?;
        let entries = read_entries(&entries, &key)?;
        for entry in &entries {
            if let TrailEntry::Damaged(damaged) = entry {
                self.tell_skipped_entry(
                    Loop::Audit,
                    &key,
                    &damaged.position.to_string(),
                    &damaged.problem,
                );
            }
        }
        Ok(entries)
    }

    fn odd(&self, script: &str, answer: &[String]) -> StoreError {
        StoreError::Unreadable {
            key: self.key("audit:seal"),
            problem: format!("the script {script} answered {answer:?}"),
        }
    }
}

fn read_entries(entries: &[RawEntry], key: &str) -> Result<Vec<TrailEntry>, StoreError> {
    let read = |entry| TrailEntry::read(entry, key);
    entries.iter().map(read).collect()
}
