//! Takes snapshots of volumes, lists and erases them.

use std::io;

use crate::backend;
use crate::error::{Error, IoContext};
use crate::fs::dir::{Mounts, is_symlink_or_mount_escape};
use crate::fs::envelope;
use crate::layout::free_name;
use crate::layout::{DATA, SNAPSHOTS};
use crate::locks::lock;
use crate::names;
use crate::pool::ledger::Holder;
use crate::pool::record::{SnapshotRecord, VolumeRecord, now};
use crate::pool::{Access, Pool};
use crate::provisioner::{Entry, Inner, Provisioner, Trashed};
use crate::types::{Backend, PoolId, SnapshotReport, SnapshotSpec, VolumeHealth};

/// Marks a snapshot in the build area and in the trash; no id contains it.
const MARK: &str = "~snapshot";

impl Provisioner {
    /// Takes a snapshot, or returns the one that an earlier call of the same
    /// parameters took. It reserves what it pins: the bytes that its volume uses at
    /// that moment.
    ///
    /// # Errors
    /// [`Error::UnknownVolume`], [`Error::NoRoom`], [`Error::AlreadyExists`] when the id
    /// is that of another volume's snapshot, or what is wrong with the volume or its
    /// pool.
    pub fn snapshot(&self, want: &SnapshotSpec) -> Result<SnapshotReport, Error> {
        let inner = &self.inner;
        inner.require_writer()?;
        names::volume_id(&want.id)?;
        let _one = inner.snapshot_locks.hold(&want.id);
        if let Some(there) = self.find_snapshot(&want.id) {
            return match there.volume == want.volume {
                true => Ok(there),
                false => Err(Error::AlreadyExists {
                    id: want.id.clone(),
                    difference: format!("it is a snapshot of volume {}", there.volume),
                }),
            };
        }
        let _volume = inner.volume_locks.hold(&want.volume);
        let pool_id = inner
            .pool_of(&want.volume)
            .ok_or_else(|| Error::UnknownVolume {
                id: want.volume.clone(),
            })?;
        let gate = inner.gate(&pool_id)?;
        let _shared = gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (pool, record) = inner.open_healthy(&want.volume, Access::Write)?;
        inner.open_data(&pool, &record)?;
        inner.take(&pool, &record, &want.id)?;
        drop(pool);
        self.find_snapshot(&want.id)
            .ok_or_else(|| Error::UnknownSnapshot {
                id: want.id.clone(),
            })
    }

