//! The stream of changes: every replica hears of each, in one order.
//!
//! One reader a process follows the stream and hands each change on; whoever falls behind, or hears that the
//! connection was lost, looks again, because something may have been missed. A place in the stream is what a
//! `consistency_token` names.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};
use tracing::warn;

use super::error::StoreError;
use super::meta::Held;
use super::stream::{Entry, RawEntry, position};
use super::{Store, codec};
use crate::domain::freshness::Position;
use crate::domain::ids::{JobId, TargetId};
use crate::telemetry::Loop;

/// How long one read waits for a change: by then the reader knows again that it has heard of all there are.
const BLOCK: Duration = Duration::from_secs(1);
/// How long an answer may take beyond that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the reader waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(500);
const READ_COUNT: usize = 512;
const BACKLOG: usize = 4096;

/// What the stream told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// This job has changed.
    Job(JobId),
    /// What is known of this target's effects has changed.
    Effects(TargetId),
    /// Something that this version does not know, of a newer one's.
    Other,
    /// The connection was lost: look whether it is only the reader's own.
    Lost,
    /// Something may have been missed before this: look again.
    Missed,
}

/// A change, and where it stands in the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Whoever has handled this has heard of everything up to here.
    pub position: Position,
    /// What changed.
    pub change: Change,
}

/// How far the reader has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Everything up to here has been handed on.
    pub position: Position,
    /// There was nothing more in the stream at this moment; `None`: not known yet.
    pub at: Option<Instant>,
    /// A moment, and the store's time then or a little earlier.
    pub clock: Option<(Instant, Timestamp)>,
}

/// The changes as they come, for many who follow them.
#[derive(Clone, Debug)]
pub struct Changes {
    events: broadcast::Sender<Event>,
    heard: watch::Receiver<Heard>,
}

/// The answer of `XREAD`: the key and the entries of each stream, or nothing if nothing came.
type Come = Option<Vec<(Vec<u8>, Vec<RawEntry>)>>;

struct Reader {
    store: Store,
    events: broadcast::Sender<Event>,
    heard: watch::Sender<Heard>,
}

impl Changes {
    /// Makes the changes, and their reader. The reader follows the stream for good; no change arrives before it runs.
    pub fn new(store: Store) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (events, _) = broadcast::channel(BACKLOG);
        let (heard, is_heard) = watch::channel(Heard {
            position: Position::default(),
            at: None,
            clock: None,
        });
        let changes = Self {
            events: events.clone(),
            heard: is_heard,
        };
        let reader = Reader {
            store,
            events,
            heard,
        };
        (changes, async move { reader.follow().await })
    }

    /// A follower's own view, from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// How far the reader has come.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<Heard> {
        self.heard.clone()
    }
}

impl Reader {
    async fn follow(&self) {
        loop {
            match self.read().await {
                Ok(()) => self.begin_anew().await,
                Err(error) => {
                    self.begin_anew().await;
                    // Not before: the loss may be the first sign of a Redis that is away, which the store logs.
                    if !self.store.has_logged(&error) {
                        warn!(%error, "the broker lost the stream of changes; it connects again");
                    }
                }
            }
        }
    }

    async fn begin_anew(&self) {
        self.tell(self.heard.borrow().position, Change::Lost);
        tokio::time::sleep(RECONNECT).await;
    }

    /// Follows the stream over one connection, until that is lost or Redis is in doubt.
    async fn read(&self) -> Result<(), StoreError> {
        // Reads the identity first, because each answer is compared with it.
        self.store.instance().await?;
        let key = self.store.key("events");
        let mut connection = self.store.link.dedicated(BLOCK + PATIENCE).await?;
        let mut last = self.tip(&mut connection, &key).await?;
        // What came between the last connection and this one was not read.
        self.tell(last, Change::Missed);
        loop {
            let sent = Instant::now();
            let (come, (seconds, micros), oldest): (Come, (i64, i32), Vec<RawEntry>) =
                self.ask(&mut connection, &read_on(&key, last)).await?;
            let clock = (Instant::now(), codec::redis_time(seconds, micros)?);
            let come = come.into_iter().flatten().flat_map(|(_, entries)| entries);
            // Redis reads on from what is left, and says nothing of what was dropped in between.
            if last > Position::default() && first_position(&oldest, &key)? > last {
                self.tell(last, Change::Missed);
            }
            let mut read = 0;
            for entry in come {
                read += 1;
                let entry = Entry::read(&entry, &key)?;
                last = entry.position;
                self.tell(last, change_in(&entry));
            }
            // The server looked some time between the question and the answer; where nothing came, to the end.
            let at = match read {
                0 => Some(sent + BLOCK),
                1..READ_COUNT => Some(sent),
                _ => None,
            };
            self.heard.send_modify(|heard| {
                *heard = Heard {
                    position: last,
                    at: at.or(heard.at),
                    clock: Some(clock),
                };
            });
        }
    }

