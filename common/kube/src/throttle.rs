//! How soon a change of a status is written: the same answer in both programs.
//!
//! A status says two kinds of things: what others wait for, and figures that change
//! with every volume. The first are written at once. The second would cost a
//! write per volume and object; they are written together, with pauses that grow
//! while they go on moving.
//!
//! Nothing here reads a clock, and safety rests on none of it: what arbitrates
//! room is the agent's ledger, not a figure.

use std::time::{Duration, Instant};

pub use berth_model::Urgency;

/// How long the first change is held back, to be written together with the next ones.
const SETTLE: Duration = Duration::from_secs(1);

/// First and longest pause between writes, for [`Urgency::Later`].
const LATER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));

/// First and longest pause between writes, for [`Urgency::Soon`].
const SOON: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// Writes further apart than this begin again with the first pause.
const CALM: Duration = Duration::from_secs(30);

/// When one status was written, and since when it should be written again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteThrottle {
    written: Option<Instant>,
    /// Writes since the last calm.
    writes: u32,
    /// The status says less than what is known, since then.
    since: Option<Instant>,
}

impl WriteThrottle {
    /// The moment from which a change that is seen `now` may be written. The
    /// answer stays the same until it is written, unless the urgency changes.
    pub fn due(&mut self, urgency: Urgency, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        let (settle, (first, longest)) = match urgency {
            Urgency::Now => return now,
            Urgency::Soon => (Duration::ZERO, SOON),
            Urgency::Later => (SETTLE, LATER),
        };
        let after_settling = since + settle;
        let doublings = self.writes.saturating_sub(1).min(16);
        let pause = longest.min(first * (1 << doublings));
        match self.written {
            Some(written) => after_settling.max(written + pause),
            None => after_settling,
        }
    }

    /// It is written (or the write has begun).
    pub fn wrote(&mut self, now: Instant) {
        let calm = self
            .written
            .is_none_or(|written| now.saturating_duration_since(written) > CALM);
        self.writes = if calm { 1 } else { self.writes + 1 };
        self.written = Some(now);
        self.since = None;
    }

    /// The status says all that is known.
    pub fn settled(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which a figure that never stops moving is written.
    fn busy(urgency: Urgency, writes: usize) -> Vec<f64> {
        let start = Instant::now();
        let (mut throttle, mut now, mut all) = (WriteThrottle::default(), start, Vec::new());
        for _ in 0..writes {
            now = throttle.due(urgency, now);
            assert_eq!(throttle.due(urgency, now), now, "the same when it has come");
            throttle.wrote(now);
            all.push((now - start).as_secs_f64());
        }
        all
    }

    #[test]
    fn busy_statuses_are_written_ever_more_rarely() {
        let later = busy(Urgency::Later, 7);
        assert_eq!(later, [1.0, 3.0, 7.0, 15.0, 30.0, 45.0, 60.0]);
        let soon = busy(Urgency::Soon, 6);
        assert_eq!(soon, [0.0, 0.25, 0.75, 1.75, 2.75, 3.75]);
        assert_eq!(busy(Urgency::Now, 3), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_first_change_does_not_wait_for_the_last() {
        let start = Instant::now();
        let mut throttle = WriteThrottle::default();
        let due = throttle.due(Urgency::Later, start);
        for millis in [10, 400, 900] {
            let now = start + Duration::from_millis(millis);
            assert_eq!(throttle.due(Urgency::Later, now), due);
        }
    }

    #[test]
    fn calm_begins_anew_and_what_was_taken_back_counts_for_nothing() {
        let mut now = Instant::now();
        let mut throttle = WriteThrottle::default();
        for _ in 0..6 {
            now = throttle.due(Urgency::Later, now);
            throttle.wrote(now);
        }
        now += CALM + SETTLE;
        assert_eq!(throttle.due(Urgency::Later, now), now + SETTLE);
        throttle.settled();
        now += SETTLE;
        assert_eq!(throttle.due(Urgency::Later, now), now + SETTLE);
        now += SETTLE;
        throttle.wrote(now);
        assert_eq!(throttle.due(Urgency::Later, now), now + LATER.0);
    }

    #[test]
    fn urgency_overtakes_a_pause() {
        let mut now = Instant::now();
        let mut throttle = WriteThrottle::default();
        for _ in 0..6 {
            now = throttle.due(Urgency::Later, now);
            throttle.wrote(now);
        }
        assert_eq!(throttle.due(Urgency::Later, now), now + LATER.1);
        assert_eq!(throttle.due(Urgency::Soon, now), now + SOON.1);
        assert_eq!(throttle.due(Urgency::Now, now), now);
    }
}
