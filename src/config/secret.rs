//! Secrets, which are never printed: not by `config check`, not in a log, not in an error.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use super::redact::REDACTED;

/// A text that shows itself to nobody but who asks for it by [`expose`](Self::expose).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text that must not be printed.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from its file. A line end after it is not part of it: editors and
    /// `kubectl create secret` disagree on whether there is one.
    pub(super) fn read(path: &Path) -> Result<Self, SecretError> {
        let text = fs::read_to_string(path).map_err(|source| SecretError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(SecretError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self(secret.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// Why a secret cannot be had.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("the secret's file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is nothing in its file.
    #[error("the secret's file {} is empty", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// Neither a file nor the environment gives it.
    #[error("there is no secret: set {file_key} to its file, or {variable} in the environment")]
    Missing {
        /// The key that takes a path.
        file_key: &'static str,
        /// The environment variable that takes the secret.
        variable: &'static str,
    },
}
