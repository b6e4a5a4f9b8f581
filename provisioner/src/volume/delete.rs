//! Deletes volumes: moves them into the trash, writes a tombstone, and leaves the
//! rest to the remover.

use std::time::SystemTime;

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind};
use crate::layout::VOLUMES;
use crate::layout::free_name;
use crate::locks::lock;
use crate::names;
use crate::pool::ledger::Holder;
use crate::pool::record::VolumeRecord;
use crate::pool::{Access, Pool};
use crate::provisioner::{Entry, Inner, Provisioner, Trashed};
use crate::types::PoolId;

/// Tombstones that a pool keeps. Beyond that the oldest tenth is removed.
const TOMBSTONES_KEPT: usize = 10_000;

impl Provisioner {
    /// Erases a volume on purpose. When this returns, the volume is gone permanently and
    /// for every caller; its space is freed in the background, and its room with it.
    /// Succeeds when it was erased before.
    ///
    /// # Errors
    /// [`Error::Published`] while it is mounted anywhere. [`Error::UnknownVolume`]
    /// when no pool that was seen has, or erased, a volume of this id: it may lie
    /// in a pool that is not here, so this is no proof that it is gone; see
    /// [`delete_from`](Self::delete_from). Otherwise what is wrong with the pool.
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        let inner = &self.inner;
        inner.require_writer()?;
        names::volume_id(id)?;
        if let Some(pool) = inner.pool_of(id) {
            return self.delete_from(&pool, id);
        }
        if self.is_erased(id)? {
            return Ok(());
        }
        Err(Error::UnknownVolume { id: id.to_owned() })
    }

    /// Whether a pool that is here erased a volume of this id on purpose: no pool
    /// makes it again, so a caller that names volumes itself looks before it does.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when this cannot be an id, [`Error::Io`] when a
    /// tombstone cannot be read.
    pub fn is_erased(&self, id: &str) -> Result<bool, Error> {
        let inner = &self.inner;
        names::volume_id(id)?;
        let pools: Vec<PoolId> = lock(&inner.state).pools.keys().cloned().collect();
        for pool in pools {
            if let Ok(open) = inner.open_pool(&pool, Access::Read)
                && inner.tombstone(&open, id)?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Like [`delete`](Self::delete), of a volume that is known to lie in `pool`:
    /// when that pool is here and holds nothing of the id, it is gone, and a
    /// tombstone says so.
    ///
    /// # Errors
    /// As [`delete`](Self::delete), and [`Error::PoolMissing`].
    pub fn delete_from(&self, pool: &PoolId, id: &str) -> Result<(), Error> {
        let inner = &self.inner;
        inner.require_writer()?;
        names::volume_id(id)?;
        let _one = inner.volume_locks.hold(id);
        let gate = inner.gate(pool)?;
        let _shared = gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(other) = inner.pool_of(id)
            && other != *pool
        {
            return Err(Error::AlreadyExists {
                id: id.to_owned(),
                difference: format!("it is in pool {other}, not {pool}"),
            });
        }
        let open = inner.open_pool(pool, Access::Write)?;
        inner.refuse_mounted(&open, id)?;
        let entry = lock(&inner.state)
            .pools
            .get(pool)
            .and_then(|state| state.volumes.get(id).cloned());
        let record = match entry {
            Some(Entry::Intact(record)) => Some(*record),
            _ => None,
        };
        let discarded = inner.discard(&open, id, record.as_ref());
        // Also when only the tombstone failed: the data is in the trash already.
        inner.notify.notify();
        if let Some(record) = &record
            && inner.pool_of(id).is_none()
        {
            inner.unlink(&open.name, record);
        }
        discarded
    }
}

impl Inner {
    fn refuse_mounted(&self, pool: &Pool, id: &str) -> Result<(), Error> {
        let table = self
            .sys
            .mounts()
            .context("reading the mounts of", pool.dir.path())?;
        if let Some(using) = self.mounts_of(Some(pool), id, &table).first() {
            return Err(Error::Published {
                id: id.to_owned(),
                by: using.to_string(),
            });
        }
        self.detach(pool, id)?;
        self.refuse_mounts_in(pool, id, &format!("{VOLUMES}/{id}"))
    }

    /// Refuses to erase a directory with a mount in it: the mount is not Berth's, would
    /// block the erasure, and btrfs would unmount it without asking.
    pub(crate) fn refuse_mounts_in(
        &self,
        pool: &Pool,
        id: &str,
        relative: &str,
    ) -> Result<(), Error> {
        let path = pool.dir.path().join(relative);
        let table = self.sys.mounts().context("reading the mounts in", &path)?;
        match table.iter().find(|mount| mount.point.starts_with(&path)) {
            None => Ok(()),
            Some(mount) => Err(Error::Published {
                id: id.to_owned(),
                by: format!("a mount inside it at {}: unmount it", mount.point.display()),
            }),
        }
    }

    fn discard(&self, pool: &Pool, id: &str, record: Option<&VolumeRecord>) -> Result<(), Error> {
        let volumes = pool.volumes()?;
        let kind = volumes.kind(id).context("looking at", volumes.path())?;
        let there = kind.is_some();
        let known = self.pool_of(id).is_some();
        if there && (!known || kind != Some(Kind::Directory)) {
            return Err(Error::Damaged {
                id: id.to_owned(),
                why: format!(
                    "something that Berth did not make is at {}",
                    volumes.path().join(id).display()
                ),
            });
        }
        let mut name = None;
        if there {
            let trash = pool.trash()?;
            let new = free_name(&trash, id)?;
            volumes
                .rename(id, &trash, &new)
                .context("moving into the trash", volumes.path().join(id))?;
            name = Some(new);
        }
        let mut state = lock(&self.state);
        if let Some(state) = state.pools.get_mut(&pool.identity.id) {
            state.volumes.remove(id);
            let holder = Holder::Volume(id.to_owned());
            match &name {
                Some(name) => {
                    state.ledger.transfer(&holder, Holder::Trash(name.clone()));
                    let spec = record.map(VolumeRecord::data_spec);
                    state.trash.insert(name.clone(), Trashed::new(spec));
                }
                None => state.ledger.release(&holder),
            }
        }
        drop(state);
        if self.tombstone(pool, id)?.is_none() {
            self.write_tombstone(pool, id, record)?;
            prune(&pool.tombstones()?, TOMBSTONES_KEPT)?;
        }
        tracing::info!(volume = id, pool = %pool.identity.id, "volume deleted");
        Ok(())
    }
}

/// Removes the oldest tombstones when there are more than `keep`.
fn prune(tombstones: &Dir, keep: usize) -> Result<(), Error> {
    let names = tombstones.names().context("listing", tombstones.path())?;
    if names.len() <= keep {
        return Ok(());
    }
    let mut aged: Vec<(SystemTime, _)> = names
        .into_iter()
        .map(|name| {
            (
                tombstones.modified(&name).unwrap_or(SystemTime::UNIX_EPOCH),
                name,
            )
        })
        .collect();
    aged.sort();
    let surplus = aged.len() - keep + keep / 10;
    for (_, name) in aged.into_iter().take(surplus) {
        tombstones
            .remove_file(&name)
            .context("removing an old tombstone in", tombstones.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tombstones_go_first() {
        let at = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(at.path()).unwrap();
        for i in 0..21u64 {
            let file = std::fs::File::create(at.path().join(format!("{i}.json"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(100 - i))
                .unwrap();
        }
        prune(&dir, 21).unwrap();
        assert_eq!(dir.names().unwrap().len(), 21);
        prune(&dir, 20).unwrap();
        let left = dir.names().unwrap();
        assert_eq!(left.len(), 18);
        assert!(!left.iter().any(|name| name == "20.json"));
        assert!(left.iter().any(|name| name == "0.json"));
    }
}
