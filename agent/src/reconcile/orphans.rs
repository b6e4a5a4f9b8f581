//! Volumes on this node's disks that no Volume object names: an object that was dropped while
//! its node did not answer, or that a person deleted together with its PersistentVolume.
//! Nothing erases them, since an object that vanished is no order to; so somebody must be
//! told what holds the space.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use berth_api::{Bytes, Orphan};
use berth_provisioner::{PoolId, Recorded};

/// How long a volume must be without an object. A controller that adopts it, or that takes
/// its pool to another node, needs a moment.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many are told of one pool.
const TOLD: usize = 20;

/// Volumes without an object, and since when.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    since: BTreeMap<String, Instant>,
}

impl Orphans {
    /// What is to be told at `now`, by pool; `named` are the names of this node's objects.
    pub(super) fn look(
        &mut self,
        volumes: Vec<Recorded>,
        named: &BTreeSet<String>,
        now: Instant,
    ) -> BTreeMap<PoolId, Vec<Orphan>> {
        let mut unnamed: Vec<_> = (volumes.into_iter())
            .filter(|volume| !named.contains(&volume.id))
            .collect();
        unnamed.sort_by(|a, b| a.id.cmp(&b.id));
        self.since = (unnamed.iter())
            .map(|volume| {
                let since = self.since.get(&volume.id).copied().unwrap_or(now);
                (volume.id.clone(), since)
            })
            .collect();
        let mut told: BTreeMap<PoolId, Vec<Orphan>> = BTreeMap::new();
        for volume in unnamed {
            let since = self.since.get(&volume.id).copied().unwrap_or(now);
            let all = told.entry(volume.pool).or_default();
            if now.duration_since(since) >= PATIENCE && all.len() < TOLD {
                all.push(Orphan {
                    id: volume.id,
                    claim: volume.claim,
                    size: Bytes(volume.enforced),
                });
            }
        }
        told.retain(|_, all| !all.is_empty());
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_object_for_a_while_is_told() {
        let pool = PoolId::new("disk0-0123456789ab").expect("valid");
        let volume = |id: &str| Recorded {
            id: id.to_owned(),
            pool: pool.clone(),
            claim: None,
            enforced: 5,
        };
        let both = || vec![volume("b"), volume("a")];
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut orphans = Orphans::default();
        let start = Instant::now();
        assert!(orphans.look(both(), &named(&["a"]), start).is_empty());
        let later = start + PATIENCE;
        let told = orphans.look(both(), &named(&[]), later);
        let ids = |told: &BTreeMap<PoolId, Vec<Orphan>>| -> Vec<String> {
            told.values().flatten().map(|it| it.id.clone()).collect()
        };
        assert_eq!(ids(&told), ["b"], "a has been without one only now");
        assert_eq!(told[&pool][0].size, Bytes(5));
        // An object that comes ends it, and the time begins anew.
        assert_eq!(ids(&orphans.look(both(), &named(&["b"]), later)), [""; 0]);
        assert_eq!(ids(&orphans.look(both(), &named(&[]), later)), [""; 0]);
        let many = (0..99).map(|n| volume(&n.to_string())).collect::<Vec<_>>();
        orphans.look(many.clone(), &named(&[]), later);
        let told = orphans.look(many, &named(&[]), later + PATIENCE);
        assert_eq!(told[&pool].len(), TOLD);
    }
}
