//! Whether Redis can be worked with: learned from the outcome of every call, logged once, and told to health.
//!
//! Several loops call Redis a few times a second each. If each logged what it met, an outage would fill the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::RedisError;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::error::StoreError;

/// How long calls have to go well before Redis counts as back. A Redis that answers reads and refuses writes, for
/// example with a full disk, must not go and come with every call: the loops write more often than this.
const BACK_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Reach {
    away: watch::Sender<bool>,
    /// How many calls Redis has answered.
    answered: AtomicU64,
    /// A std mutex: held for moments, never across an await.
    trouble: Mutex<Option<Trouble>>,
}

/// Calls that failed: since when, and until when.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    first: Instant,
    last: Instant,
    /// Whether the log has said what the operator has to do.
    has_told_operator: bool,
}

impl Reach {
    pub(super) fn new() -> Self {
        Self {
            away: watch::Sender::new(false),
            answered: AtomicU64::new(0),
            trouble: Mutex::new(None),
        }
    }

    /// Whether Redis is away.
    pub(super) fn away(&self) -> watch::Receiver<bool> {
        self.away.subscribe()
    }

    /// How many calls Redis has answered so far; [`judge`](Self::judge) needs what it was when a call was sent.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Learns from the outcome of a call that was sent when Redis had answered `sent` others.
    pub(super) fn judge<T>(&self, sent: u64, outcome: &Result<T, StoreError>) {
        self.judge_at(Instant::now(), sent, outcome);
    }

    fn judge_at<T>(&self, now: Instant, sent: u64, outcome: &Result<T, StoreError>) {
        match outcome {
            Err(StoreError::Unavailable(error)) if is_slow(error) && self.answered() != sent => {
                // One call took too long, and others were answered meanwhile. The caller logs it.
            }
            Err(error) if error.is_trouble() => self.failed(now, error),
            // Whatever else it says, Redis has answered.
            Ok(_) | Err(_) => self.succeeded(now),
        }
    }

    fn failed(&self, now: Instant, error: &StoreError) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let known = *trouble;
        let wants_operator = error.wants_operator();
        *trouble = Some(Trouble {
            first: known.map_or(now, |known| known.first),
            last: now,
            has_told_operator: wants_operator || known.is_some_and(|known| known.has_told_operator),
        });
        if known.is_none() {
            self.away.send_replace(true);
        }
        if wants_operator {
            // It may show only after Redis was away for another reason: at the next connection.
            if known.is_none_or(|known| !known.has_told_operator) {
                error!(
                    %error,
                    "the broker accepts nothing and carries nothing out until the operator acts. Health says that it does \
                     not serve. The broker logs this once"
                );
            }
        } else if known.is_none() {
            warn!(
                %error,
                "Redis is away. The broker accepts nothing and carries nothing out until it is back, and health says \
                 that it does not serve. What was accepted is kept. The broker logs this once"
            );
        }
    }

    fn succeeded(&self, now: Instant) {
        self.answered.fetch_add(1, Ordering::AcqRel);
        // Nearly every call: no lock while all is well.
        if !*self.away.borrow() {
            return;
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |known: &Trouble| now.saturating_duration_since(known.last) >= BACK_AFTER;
        if let Some(known) = trouble.take_if(|known| is_over(known)) {
            self.away.send_replace(false);
            let seconds = now.saturating_duration_since(known.first).as_secs();
            info!(seconds, "Redis is back. The broker goes on where it was");
        }
    }
}

/// No answer came in time: so Redis is away, or only this call is slow.
fn is_slow(error: &RedisError) -> bool {
    error.is_timeout()
}

#[cfg(test)]
mod tests {
    use redis::ErrorKind;

    use super::*;

    fn gone() -> Result<(), StoreError> {
        let error = RedisError::from((ErrorKind::Io, "connection refused"));
        Err(StoreError::Unavailable(error))
    }

    fn slow() -> Result<(), StoreError> {
        let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Err(StoreError::Unavailable(error.into()))
    }

    #[test]
    fn redis_is_away_from_the_first_failure_until_calls_have_gone_well_for_a_while() {
        let reach = Reach::new();
        let away = reach.away();
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        reach.judge_at(at(0), 0, &Ok(()));
        assert!(!*away.borrow());
        reach.judge_at(at(1), 1, &gone());
        assert!(*away.borrow());
        // Reads are answered, writes are not.
        for millis in (250..5_000).step_by(250) {
            reach.judge_at(at(millis), 1, &Ok(()));
            reach.judge_at(at(millis + 1), 1, &gone());
            assert!(*away.borrow());
        }
        reach.judge_at(at(6_000), 1, &Ok(()));
        assert!(*away.borrow());
        reach.judge_at(at(7_000), 1, &Ok(()));
        assert!(!*away.borrow());
    }

    #[test]
    fn one_call_that_is_slow_while_others_are_answered_is_not_the_end_of_redis() {
        let reach = Reach::new();
        let sent = reach.answered();
        reach.judge(sent, &Ok(()));
        reach.judge(sent, &slow());
        assert!(!*reach.away().borrow());
        reach.judge(reach.answered(), &slow());
        assert!(*reach.away().borrow());
    }

    #[test]
    fn what_one_value_or_one_call_is_about_is_no_trouble_with_redis() {
        let reach = Reach::new();
        for error in [
            StoreError::Unreadable {
                key: "k".to_owned(),
                problem: "damaged".to_owned(),
            },
            StoreError::Full(RedisError::from((ErrorKind::Client, "full"))),
        ] {
            reach.judge(0, &Err::<(), _>(error));
            assert!(!*reach.away().borrow());
        }
        let error = StoreError::NotDurable {
            problems: vec!["evicts".to_owned()],
        };
        reach.judge(0, &Err::<(), _>(error));
        assert!(*reach.away().borrow());
    }
}
