//! Reads a pool that has just appeared, and repairs what a crash left. The disk is
//! the truth; memory is derived from it.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts};
use crate::layout::{DATA, RECORD, SNAPSHOTS, id_in_trash};
use crate::mount::loop_image;
use crate::pool::ledger::{Holder, Ledger};
use crate::pool::record::{SnapshotRecord, VolumeRecord};
use crate::pool::{Pool, ledger, tombstone};
use crate::store::{Entry, Patience, PoolState, Store, Trashed};
use crate::sys::Qgroup;
use crate::types::Erasure;
use crate::volume::{build, by_claim, limit};
use crate::{names, pool};

/// Reads a pool's volumes and trash. Where this process may change things
/// and the filesystem is writable, limits that are not as recorded are set,
/// and unfinished volumes are removed.
pub(crate) fn load(store: &Store, pool: &Pool, gate: Arc<RwLock<()>>) -> Result<PoolState, Error> {
    let settle = store.is_writer() && !pool.filesystem.read_only;
    let qgroups = store.sys.qgroups(&pool.dir).unwrap_or_default();
    let mut ledger = Ledger::default();
    ledger.set_capacity(ledger::capacity(
        pool.filesystem.size,
        pool.identity.capacity,
    ));
    let volumes = load_volumes(store, pool, &qgroups, &mut ledger, settle)?;
    let snapshots = load_snapshots(store, pool, &qgroups, &mut ledger)?;
    // Without them, what was erased could be made again.
    drop(pool.tombstones()?);
    let trash = load_trash(store, pool, &qgroups, &mut ledger, settle)?;
    if settle {
        build::clear(store, pool)?;
    }
    let images = loop_image::identities(pool, &volumes);
    Ok(PoolState {
        images,
        filled: BTreeMap::new(),
        may_share_less: true,
        patience: Patience::default(),
        dir: pool.name.clone(),
        fs_uuid: pool.filesystem.uuid.clone(),
        usable: true,
        gate,
        ledger,
        volumes,
        snapshots,
        trash,
    })
}

fn load_volumes(
    store: &Store,
    pool: &Pool,
    qgroups: &BTreeMap<u64, Qgroup>,
    ledger: &mut Ledger,
    settle: bool,
) -> Result<BTreeMap<String, Entry>, Error> {
    let mut found = BTreeMap::new();
    let volumes = pool.volumes()?;
    // Once for all images; a machine without has no images either.
    let loops = match settle {
        true => store.sys.loops().unwrap_or_default(),
        false => Vec::new(),
    };
    for id in volumes.directories().context("listing", volumes.path())? {
        if names::volume_id(&id).is_err() {
            continue;
        }
        let entry = load_volume(pool, &volumes, &id)?;
        match &entry {
            None => continue,
            Some(Entry::Intact(record)) => {
                ledger.hold(Holder::Volume(id.clone()), record.enforced);
                if settle {
                    limit::restore(store, pool, record, qgroups, &loops);
                }
            }
            Some(Entry::Damaged(why)) => {
                tracing::warn!(volume = id, why, "volume is damaged");
                let held = limit::of_unrecorded(store, &volumes, &id, qgroups);
                ledger.hold(Holder::Volume(id.clone()), held);
            }
        }
        found.extend(entry.map(|entry| (id, entry)));
    }
    Ok(found)
}

/// `None` for a directory that holds neither record nor data.
fn load_volume(pool: &Pool, volumes: &Dir, id: &str) -> Result<Option<Entry>, Error> {
    let dir = match volumes.open(id, Mounts::Stay) {
        Ok(dir) => dir,
        Err(e) => return Ok(Some(Entry::Damaged(format!("cannot be opened: {e}")))),
    };
    Ok(match pool::read::<VolumeRecord>(&dir, RECORD) {
        Ok(Some(record)) if record.id != id => Some(Entry::Damaged(format!(
            "{RECORD} is that of volume {}",
            record.id
        ))),
        Ok(Some(record)) if record.pool != pool.identity.id => Some(Entry::Damaged(format!(
            "{RECORD} is that of a volume of pool {}",
            record.pool
        ))),
        Ok(Some(record)) => Some(Entry::Intact(Box::new(record))),
        Ok(None) if dir.kind(DATA).context("looking at", dir.path())?.is_none() => None,
        Ok(None) => Some(Entry::Damaged(format!("{RECORD} is missing"))),
        Err(why) => Some(Entry::Damaged(format!("{RECORD}: {why}"))),
    })
}

