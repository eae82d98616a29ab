//! What the scripts could not read: told loudly, and not at every look.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::error;

/// The same damage is told again after so long.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// So many are remembered as told: a store with more damage than this is told of more often.
const MOST_REMEMBERED: usize = 1_000;

/// Tells of what loops over many have passed over (design §5.17): the others are done, and somebody has to mend this.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// A std mutex: held for moments, never across an await.
    told: Mutex<HashMap<String, Instant>>,
}

impl Damage {
    /// Logs each of `rows`, a key and what is wrong with it, unless it has just been told.
    pub(super) fn tell(&self, rows: &[String]) {
        for row in rows.iter().filter(|row| self.is_news(row)) {
            error!(
                damaged = row,
                "Redis holds something that the broker cannot read; it is passed over, and tried again until it is mended"
            );
        }
    }

    fn is_news(&self, row: &str) -> bool {
        // Nothing can panic half-way through a change, so a poisoned lock holds good data.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(row).is_some_and(|at| at.elapsed() < TELL_AGAIN) {
            return false;
        }
        if told.len() >= MOST_REMEMBERED {
            told.clear();
        }
        told.insert(row.to_owned(), Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_damage_is_told_once_a_minute_and_each_by_itself() {
        let damage = Damage::default();
        assert!(damage.is_news("one"));
        assert!(!damage.is_news("one"));
        assert!(damage.is_news("another"));
    }
}
