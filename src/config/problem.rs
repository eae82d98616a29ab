//! What is wrong with a configuration, as the operator reads it. No message holds a secret of a URL.

use std::path::PathBuf;
use std::{fmt, io};

use thiserror::Error;

use super::redact::without_secrets;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no YAML mapping.
    #[error("the configuration file {} is not a YAML mapping of sections: {message}", path.display())]
    NotYaml {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// Everything that is wrong with what was read.
    #[error("the configuration has {} problem(s):\n{}", .0.len(), lines(.0))]
    Problems(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|p| format!("  - {p}")).collect();
    lines.join("\n")
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as in `server.listen`.
    pub key: String,
    /// What is wrong with it, and what to do.
    pub message: String,
    /// The other keys whose values the problem rests on.
    beside: &'static [&'static str],
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self {
            key: key.into(),
            message: without_secrets(message.as_ref()).into_owned(),
            beside: &[],
        }
    }

    /// The same, found by comparing the key's value with those of `others`.
    pub(super) fn beside(self, others: &'static [&'static str]) -> Self {
        Self {
            beside: others,
            ..self
        }
    }

    /// The same, with where the key's value came from.
    pub(super) fn told_with(self, origin: &str) -> Self {
        Self {
            message: self.message + origin,
            ..self
        }
    }

    /// Whether the problem rests on a value that could not be read: then nothing is known of it.
    pub(super) fn rests_on(&self, unread: &str) -> bool {
        let mut keys = std::iter::once(self.key.as_str()).chain(self.beside.iter().copied());
        keys.any(|key| is_within(key, unread) || is_within(unread, key))
    }
}

/// Whether a key is another one, or part of it.
pub(super) fn is_within(key: &str, whole: &str) -> bool {
    key.strip_prefix(whole)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}
