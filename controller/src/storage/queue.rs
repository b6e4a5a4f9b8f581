//! What the loop must look at, what it is writing, and when it looks again.
//!
//! Time is an argument everywhere, so that the rules can be tested without waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use berth_kube::Backoff;

/// Pauses between two tries of one item.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(30),
};

/// One thing that the loop decides about. At most one write of each is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    /// A Volume with its claim and its PersistentVolume, by the Volume's name.
    Volume(String),
    /// A Snapshot with the contents that name it, by its name.
    Snapshot(String),
    /// A Pool object, by the pool's id.
    Pool(String),
    /// The pool labels of a node, by its name.
    NodeLabels(String),
    /// A CSIStorageCapacity, by its name.
    Capacity(String),
    /// All Pool objects and labels.
    Pools,
    /// All CSIStorageCapacities.
    Capacities,
}

/// The items that are being written, that failed, and that have a time of their own.
#[derive(Default)]
pub(super) struct Queue {
    busy: BTreeSet<Item>,
    /// Failed tries in a row.
    attempts: BTreeMap<Item, u32>,
    timers: BTreeSet<(Instant, Item)>,
}

impl Queue {
    /// When the next item is due.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Schedules another look at an item, at `at`.
    pub(super) fn look_again(&mut self, item: Item, at: Instant) {
        self.timers.insert((at, item));
    }

    /// The next item that is due at `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Item> {
        let (at, _) = self.timers.first()?;
        if *at > now {
            return None;
        }
        self.timers.pop_first().map(|(_, item)| item)
    }

    /// A write begins: the item is not looked at until it is answered.
    pub(super) fn begin(&mut self, item: Item) {
        self.busy.insert(item);
    }

    /// Whether a write of the item is under way.
    pub(super) fn is_busy(&self, item: &Item) -> bool {
        self.busy.contains(item)
    }

    /// Whether a write of the item failed and its next try is still to come.
    pub(super) fn is_pausing(&self, item: &Item) -> bool {
        self.attempts.contains_key(item) && self.timers.iter().any(|(_, it)| it == item)
    }

    /// The write was done, or there is nothing left to write.
    pub(super) fn done(&mut self, item: &Item) {
        self.busy.remove(item);
        self.attempts.remove(item);
    }

    /// The write failed: schedules another look at the item after a pause, which is
    /// returned and grows with each failure in a row.
    pub(super) fn failed(&mut self, item: Item, now: Instant) -> Duration {
        self.busy.remove(&item);
        let attempts = self.attempts.entry(item.clone()).or_default();
        *attempts += 1;
        let pause = BACKOFF.pause(*attempts);
        self.look_again(item, now + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str) -> Item {
        Item::Volume(name.to_owned())
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!(BACKOFF.pause(1), Duration::from_millis(100));
        assert_eq!(BACKOFF.pause(4), Duration::from_millis(800));
        assert_eq!(BACKOFF.pause(99), BACKOFF.longest);
    }

    #[test]
    fn an_item_is_looked_at_when_it_is_due() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let second = Duration::from_secs(1);
        queue.look_again(Item::Pools, start + second);
        queue.look_again(volume("a"), start);
        assert_eq!(queue.next_timer(), Some(start));
        assert_eq!(queue.pop(start), Some(volume("a")));
        assert_eq!(queue.pop(start), None);
        assert_eq!(queue.pop(start + second), Some(Item::Pools));
        assert_eq!(queue.next_timer(), None);
    }

    #[test]
    fn a_failure_pauses_its_item_alone() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        for name in ["a", "b"] {
            queue.begin(volume(name));
        }
        let first = queue.failed(volume("a"), start);
        assert!(queue.is_pausing(&volume("a")) && !queue.is_busy(&volume("a")));
        assert!(queue.is_busy(&volume("b")) && !queue.is_pausing(&volume("b")));
        assert_eq!(queue.pop(start + first), Some(volume("a")));
        assert!(!queue.is_pausing(&volume("a")), "it is its turn");

        queue.begin(volume("a"));
        assert!(queue.failed(volume("a"), start) > first, "the pause grows");
        queue.done(&volume("a"));
        assert!(!queue.is_pausing(&volume("a")));
        queue.begin(volume("a"));
        let anew = queue.failed(volume("a"), start);
        assert_eq!(anew, first, "and begins anew after a success");
    }
}
