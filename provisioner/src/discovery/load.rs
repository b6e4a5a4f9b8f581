//! Reads a pool that has just appeared, and repairs what a crash left. The disk is
//! the truth; memory is derived from it.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::fs::envelope;
use crate::layout::{COPYING, DATA, META, NEW, RECORD, SNAPSHOTS, id_in_trash};
use crate::names;
use crate::pool::ledger::{self, Holder, Ledger};
use crate::pool::record::{SnapshotRecord, Tombstone, VolumeRecord, now};
use crate::pool::{self, Pool};
use crate::provisioner::{Entry, Inner, PoolState, Trashed};
use crate::sys::Qgroup;
use crate::types::Backend;

impl Inner {
    /// Reads a pool's volumes and trash. Where this process may change things
    /// and the filesystem is writable, limits that are not as recorded are set,
    /// and unfinished volumes are removed.
    pub(crate) fn load(&self, pool: &Pool, gate: Arc<RwLock<()>>) -> Result<PoolState, Error> {
        let settle = self.is_writer() && !pool.filesystem.read_only;
        let qgroups = self.sys.qgroups(&pool.dir).unwrap_or_default();
        let mut ledger = Ledger::default();
        ledger.set_capacity(ledger::capacity(
            pool.filesystem.size,
            pool.identity.capacity,
        ));
        let volumes = self.load_volumes(pool, &qgroups, &mut ledger, settle)?;
        let snapshots = self.load_snapshots(pool, &qgroups, &mut ledger)?;
        // Without them, what was erased could be made again.
        drop(pool.tombstones()?);
        let trash = self.load_trash(pool, &qgroups, &mut ledger, settle)?;
        if settle {
            self.clear_unfinished(pool)?;
        }
        Ok(PoolState {
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
        &self,
        pool: &Pool,
        qgroups: &BTreeMap<u64, Qgroup>,
        ledger: &mut Ledger,
        settle: bool,
    ) -> Result<BTreeMap<String, Entry>, Error> {
        let mut found = BTreeMap::new();
        let volumes = pool.volumes()?;
        for id in volumes.directories().context("listing", volumes.path())? {
            if names::volume_id(&id).is_err() {
                continue;
            }
            let entry = self.load_volume(pool, &volumes, &id)?;
            match &entry {
                None => continue,
                Some(Entry::Intact(record)) => {
                    ledger.hold(Holder::Volume(id.clone()), record.enforced);
                    if settle {
                        self.settle_limit(pool, record, qgroups);
                    }
                }
                Some(Entry::Damaged(why)) => {
                    tracing::warn!(volume = id, why, "volume is damaged");
                    let held = self.limit_of_unrecorded(&volumes, &id, qgroups);
                    ledger.hold(Holder::Volume(id.clone()), held);
                }
            }
            found.extend(entry.map(|entry| (id, entry)));
        }
        Ok(found)
    }

    /// `None` for a directory that holds neither record nor data.
    fn load_volume(&self, pool: &Pool, volumes: &Dir, id: &str) -> Result<Option<Entry>, Error> {
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

    /// A loss of power can undo a limit whose record was written: it is set again.
    fn settle_limit(&self, pool: &Pool, record: &VolumeRecord, qgroups: &BTreeMap<u64, Qgroup>) {
        let limit = record
            .subvolume
            .and_then(|subvolume| qgroups.get(&subvolume))
            .and_then(|group| group.limit);
        if record.backend == Backend::Btrfs && limit == Some(record.enforced) {
            return;
        }
        // If the data is not what was made, the limit is another volume's.
        let set = self.open_data(pool, record).and_then(|_| {
            self.limit(pool, record)
                .context("setting the limit in", pool.dir.path())
        });
        if let Err(e) = set {
            tracing::warn!(volume = record.id, error = %e, "limit cannot be set");
        }
    }

    fn load_snapshots(
        &self,
        pool: &Pool,
        qgroups: &BTreeMap<u64, Qgroup>,
        ledger: &mut Ledger,
    ) -> Result<BTreeMap<String, Entry<SnapshotRecord>>, Error> {
        let mut found = BTreeMap::new();
        // A pool of an older program has no such directory yet.
        if (pool.filesystem.read_only || !self.is_writer())
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
                let held = self.limit_of_unrecorded(&snapshots, &id, qgroups);
                ledger.hold(Holder::Snapshot(id.clone()), held);
            }
            found.insert(id, entry);
        }
        Ok(found)
    }

    /// Bytes that a volume with an unreadable record may take, as far as its limit shows.
    fn limit_of_unrecorded(&self, parent: &Dir, id: &str, qgroups: &BTreeMap<u64, Qgroup>) -> u64 {
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
            .and_then(|data| self.sys.subvolume_id(&data).ok().flatten())
            .and_then(|subvolume| qgroups.get(&subvolume))
            .map_or(0, |group| group.limit.unwrap_or(group.used))
    }

    fn load_trash(
        &self,
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
            let tombstone = self.tombstone(pool, &id)?.is_some();
            let empty = dir.names().context("listing", dir.path())?.is_empty();
            // Without record and tombstone nobody asked to erase it: check reports it.
            if record.is_none() && snapshot.is_none() && !tombstone && !empty {
                continue;
            }
            if settle && !tombstone && record.is_some() {
                self.write_tombstone(pool, &id, record.as_ref())?;
            }
            if settle && let Some(record) = &record {
                self.unlink(&pool.name, record);
            }
            let held = match (&record, &snapshot) {
                (Some(record), _) => record.enforced,
                (None, Some(snapshot)) => snapshot.reserved,
                (None, None) => self.limit_of_unrecorded(&trash, &name, qgroups),
            };
            ledger.hold(Holder::Trash(name.clone()), held);
            let spec = record.map(|record| record.data_spec());
            let spec = spec.or_else(|| snapshot.map(|snapshot| snapshot.data_spec()));
            found.insert(name, Trashed::new(spec));
        }
        Ok(found)
    }

