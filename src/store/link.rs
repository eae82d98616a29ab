//! The connection to Redis: one that many requests share, made anew when it is lost, and never used
//! before the server behind it has shown that it can keep I1.
//!
//! A library's own reconnecting would be invisible: after a failover the next server may be one that
//! evicts, or a replica. So the connection is replaced here, where the check belongs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError};

use super::durability;
use super::error::StoreError;
use crate::config;

/// Longer than a slow fsync, shorter than anybody's patience.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// What a script has done under a token is remembered for so long: [`Link::with`] sends it again over a new connection, and
/// neither attempt outlasts its time-outs by this much.
pub(super) const SENT_AGAIN_WITHIN: Duration = Duration::from_mins(2);

pub(super) struct Link {
    redis: Arc<config::Redis>,
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
    pub(super) fn new(redis: &config::Redis) -> Result<Self, StoreError> {
        let link = Self {
            redis: Arc::new(redis.clone()),
            current: Mutex::default(),
        };
        client(&link.redis).map(|_| link)
    }

    /// A connection of one's own, for commands that block.
    pub(super) async fn dedicated(
        &self,
        response_timeout: Duration,
    ) -> Result<MultiplexedConnection, StoreError> {
        connect(&self.redis, response_timeout).await
    }

    /// The shared connection, and which attempt it came of.
    async fn shared(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let (connecting, attempt) = {
            let mut current = self.current();
            let connecting = if let Some(connecting) = &current.connecting {
                connecting.clone()
            } else {
                current.attempts += 1;
                let connecting = connecting(Arc::clone(&self.redis));
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
    pub(super) async fn with<T, F, A>(&self, action: A) -> Result<T, StoreError>
    where
        A: Fn(MultiplexedConnection) -> F,
        F: Future<Output = Result<T, RedisError>>,
    {
        let (connection, attempt) = self.shared().await?;
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

/// Begins to connect, on a task of its own: a caller that goes away in the midst takes nothing from the others.
fn connecting(redis: Arc<config::Redis>) -> Connecting {
    let task = tokio::spawn(async move { connect(&redis, RESPONSE_TIMEOUT).await });
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
