//! What one reconcile leaves for the next of its set. All of it can be lost: it saves
//! writes and events, and safety does not rest on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use berth_plan::set::{Kind, Memory, NormalForm, Refusal, TemplateCheck, WaitReason};

use super::cache::Caches;

/// How long a reconcile waits for its caches to show the last one's writes. After
/// that something else happened to the objects, and the caches are believed.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(15);

/// How long a status that differs is held back, to be written together with what follows.
/// A set that is made goes through its revision, its pods and their phases faster than
/// that, and a status of a custom resource is the dearest write that the API server knows:
/// it is checked against the whole schema each time.
const STATUS_SETTLE: Duration = Duration::from_millis(100);

/// First and longest pause between status writes of one set while it is busy. The first
/// one holds also for what people wait for, that the set is complete or no longer is.
const STATUS_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Status writes further apart than this begin again with the first pause.
const STATUS_CALM: Duration = Duration::from_secs(10);

/// What is remembered of one set.
#[derive(Default)]
pub(super) struct SetState {
    uid: String,
    generation: i64,
    /// Versions that own writes were answered with.
    pub(super) wrote: WriteWatermarks,
    /// Refused creations, by pod name.
    pub(super) refusals: BTreeMap<String, Refusal>,
    /// The last dry run.
    pub(super) check: Option<TemplateCheck>,
    /// What calls came to.
    pub(super) memory: Memory,
    /// The newest revision with the API server's defaults of today.
    pub(super) normal_form: Option<NormalForm>,
    /// Since when the status should be another than it is.
    status_since: Option<Instant>,
    status_written: Option<Instant>,
    status_pause: Duration,
    /// Waits that were published as events.
    pub(super) published: BTreeSet<(Option<i32>, WaitReason)>,
    /// Notices that were published as events.
    pub(super) noticed: BTreeSet<String>,
    /// The set is left to another controller, and people know it.
    pub(super) stands_down: bool,
}

/// Highest versions of own writes, by kind.
#[derive(Default)]
pub(super) struct WriteWatermarks {
    pub(super) set: u64,
    pub(super) pods: u64,
    pub(super) claims: u64,
    pub(super) revisions: u64,
    last: Option<Instant>,
}

impl WriteWatermarks {
    /// A write was answered now.
    pub(super) fn touch(&mut self, now: Instant) {
        self.last = Some(now);
    }

    /// The caches show every own write, or too long ago to tell.
    pub(super) fn is_seen(&self, caches: &Caches, set: u64, now: Instant) -> bool {
        let long_ago = self
            .last
            .is_none_or(|at| now.duration_since(at) > CATCH_UP_LIMIT);
        long_ago
            || (set >= self.set
                && caches.pods.seen() >= self.pods
                && caches.claims.seen() >= self.claims
                && caches.revisions.seen() >= self.revisions)
    }
}

impl SetState {
    /// Forgets what an earlier set of the name, or an earlier spec, left.
    pub(super) fn reset_if_changed(&mut self, uid: &str, generation: i64) {
        if self.uid != uid {
            *self = SetState {
                uid: uid.to_owned(),
                ..SetState::default()
            };
        }
        if self.generation != generation {
            self.generation = generation;
            self.refusals.clear();
            self.memory = Memory::default();
        }
    }

    /// How long a status write should still wait, so that a burst of changes becomes few
    /// writes. `turns` says that the set becomes complete by it, or no longer is.
    pub(super) fn status_due(&mut self, turns: bool, now: Instant) -> Duration {
        let settled = *self.status_since.get_or_insert(now) + STATUS_SETTLE;
        let pause = if turns {
            self.status_pause.min(STATUS_PAUSE.0)
        } else {
            self.status_pause
        };
        let due = match self.status_written {
            Some(at) => settled.max(at + pause),
            None => settled,
        };
        due.saturating_duration_since(now)
    }

    /// The status is as it should be.
    pub(super) fn status_is_right(&mut self) {
        self.status_since = None;
    }

