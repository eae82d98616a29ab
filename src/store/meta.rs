//! Checks whether Redis is still the one that this process began with.
//!
//! The key `meta` holds the format of the broker's keys and the broker's instance id. A process reads both once. From
//! then on three places compare them with what Redis holds: every script, before it reads or writes anything; every new
//! connection; and the reader of the stream of changes. A difference means that Redis was emptied or replaced under the
//! running process: *Redis in doubt*. A process that went on would accept grants that no other replica can carry out,
//! because the broker makes the names of role assignments from the instance id.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use tokio::sync::watch;
use tracing::{error, info};

use super::error::StoreError;
use super::reach::Reach;
use crate::domain::ids::InstanceId;
use crate::telemetry::Repeats;

/// The format of the broker's keys that this version reads and writes.
pub(super) const FORMAT: &str = "1";
/// How often the store logs a doubt while it lasts.
const SAY_AGAIN: Duration = Duration::from_mins(1);
/// The error code of a script that did nothing because Redis is in doubt; see `prelude.lua`.
pub(super) const ERROR_CODE: &str = "INDOUBT";
/// How many bytes of an unexpected value messages repeat.
const LONGEST_WORD: usize = 64;

/// Redis is not the one that this process began with. The text is for the operator, and names the remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doubt {
    /// The key that was compared.
    key: String,
    /// What it held when this process began: `FORMAT/INSTANCE`.
    expected: String,
    /// What it holds now, or `none/none`.
    found: String,
}

impl Doubt {
    /// Reads a script's answer: the key, what it expected and what it found, separated by blanks.
    pub(super) fn parse(answer: &str) -> Option<Self> {
        let mut words = answer.split_ascii_whitespace().map(str::to_owned);
        Some(Self {
            key: words.next()?,
            expected: words.next()?,
            found: words.next()?,
        })
    }
}

/// `1/INSTANCE` in words.
fn in_words(held: &str) -> String {
    match held.split_once('/') {
        Some(("none", "none")) => "nothing".to_owned(),
        Some((format, "none")) => format!("format {format} and no instance id"),
        Some((format, instance)) => format!("format {format} and instance id {instance}"),
        None => held.to_owned(),
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            expected,
            found,
        } = self;
        write!(
            f,
            "Redis in doubt: {key} held {} when this process began, and holds {} now. Redis was emptied or replaced \
             while the broker ran, so the broker accepts nothing and carries nothing out. If you can get Redis's data \
             back, restore it: the broker then goes on by itself. If the data is lost for good, restart every replica, \
             so that all of them begin with the present Redis: it does not know the grants that were accepted before",
            in_words(expected),
            in_words(found)
        )
    }
}

/// The raw bytes that `meta` holds: the format and the instance id.
pub(super) type Held = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What this process began with. It keeps the text as it was read, because scripts compare that text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Identity {
    format: &'static str,
    #[serde(rename = "instance")]
    text: String,
    #[serde(skip)]
    instance: InstanceId,
}

impl Identity {
    /// # Errors
    /// [`StoreError::Unreadable`] for another format, or a value that is not an instance id.
    pub(super) fn read(key: &str, held: &Held) -> Result<Self, StoreError> {
        let unreadable = |problem: String| StoreError::Unreadable {
            key: key.to_owned(),
            problem,
        };
        let text = match held {
            (Some(format), Some(instance)) if format == FORMAT.as_bytes() => {
                String::from_utf8(instance.clone())
                    .map_err(|error| unreadable(error.to_string()))?
            }
            other => {
                let found = in_words(&words_of(other));
                return Err(unreadable(format!(
                    "it holds {found}, and this broker reads format {FORMAT}"
                )));
            }
        };
        Ok(Self {
            format: FORMAT,
            instance: InstanceId::parse(&text).map_err(|error| unreadable(error.to_string()))?,
            text,
        })
    }

    pub(super) const fn instance(&self) -> InstanceId {
        self.instance
    }
}

/// The key `meta`, what it held when this process began, and whether it still does.
#[derive(Debug)]
pub(super) struct Meta {
    key: String,
    began_with: OnceLock<Identity>,
    doubt: watch::Sender<Option<Doubt>>,
    /// How often Redis was found in doubt. It tells an answer from before a doubt from an answer after it.
    found: AtomicU64,
    told: Repeats,
    reach: Reach,
}

/// Marks when a call was sent: before or after the last doubt, and behind how many answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    found: u64,
    answered: u64,
}

