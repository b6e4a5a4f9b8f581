//! Pauses between tries of one thing.
//!
//! A pure function of the number of failures, and no iterator as backoff crates have
//! it: that number is kept per object beside other facts about it, is shown, and is
//! forgotten with them. What kube's watchers do between their own tries is kube's.

use std::time::Duration;

/// Pauses that double from the first to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Pause after the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after as many failures in a row; none after none.
    pub fn pause(self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => self
                .longest
                .min(self.first.saturating_mul(1 << doublings.min(16))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound() {
        let backoff = Backoff {
            first: Duration::from_secs(2),
            longest: Duration::from_secs(120),
        };
        let pauses: Vec<_> = [0, 1, 2, 3, 6, 7, u32::MAX]
            .map(|failures| backoff.pause(failures).as_secs())
            .into();
        assert_eq!(pauses, [0, 2, 4, 8, 64, 120, 120]);
        let backoff = Backoff {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
        };
        let pauses: Vec<_> = [1, 4, 99]
            .map(|failures| backoff.pause(failures).as_millis())
            .into();
        assert_eq!(pauses, [100, 800, 30_000]);
    }
}
