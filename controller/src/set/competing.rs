//! Other controllers that write the status of native sets, as the watch shows
//! them. All of it can be lost: it is learned anew from the next writes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use berth_plan::set::{CompetingController, stands_down};
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
pub(super) struct CompetingControllers(Mutex<BTreeMap<(String, String), Seen>>);

impl CompetingControllers {
    /// Notes who else the set says has written its status.
    pub(super) fn note(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        other: Option<CompetingController>,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
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
        namespace: &str,
        name: &str,
        now: Timestamp,
    ) -> Option<(CompetingController, Timestamp)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.get(&(namespace.to_owned(), name.to_owned()))?;
        let until = stands_down(seen.first, seen.latest.as_ref(), now)?;
        Some((seen.latest.clone()?, until))
    }

    /// The set is gone.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(namespace.to_owned(), name.to_owned()));
    }
}
