//! What was tried for claims that have no volume yet, and what the scheduler is told of
//! free space: the part of the state that the decision about claims leaves behind.

use berth_plan::claims::{self, ClaimKey, Tries};
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use super::{figures, state::ClusterState};

impl ClusterState {
    /// A capacity object changed, or was read for the first time.
    pub(super) fn capacity_changed(
        &mut self,
        old: Option<&CSIStorageCapacity>,
        new: Option<&CSIStorageCapacity>,
    ) {
        self.capacities_dirty = true;
        if let Some(of) = old.and_then(figures::subject) {
            self.told.remove(&of);
        }
        if let Some(new) = new
            && let (Some(of), Some(told)) = (figures::subject(new), figures::told(new))
        {
            self.told.insert(of, told.largest);
        }
    }

    /// Remembers what was tried for a claim.
    pub(super) fn remember_tries(&mut self, claim: ClaimKey, tries: Tries, now: Timestamp) {
        self.tries.insert(claim, tries);
        self.withhold(now);
    }

    /// The claim has its volume, or is gone.
    pub(super) fn forget_tries(&mut self, claim: &ClaimKey) {
        self.tries.remove(claim);
    }

    /// Notes that a pool failed a claim. `incarnation` is the UID of the Volume object.
    pub(super) fn pool_failed(
        &mut self,
        claim: ClaimKey,
        pool: &str,
        incarnation: &str,
        now: Timestamp,
    ) {
        let tries = self.tries.entry(claim).or_default();
        tries.fail(pool, incarnation, now);
    }

    /// Computes anew what the scheduler must not be told at `now`.
    pub(super) fn withhold(&mut self, now: Timestamp) {
        let withheld = claims::withheld(&self.tries, now);
        self.capacities_dirty |= withheld != self.withheld;
        self.withheld = withheld;
    }
}
