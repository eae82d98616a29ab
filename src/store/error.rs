//! What can go wrong between the broker and Redis.

use thiserror::Error;

use super::meta::{Doubt, ERROR_CODE};

/// A failure of the store.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Redis cannot be reached, or did not answer in time. A change may have been made all the same;
    /// sending it again with the same ids changes nothing twice.
    #[error("Redis cannot be reached or did not answer in time: {0}")]
    Unavailable(#[source] redis::RedisError),
    /// Redis is at its memory limit: grants are refused, revocations go on.
    #[error("Redis is at its memory limit; new grants are refused until it has room: {0}")]
    Full(#[source] redis::RedisError),
    /// This Redis can forget or evict what was accepted (I1).
    #[error("this Redis cannot keep what the broker accepts: {}", .problems.join("; "))]
    NotDurable {
        /// Each setting that is wrong, with its remedy.
        problems: Vec<String>,
    },
    /// Redis is not the one that this process began with: it was emptied or replaced meanwhile. The call changed
    /// nothing in the present Redis. If the connection broke during the call, the call may have run on the earlier
    /// Redis. The store itself tells the operator, once a minute.
    #[error("{0}")]
    InDoubt(Doubt),
    /// A stored value that cannot be read: another format, or damage. Never guessed at.
    #[error("the value of Redis key {key} cannot be read: {problem}")]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// Redis refused a command: a script or a permission is wrong.
    #[error("Redis refused a command: {0}")]
    Refused(#[source] redis::RedisError),
    /// The address or the password cannot be used.
    #[error("the Redis settings cannot be used: {0}")]
    Misconfigured(String),
}

impl StoreError {
    /// Whether it is Redis that is in trouble, and not one value in it: trying again later can help.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::Full(_) | Self::InDoubt(_)
        )
    }

    /// Whether the error is about Redis as a whole, and not about one call or one value. The store logs such trouble
    /// itself, once for all callers: see [`Store::away`](super::Store::away).
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::NotDurable { .. } | Self::Misconfigured(_) => true,
            Self::Refused(error) => {
                error.kind() == redis::ErrorKind::AuthenticationFailed
                    || error.code() == Some("NOAUTH")
            }
            Self::Full(_) | Self::InDoubt(_) | Self::Unreadable { .. } => false,
        }
    }

    /// Whether waiting does not mend it: Redis or the configuration has to be changed.
    pub(super) fn wants_operator(&self) -> bool {
        match self {
            Self::NotDurable { .. } | Self::Misconfigured(_) => true,
            Self::Refused(_) => self.is_trouble(),
            Self::Unavailable(_) | Self::Full(_) | Self::InDoubt(_) | Self::Unreadable { .. } => {
                false
            }
        }
    }

    pub(super) fn from_redis(error: redis::RedisError) -> Self {
        use redis::{ErrorKind, ServerErrorKind};
        match error.kind() {
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly,
            )
            | ErrorKind::Io
            | ErrorKind::ClusterConnectionNotFound => Self::Unavailable(error),
            _ if error.code() == Some(ERROR_CODE) => {
                let doubt = error.detail().and_then(Doubt::parse);
                doubt.map_or_else(|| Self::Refused(error), Self::InDoubt)
            }
            _ if error.code() == Some("OOM") => Self::Full(error),
            // A full disk, or an append-only file that cannot be written: what is accepted would not last.
            // A script that runs for too long, or too few replicas, passes as well.
            _ if matches!(error.code(), Some("MISCONF" | "BUSY" | "NOREPLICAS")) => {
                Self::Unavailable(error)
            }
            _ if error.code() == Some("WRONGTYPE") => Self::Unreadable {
                key: "that Redis does not name".to_owned(),
                problem: error.to_string(),
            },
            _ if error.is_unrecoverable_error() || error.is_timeout() => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}
