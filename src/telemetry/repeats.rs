//! Limits how often a repeated finding is logged.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many different findings are remembered.
const MOST: usize = 1_000;

/// Says when a repeated line is due: at once, and then again after a while.
#[derive(Debug)]
pub struct Repeats {
    every: Duration,
    /// A std mutex: held for moments, never across an await.
    told: Mutex<HashMap<String, Instant>>,
}

impl Repeats {
    /// Makes a limit that lets the same finding through again after this time.
    #[must_use]
    pub fn every(every: Duration) -> Self {
        Self {
            every,
            told: Mutex::default(),
        }
    }

    /// Whether this finding has to be logged now. If so, it counts as logged.
    pub fn is_due(&self, what: &str) -> bool {
        let now = Instant::now();
        let is_recent = |told: &Instant| now.saturating_duration_since(*told) < self.every;
        let mut told = self.told();
        if told.get(what).is_some_and(is_recent) {
            return false;
        }
        if told.len() >= MOST {
            told.retain(|_, told| is_recent(told));
        }
        // With too many findings, logs some twice rather than not at all.
        if told.len() >= MOST {
            told.clear();
        }
        told.insert(what.to_owned(), now);
        true
    }

    /// Forgets all findings, so that the next one is logged at once.
    pub fn begin_anew(&self) {
        self.told().clear();
    }

    /// Nothing can panic half-way through a change, so a poisoned lock holds good data.
    fn told(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_until_its_time_has_passed_and_something_else_at_once() {
        let repeats = Repeats::every(Duration::from_hours(1));
        assert!(repeats.is_due("one"));
        assert!(!repeats.is_due("one"));
        assert!(repeats.is_due("another"));
        repeats.begin_anew();
        assert!(repeats.is_due("one"));
        let always = Repeats::every(Duration::ZERO);
        assert!(always.is_due("one") && always.is_due("one"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let repeats = Repeats::every(Duration::from_hours(1));
        for n in 0..3 * MOST {
            assert!(repeats.is_due(&n.to_string()));
        }
        assert!(repeats.told().len() <= MOST);
    }
}
