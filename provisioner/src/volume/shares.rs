//! Copies that share blocks with their source no more. What a copy shares is counted for its
//! source, so that nothing is counted twice; once the source is gone, it is counted for
//! nobody, and the pool would keep as much free as the copy has written already.

use crate::backend;
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts};
use crate::fs::envelope;
use crate::layout::{RECORD, SNAPSHOTS, VOLUMES};
use crate::locks::lock;
use crate::pool::Pool;
use crate::pool::record::{SnapshotRecord, VolumeRecord};
use crate::store::{Entry, Store, lookup};
use crate::types::Backend;
use crate::volume::grow;

/// Takes the mark off all copies in a pool that share nothing any more. Cheap for one that
/// still does: the first shared block is enough. It never shares again, except with copies
/// of its own, which carry the mark themselves.
pub(crate) fn settle(store: &Store, pool: &Pool) {
    let (volumes, snapshots) = marked(store, pool);
    for record in volumes {
        let id = record.id.clone();
        if let Err(e) = settle_volume(store, pool, record) {
            tracing::warn!(volume = id, error = %e, "it is not known whether it shares blocks");
        }
    }
    for record in snapshots {
        let id = record.id.clone();
        if let Err(e) = settle_snapshot(store, pool, record) {
            tracing::warn!(snapshot = id, error = %e, "it is not known whether it shares blocks");
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

fn open(pool: &Pool, part: &str, id: &str) -> Result<Dir, Error> {
    let path = format!("{part}/{id}");
    let dir = pool.dir.open(&path, Mounts::Stay);
    dir.context("opening", pool.dir.path().join(path))
}

fn settle_volume(store: &Store, pool: &Pool, record: VolumeRecord) -> Result<(), Error> {
    let dir = open(pool, VOLUMES, &record.id)?;
    let stored = lookup::stored_data(store, pool, &dir, record.data_spec());
    let shares = backend::of(record.backend).shares(&stored);
    if shares.context("looking at", dir.path())? {
        return Ok(());
    }
    // Not before: it may take long, and nobody has to wait for it.
    let _one = store.volume_locks.hold(&record.id);
    if lookup::volume_record(store, pool, &record.id).ok().as_ref() != Some(&record) {
        return Ok(());
    }
    let alone = VolumeRecord {
        shares: false,
        ..record
    };
    grow::write_record(pool, &alone)?;
    if let Some(state) = lock(&store.state).pools.get_mut(&pool.identity.id) {
        let id = alone.id.clone();
        state.volumes.insert(id, Entry::Intact(Box::new(alone)));
    }
    Ok(())
}

fn settle_snapshot(store: &Store, pool: &Pool, record: SnapshotRecord) -> Result<(), Error> {
    let dir = open(pool, SNAPSHOTS, &record.id)?;
    let stored = lookup::stored_data(store, pool, &dir, record.data_spec());
    let shares = backend::of(record.backend).shares(&stored);
    if shares.context("looking at", dir.path())? {
        return Ok(());
    }
    let _one = store.snapshot_locks.hold(&record.id);
    if lookup::snapshot_record(store, pool, &record.id)
        .ok()
        .as_ref()
        != Some(&record)
    {
        return Ok(());
    }
    let alone = SnapshotRecord {
        shares: false,
        ..record
    };
    dir.write(RECORD, &envelope::encode(&alone))
        .context("writing the record of", dir.path())?;
    if let Some(state) = lock(&store.state).pools.get_mut(&pool.identity.id) {
        let id = alone.id.clone();
        state.snapshots.insert(id, Entry::Intact(Box::new(alone)));
    }
    Ok(())
}
