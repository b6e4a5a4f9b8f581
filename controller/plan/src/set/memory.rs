//! What earlier reconciles of a set came to, with times: failures, conflicts and ended
//! pods. The planner reads it to decide what pauses and until when, so that pauses are
//! part of the plan and hold in every model of it. Losing it costs calls, never safety.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// First and longest pause after failed calls of one class.
const CALL_PAUSE: (SignedDuration, SignedDuration) = (
    SignedDuration::from_millis(200),
    SignedDuration::from_secs(60),
);

/// First and longest pause before a pod is replaced that ended again. The first end is
/// answered at once.
const END_PAUSE: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(1), SignedDuration::from_mins(5));

/// Pods of an ordinal that ended further apart than this are no series.
const END_SERIES: SignedDuration = SignedDuration::from_mins(10);

/// How long an object is left alone in the version that a call conflicted with. Its
/// watch shows another one long before that, unless it is dead.
const CONFLICT_PAUSE: SignedDuration = SignedDuration::from_secs(15);

/// What an action is an attempt at. Calls of one class fail for the same reasons (a
/// quota, a policy, a missing permission), so a class that failed pauses as a whole, and
/// stops no other: what a plan holds never depends on another part of the same plan.
///
/// Classes are executed in this order: pods come before what only tidies up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Adopting and releasing.
    Membership,
    /// Recording the template.
    Revision,
    /// Labels of pods and owners of claims.
    Update,
    /// Deleting pods.
    Deletion,
    /// Creating pods and claims.
    Creation,
    /// Trying a template by a dry run.
    Check,
    /// Deleting revisions that are over the limit.
    History,
}

impl Class {
    /// What fails when a call of the class does, for people.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Class::Membership => "adopting or releasing its pods and revisions",
            Class::Revision => "recording the template",
            Class::Update => "updating labels of pods or owners of claims",
            Class::Deletion => "deleting pods",
            Class::Creation => "creating pods or claims",
            Class::Check => "trying the template by a dry run",
            Class::History => "deleting old revisions",
        }
    }
}

/// What is remembered of a step once it was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The ordinal whose pod had ended by itself and was deleted.
    pub ordinal: Option<i32>,
    /// Name and version of the object that it had to meet.
    pub target: Option<(String, String)>,
}

/// Calls of one class that failed in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// How many.
    pub failures: u32,
    /// When the last one did.
    pub last: Timestamp,
    /// What the API server said to it.
    pub message: String,
}

/// Pods of one ordinal that ended, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    count: u32,
    last: Timestamp,
}

/// What earlier reconciles of a set came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    setbacks: BTreeMap<Class, Setback>,
    /// Version of an object, by name, that a call conflicted with, and when.
    conflicts: BTreeMap<String, (String, Timestamp)>,
    ends: BTreeMap<i32, Ends>,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The API server did it, or it was done already.
    Done,
    /// The object is no longer the one that was decided about.
    Conflict,
    /// The API server refused it or gave no answer; with its words.
    Failed(String),
}

impl Memory {
    /// Remembers how the steps of one class ended that were executed together.
    pub fn record(&mut self, class: Class, outcomes: &[(Attempt, Outcome)], now: Timestamp) {
        let mut failure: Option<&str> = None;
        for (attempt, outcome) in outcomes {
            match outcome {
                Outcome::Done => {
                    self.setbacks.remove(&class);
                    if let Some(ordinal) = attempt.ordinal {
                        self.ended(ordinal, now);
                    }
                }
                Outcome::Conflict => match &attempt.target {
                    Some((name, version)) => {
                        let seen = (version.clone(), now);
                        self.conflicts.insert(name.clone(), seen);
                    }
                    // Without a version to wait for, only time can help.
                    None => failure = failure.or(Some("it changed meanwhile")),
                },
                Outcome::Failed(message) => failure = Some(message),
            }
        }
        if let Some(message) = failure {
            let failures = self.setbacks.get(&class).map_or(0, |s| s.failures);
            let setback = Setback {
                failures: failures.saturating_add(1),
                last: now,
                message: message.to_owned(),
            };
            self.setbacks.insert(class, setback);
        }
    }

    fn ended(&mut self, ordinal: i32, now: Timestamp) {
        let series = self.ends.get(&ordinal);
        let series = series.filter(|e| now.duration_since(e.last) < END_SERIES);
        let count = series.map_or(0, |e| e.count).saturating_add(1);
        self.ends.insert(ordinal, Ends { count, last: now });
    }

    /// Calls of `class` that failed in a row, where the last one did.
    pub(super) fn setback(&self, class: Class) -> Option<&Setback> {
        self.setbacks.get(&class)
    }

    /// Until when nothing of `class` is tried.
    pub(super) fn paused_until(&self, class: Class) -> Option<Timestamp> {
        let setback = self.setbacks.get(&class)?;
        let pause = doubled(CALL_PAUSE, setback.failures.saturating_sub(1));
        setback.last.checked_add(pause).ok()
    }

    /// Until when an object is left alone in this version.
    pub(super) fn conflicted_until(&self, name: &str, version: &str) -> Option<Timestamp> {
        let (seen, at) = self.conflicts.get(name)?;
        (seen == version).then(|| at.checked_add(CONFLICT_PAUSE).ok())?
    }

    /// Until when an ended pod of `ordinal` stays as it is.
    pub(super) fn ended_until(&self, ordinal: i32, now: Timestamp) -> Option<Timestamp> {
        let ends = self.ends.get(&ordinal)?;
        let fresh = now.duration_since(ends.last) < END_SERIES;
        let pause = doubled(END_PAUSE, ends.count.saturating_sub(1));
        fresh.then(|| ends.last.checked_add(pause).ok())?
    }
}

fn doubled((first, longest): (SignedDuration, SignedDuration), times: u32) -> SignedDuration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let now = Timestamp::UNIX_EPOCH;
        let mut memory = Memory::default();
        let step = Attempt {
            ordinal: None,
            target: None,
        };
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let failed = [(step.clone(), Outcome::Failed("no".into()))];
            memory.record(Class::Creation, &failed, now);
            let until = memory.paused_until(Class::Creation).unwrap();
            pauses.push(until.duration_since(now).as_millis());
        }
        let expected = [
            200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000, 60000,
        ];
        assert_eq!(pauses, expected);
        assert_eq!(memory.paused_until(Class::Deletion), None);
        memory.record(Class::Deletion, &[(step.clone(), Outcome::Done)], now);
        assert!(memory.paused_until(Class::Creation).is_some());
        memory.record(Class::Creation, &[(step, Outcome::Done)], now);
        assert_eq!(memory.paused_until(Class::Creation), None);
    }
}
