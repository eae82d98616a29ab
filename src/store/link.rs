//! The connection to Redis: one that many requests share, made anew when it is lost, and never used
//! before the server behind it has shown that it can keep I1 and is the one that this process began with.
//!
//! The store's work goes through [`Link::invoke`], as a script that compares `meta` first. So there is no moment at
//! which another Redis is read or written by mistake. There are two exceptions. The reader of the stream of changes
//! blocks, so it has its own connection, and reads `meta` with every answer. A new connection sends `INFO`, `CONFIG
//! GET` and `HMGET` of `meta` before it is used; a process that starts makes a missing `meta` with `HSETNX`.
//!
//! A library's own reconnecting would be invisible: after a failover the next server may be one that
//! evicts, or a replica. So the connection is replaced here, where the check belongs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError,
    Script,
};
use uuid::Uuid;

use super::durability;
use super::error::StoreError;
use super::meta::{FORMAT, Held, Identity, Meta};
use crate::config;

/// Longer than a slow fsync, shorter than anybody's patience.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest time between the two sendings of one script. The first one waits for at most three answers (Redis does
/// not know the script, loads it, runs it). A new connection takes its own time and waits for three more (two for
/// durability, one for `meta`). [`Link::with`] enforces this bound, because the machine may sleep in between.
const SENT_AGAIN_WITHIN: Duration =
    CONNECTION_TIMEOUT.saturating_add(RESPONSE_TIMEOUT.saturating_mul(6));

/// How long Redis has to remember that a script was carried out, to recognise it when it comes again. Much longer than
/// [`SENT_AGAIN_WITHIN`], because the server may stand still before it gets to the second one.
pub(super) const COMES_AGAIN_WITHIN: Duration = SENT_AGAIN_WITHIN.saturating_mul(20);

pub(super) struct Link {
    redis: Arc<config::Redis>,
    meta: Arc<Meta>,
    /// A std mutex: held for moments, never across an await.
    current: Mutex<Current>,
}

/// The shared connection: there, or on its way. Whoever asks while it is on its way gets what comes of it, the
/// failure as well: one attempt after the other, each with a time-out of its own, the last of many callers would
/// wait for minutes.
type Connecting = Shared<BoxFuture<'static, Result<MultiplexedConnection, StoreError>>>;

#[derive(Default)]
struct Current {
    /// How many attempts there have been: tells a connection that was lost from the one that came after it.
    attempts: u64,
    connecting: Option<Connecting>,
}

impl Link {
    /// Makes a link. `meta` is the key that holds the format and the broker's instance id.
    pub(super) fn new(redis: &config::Redis, meta: String) -> Result<Self, StoreError> {
        let link = Self {
            redis: Arc::new(redis.clone()),
            meta: Arc::new(Meta::new(meta)),
            current: Mutex::default(),
        };
        client(&link.redis).map(|_| link)
    }

    /// What is known of the key `meta`.
    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What this process began with. The first call reads it from Redis, or makes it if it is missing.
    ///
    /// # Errors
    /// [`StoreError`]; then the next call tries again.
    pub(super) async fn identity(&self) -> Result<&Identity, StoreError> {
        if let Some(identity) = self.meta.began_with() {
            return Ok(identity);
        }
        let ticket = self.meta.ticket();
        let read = self.read_identity().await;
        // What else can be wrong ends the process, which says so.
        if matches!(read, Ok(_) | Err(StoreError::Unavailable(_))) {
            self.meta.judge_reach(ticket, &read);
        }
        // Several callers may do this at once. All read the same, and none waits for another's failure.
        Ok(self.meta.begin_with(read?))
    }

    async fn read_identity(&self) -> Result<Identity, StoreError> {
        // Reads first: a full Redis takes no writes, but a broker that ran before has to start all the same.
        let held = match self.held().await? {
            (Some(format), Some(instance)) => (Some(format), Some(instance)),
            _ => self.make_meta().await?,
        };
        Identity::read(self.meta.key(), &held)
    }

    async fn held(&self) -> Result<Held, StoreError> {
        self.with(|mut connection| {
            let read = self.meta.read();
            async move { read.query_async(&mut connection).await }
        })
        .await
    }

    /// Makes the missing fields. If two brokers start at once, the values of one count for both.
    async fn make_meta(&self) -> Result<Held, StoreError> {
        let fresh = Uuid::new_v4().to_string();
        for (field, value) in [("v", FORMAT), ("instance", fresh.as_str())] {
            self.with(|mut connection| {
                let mut write = redis::cmd("HSETNX");
                write.arg(self.meta.key()).arg(field).arg(value);
                async move { write.query_async::<()>(&mut connection).await }
            })
            .await?;
        }
        self.held().await
    }

