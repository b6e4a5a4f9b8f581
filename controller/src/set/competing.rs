//! Other controllers that write the status of native sets, as the watch shows
//! them. All of it can be lost: it is learned anew from the next writes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use berth_plan::set::{CompetingController, Kind, stands_down};
use jiff::Timestamp;

/// What was seen of one set.
struct Seen {
    uid: String,
    /// The last foreign write before this process looked.
    first: Option<Timestamp>,
    latest: Option<CompetingController>,
}

/// Competing controllers of all sets that have any.
#[derive(Default)]
pub(super) struct CompetingControllers(Mutex<BTreeMap<Key, Seen>>);

/// Kind, namespace and name: a StatefulSet and an OrdinalSet may share the last two.
type Key = (Kind, String, String);

impl CompetingControllers {
    /// Notes who else the set says has written its status.
    pub(super) fn note(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        uid: &str,
        other: Option<CompetingController>,
    ) {
        // Nobody else runs an OrdinalSet.
        if kind == Kind::OrdinalSet {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, namespace.to_owned(), name.to_owned());
        match all.get_mut(&key).filter(|seen| seen.uid == uid) {
            Some(seen) => seen.latest = other,
            None => {
                let seen = Seen {
                    uid: uid.to_owned(),
                    first: other.as_ref().map(|r| r.at),
                    latest: other,
                };
                all.insert(key, seen);
            }
        }
    }

    /// Who runs the set instead, and until when it is left to it.
    pub(super) fn of(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        now: Timestamp,
    ) -> Option<(CompetingController, Timestamp)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.get(&(kind, namespace.to_owned(), name.to_owned()))?;
        let until = stands_down(seen.first, seen.latest.as_ref(), now)?;
        Some((seen.latest.clone()?, until))
    }

    /// The set is gone.
    pub(super) fn forget(&self, kind: Kind, namespace: &str, name: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(kind, namespace.to_owned(), name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_one_name_are_kept_apart() {
        let now = Timestamp::UNIX_EPOCH;
        let all = CompetingControllers::default();
        let other = |second| CompetingController {
            manager: "kube-controller-manager".into(),
            at: Timestamp::from_second(second).unwrap(),
        };
        all.note(Kind::StatefulSet, "ns", "web", "s", Some(other(-60)));
        all.note(Kind::OrdinalSet, "ns", "web", "o", None);
        all.note(Kind::StatefulSet, "ns", "web", "s", Some(other(-1)));
        all.note(Kind::OrdinalSet, "ns", "web", "o", None);
        assert!(all.of(Kind::StatefulSet, "ns", "web", now).is_some());
        assert!(all.of(Kind::OrdinalSet, "ns", "web", now).is_none());
        all.forget(Kind::OrdinalSet, "ns", "web");
        assert!(all.of(Kind::StatefulSet, "ns", "web", now).is_some());
    }
}
