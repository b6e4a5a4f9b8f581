//! One operation per volume at a time, while different volumes go on side by side.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose data stays valid even if a holder panicked: every change
/// under it is a single step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks by name.
#[derive(Debug, Default)]
pub(crate) struct NamedLocks {
    held: Mutex<BTreeSet<String>>,
    released: Condvar,
}

/// Holds a name until it is dropped.
#[derive(Debug)]
pub(crate) struct Named<'a> {
    locks: &'a NamedLocks,
    name: String,
}

impl NamedLocks {
    /// Waits until nobody holds `name`, then holds it.
    pub(crate) fn hold(&self, name: &str) -> Named<'_> {
        let mut held = lock(&self.held);
        while !held.insert(name.to_owned()) {
            held = self
                .released
                .wait(held)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Named {
            locks: self,
            name: name.to_owned(),
        }
    }

    /// Whether somebody holds `name` now.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        lock(&self.held).contains(name)
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        lock(&self.locks.held).remove(&self.name);
        self.locks.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_holder_of_a_name_at_a_time() {
        let locks = NamedLocks::default();
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _held = locks.hold("a");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(lock(&locks.held).is_empty());
    }

    #[test]
    fn other_names_do_not_wait() {
        let locks = NamedLocks::default();
        let _a = locks.hold("a");
        let _b = locks.hold("b");
    }
}
