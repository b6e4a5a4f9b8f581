//! Copies that share blocks with their source no more. What a copy shares is counted for its
//! source, so that nothing is counted twice; once the source is gone, it is counted for
//! nobody, and the pool would keep as much free as the copy has written already.

use std::io;

use crate::backend::{self, DataSpec};
use crate::fs::dir::Mounts;
use crate::layout::{SNAPSHOTS, VOLUMES};
use crate::locks::lock;
use crate::pool::Pool;
use crate::pool::record::{SnapshotRecord, VolumeRecord};
use crate::store::{Entry, Store, lookup};
use crate::types::Backend;

/// Takes the mark off all copies in a pool that share nothing any more: in memory, since the
/// disk tells it anew at the next start. Cheap for one that still does: the first shared
/// block is enough. It never shares again, except with copies of its own, which carry the
/// mark themselves.
pub(crate) fn settle(store: &Store, pool: &Pool) {
    let (volumes, snapshots) = marked(store, pool);
    for record in volumes {
        let id = &record.id;
        if shares(store, pool, VOLUMES, id, record.data_spec()).unwrap_or(true) {
            continue;
        }
        if let Some(state) = lock(&store.state).pools.get_mut(&pool.identity.id)
            && let Some(Entry::Intact(known)) = state.volumes.get_mut(id)
            && **known == record
        {
            known.shares = false;
        }
    }
    for record in snapshots {
        let id = &record.id;
        if shares(store, pool, SNAPSHOTS, id, record.data_spec()).unwrap_or(true) {
            continue;
        }
        if let Some(state) = lock(&store.state).pools.get_mut(&pool.identity.id)
            && let Some(Entry::Intact(known)) = state.snapshots.get_mut(id)
            && **known == record
        {
            known.shares = false;
        }
    }
}

/// The copies that carry the mark. The qgroup of a subvolume tells what it has to itself.
fn marked(store: &Store, pool: &Pool) -> (Vec<VolumeRecord>, Vec<SnapshotRecord>) {
    let state = lock(&store.state);
    let Some(state) = state.pools.get(&pool.identity.id) else {
        return (Vec::new(), Vec::new());
    };
    let volumes = state.volumes.values().filter_map(|entry| match entry {
        Entry::Intact(it) if it.shares && it.backend != Backend::Btrfs => Some(*it.clone()),
        _ => None,
    });
    let snapshots = state.snapshots.values().filter_map(|entry| match entry {
        Entry::Intact(it) if it.shares && it.backend != Backend::Btrfs => Some(*it.clone()),
        _ => None,
    });
    (volumes.collect(), snapshots.collect())
}

/// Whether the data still may share blocks with other data.
fn shares(store: &Store, pool: &Pool, part: &str, id: &str, spec: DataSpec) -> io::Result<bool> {
    let dir = pool.dir.open(format!("{part}/{id}"), Mounts::Stay)?;
    backend::of(spec.backend).shares(&lookup::stored_data(store, pool, &dir, spec))
}
