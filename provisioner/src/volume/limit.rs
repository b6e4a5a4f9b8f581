//! The limits of volumes: setting, restoring and reading them.

use std::collections::BTreeMap;

use crate::backend::{self, StoredData};
use crate::error::IoContext;
use crate::fs::dir::{Dir, Mounts};
use crate::layout::{DATA, VOLUMES};
use crate::pool::Pool;
use crate::pool::record::VolumeRecord;
use crate::store::lookup::Data;
use crate::store::{Store, lookup};
use crate::sys::{Loop, Qgroup};
use crate::types::Backend;

/// A loss of power can undo a limit whose record was written: it is set again.
pub(crate) fn restore(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    qgroups: &BTreeMap<u64, Qgroup>,
    loops: &[Loop],
) {
    let limit = record
        .subvolume
        .and_then(|subvolume| qgroups.get(&subvolume))
        .and_then(|group| group.limit);
    if record.backend == Backend::Btrfs && limit == Some(record.enforced) {
        return;
    }
    // If the data is not what was made, the limit is another volume's.
    let set = lookup::open_data(store, pool, record).and_then(|_| {
        set(store, pool, record, Some(loops)).context("setting the limit in", pool.dir.path())
    });
    if let Err(e) = set {
        tracing::warn!(volume = record.id, error = %e, "limit cannot be set");
    }
}

/// Bytes that a volume with an unreadable record may take, as far as its limit shows.
pub(crate) fn of_unrecorded(
    store: &Store,
    parent: &Dir,
    id: &str,
    qgroups: &BTreeMap<u64, Qgroup>,
) -> u64 {
    let image = parent
        .open(id, Mounts::Stay)
        .and_then(|dir| dir.open_file(DATA))
        .and_then(|image| image.metadata());
    if let Ok(image) = image {
        return image.len();
    }
    parent
        .open(format!("{id}/{DATA}"), Mounts::Stay)
        .ok()
        .and_then(|data| store.sys.subvolume_id(&data).ok().flatten())
        .and_then(|subvolume| qgroups.get(&subvolume))
        .map_or(0, |group| group.limit.unwrap_or(group.used))
}

/// Sets the limit of an existing volume; `loops` are all loop devices, if they are known.
pub(crate) fn set(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    loops: Option<&[Loop]>,
) -> std::io::Result<()> {
    let dir = pool
        .dir
        .open(format!("{VOLUMES}/{}", record.id), Mounts::Stay)?;
    let stored = lookup::stored_data(store, pool, &dir, record.data_spec());
    backend::of(record.backend).limit(&StoredData { loops, ..stored })
}

/// The limit that is in force, if it can be determined; `qgroup` is btrfs's.
pub(crate) fn in_force(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    qgroup: Option<u64>,
) -> Option<u64> {
    match record.backend {
        Backend::Btrfs => qgroup,
        Backend::ProjectQuota => store.sys.project(&pool.dir, record.project?).ok()?.limit,
        Backend::Image => match lookup::open_data(store, pool, record).ok()? {
            Data::Image(image) => Some(image.metadata().ok()?.len()),
            Data::Tree(_) => None,
        },
        Backend::Directory => None,
    }
}