    /// Sends commands over the reader's own connection, and reads `meta` last. If `meta` is right, everything read
    /// before it comes from the Redis that this process began with. A script cannot block, so this sends plain
    /// commands.
    async fn ask<T: redis::FromRedisValue>(
        &self,
        connection: &mut redis::aio::MultiplexedConnection,
        question: &redis::Pipeline,
    ) -> Result<T, StoreError> {
        let meta = self.store.link.meta();
        let mut asked = question.clone();
        asked.add_command(meta.read());
        let ticket = meta.ticket();
        let answer: Result<Vec<redis::Value>, _> = asked.query_async(connection).await;
        let mut answer = answer.map_err(StoreError::from_redis)?;
        let held: Held = read_as(answer.pop().unwrap_or(redis::Value::Nil))?;
        meta.judge(ticket, meta.compare(&held))?;
        read_as(redis::Value::Array(answer))
    }

    /// The newest event: reading from `$` would skip what comes between two reads.
    async fn tip(
        &self,
        connection: &mut redis::aio::MultiplexedConnection,
        key: &str,
    ) -> Result<Position, StoreError> {
        let (newest,): (Vec<RawEntry>,) = self.ask(connection, &read_newest(key)).await?;
        first_position(&newest, key)
    }

    fn tell(&self, position: Position, change: Change) {
        // Nobody listening is no error.
        let _ = self.events.send(Event { position, change });
    }
}

fn change_in(entry: &Entry) -> Change {
    let job = || JobId::parse(entry.text("job")?).ok();
    let target = || entry.text("target")?.parse().ok();
    let known = job().map(Change::Job);
    let known = known.or_else(|| target().map(Change::Effects));
    known.unwrap_or(Change::Other)
}

fn read_as<T: redis::FromRedisValue>(value: redis::Value) -> Result<T, StoreError> {
    redis::from_redis_value(value).map_err(|error| StoreError::from_redis(error.into()))
}

/// Reads what came after a position, and waits for it; then Redis's time, and the oldest event that is left.
fn read_on(key: &str, last: Position) -> redis::Pipeline {
    let mut read = redis::pipe();
    read.cmd("XREAD")
        .arg("COUNT")
        .arg(READ_COUNT)
        .arg("BLOCK")
        .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(1000))
        .arg("STREAMS")
        .arg(key)
        .arg(last.to_string())
        .cmd("TIME")
        .cmd("XRANGE")
        .arg(key)
        .arg("-")
        .arg("+")
        .arg("COUNT")
        .arg(1);
    read
}

fn read_newest(key: &str) -> redis::Pipeline {
    let mut read = redis::pipe();
    read.cmd("XREVRANGE")
        .arg(key)
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1);
    read
}

/// Where the first of these events is; at the very beginning where there is none.
fn first_position(events: &[RawEntry], key: &str) -> Result<Position, StoreError> {
    match events.first() {
        None => Ok(Position::default()),
        Some((id, _)) => position(id, key),
    }
}

impl Store {
    /// The newest place in the stream of changes. O(1).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn newest_change(&self) -> Result<Position, StoreError> {
        let key = self.key("events");
        let (newest,): (Vec<RawEntry>,) = self.plain(&read_newest(&key)).await?;
        first_position(&newest, &key)
    }

    /// The targets whose effects have changed since then, as far back as twice the lag. O(log n + those).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn targets_changed_since(
        &self,
        time: Timestamp,
    ) -> Result<Vec<TargetId>, StoreError> {
        let key = self.key("recent");
        let mut read = redis::pipe();
        read.cmd("ZRANGEBYSCORE")
            .arg(&key)
            .arg(time.as_millisecond())
            .arg("+inf");
        let (members,): (Vec<Vec<u8>>,) = self.plain(&read).await?;
        let parsed = members.iter().filter_map(|member| {
            let member = String::from_utf8_lossy(member);
            match member.parse() {
                Ok(target) => Some(target),
                Err(error) => {
                    // It names no target, so no target is missed.
                    let error: crate::domain::ids::InvalidTargetId = error;
                    self.tell_skipped_entry(Loop::Changes, &key, &member, &error);
                    None
                }
            }
        });
        Ok(parsed.collect())
    }

    /// Redis's time. O(1).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn time(&self) -> Result<Timestamp, StoreError> {
        let mut read = redis::pipe();
        read.cmd("TIME");
        let ((seconds, micros),): ((i64, i32),) = self.plain(&read).await?;
        codec::redis_time(seconds, micros)
    }
}