    /// Runs a script with these arguments. If the connection is lost meanwhile, runs it once more over a new one, so
    /// every script has to be idempotent. Each script compares `meta` with the [`identity`](Self::identity) in its
    /// argument.
    ///
    /// # Errors
    /// [`StoreError::InDoubt`] if Redis is not the one that this process began with. The script has changed nothing in
    /// the present Redis. If the first connection broke, the script may have run on the earlier one.
    pub(super) async fn invoke<T>(
        &self,
        script: &Script,
        arguments: &[&[u8]],
    ) -> Result<T, StoreError>
    where
        T: FromRedisValue,
    {
        let ticket = self.meta.ticket();
        let outcome = self
            .with(|mut connection| {
                let mut invocation = script.key(self.meta.key());
                for argument in arguments {
                    invocation.arg(*argument);
                }
                async move { invocation.invoke_async(&mut connection).await }
            })
            .await;
        self.meta.judge(ticket, outcome)
    }

    /// Makes a separate connection, for commands that block. The caller has to compare `meta` with each answer.
    pub(super) async fn dedicated(
        &self,
        response_timeout: Duration,
    ) -> Result<MultiplexedConnection, StoreError> {
        let ticket = self.meta.ticket();
        let connected = connect(&self.redis, &self.meta, response_timeout).await;
        self.meta.judge(ticket, connected)
    }

    /// The shared connection, and which attempt it came of.
    async fn shared(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let (connecting, attempt) = {
            let mut current = self.current();
            let connecting = if let Some(connecting) = &current.connecting {
                connecting.clone()
            } else {
                current.attempts += 1;
                let connecting = connecting(Arc::clone(&self.redis), Arc::clone(&self.meta));
                current.connecting.insert(connecting).clone()
            };
            (connecting, current.attempts)
        };
        match connecting.await {
            Ok(connection) => Ok((connection, attempt)),
            Err(error) => {
                self.forget(attempt);
                Err(error)
            }
        }
    }

    /// What came of this attempt is of no use any more; what came of a later one stays.
    fn forget(&self, attempt: u64) {
        let mut current = self.current();
        if current.attempts == attempt {
            current.connecting = None;
        }
    }

    /// Does `action` over the shared connection; where the connection is lost meanwhile, once more over a
    /// new one. What is done here must therefore be idempotent.
    async fn with<T, F, A>(&self, action: A) -> Result<T, StoreError>
    where
        A: Fn(MultiplexedConnection) -> F,
        F: Future<Output = Result<T, RedisError>>,
    {
        let (connection, attempt) = self.shared().await?;
        let sent = Sent::now();
        let first = match action(connection).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        // A replica that was a master, or a server that is loading, keeps its connection open.
        let error = StoreError::from_redis(first);
        if !matches!(error, StoreError::Unavailable(_)) {
            return Err(error);
        }
        self.forget(attempt);
        let (connection, attempt) = self.shared().await?;
        if sent.elapsed() > SENT_AGAIN_WITHIN {
            return Err(error);
        }
        let again = action(connection).await;
        if again.is_err() {
            self.forget(attempt);
        }
        again.map_err(StoreError::from_redis)
    }

    /// Nothing can panic half-way through a change, so a poisoned lock holds good data.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When something was sent, by two clocks: one may stand still while the machine sleeps, the other may be set.
#[derive(Clone, Copy)]
struct Sent {
    at: Instant,
    by_the_wall: SystemTime,
}

impl Sent {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            by_the_wall: SystemTime::now(),
        }
    }

    /// How long ago that was: the larger of what the two clocks say.
    fn elapsed(self) -> Duration {
        let by_the_wall = self.by_the_wall.elapsed().unwrap_or_default();
        self.at.elapsed().max(by_the_wall)
    }
}

/// Begins to connect, on a task of its own: a caller that goes away in the midst takes nothing from the others.
fn connecting(redis: Arc<config::Redis>, meta: Arc<Meta>) -> Connecting {
    let task = tokio::spawn(async move { connect(&redis, &meta, RESPONSE_TIMEOUT).await });
    let ended = |_| {
        let why = "the attempt to connect broke off";
        StoreError::Unavailable(RedisError::from((ErrorKind::Io, why)))
    };
    task.map(move |connected| connected.map_err(ended).flatten())
        .boxed()
        .shared()
}

async fn connect(
    redis: &config::Redis,
    meta: &Meta,
    response_timeout: Duration,
) -> Result<MultiplexedConnection, StoreError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_response_timeout(Some(response_timeout));
    let mut connection = client(redis)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(StoreError::from_redis)?;
    durability::check(&mut connection, &redis.allow_weaker_durability).await?;
    meta.check(&mut connection).await?;
    Ok(connection)
}

/// A client with the password as it is now: a rotated one is taken at the next connection.
fn client(redis: &config::Redis) -> Result<Client, StoreError> {
    let misconfigured = |error: String| StoreError::Misconfigured(error);
    let mut info = redis
        .url
        .as_str()
        .into_connection_info()
        .map_err(|error| misconfigured(error.to_string()))?;
    let password = redis.password().map_err(|e| misconfigured(e.to_string()))?;
    if let Some(password) = password {
        let settings = info
            .redis_settings()
            .clone()
            .set_password(password.expose());
        info = info.set_redis_settings(settings);
    }
    Client::open(info).map_err(|error| misconfigured(error.to_string()))
}