    /// Erases a snapshot on purpose. Succeeds when it is gone already, or never existed.
    ///
    /// # Errors
    /// What is wrong with its pool.
    pub fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        let inner = &self.inner;
        inner.require_writer()?;
        let _one = inner.snapshot_locks.hold(id);
        let Some(pool_id) = inner.pool_of_snapshot(id) else {
            return Ok(());
        };
        let gate = inner.gate(&pool_id)?;
        let _shared = gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let pool = inner.open_pool(&pool_id, Access::Write)?;
        inner.discard_snapshot(&pool, id)?;
        inner.notify.notify();
        Ok(())
    }

    /// The snapshot, if a pool that was seen holds one of that id.
    pub fn find_snapshot(&self, id: &str) -> Option<SnapshotReport> {
        let pool_id = self.inner.pool_of_snapshot(id)?;
        self.inner.report_snapshots(&pool_id, Some(id)).pop()
    }

    /// Every snapshot of every pool that was seen, in the order of their ids.
    pub fn list_snapshots(&self) -> Vec<SnapshotReport> {
        let pools: Vec<PoolId> = lock(&self.inner.state).pools.keys().cloned().collect();
        let mut all: Vec<_> = pools
            .iter()
            .flat_map(|pool| self.inner.report_snapshots(pool, None))
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

impl Inner {
    fn pool_of_snapshot(&self, id: &str) -> Option<PoolId> {
        lock(&self.state)
            .pools
            .iter()
            .find(|(_, pool)| pool.snapshots.contains_key(id))
            .map(|(pool, _)| pool.clone())
    }

    fn take(&self, pool: &Pool, volume: &VolumeRecord, id: &str) -> Result<(), Error> {
        let origin = self.origin_of_volume(pool, volume)?;
        let driver = backend::of(volume.backend);
        let dir = pool
            .volumes()?
            .open(&volume.id, Mounts::Stay)
            .context("opening", pool.dir.path().join(&volume.id))?;
        let pinned = driver
            .pinned(&self.stored_data(pool, &dir, volume.data_spec()))
            .context("measuring", dir.path())?;
        let holder = Holder::Snapshot(id.to_owned());
        self.admit(pool, &holder, pinned)?;
        let mut record = SnapshotRecord {
            id: id.to_owned(),
            volume: volume.id.clone(),
            size: volume.size,
            enforced: volume.enforced,
            reserved: pinned,
            backend: volume.backend,
            mode: volume.mode,
            pool: pool.identity.id.clone(),
            created: now(),
            subvolume: None,
            project: None,
            shares: pool.shares_blocks(),
        };
        let taken = self.make_snapshot(pool, driver, &origin, &mut record);
        let mut state = lock(&self.state);
        if let Some(state) = state.pools.get_mut(&pool.identity.id) {
            match &taken {
                Ok(()) => {
                    state.ledger.hold(holder, record.reserved);
                    let entry = Entry::Intact(Box::new(record.clone()));
                    state.snapshots.insert(id.to_owned(), entry);
                }
                Err(_) => state.ledger.release(&holder),
            }
        }
        drop(state);
        taken?;
        tracing::info!(
            snapshot = id,
            volume = volume.id,
            reserved = record.reserved,
            "snapshot taken"
        );
        Ok(())
    }

    fn make_snapshot(
        &self,
        pool: &Pool,
        driver: &dyn backend::Driver,
        origin: &crate::volume::source::Origin<'_>,
        record: &mut SnapshotRecord,
    ) -> Result<(), Error> {
        let _projects = (record.backend == Backend::ProjectQuota).then(|| lock(&self.projects));
        record.project = self.free_project_for(pool, record.backend)?;
        let snapshots = pool.snapshots()?;
        let id = record.id.clone();
        let aside = format!("{id}{MARK}");
        self.build_aside(pool, &aside, &snapshots, &id, true, |parent| {
            let new = backend::NewData {
                sys: self.sys.as_ref(),
                parent,
                spec: record.data_spec(),
            };
            record.subvolume = self.copy(driver, &new, origin, true)?;
            // More may have been written between the measure and the copy.
            let now = driver
                .pinned(&self.stored_data(pool, parent, record.data_spec()))
                .context("measuring", parent.path())?;
            record.reserved = record.reserved.max(now);
            Ok(envelope::encode(record))
        })
    }

    fn discard_snapshot(&self, pool: &Pool, id: &str) -> Result<(), Error> {
        let snapshots = pool.snapshots()?;
        let path = snapshots.path().join(id);
        let mut name = None;
        if snapshots.kind(id).context("looking at", &path)?.is_some() {
            self.refuse_mounts_in(pool, id, &format!("{SNAPSHOTS}/{id}"))?;
            let trash = pool.trash()?;
            let new = free_name(&trash, &format!("{id}{MARK}"))?;
            snapshots
                .rename(id, &trash, &new)
                .context("moving into the trash", &path)?;
            name = Some(new);
        }
        let mut state = lock(&self.state);
        if let Some(state) = state.pools.get_mut(&pool.identity.id) {
            let spec = match state.snapshots.remove(id) {
                Some(Entry::Intact(record)) => Some(record.data_spec()),
                _ => None,
            };
            let holder = Holder::Snapshot(id.to_owned());
            match name {
                Some(name) => {
                    state.ledger.transfer(&holder, Holder::Trash(name.clone()));
                    state.trash.insert(name, Trashed::new(spec));
                }
                None => state.ledger.release(&holder),
            }
        }
        drop(state);
        tracing::info!(snapshot = id, pool = %pool.identity.id, "snapshot deleted");
        Ok(())
    }

    fn report_snapshots(&self, pool_id: &PoolId, only: Option<&str>) -> Vec<SnapshotReport> {
        let pool = self.open_pool(pool_id, Access::Read);
        let state = lock(&self.state);
        let Some(known) = state.pools.get(pool_id) else {
            return Vec::new();
        };
        let base = self.path_of(&known.dir).join(SNAPSHOTS);
        let entries: Vec<_> = known
            .snapshots
            .iter()
            .filter(|(id, _)| only.is_none_or(|only| only == id.as_str()))
            .map(|(id, entry)| (id.clone(), entry.clone()))
            .collect();
        drop(state);
        entries
            .into_iter()
            .map(|(id, entry)| {
                let mut report = SnapshotReport {
                    path: base.join(&id).join(DATA),
                    id,
                    volume: String::new(),
                    pool: pool_id.clone(),
                    size: 0,
                    reserved: 0,
                    backend: Backend::Btrfs,
                    mode: crate::types::VolumeMode::Filesystem,
                    created: String::new(),
                    health: VolumeHealth::Ready,
                };
                match entry {
                    Entry::Damaged(why) => report.health = VolumeHealth::Damaged(why),
                    Entry::Intact(record) => {
                        report.health = match &pool {
                            Err(e) => VolumeHealth::Lost(e.to_string()),
                            Ok(pool) => self.snapshot_health(pool, &record),
                        };
                        report.volume = record.volume;
                        report.size = record.size;
                        report.reserved = record.reserved;
                        report.backend = record.backend;
                        report.mode = record.mode;
                        report.created = record.created;
                    }
                }
                report
            })
            .collect()
    }

    /// Whether a snapshot's data is what was made.
    pub(crate) fn snapshot_health(&self, pool: &Pool, record: &SnapshotRecord) -> VolumeHealth {
        let path = pool.dir.path().join(SNAPSHOTS).join(&record.id).join(DATA);
        let sound = pool
            .dir
            .open(format!("{SNAPSHOTS}/{}", record.id), Mounts::Stay)
            .and_then(|dir| match dir.kind(DATA)? {
                None => Err(io::ErrorKind::NotFound.into()),
                Some(_) => backend::of(record.backend).matches_record(&self.stored_data(
                    pool,
                    &dir,
                    record.data_spec(),
                )),
            });
        match sound {
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
}
