//! The store's clock, as a replica sees it: by it is told what an answer is true of.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// So long the store's clock is believed to run as fast as the machine's. An answer that took its time to get here says
/// less of the store's time than one that did not.
const LASTS: Duration = Duration::from_secs(30);
/// Where the store's clock has gone so much further than the machine's, the machine slept, or the store's clock was set.
const JUMPS: SignedDuration = SignedDuration::from_secs(2);

/// What the store's clock said, and when that was heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) at: Instant,
    pub(super) time: Timestamp,
}

impl Clock {
    /// What it says of that moment.
    pub(super) fn then(self, moment: Instant) -> Option<Timestamp> {
        let later = moment.saturating_duration_since(self.at);
        let earlier = self.at.saturating_duration_since(moment);
        let time = self.time.saturating_add(later).ok()?;
        time.saturating_sub(earlier).ok()
    }

    /// Of what was known and what has just been told, whichever says more; and whether the two do not go together.
    pub(super) fn or_later(self, told: Self) -> (Self, bool) {
        let ahead = self.then(told.at).map_or(SignedDuration::ZERO, |expected| {
            told.time.duration_since(expected)
        });
        let is_known_yet = told.at.saturating_duration_since(self.at) < LASTS;
        let clock = if ahead.is_negative() && is_known_yet {
            self
        } else {
            told
        };
        (clock, ahead > JUMPS)
    }
}