fn load_snapshots(
    store: &Store,
    pool: &Pool,
    qgroups: &BTreeMap<u64, Qgroup>,
    ledger: &mut Ledger,
) -> Result<BTreeMap<String, Entry<SnapshotRecord>>, Error> {
    let mut found = BTreeMap::new();
    // A pool of an older program has no such directory yet.
    if (pool.filesystem.read_only || !store.is_writer())
        && pool
            .dir
            .kind(SNAPSHOTS)
            .context("looking at", pool.dir.path())?
            .is_none()
    {
        return Ok(found);
    }
    let snapshots = pool.snapshots()?;
    for id in snapshots
        .directories()
        .context("listing", snapshots.path())?
    {
        if names::volume_id(&id).is_err() {
            continue;
        }
        let dir = snapshots.open(&id, Mounts::Stay);
        let stray = dir.as_ref().is_ok_and(|dir| {
            [RECORD, DATA]
                .iter()
                .all(|part| matches!(dir.kind(part), Ok(None)))
        });
        if stray {
            continue;
        }
        let read = dir
            .map_err(|e| format!("cannot be opened: {e}"))
            .and_then(|dir| pool::read::<SnapshotRecord>(&dir, RECORD));
        let entry = match read {
            Ok(Some(record)) if record.id != id || record.pool != pool.identity.id => {
                Entry::Damaged(format!(
                    "{RECORD} is that of snapshot {} of pool {}",
                    record.id, record.pool
                ))
            }
            Ok(Some(record)) => {
                ledger.hold(Holder::Snapshot(id.clone()), record.reserved);
                Entry::Intact(Box::new(record))
            }
            Ok(None) => Entry::Damaged(format!("{RECORD} is missing")),
            Err(why) => Entry::Damaged(format!("{RECORD}: {why}")),
        };
        if let Entry::Damaged(why) = &entry {
            tracing::warn!(snapshot = id, why, "snapshot is damaged");
            let held = limit::of_unrecorded(store, &snapshots, &id, qgroups);
            ledger.hold(Holder::Snapshot(id.clone()), held);
        }
        found.insert(id, entry);
    }
    Ok(found)
}

fn load_trash(
    store: &Store,
    pool: &Pool,
    qgroups: &BTreeMap<u64, Qgroup>,
    ledger: &mut Ledger,
    settle: bool,
) -> Result<BTreeMap<String, Trashed>, Error> {
    let mut found = BTreeMap::new();
    let trash = pool.trash()?;
    for name in trash.directories().context("listing", trash.path())? {
        let id = id_in_trash(&name).to_owned();
        if names::volume_id(&id).is_err() {
            continue;
        }
        let Ok(dir) = trash.open(&name, Mounts::Stay) else {
            continue;
        };
        // Another volume's record does not describe this data.
        let record = pool::read::<VolumeRecord>(&dir, RECORD)
            .ok()
            .flatten()
            .filter(|record| record.id == id && record.pool == pool.identity.id);
        let snapshot = pool::read::<SnapshotRecord>(&dir, RECORD)
            .ok()
            .flatten()
            .filter(|record| record.id == id && record.pool == pool.identity.id);
        let tombstone = tombstone::find(pool, &id)?.is_some();
        let empty = dir.names().context("listing", dir.path())?.is_empty();
        // Without record and tombstone nobody asked to erase it: check reports it.
        if record.is_none() && snapshot.is_none() && !tombstone && !empty {
            continue;
        }
        if settle && !tombstone && record.is_some() {
            // Whether somebody used it is not known here, so it counts as used.
            tombstone::write(pool, &id, record.as_ref(), &Erasure::default())?;
        }
        if settle && let Some(record) = &record {
            by_claim::unlink(store, &pool.name, record);
        }
        let held = match (&record, &snapshot) {
            (Some(record), _) => record.enforced,
            (None, Some(snapshot)) => snapshot.reserved,
            (None, None) => limit::of_unrecorded(store, &trash, &name, qgroups),
        };
        ledger.hold(Holder::Trash(name.clone()), held);
        let spec = record.map(|record| record.data_spec());
        let spec = spec.or_else(|| snapshot.map(|snapshot| snapshot.data_spec()));
        found.insert(name, Trashed::new(spec));
    }
    Ok(found)
}