    /// A status was written.
    pub(super) fn status_was_written(&mut self, now: Instant) {
        let calm = self
            .status_written
            .is_none_or(|at| now.duration_since(at) > STATUS_CALM);
        self.status_pause = if calm {
            STATUS_PAUSE.0
        } else {
            (self.status_pause * 2).min(STATUS_PAUSE.1)
        };
        self.status_written = Some(now);
        self.status_since = None;
    }
}

/// What is remembered of all sets.
#[derive(Default)]
pub(super) struct SetStates(Mutex<BTreeMap<Key, SetState>>);

/// Kind, namespace and name of a set.
type Key = (Kind, String, String);

impl SetStates {
    /// Takes a set's state out; the same set has no second reconcile meanwhile.
    pub(super) fn take(&self, kind: Kind, namespace: &str, name: &str) -> SetState {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(kind, namespace.to_owned(), name.to_owned()))
            .unwrap_or_default()
    }

    /// Puts it back.
    pub(super) fn put(&self, kind: Kind, namespace: &str, name: &str, state: SetState) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((kind, namespace.to_owned(), name.to_owned()), state);
    }

    /// The set is gone.
    pub(super) fn forget(&self, kind: Kind, namespace: &str, name: &str) {
        self.take(kind, namespace, name);
    }
}

#[cfg(test)]
mod tests {
    use berth_plan::set::{Attempt, Class, Outcome};
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_new_spec_ends_pauses() {
        let now = Timestamp::UNIX_EPOCH;
        let mut state = SetState::default();
        state.reset_if_changed("a", 1);
        let step = Attempt {
            ordinal: None,
            target: None,
        };
        let failed = [(step, Outcome::Failed("no".into()))];
        state.memory.record(Class::Creation, &failed, now);
        state.reset_if_changed("a", 1);
        assert_ne!(state.memory, Memory::default());
        state.reset_if_changed("a", 2);
        assert_eq!(state.memory, Memory::default());
    }

    #[test]
    fn status_writes_of_a_busy_set_spread_out() {
        let mut now = Instant::now();
        let mut state = SetState::default();
        assert_eq!(state.status_due(false, now), STATUS_SETTLE);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            state.status_was_written(now);
            pauses.push(state.status_due(false, now).as_millis());
            now += state.status_due(false, now);
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 2000, 2000]);
        state.status_was_written(now);
        assert_eq!(state.status_due(true, now), STATUS_PAUSE.0);
        now += STATUS_CALM * 2;
        state.status_was_written(now);
        assert_eq!(state.status_due(false, now), STATUS_PAUSE.0);
    }

    #[test]
    fn a_status_settles_before_it_is_written_and_not_for_longer() {
        let start = Instant::now();
        let mut state = SetState::default();
        assert_eq!(state.status_due(false, start), STATUS_SETTLE);
        let later = start + STATUS_SETTLE / 2;
        assert_eq!(state.status_due(true, later), STATUS_SETTLE / 2);
        assert_eq!(
            state.status_due(false, start + STATUS_SETTLE),
            Duration::ZERO
        );
        state.status_is_right();
        let later = start + STATUS_SETTLE * 5;
        assert_eq!(state.status_due(false, later), STATUS_SETTLE);
    }

    #[test]
    fn own_writes_are_waited_for_but_not_without_end() {
        let now = Instant::now();
        let caches = Caches::default();
        let mut wrote = WriteWatermarks {
            pods: 7,
            ..WriteWatermarks::default()
        };
        wrote.touch(now);
        assert!(!wrote.is_seen(&caches, 0, now));
        assert!(wrote.is_seen(&caches, 0, now + CATCH_UP_LIMIT * 2));
        wrote.pods = 0;
        assert!(wrote.is_seen(&caches, 0, now));
        wrote.set = 9;
        assert!(!wrote.is_seen(&caches, 8, now));
        assert!(wrote.is_seen(&caches, 9, now));
    }
}
