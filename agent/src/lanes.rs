//! How many calls may be inside one pool at a time. A call into a disk that does not
//! answer cannot be ended, so what is bounded is how many begin: others find their lane
//! full and are told to come back, and the threads of the other pools stay free.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use berth_provisioner::PoolId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Kinds of calls that do not hold each other up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Reads.
    Look,
    /// Changes that take a moment.
    Work,
    /// Snapshots and clones, which may take hours where everything is copied.
    Copy,
    /// Unmounting, so that pods can end whatever their disk does.
    Unmount,
}

impl Lane {
    /// Calls at once in one pool.
    fn width(self) -> usize {
        match self {
            Self::Look | Self::Copy => 4,
            Self::Work | Self::Unmount => 8,
        }
    }
}

/// Calls at once in one pool, over all its lanes.
pub const PER_POOL: usize = 24;

/// A lane of one pool; without a pool it is for what concerns none, or all.
type Key = (Option<PoolId>, Lane);

/// The lanes of every pool; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Arc<Mutex<BTreeMap<Key, Arc<Semaphore>>>>);

impl Lanes {
    /// Waits for a place, which is free again when the permit is dropped. Move it into
    /// the blocking work: a caller that goes away does not end the work.
    pub async fn enter(&self, pool: Option<&PoolId>, lane: Lane) -> Option<OwnedSemaphorePermit> {
        let places = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lanes
                .entry((pool.cloned(), lane))
                .or_insert_with(|| Arc::new(Semaphore::new(lane.width())))
                .clone()
        };
        // No lane is ever closed.
        places.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_full_lane_is_full_for_its_pool_only() {
        let lanes = Lanes::default();
        let pool = |id| PoolId::new(id).expect("valid");
        let enter = |pool: Option<&PoolId>, lane| lanes.enter(pool, lane).now_or_never().flatten();
        let (a, b) = (pool("a-1"), pool("b-1"));
        let mut inside: Vec<_> = (0..Lane::Work.width())
            .map(|_| enter(Some(&a), Lane::Work).expect("a place"))
            .collect();
        assert!(enter(Some(&a), Lane::Work).is_none());
        for other in [Lane::Look, Lane::Copy, Lane::Unmount] {
            assert!(enter(Some(&a), other).is_some());
        }
        assert!(enter(Some(&b), Lane::Work).is_some());
        assert!(enter(None, Lane::Work).is_some());
        inside.pop();
        assert!(enter(Some(&a), Lane::Work).is_some());
    }

    #[test]
    fn the_sum_is_that_of_all_lanes() {
        let lanes = [Lane::Look, Lane::Work, Lane::Copy, Lane::Unmount];
        let sum: usize = lanes.into_iter().map(Lane::width).sum();
        assert_eq!(sum, PER_POOL);
    }
}
