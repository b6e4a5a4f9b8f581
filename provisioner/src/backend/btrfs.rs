//! btrfs: a volume is a subvolume, its size the limit of the subvolume's qgroup.

use std::io;

use super::driver::{DataSpec, Driver, EraseProgress, NewData, Stillness, StoredData};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::layout::DATA;
use crate::sys::{Filesystem, Quotas, Space, Sys};
use crate::types::VolumeMode;

/// Smallest limit. A subvolume's empty tree counts 16 KiB and every write
/// reserves metadata of several nodes beforehand: below a few MiB the first write
/// of an empty volume fails. 16 MiB leaves a claim of 1 MiB usable in full, and
/// costs nothing until it is written.
const MINIMUM: u64 = 16 << 20;

pub(crate) struct Btrfs;

fn subvolume(spec: DataSpec) -> io::Result<u64> {
    spec.subvolume
        .ok_or_else(|| io::Error::other("the record names no subvolume"))
}

impl Driver for Btrfs {
    fn why_not(&self, sys: &dyn Sys, pool: &Dir, filesystem: &Filesystem) -> Option<String> {
        if filesystem.fstype != "btrfs" {
            return Some(format!("the filesystem is {}", filesystem.fstype));
        }
        match sys.quotas(pool) {
            Ok(Quotas::Classic { .. } | Quotas::Simple) => None,
            Ok(Quotas::Off) => Some(
                "its quotas are switched off, so sizes cannot be enforced; \
                 run `btrfs quota enable` on it"
                    .into(),
            ),
            Err(e) => Some(format!("its quotas cannot be read: {e}")),
        }
    }

    fn round_up(&self, size: u64, _mode: VolumeMode) -> u64 {
        size.max(MINIMUM)
    }

    fn create(&self, new: &NewData<'_>) -> io::Result<Option<u64>> {
        let (sys, parent) = (new.sys, new.parent);
        let subvolume = sys.create_subvolume(parent, DATA)?;
        // The mode of the root of a freshly made filesystem.
        parent.open(DATA, Mounts::Stay)?.set_mode(0o755)?;
        sys.limit(parent, subvolume, new.spec.enforced)?;
        Ok(Some(subvolume))
    }

    fn copy(
        &self,
        new: &NewData<'_>,
        source: &StoredData<'_>,
        snapshot: bool,
        _still: &dyn Stillness,
    ) -> io::Result<Option<u64>> {
        let (sys, parent) = (new.sys, new.parent);
        let data = source.dir.open(DATA, Mounts::Stay)?;
        let subvolume = sys.snapshot_subvolume(&data, parent, DATA, snapshot)?;
        // Asked afterwards: one that was made meanwhile is not in the copy either.
        let inside = sys
            .nested_subvolumes(&data, self::subvolume(source.spec)?)?
            .len();
        if inside > 0 {
            return Err(io::Error::other(format!(
                "{inside} btrfs subvolumes were made inside the volume, and a copy would have \
                 empty directories in their place; remove them, or keep such data in a volume \
                 of backend image"
            )));
        }
        if !snapshot {
            sys.limit(parent, subvolume, new.spec.enforced)?;
        }
        Ok(Some(subvolume))
    }

    fn limit(&self, stored: &StoredData<'_>) -> io::Result<()> {
        stored
            .sys
            .limit(stored.pool, subvolume(stored.spec)?, stored.spec.enforced)
    }

    fn matches_record(&self, stored: &StoredData<'_>) -> io::Result<bool> {
        let data = stored.dir.open(DATA, Mounts::Stay)?;
        let subvolume = stored.spec.subvolume;
        Ok(subvolume.is_some() && stored.sys.subvolume_id(&data)? == subvolume)
    }

    fn pinned(&self, stored: &StoredData<'_>) -> io::Result<u64> {
        stored.sys.commit(stored.pool)?;
        let group = stored.sys.qgroup(stored.pool, subvolume(stored.spec)?)?;
        Ok(group.unwrap_or_default().used)
    }

    /// Its qgroup tells what it has to itself.
    fn shares(&self, _stored: &StoredData<'_>) -> io::Result<bool> {
        Ok(true)
    }

    fn space(&self, stored: &StoredData<'_>) -> io::Result<Option<Space>> {
        let group = stored.sys.qgroup(stored.pool, subvolume(stored.spec)?)?;
        Ok(group.map(|group| Space {
            total: stored.spec.enforced,
            used: group.used,
            available: stored.spec.enforced.saturating_sub(group.used),
            ..Space::default()
        }))
    }

    fn erase(
        &self,
        sys: &dyn Sys,
        parent: &Dir,
        _spec: Option<DataSpec>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> io::Result<EraseProgress> {
        if parent.kind(DATA)? == Some(Kind::Directory) {
            let data = parent.open(DATA, Mounts::Stay)?;
            if sys.subvolume_id(&data)?.is_some() {
                drop(data);
                let removed = sys.destroy_subvolume(parent, DATA)?;
                sys.commit(parent)?;
                return Ok(EraseProgress::Freeing(removed));
            }
        }
        Ok(if parent.remove_tree(DATA.as_ref(), keep_going)? {
            EraseProgress::Freed
        } else {
            EraseProgress::Stopped
        })
    }
}
