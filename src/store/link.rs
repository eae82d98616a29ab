//! The connection to Redis: one that many requests share, made anew when it is lost, and never used
//! before the server behind it has shown that it can keep I1.
//!
//! A library's own reconnecting would be invisible: after a failover the next server may be one that
//! evicts, or a replica. So the connection is replaced here, where the check belongs.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError};
use tokio::sync::Mutex;

use super::durability;
use super::error::StoreError;
use crate::config;

/// Longer than a slow fsync, shorter than anybody's patience.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Link {
    redis: config::Redis,
    current: Mutex<Option<MultiplexedConnection>>,
}

impl Link {
    pub(super) fn new(redis: &config::Redis) -> Result<Self, StoreError> {
        let link = Self {
            redis: redis.clone(),
            current: Mutex::new(None),
        };
        link.client().map(|_| link)
    }

    /// A client with the password as it is now: a rotated one is taken at the next connection.
    fn client(&self) -> Result<Client, StoreError> {
        let misconfigured = |error: String| StoreError::Misconfigured(error);
        let mut info = self
            .redis
            .url
            .as_str()
            .into_connection_info()
            .map_err(|error| misconfigured(error.to_string()))?;
        if let Some(password) = self
            .redis
            .password()
            .map_err(|e| misconfigured(e.to_string()))?
        {
            let settings = info
                .redis_settings()
                .clone()
                .set_password(password.expose());
            info = info.set_redis_settings(settings);
        }
        Client::open(info).map_err(|error| misconfigured(error.to_string()))
    }

    /// A connection of one's own, for commands that block.
    pub(super) async fn dedicated(
        &self,
        response_timeout: Duration,
    ) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        let mut connection = self
            .client()?
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(StoreError::from_redis)?;
        durability::check(&mut connection, &self.redis.allow_weaker_durability).await?;
        Ok(connection)
    }

    async fn shared(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &*current {
            return Ok(connection.clone());
        }
        let connection = self.dedicated(RESPONSE_TIMEOUT).await?;
        *current = Some(connection.clone());
        Ok(connection)
    }

    /// Does `action` over the shared connection; where the connection is lost meanwhile, once more over a
    /// new one. What is done here must therefore be idempotent.
    pub(super) async fn with<T, F, A>(&self, action: A) -> Result<T, StoreError>
    where
        A: Fn(MultiplexedConnection) -> F,
        F: Future<Output = Result<T, RedisError>>,
    {
        let first = match action(self.shared().await?).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        // A replica that was a master, or a server that is loading, keeps its connection open.
        let error = StoreError::from_redis(first);
        if !matches!(error, StoreError::Unavailable(_)) {
            return Err(error);
        }
        *self.current.lock().await = None;
        let again = action(self.shared().await?).await;
        if again.is_err() {
            *self.current.lock().await = None;
        }
        again.map_err(StoreError::from_redis)
    }
}
