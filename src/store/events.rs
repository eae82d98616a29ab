//! The stream of changes: every replica hears of each, in one order.
//!
//! One reader a process follows the stream and hands each change on; whoever falls behind, or hears that the
//! connection was lost, looks again, because something may have been missed. A place in the stream is what a
//! `consistency_token` names.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use redis::streams::{StreamRangeReply, StreamReadReply};
use tokio::sync::{broadcast, watch};
use tracing::warn;

use super::error::StoreError;
use super::{Store, codec};
use crate::domain::freshness::Position;
use crate::domain::ids::{JobId, TargetId};

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

struct Reader {
    store: Store,
    events: broadcast::Sender<Event>,
    heard: watch::Sender<Heard>,
}

impl Changes {
    /// The changes, and their reader, which follows the stream for good: nothing comes before it runs.
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
            if let Err(error) = self.read().await {
                warn!(%error, "the stream of changes is lost; connecting again");
            }
            self.tell(self.heard.borrow().position, Change::Lost);
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn read(&self) -> Result<(), StoreError> {
        let key = self.store.key("events");
        let mut connection = self.store.link.dedicated(BLOCK + PATIENCE).await?;
        let mut last = tip(&mut connection, &key).await?;
        // What came between the last connection and this one was not read.
        self.tell(last, Change::Missed);
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("XREAD")
                .arg("COUNT")
                .arg(READ_COUNT)
                .arg("BLOCK")
                .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(1000))
                .arg("STREAMS")
                .arg(&key)
                .arg(last.to_string())
                .cmd("TIME")
                .cmd("XRANGE")
                .arg(&key)
                .arg("-")
                .arg("+")
                .arg("COUNT")
                .arg(1);
            let sent = Instant::now();
            let (reply, (seconds, micros), oldest): (
                Option<StreamReadReply>,
                (i64, i32),
                StreamRangeReply,
            ) = pipe
                .query_async(&mut connection)
                .await
                .map_err(StoreError::from_redis)?;
            let clock = (Instant::now(), codec::redis_time(seconds, micros)?);
            let ids = reply
                .into_iter()
                .flat_map(|reply| reply.keys)
                .flat_map(|stream| stream.ids);
            // Redis reads on from what is left, and says nothing of what was dropped in between.
            if last > Position::default() && first_of(&oldest, &key)? > last {
                self.tell(last, Change::Missed);
            }
            let mut read = 0;
            for event in ids {
                read += 1;
                last = position(&event.id, &key)?;
                self.tell(last, change_of(&event));
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

    fn tell(&self, position: Position, change: Change) {
        // Nobody listening is no error.
        let _ = self.events.send(Event { position, change });
    }
}

fn change_of(event: &redis::streams::StreamId) -> Change {
    let job = || JobId::parse(&event.get::<String>("job")?).ok();
    let target = || event.get::<String>("target")?.parse().ok();
    let known = job().map(Change::Job);
    let known = known.or_else(|| target().map(Change::Effects));
    known.unwrap_or(Change::Other)
}

pub(super) fn position(id: &str, key: &str) -> Result<Position, StoreError> {
    id.parse().map_err(|_| StoreError::Unreadable {
        key: key.to_owned(),
        problem: format!("an event's id is {id:?}"),
    })
}

/// The newest event: reading from `$` would skip what comes between two reads.
async fn tip(
    connection: &mut redis::aio::MultiplexedConnection,
    key: &str,
) -> Result<Position, StoreError> {
    let newest = read_newest(key).query_async(connection).await;
    first_of(&newest.map_err(StoreError::from_redis)?, key)
}

fn read_newest(key: &str) -> redis::Cmd {
    let mut read = redis::cmd("XREVRANGE");
    read.arg(key).arg("+").arg("-").arg("COUNT").arg(1);
    read
}

/// Where the first of these events is; at the very beginning where there is none.
fn first_of(events: &StreamRangeReply, key: &str) -> Result<Position, StoreError> {
    match events.ids.first() {
        None => Ok(Position::default()),
        Some(event) => position(&event.id, key),
    }
}

impl Store {
    /// The newest place in the stream of changes. O(1).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn newest_change(&self) -> Result<Position, StoreError> {
        let key = self.key("events");
        let newest: StreamRangeReply = self
            .link
            .with(|mut connection| {
                let read = read_newest(&key);
                async move { read.query_async(&mut connection).await }
            })
            .await?;
        first_of(&newest, &key)
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
        let members: Vec<String> = self
            .link
            .with(|mut connection| {
                let mut read = redis::cmd("ZRANGEBYSCORE");
                read.arg(&key).arg(time.as_millisecond()).arg("+inf");
                async move { read.query_async(&mut connection).await }
            })
            .await?;
        let parsed = members.iter().filter_map(|member| {
            let parsed = member.parse();
            // It names none of our targets, whatever it is.
            parsed
                .inspect_err(|error| warn!(key, %error, "passed over"))
                .ok()
        });
        Ok(parsed.collect())
    }

    /// Redis's time. O(1).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn time(&self) -> Result<Timestamp, StoreError> {
        let (seconds, micros): (i64, i32) =
            self.link
                .with(|mut connection| async move {
                    redis::cmd("TIME").query_async(&mut connection).await
                })
                .await?;
        codec::redis_time(seconds, micros)
    }
}
