//! The stream of changes: who watches a job hears of each change on every replica.
//!
//! One reader a process follows the stream and hands each change on; a watcher that falls behind, or a
//! reader that lost its connection, is told to look again, because it may have missed something.

use std::time::Duration;

use redis::streams::StreamReadReply;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Store;
use super::error::StoreError;
use crate::domain::ids::JobId;

/// How long one read waits for a change.
const BLOCK: Duration = Duration::from_secs(5);
/// How long the reader waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(500);
const READ_COUNT: usize = 512;
const BACKLOG: usize = 4096;

/// What the stream told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// This job has changed.
    Job(JobId),
    /// Something may have been missed: look again.
    Missed,
}

/// The changes as they come, for many watchers.
#[derive(Clone, Debug)]
pub struct Changes(broadcast::Sender<Change>);

impl Changes {
    /// Begins to follow the stream, until `stop`.
    #[must_use]
    pub fn follow(store: Store, stop: CancellationToken) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        let changes = Self(sender.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(&store, &sender) => {}
            }
        });
        changes
    }

    /// A watcher's own view, from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}

async fn follow(store: &Store, sender: &broadcast::Sender<Change>) {
    loop {
        if let Err(error) = read(store, sender).await {
            warn!(%error, "the stream of changes is lost; connecting again");
        }
        // Nobody listening is no error.
        let _ = sender.send(Change::Missed);
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn read(store: &Store, sender: &broadcast::Sender<Change>) -> Result<(), StoreError> {
    let key = store.key("events");
    let mut connection = store.link.dedicated(BLOCK * 2).await?;
    let mut last = last_id(&mut connection, &key)
        .await
        .map_err(StoreError::from_redis)?;
    // What came between the last connection and this one was not read.
    let _ = sender.send(Change::Missed);
    loop {
        let reply: Option<StreamReadReply> = redis::cmd("XREAD")
            .arg("COUNT")
            .arg(READ_COUNT)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(5000))
            .arg("STREAMS")
            .arg(&key)
            .arg(&last)
            .query_async(&mut connection)
            .await
            .map_err(StoreError::from_redis)?;
        for event in reply
            .into_iter()
            .flat_map(|reply| reply.keys)
            .flat_map(|stream| stream.ids)
        {
            if let Some(job) = event
                .get::<String>("job")
                .and_then(|job| JobId::parse(&job).ok())
            {
                let _ = sender.send(Change::Job(job));
            }
            last = event.id;
        }
    }
}

/// The id of the newest event: reading from `$` would skip what comes between two reads.
async fn last_id(
    connection: &mut redis::aio::MultiplexedConnection,
    key: &str,
) -> redis::RedisResult<String> {
    let newest: redis::streams::StreamRangeReply = redis::cmd("XREVRANGE")
        .arg(key)
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .query_async(connection)
        .await?;
    Ok(newest
        .ids
        .into_iter()
        .next()
        .map_or_else(|| "0-0".to_owned(), |event| event.id))
}