impl Meta {
    pub(super) fn new(key: String) -> Self {
        Self {
            key,
            began_with: OnceLock::new(),
            doubt: watch::Sender::new(None),
            found: AtomicU64::new(0),
            told: Repeats::every(SAY_AGAIN),
            reach: Reach::new(),
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn began_with(&self) -> Option<&Identity> {
        self.began_with.get()
    }

    /// Keeps the first identity for the whole process, if several tasks read one at once.
    pub(super) fn begin_with(&self, identity: Identity) -> &Identity {
        self.began_with.get_or_init(|| identity)
    }

    /// Why Redis is in doubt; `None` while it is not.
    pub(super) fn doubt(&self) -> watch::Receiver<Option<Doubt>> {
        self.doubt.subscribe()
    }

    /// Learns from the outcome of a call whether Redis is away, and nothing of a doubt.
    pub(super) fn judge_reach<T>(&self, ticket: Ticket, outcome: &Result<T, StoreError>) {
        self.reach.judge(ticket.answered, outcome);
    }

    /// Whether Redis is away.
    pub(super) const fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Reads what `meta` holds.
    pub(super) fn read(&self) -> redis::Cmd {
        let mut read = redis::cmd("HMGET");
        read.arg(&self.key).arg(&["v", "instance"]);
        read
    }

    /// Compares what a new connection finds with what the process began with. Does nothing before it has begun.
    ///
    /// # Errors
    /// [`StoreError::InDoubt`] where they differ.
    pub(super) async fn check(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), StoreError> {
        if self.began_with().is_none() {
            return Ok(());
        }
        let held: Result<Held, RedisError> = self.read().query_async(connection).await;
        match held {
            Ok(held) => self.compare(&held),
            // The key holds another type.
            Err(error) if error.code() == Some("WRONGTYPE") => self.compare(&(None, None)),
            Err(error) => Err(StoreError::from_redis(error)),
        }
    }

    /// Compares what `meta` holds with what the process began with. Does nothing before it has begun.
    ///
    /// # Errors
    /// [`StoreError::InDoubt`] where they differ.
    pub(super) fn compare(&self, held: &Held) -> Result<(), StoreError> {
        let Some(Identity { format, text, .. }) = self.began_with() else {
            return Ok(());
        };
        let is = |held: &Option<Vec<u8>>, text: &str| held.as_deref() == Some(text.as_bytes());
        if is(&held.0, format) && is(&held.1, text) {
            return Ok(());
        }
        Err(StoreError::InDoubt(Doubt {
            key: self.key.clone(),
            expected: format!("{format}/{text}"),
            found: words_of(held),
        }))
    }

    /// Takes a ticket for a call. Take it before you send the call; [`judge`](Self::judge) needs it.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket {
            found: self.found.load(Ordering::Acquire),
            answered: self.reach.answered(),
        }
    }

    /// Learns from the outcome of a call that compared `meta` whether Redis is in doubt, and whether it is away. Returns
    /// the outcome unchanged.
    pub(super) fn judge<T>(
        &self,
        ticket: Ticket,
        outcome: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.reach.judge(ticket.answered, &outcome);
        match &outcome {
            Ok(_) => {
                // An answer to a call from before the last doubt does not end that doubt.
                if ticket.found == self.found.load(Ordering::Acquire) {
                    self.mark_settled();
                }
            }
            Err(StoreError::InDoubt(doubt)) => self.mark_in_doubt(doubt),
            Err(_) => {}
        }
        outcome
    }

    fn mark_in_doubt(&self, doubt: &Doubt) {
        self.found.fetch_add(1, Ordering::AcqRel);
        self.doubt.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(doubt);
            if is_new {
                *known = Some(doubt.clone());
            }
            is_new
        });
        if self.told.is_due(&doubt.found) {
            error!("{doubt}");
        }
    }

    fn mark_settled(&self) {
        if self.doubt.borrow().is_none() {
            return;
        }
        let was_in_doubt = self.doubt.send_if_modified(|known| known.take().is_some());
        if was_in_doubt {
            self.told.begin_anew();
            info!(
                key = self.key,
                "Redis is no longer in doubt: it holds what this process began with. The broker goes on"
            );
        }
    }
}

/// Writes what `meta` holds as one word, whatever its bytes are. `prelude.lua` does the same.
fn words_of((format, instance): &Held) -> String {
    let word = |held: &Option<Vec<u8>>| match held {
        None => "none".to_owned(),
        Some(bytes) => bytes
            .iter()
            .take(LONGEST_WORD)
            .map(|byte| match byte {
                b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(*byte),
                _ => '?',
            })
            .collect(),
    };
    format!("{}/{}", word(format), word(instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "6a0c1c3e-0f43-4c6c-8f5f-1f9f6d3f0a01";

    fn held(format: &str, instance: &str) -> Held {
        (Some(format.into()), Some(instance.into()))
    }

    fn begun() -> Meta {
        let meta = Meta::new("{aab:main}:meta".to_owned());
        meta.begin_with(Identity::read("meta", &held("1", INSTANCE)).unwrap());
        meta
    }

    #[test]
    fn i7_a_difference_in_format_or_instance_is_a_doubt_that_names_both_and_the_remedy() {
        let meta = begun();
        assert!(meta.compare(&held("1", INSTANCE)).is_ok());
        let other = INSTANCE.replace('6', "7");
        for (held, named) in [
            ((None, None), "holds nothing now"),
            (held("1", &other), other.as_str()),
            (held("2", INSTANCE), "format 2"),
            ((Some(b"1".to_vec()), None), "no instance id"),
            (held("1", "\u{0}\n nonsense"), "???nonsense"),
        ] {
            let error = meta.compare(&held).unwrap_err();
            let told = error.to_string();
            assert!(matches!(error, StoreError::InDoubt(_)), "{told}");
            assert!(told.contains(named) && told.contains(INSTANCE), "{told}");
            assert!(told.contains("restore") && told.contains("restart every replica"));
            assert!(
                told.is_ascii(),
                "health answers with it in a header, so it has to be ASCII: {told}"
            );
        }
    }

    #[test]
    fn an_answer_to_a_call_from_before_a_doubt_does_not_end_it() {
        let meta = begun();
        let doubt = meta.doubt();
        let early = meta.ticket();
        let outcome = meta.compare(&(None, None));
        assert!(meta.judge(meta.ticket(), outcome).is_err());
        assert!(meta.judge(early, Ok(())).is_ok());
        assert!(doubt.borrow().is_some());
        assert!(meta.judge(meta.ticket(), Ok(())).is_ok());
        assert!(doubt.borrow().is_none());
    }

    #[test]
    fn a_process_does_not_begin_with_another_format_or_a_bad_instance_id() {
        for held in [(None, None), held("2", INSTANCE), held("1", "me")] {
            let error = Identity::read("meta", &held).unwrap_err();
            assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
        }
    }
}
