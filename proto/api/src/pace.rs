//! How soon a change of a status is told: the same answer in both programs.
//!
//! A status says two kinds of things: what others wait for, and figures that move
//! with every volume. The first are written at once. The second would cost a
//! write per volume and object; they are written together, with pauses that grow
//! while they go on moving.
//!
//! Nothing here reads a clock, and safety rests on none of it: what arbitrates
//! room is the agent's ledger, not a figure.

use std::time::{Duration, Instant};

/// How soon others need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurry {
    /// Figures for people, which nothing waits for: one second after the first
    /// change, so that what belongs together is told together, then every two
    /// seconds, and at last every 15.
    Later,
    /// Something may wait for it, such as room that became free: at once, then
    /// every 250 ms, and at last every second.
    Soon,
    /// Health, a conflict, a refusal: never held back.
    Now,
}

/// How long the first change is held, to be told together with the next ones.
const SETTLE: Duration = Duration::from_secs(1);

/// First and longest pause between writes, for [`Hurry::Later`].
const LATER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));

/// First and longest pause between writes, for [`Hurry::Soon`].
const SOON: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// Writes further apart than this begin again with the first pause.
const CALM: Duration = Duration::from_secs(30);

/// When one status was written, and since when it should be written again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    written: Option<Instant>,
    /// Writes since the last calm.
    writes: u32,
    /// The status says less than what is known, since then.
    since: Option<Instant>,
}

impl Pace {
    /// The moment from which a change that is seen `now` may be written. The
    /// answer stays the same until it is written, unless the hurry changes.
    pub fn due(&mut self, hurry: Hurry, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        let (settle, (first, longest)) = match hurry {
            Hurry::Now => return now,
            Hurry::Soon => (Duration::ZERO, SOON),
            Hurry::Later => (SETTLE, LATER),
        };
        let after_settling = since + settle;
        let doublings = self.writes.saturating_sub(1).min(16);
        let pause = longest.min(first * (1 << doublings));
        match self.written {
            Some(written) => after_settling.max(written + pause),
            None => after_settling,
        }
    }

    /// When it was last written.
    pub fn written(&self) -> Option<Instant> {
        self.written
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
    fn busy(hurry: Hurry, writes: usize) -> Vec<f64> {
        let start = Instant::now();
        let (mut pace, mut now, mut all) = (Pace::default(), start, Vec::new());
        for _ in 0..writes {
            now = pace.due(hurry, now);
            assert_eq!(pace.due(hurry, now), now, "the same when it has come");
            pace.wrote(now);
            all.push((now - start).as_secs_f64());
        }
        all
    }

    #[test]
    fn busy_statuses_are_written_ever_more_rarely() {
        let later = busy(Hurry::Later, 7);
        assert_eq!(later, [1.0, 3.0, 7.0, 15.0, 30.0, 45.0, 60.0]);
        let soon = busy(Hurry::Soon, 6);
        assert_eq!(soon, [0.0, 0.25, 0.75, 1.75, 2.75, 3.75]);
        assert_eq!(busy(Hurry::Now, 3), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_first_change_does_not_wait_for_the_last() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let due = pace.due(Hurry::Later, start);
        for millis in [10, 400, 900] {
            let now = start + Duration::from_millis(millis);
            assert_eq!(pace.due(Hurry::Later, now), due);
        }
    }

    #[test]
    fn calm_begins_anew_and_what_was_taken_back_counts_for_nothing() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..6 {
            now = pace.due(Hurry::Later, now);
            pace.wrote(now);
        }
        now += CALM + SETTLE;
        assert_eq!(pace.due(Hurry::Later, now), now + SETTLE);
        pace.settled();
        now += SETTLE;
        assert_eq!(pace.due(Hurry::Later, now), now + SETTLE);
        now += SETTLE;
        pace.wrote(now);
        assert_eq!(pace.due(Hurry::Later, now), now + LATER.0);
    }

    #[test]
    fn hurry_overtakes_a_pause() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..6 {
            now = pace.due(Hurry::Later, now);
            pace.wrote(now);
        }
        assert_eq!(pace.due(Hurry::Later, now), now + LATER.1);
        assert_eq!(pace.due(Hurry::Soon, now), now + SOON.1);
        assert_eq!(pace.due(Hurry::Now, now), now);
    }
}
