//! Finds volumes and snapshots by id, and opens their data after checking that it is
//! what their record describes.

use std::fs::File;
use std::io;

use crate::backend::{self, DataSpec};
use crate::error::Error;
use crate::fs::dir::{Dir, Mounts, is_symlink_or_mount_escape};
use crate::layout::{DATA, SNAPSHOTS};
use crate::locks::lock;
use crate::pool::record::{SnapshotRecord, VolumeRecord};
use crate::pool::{Access, Pool};
use crate::store::{Entry, Store, open};
use crate::types::{Backend, PoolId, Recorded, VolumeHealth};

/// A volume's data, opened.
#[derive(Debug)]
pub(crate) enum Data {
    /// A directory tree.
    Tree(Dir),
    /// An image.
    Image(File),
}

/// The pool that holds a volume of this id.
pub(crate) fn pool_of(store: &Store, id: &str) -> Option<PoolId> {
    lock(&store.state)
        .pools
        .iter()
        .find(|(_, pool)| pool.volumes.contains_key(id))
        .map(|(pool, _)| pool.clone())
}

/// See [`recorded`](crate::Provisioner::recorded).
pub(crate) fn recorded(store: &Store) -> Vec<Recorded> {
    let state = lock(&store.state);
    let volumes = state.pools.values().flat_map(|pool| pool.volumes.values());
    let intact = volumes.filter_map(|entry| match entry {
        Entry::Intact(record) => Some(record),
        Entry::Damaged(_) => None,
    });
    intact
        .map(|record| Recorded {
            id: record.id.clone(),
            pool: record.pool.clone(),
            claim: record.claim.clone(),
            enforced: record.enforced,
        })
        .collect()
}

/// A volume's pool, opened, and its record.
pub(crate) fn open_healthy(
    store: &Store,
    id: &str,
    access: Access,
) -> Result<(Pool, VolumeRecord), Error> {
    let pool_id = pool_of(store, id).ok_or_else(|| store.unknown_volume(id))?;
    let pool = open::pool(store, &pool_id, access)?;
    match lock(&store.state)
        .pools
        .get(&pool_id)
        .and_then(|p| p.volumes.get(id))
    {
        Some(Entry::Intact(record)) => Ok((pool, record.as_ref().clone())),
        Some(Entry::Damaged(why)) => Err(Error::Damaged {
            id: id.into(),
            why: why.clone(),
        }),
        None => Err(Error::UnknownVolume { id: id.into() }),
    }
}

/// Opens a volume's data after checking that it is what was made.
pub(crate) fn open_data(store: &Store, pool: &Pool, record: &VolumeRecord) -> Result<Data, Error> {
    let volumes = pool.volumes()?;
    let relative = format!("{}/{DATA}", record.id);
    let path = volumes.path().join(&relative);
    let damaged = |why: String| Error::Damaged {
        id: record.id.clone(),
        why,
    };
    let missing = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Error::Lost {
            id: record.id.clone(),
            why: format!("{} is gone", path.display()),
        },
        _ if is_symlink_or_mount_escape(&e) => {
            damaged(format!("{} is not what was made ({e})", path.display()))
        }
        _ => Error::Io {
            action: "opening",
            path: path.clone(),
            cause: e,
        },
    };
    let dir = volumes.open(&record.id, Mounts::Stay).map_err(&missing)?;
    if dir.kind(DATA).map_err(&missing)?.is_none() {
        return Err(missing(io::ErrorKind::NotFound.into()));
    }
    let made = stored_data(store, pool, &dir, record.data_spec());
    if !backend::of(record.backend)
        .matches_record(&made)
        .map_err(&missing)?
    {
        return Err(damaged(format!(
            "{} is not the {} that was made for it",
            path.display(),
            match record.backend {
                Backend::Btrfs => "subvolume",
                Backend::ProjectQuota | Backend::Directory => "directory",
                Backend::Image => "image",
            }
        )));
    }
    match record.backend {
        Backend::Image => dir.open_file(DATA).map(Data::Image),
        _ => dir.open(DATA, Mounts::Stay).map(Data::Tree),
    }
    .map_err(missing)
}

/// What a backend needs to know of existing data.
pub(crate) fn stored_data<'a>(
    store: &'a Store,
    pool: &'a Pool,
    dir: &'a Dir,
    spec: DataSpec,
) -> backend::StoredData<'a> {
    backend::StoredData {
        sys: store.sys.as_ref(),
        pool: &pool.dir,
        dir,
        spec,
        loops: None,
    }
}

/// The record of a volume of this pool.
pub(crate) fn volume_record(store: &Store, pool: &Pool, id: &str) -> Result<VolumeRecord, Error> {
    match entry(store, pool, |state| state.volumes.get(id).cloned()) {
        Some(Entry::Intact(record)) => Ok(*record),
        Some(Entry::Damaged(why)) => Err(Error::Damaged { id: id.into(), why }),
        None => Err(Error::UnknownVolume { id: id.into() }),
    }
}

/// The record of a snapshot of this pool.
pub(crate) fn snapshot_record(
    store: &Store,
    pool: &Pool,
    id: &str,
) -> Result<SnapshotRecord, Error> {
    match entry(store, pool, |state| state.snapshots.get(id).cloned()) {
        Some(Entry::Intact(record)) => Ok(*record),
        Some(Entry::Damaged(why)) => Err(Error::Damaged { id: id.into(), why }),
        None => Err(Error::UnknownSnapshot { id: id.into() }),
    }
}

/// The pool that holds a snapshot of this id.
pub(crate) fn pool_of_snapshot(store: &Store, id: &str) -> Option<PoolId> {
    lock(&store.state)
        .pools
        .iter()
        .find(|(_, pool)| pool.snapshots.contains_key(id))
        .map(|(pool, _)| pool.clone())
}

/// Whether a snapshot's data is what was made.
pub(crate) fn snapshot_health(store: &Store, pool: &Pool, record: &SnapshotRecord) -> VolumeHealth {
    let path = pool.dir.path().join(SNAPSHOTS).join(&record.id).join(DATA);
    let intact = pool
        .dir
        .open(format!("{SNAPSHOTS}/{}", record.id), Mounts::Stay)
        .and_then(|dir| match dir.kind(DATA)? {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(_) => backend::of(record.backend).matches_record(&stored_data(
                store,
                pool,
                &dir,
                record.data_spec(),
            )),
        });
    match intact {
        Ok(true) => VolumeHealth::Ready,
        Ok(false) => {
            VolumeHealth::Damaged(format!("{} is not what was made for it", path.display()))
        }
        Err(e) if is_symlink_or_mount_escape(&e) => {
            VolumeHealth::Damaged(format!("{}: {e}", path.display()))
        }
        Err(e) => VolumeHealth::Lost(format!("{}: {e}", path.display())),
    }
}

/// Looks something up in what is remembered of a pool.
fn entry<T>(
    store: &Store,
    pool: &Pool,
    find: impl FnOnce(&super::PoolState) -> Option<T>,
) -> Option<T> {
    lock(&store.state)
        .pools
        .get(&pool.identity.id)
        .and_then(find)
}
