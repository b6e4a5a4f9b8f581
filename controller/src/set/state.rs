//! What one reconcile leaves for the next of its set. All of it can be lost: it saves
//! writes and events, and safety does not rest on it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use berth_plan::set::{Kind, NormalForm, Refusal, TemplateCheck, Verdict, WaitReason};

use super::cache::Caches;

/// How long a reconcile waits for its caches to show the last one's writes. After
/// that something else happened to the objects, and the caches are believed.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(15);

/// First and longest pause after failed writes.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// A refused template is tried again after this: the policy may have changed.
const REFUSAL_AGE: Duration = Duration::from_secs(60);

/// First and longest pause between status writes of one set while it is busy.
const STATUS_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

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
    check: Option<(TemplateCheck, Instant)>,
    /// The newest revision with the API server's defaults of today.
    pub(super) normal_form: Option<NormalForm>,
    failures: u32,
    /// No creations (or nothing at all) before this moment.
    hold: Option<Hold>,
    status_written: Option<Instant>,
    status_pause: Duration,
    /// Waits that were published as events.
    pub(super) published: Vec<(Option<i32>, WaitReason)>,
    /// Notices that were published as events.
    pub(super) noticed: Vec<String>,
    /// The set is left to another controller, and people know it.
    pub(super) stands_down: bool,
}

/// A pause after failed writes.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) until: Instant,
    /// Only creations pause.
    pub(super) creations: bool,
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
            self.hold = None;
            self.failures = 0;
        }
    }

    /// The last dry run, unless it is time for another.
    pub(super) fn check(&self, now: Instant) -> Option<TemplateCheck> {
        let (check, at) = self.check.as_ref()?;
        let refused = matches!(check.verdict, Verdict::Refused(_));
        let old = refused && now.duration_since(*at) > REFUSAL_AGE;
        (!old).then(|| check.clone())
    }

    /// Remembers a dry run.
    pub(super) fn checked(&mut self, check: TemplateCheck, now: Instant) {
        self.check = Some((check, now));
    }

    /// When a refused template is due for another try.
    pub(super) fn recheck(&self, now: Instant) -> Option<Duration> {
        let (check, at) = self.check.as_ref()?;
        let refused = matches!(check.verdict, Verdict::Refused(_));
        refused.then(|| (*at + REFUSAL_AGE).saturating_duration_since(now))
    }

    /// The writes of a reconcile failed: pause, longer each time.
    pub(super) fn failed(&mut self, creations: bool, now: Instant) {
        let pause = BACKOFF.0.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        self.hold = Some(Hold {
            until: now + pause.min(BACKOFF.1),
            creations,
        });
    }

    /// The writes of a reconcile succeeded.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.hold = None;
    }

    /// The pause that still runs.
    pub(super) fn hold(&self, now: Instant) -> Option<Hold> {
        self.hold.filter(|hold| hold.until > now)
    }

    /// How long a status write should still wait, so that a burst of changes
    /// becomes few writes.
    pub(super) fn status_due(&self, now: Instant) -> Duration {
        match self.status_written {
            Some(at) => (at + self.status_pause).saturating_duration_since(now),
            None => Duration::ZERO,
        }
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
    use super::*;

    #[test]
    fn pauses_grow_and_a_new_spec_ends_them() {
        let now = Instant::now();
        let mut state = SetState::default();
        state.reset_if_changed("a", 1);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            state.failed(true, now);
            let pause = state.hold(now).unwrap().until - now;
            assert!(pause >= last && pause <= BACKOFF.1);
            last = pause;
        }
        assert_eq!(last, BACKOFF.1);
        state.reset_if_changed("a", 2);
        assert!(state.hold(now).is_none());
        state.failed(true, now);
        assert_eq!(state.hold(now).unwrap().until - now, BACKOFF.0);
    }

    #[test]
    fn status_writes_of_a_busy_set_spread_out() {
        let mut now = Instant::now();
        let mut state = SetState::default();
        assert_eq!(state.status_due(now), Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            state.status_was_written(now);
            pauses.push(state.status_due(now).as_millis());
            now += state.status_due(now);
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        now += STATUS_CALM * 2;
        state.status_was_written(now);
        assert_eq!(state.status_due(now), STATUS_PAUSE.0);
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

    #[test]
    fn a_refused_template_is_tried_again_later() {
        let now = Instant::now();
        let mut state = SetState::default();
        let check = |verdict| TemplateCheck {
            revision: "web-1".into(),
            verdict,
        };
        state.checked(check(Verdict::Refused("no".into())), now);
        assert!(state.check(now).is_some());
        assert!(state.check(now + REFUSAL_AGE * 2).is_none());
        state.checked(check(Verdict::Passed), now);
        assert!(state.check(now + REFUSAL_AGE * 2).is_some());
    }
}
