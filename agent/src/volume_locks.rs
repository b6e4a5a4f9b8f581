//! One operation per volume at a time.
//!
//! Kubelet may call again while an earlier call still runs (after its own
//! restart, or its timeout), and the reconciler works on the same volumes. The
//! second one is turned away, and comes back.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The volumes that something is being done to.
#[derive(Clone, Debug, Default)]
pub struct VolumeLocks {
    busy: Arc<Mutex<BTreeSet<String>>>,
}

/// Holds one volume; dropping it lets the next operation in. Move it into the
/// blocking work: a caller that goes away does not end the work.
#[derive(Debug)]
pub struct VolumeGuard {
    locks: VolumeLocks,
    id: String,
}

impl VolumeLocks {
    /// Takes the volume, unless something is being done to it.
    pub fn try_lock(&self, id: &str) -> Option<VolumeGuard> {
        self.busy().insert(id.to_owned()).then(|| VolumeGuard {
            locks: self.clone(),
            id: id.to_owned(),
        })
    }

    /// The set stays right even if a holder panicked: insert and remove are
    /// single steps.
    fn busy(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for VolumeGuard {
    fn drop(&mut self) {
        self.locks.busy().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_per_volume() {
        let locks = VolumeLocks::default();
        let a = locks.try_lock("a").expect("free");
        assert!(locks.try_lock("a").is_none());
        let b = locks.try_lock("b").expect("another volume is free");
        drop(a);
        let again = locks.try_lock("a").expect("free again");
        assert!(locks.clone().try_lock("b").is_none());
        drop((b, again));
        assert!(locks.busy().is_empty());
    }

    #[test]
    fn a_panic_lets_the_next_one_in() {
        let locks = VolumeLocks::default();
        let guard = locks.try_lock("a").expect("free");
        let worker = std::thread::spawn(move || {
            let _guard = guard;
            panic!("on purpose");
        });
        assert!(worker.join().is_err());
        assert!(locks.try_lock("a").is_some());
    }
}
