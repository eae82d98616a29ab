//! `redis`: where what was accepted is kept, and how durable that has to be (I1).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;

use super::secret::{Secret, SecretError};
use super::text;

/// The section `redis`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://HOST:PORT/DATABASE`, or `rediss://` for TLS. A user name may stand in it, a password not.
    #[serde(with = "text")]
    pub url: RedisUrl,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The password itself: from the environment only.
    pub password: Option<Secret>,
    /// The broker's name: every key begins with `{aab:NAME}:`. Two brokers with two names share one Redis.
    #[serde(with = "text")]
    pub name: BrokerName,
    /// What I1 may lack here, in words: see [`DurabilityException`].
    pub allow_weaker_durability: Vec<DurabilityException>,
}

/// A Redis that does not show that it keeps every accepted request is refused, unless the operator names
/// what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityException {
    /// `appendfsync everysec` is enough: a power cut may lose what was accepted in the last second.
    Everysec,
    /// The server hides its settings, as managed ones do; the operator promises in its stead that it keeps
    /// an append-only file or its like, and never evicts.
    Managed,
}

impl Redis {
    /// The password, read anew from its file, so that a changed one is taken; `None`: there is none.
    ///
    /// # Errors
    /// [`SecretError`] when the file cannot be read or is empty.
    pub fn password(&self) -> Result<Option<Secret>, SecretError> {
        match &self.password_file {
            Some(path) => Secret::read(path).map(Some),
            None => Ok(self.password.clone()),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: RedisUrl::local(),
            password_file: None,
            password: None,
            name: BrokerName("main".to_owned()),
            allow_weaker_durability: Vec::new(),
        }
    }
}

/// The address of a Redis, without a password: what is printed and logged holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    fn local() -> Self {
        Self("redis://127.0.0.1:6379".to_owned())
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not the address of a Redis. It does not repeat the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRedisUrl {
    /// Not a URL.
    #[error("not a URL ({0}); expected redis://HOST:PORT or rediss://HOST:PORT")]
    NotAUrl(url::ParseError),
    /// A URL of another kind.
    #[error("a URL of another scheme; expected redis:// or, for TLS, rediss://")]
    Scheme,
    /// No host in it.
    #[error("a URL without a host; expected redis://HOST:PORT or rediss://HOST:PORT")]
    NoHost,
    /// A secret where it would be printed.
    #[error("a URL with a password in it; take it out and set redis.password_file")]
    Password,
    /// Something that would be printed, and may be a secret.
    #[error("a URL with a query or a fragment; expected nothing behind redis://HOST:PORT/DATABASE")]
    Behind,
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(InvalidRedisUrl::NotAUrl)?;
        if url.password().is_some() {
            return Err(InvalidRedisUrl::Password);
        }
        if !matches!(url.scheme(), "redis" | "rediss") {
            // Not repeated: of `user:password@host` the user is the scheme.
            return Err(InvalidRedisUrl::Scheme);
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidRedisUrl::NoHost);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidRedisUrl::Behind);
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name of one broker, which its keys carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerName(String);

impl BrokerName {
    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BrokerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name a broker.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{value:?} cannot name a broker: expected 1 to 63 lower-case letters, digits and '-'")]
pub struct InvalidBrokerName {
    /// What was given instead.
    pub value: String,
}

impl FromStr for BrokerName {
    type Err = InvalidBrokerName;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        // A brace would end the keys' hash tag early, and scatter one broker's keys over many slots.
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=63).contains(&value.len()) && value.chars().all(fits) {
            Ok(Self(value.to_owned()))
        } else {
            Err(InvalidBrokerName {
                value: value.chars().take(80).collect(),
            })
        }
    }
}