    pub(crate) fn write_tombstone(
        &self,
        pool: &Pool,
        id: &str,
        record: Option<&VolumeRecord>,
    ) -> Result<(), Error> {
        let tombstones = pool.tombstones()?;
        let stone = Tombstone {
            id: id.to_owned(),
            claim: record.and_then(|record| record.claim.clone()),
            size: record.map_or(0, |record| record.size),
            erased: now(),
        };
        tombstones
            .write(&format!("{id}.json"), &envelope::encode(&stone))
            .context("writing the tombstone in", tombstones.path())
    }

    /// Removes what an earlier process left unfinished. It was never given to anybody,
    /// so it is empty or marked as a copy; anything else belongs to somebody and stays.
    fn clear_unfinished(&self, pool: &Pool) -> Result<(), Error> {
        let area = self.build_area(pool)?;
        for name in area.directories().context("listing", area.path())? {
            if let Err(e) = self.discard_unfinished(&area, &name) {
                tracing::warn!(volume = name, error = %e, "what was left unfinished stays");
            }
        }
        Ok(())
    }

    /// The directory where volumes are built.
    pub(crate) fn build_area(&self, pool: &Pool) -> Result<Dir, Error> {
        let path = pool.dir.path().join(META);
        let meta = pool
            .dir
            .open(META, Mounts::Stay)
            .map_err(|e| pool.unexpected_entry(&path, e))?;
        meta.ensure(NEW, 0o700, Mounts::Stay)
            .map_err(|e| pool.unexpected_entry(&path.join(NEW), e))
    }

    /// Removes one unfinished volume.
    pub(crate) fn discard_unfinished(&self, area: &Dir, name: &str) -> Result<(), Error> {
        let path = area.path().join(name);
        let dir = area.open(name, Mounts::Stay).context("opening", &path)?;
        let copy = dir.kind(COPYING).context("looking at", &path)?.is_some();
        if dir.kind(DATA).context("looking at", &path)? == Some(Kind::Directory) {
            let data = dir.open(DATA, Mounts::Stay).context("opening", &path)?;
            let subvolume = self.sys.subvolume_id(&data).context("looking at", &path)?;
            if !copy && !data.names().context("listing", data.path())?.is_empty() {
                return Err(Error::DamagedPool {
                    path: data.path().to_owned(),
                    why: "an unfinished volume is not empty; look at it and remove it by hand"
                        .into(),
                });
            }
            drop(data);
            if subvolume.is_some() {
                self.sys
                    .destroy_subvolume(&dir, DATA)
                    .context("removing", &path)?;
            } else {
                dir.remove_tree(DATA.as_ref(), &mut || true)
                    .context("removing", &path)?;
            }
        }
        for file in dir.names().context("listing", &path)? {
            dir.remove_file(&file).context("removing", &path)?;
        }
        drop(dir);
        area.remove_empty(name).context("removing", &path)
    }
}
