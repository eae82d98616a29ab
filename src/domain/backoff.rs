//! How long to wait before a target is tried again: exponential, with full jitter.

use std::time::Duration;

/// The bounds between which waiting grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The bound of the first wait.
    pub initial: Duration,
    /// The bound that waiting never exceeds.
    pub max: Duration,
}

impl Backoff {
    /// The wait before the try that follows `attempts` failed ones (at least 1), as a share `jitter`
    /// (0 to 1) of the bound: full jitter spreads those who failed together. At least a tenth of the
    /// bound, so that a small draw is not a busy loop.
    #[must_use]
    pub fn wait(self, attempts: u32, jitter: f64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        let bound = self.initial.saturating_mul(1 << doublings).min(self.max);
        bound.mul_f64(jitter.clamp(0.1, 1.0))
    }

    /// The same for what somebody else has to put right (a lock, a missing permission): it begins where
    /// the ordinary one is after five failures.
    #[must_use]
    pub fn wait_slow(self, attempts: u32, jitter: f64) -> Duration {
        self.wait(attempts.saturating_add(5), jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_its_maximum() {
        let backoff = Backoff {
            initial: Duration::from_secs(1),
            max: Duration::from_mins(5),
        };
        let bounds: Vec<u64> = [1, 2, 3, 9, 10, 1000]
            .map(|n| backoff.wait(n, 1.0).as_secs())
            .to_vec();
        assert_eq!(bounds, [1, 2, 4, 256, 300, 300]);
        assert_eq!(backoff.wait(3, 0.5), Duration::from_secs(2));
        assert_eq!(backoff.wait_slow(1, 1.0).as_secs(), 32);
    }
}
