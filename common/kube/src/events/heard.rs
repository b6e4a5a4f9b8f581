//! What has been said: which event is news, and which would only repeat. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::entry::{Entry, Kind};

/// How long the same words about the same object are not repeated.
const QUIET: Duration = Duration::from_secs(600);

/// Good news with one reason about one object that is told at once, and after how long one
/// more may be: what client-go grants an object (`EventSourceObjectSpamFilter`). A set of
/// many pods would otherwise cost an event for each pod, as many writes as the pods
/// themselves, of which nobody reads so many. Warnings are never held back.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);

/// An object, a reason, and the words.
pub(super) type Said = (String, String, String);

/// What has been said lately.
#[derive(Debug, Default)]
pub(super) struct Heard {
    said: BTreeMap<Said, Instant>,
    /// The same, the oldest first.
    order: VecDeque<(Instant, Said)>,
    /// How much more good news may be told, by object and reason.
    bursts: BTreeMap<(String, String), Burst>,
    pruned: Option<Instant>,
}

#[derive(Debug)]
struct Burst {
    left: u32,
    /// The moment up to which `left` was refilled.
    refilled: Instant,
}

impl Heard {
    /// Whether an event is to be sent; it then counts as said.
    pub(super) fn admit(&mut self, entry: &Entry, now: Instant) -> bool {
        while let Some((at, said)) = self.order.front()
            && now.duration_since(*at) >= QUIET
        {
            // It may have been said again since.
            if self.said.get(said) == Some(at) {
                self.said.remove(said);
            }
            self.order.pop_front();
        }
        let said = said(entry);
        if self.said.contains_key(&said) || !self.is_in_burst(entry, &said, now) {
            return false;
        }
        self.order.push_back((now, said.clone()));
        self.said.insert(said, now);
        true
    }

    /// An event did not get through: the same words are news again.
    pub(super) fn forget(&mut self, entry: &Entry) {
        self.said.remove(&said(entry));
    }

    fn is_in_burst(&mut self, entry: &Entry, said: &Said, now: Instant) -> bool {
        if entry.kind == Kind::Warning {
            return true;
        }
        // What was quiet for so long has its whole burst again, and need not be remembered.
        let full = REFILL * BURST;
        let pruned = *self.pruned.get_or_insert(now);
        if now.duration_since(pruned) > REFILL {
            self.bursts
                .retain(|_, burst| now.duration_since(burst.refilled) < full);
            self.pruned = Some(now);
        }
        let (about, reason, _) = said.clone();
        let burst = self.bursts.entry((about, reason)).or_insert(Burst {
            left: BURST,
            refilled: now,
        });
        while burst.left < BURST && now.duration_since(burst.refilled) >= REFILL {
            burst.left += 1;
            burst.refilled += REFILL;
        }
        if burst.left == BURST {
            burst.refilled = now;
        }
        let admitted = burst.left > 0;
        burst.left = burst.left.saturating_sub(1);
        admitted
    }
}

fn said(entry: &Entry) -> Said {
    let about = &entry.about;
    // Of an object that was not stored yet, the name is all that there is.
    let about = about.uid.as_ref().or(about.name.as_ref());
    (
        about.cloned().unwrap_or_default(),
        entry.reason.clone(),
        entry.note.clone(),
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn entry(uid: &str, kind: Kind, reason: &str, note: &str) -> Entry {
        Entry {
            about: ObjectReference {
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            },
            kind,
            action: "Reconcile",
            reason: reason.to_owned(),
            note: note.to_owned(),
        }
    }

    #[test]
    fn the_same_words_are_news_once() {
        let start = Instant::now();
        let mut heard = Heard::default();
        let of = |note| entry("web", Kind::Warning, "NoRoom", note);
        assert!(heard.admit(&of("a"), start));
        assert!(heard.admit(&of("b"), start));
        assert!(!heard.admit(&of("a"), start + QUIET / 2));
        assert!(heard.admit(&of("a"), start + QUIET));
        assert!(!heard.admit(&of("a"), start + QUIET));
        heard.forget(&of("a"));
        assert!(heard.admit(&of("a"), start + QUIET), "nobody heard it");
        assert!(heard.admit(&of("a"), start + QUIET * 2));
        assert_eq!((heard.said.len(), heard.order.len()), (1, 1));
    }

    #[test]
    fn good_news_of_one_kind_comes_in_bursts() {
        let mut now = Instant::now();
        let mut heard = Heard::default();
        let mut count = 0;
        let mut told = |uid: &str, kind: Kind, reason: &str, now: Instant| {
            let admitted = (0..100).filter(|_| {
                count += 1;
                heard.admit(&entry(uid, kind, reason, &format!("pod {count}")), now)
            });
            admitted.count()
        };
        let burst = BURST as usize;
        assert_eq!(told("a", Kind::Normal, "Created", now), burst);
        assert_eq!(told("a", Kind::Normal, "Created", now), 0);
        assert_eq!(told("a", Kind::Normal, "Deleted", now), burst);
        assert_eq!(told("b", Kind::Normal, "Created", now), burst);
        assert_eq!(told("a", Kind::Warning, "Created", now), 100);
        now += REFILL * 3 / 2;
        assert_eq!(told("a", Kind::Normal, "Created", now), 1);
        now += REFILL / 2;
        assert_eq!(told("a", Kind::Normal, "Created", now), 1);
        now += REFILL * BURST * 2;
        assert_eq!(told("a", Kind::Normal, "Created", now), burst);
    }
}
