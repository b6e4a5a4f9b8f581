//! Takes snapshots of volumes, lists and erases them.

use std::io;

use crate::backend;
use crate::dir::{Mounts, is_trick};
use crate::error::{Doing, Error};
use crate::ledger::Holder;
use crate::load::free_name;
use crate::locks::lock;
use crate::names;
use crate::pool::{Need, Pool};
use crate::provisioner::{Entry, Inner, Provisioner, Trashed};
use crate::record::{DATA, SNAPSHOTS, SnapshotRecord, VolumeRecord, now};
use crate::seal;
use crate::types::{Backend, PoolId, SnapshotReport, SnapshotSpec, VolumeHealth};

/// What marks a snapshot among things of other ids, in the making and in the trash;
/// no id holds it.
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
        inner.manage()?;
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
        let home = inner
            .home(&want.volume)
            .ok_or_else(|| Error::UnknownVolume {
                id: want.volume.clone(),
            })?;
        let gate = inner.gate(&home)?;
        let _shared = gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (pool, record) = inner.sound(&want.volume, Need::Write)?;
        inner.open_data(&pool, &record)?;
        inner.take(&pool, &record, &want.id)?;
        drop(pool);
        self.find_snapshot(&want.id)
            .ok_or_else(|| Error::UnknownSnapshot {
                id: want.id.clone(),
            })
    }

    /// Erases a snapshot on purpose. Gone already is fine, and so is an id that was
    /// never one.
    ///
    /// # Errors
    /// What is wrong with its pool.
    pub fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        let inner = &self.inner;
        inner.manage()?;
        let _one = inner.snapshot_locks.hold(id);
        let Some(home) = inner.home_of_snapshot(id) else {
            return Ok(());
        };
        let gate = inner.gate(&home)?;
        let _shared = gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let pool = inner.open_pool(&home, Need::Write)?;
        inner.discard_snapshot(&pool, id)?;
        inner.signal.wake();
        Ok(())
    }

    /// The snapshot, if a pool that was seen holds one of that id.
    pub fn find_snapshot(&self, id: &str) -> Option<SnapshotReport> {
        let home = self.inner.home_of_snapshot(id)?;
        self.inner.report_snapshots(&home, Some(id)).pop()
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
    fn home_of_snapshot(&self, id: &str) -> Option<PoolId> {
        lock(&self.state)
            .pools
            .iter()
            .find(|(_, pool)| pool.snapshots.contains_key(id))
            .map(|(pool, _)| pool.clone())
    }

    fn take(&self, pool: &Pool, volume: &VolumeRecord, id: &str) -> Result<(), Error> {
        let origin = self.origin_of_volume(pool, volume)?;
        let driver = backend::of(volume.backend);
        let home = pool
            .volumes()?
            .open(&volume.id, Mounts::Stay)
            .doing("opening", pool.dir.path().join(&volume.id))?;
        let pinned = driver
            .pinned(&self.made(pool, &home, volume.body()))
            .doing("measuring", home.path())?;
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
                    let entry = Entry::Sound(Box::new(record.clone()));
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
        origin: &crate::source::Origin<'_>,
        record: &mut SnapshotRecord,
    ) -> Result<(), Error> {
        let _projects = (record.backend == Backend::ProjectQuota).then(|| lock(&self.projects));
        record.project = self.project_for(pool, record.backend)?;
        let snapshots = pool.snapshots()?;
        let id = record.id.clone();
        let aside = format!("{id}{MARK}");
        self.make_aside(pool, &aside, &snapshots, &id, true, |parent| {
            let making = backend::Making {
                sys: self.sys.as_ref(),
                parent,
                body: record.body(),
            };
            record.subvolume = self.copy(driver, &making, origin, true)?;
            // More may have been written between the measure and the copy.
            let now = driver
                .pinned(&self.made(pool, parent, record.body()))
                .doing("measuring", parent.path())?;
            record.reserved = record.reserved.max(now);
            Ok(seal::seal(record))
        })
    }

    fn discard_snapshot(&self, pool: &Pool, id: &str) -> Result<(), Error> {
        let snapshots = pool.snapshots()?;
        let path = snapshots.path().join(id);
        let mut name = None;
        if snapshots.kind(id).doing("looking at", &path)?.is_some() {
            self.refuse_mounts_in(pool, id, &format!("{SNAPSHOTS}/{id}"))?;
            let trash = pool.trash()?;
            let new = free_name(&trash, &format!("{id}{MARK}"))?;
            snapshots
                .rename(id, &trash, &new)
                .doing("moving into the trash", &path)?;
            name = Some(new);
        }
        let mut state = lock(&self.state);
        if let Some(state) = state.pools.get_mut(&pool.identity.id) {
            let body = match state.snapshots.remove(id) {
                Some(Entry::Sound(record)) => Some(record.body()),
                _ => None,
            };
            let holder = Holder::Snapshot(id.to_owned());
            match name {
                Some(name) => {
                    state.ledger.transfer(&holder, Holder::Trash(name.clone()));
                    state.trash.insert(name, Trashed::new(body));
                }
                None => state.ledger.release(&holder),
            }
        }
        drop(state);
        tracing::info!(snapshot = id, pool = %pool.identity.id, "snapshot deleted");
        Ok(())
    }

    fn report_snapshots(&self, home: &PoolId, only: Option<&str>) -> Vec<SnapshotReport> {
        let pool = self.open_pool(home, Need::Read);
        let state = lock(&self.state);
        let Some(known) = state.pools.get(home) else {
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
                    pool: home.clone(),
                    size: 0,
                    reserved: 0,
                    backend: Backend::Btrfs,
                    mode: crate::types::VolumeMode::Filesystem,
                    created: String::new(),
                    health: VolumeHealth::Ready,
                };
                match entry {
                    Entry::Damaged(why) => report.health = VolumeHealth::Damaged(why),
                    Entry::Sound(record) => {
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
            .and_then(|home| match home.kind(DATA)? {
                None => Err(io::ErrorKind::NotFound.into()),
                Some(_) => {
                    backend::of(record.backend).is_it(&self.made(pool, &home, record.body()))
                }
            });
        match sound {
            Ok(true) => VolumeHealth::Ready,
            Ok(false) => {
                VolumeHealth::Damaged(format!("{} is not what was made for it", path.display()))
            }
            Err(e) if is_trick(&e) => VolumeHealth::Damaged(format!("{}: {e}", path.display())),
            Err(e) => VolumeHealth::Lost(format!("{}: {e}", path.display())),
        }
    }
}
