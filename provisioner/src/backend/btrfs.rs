//! btrfs: a volume is a subvolume, its size the limit of the subvolume's qgroup.

use std::io;

use super::{Driver, Erasing, Made};
use crate::dir::{Dir, Kind, Mounts};
use crate::record::VolumeRecord;
use crate::sys::{Filesystem, Quotas, Sys};

/// Smallest limit. A subvolume's empty tree counts 16 KiB and every write
/// reserves metadata of several nodes beforehand: below a few MiB the first write
/// of an empty volume fails. 16 MiB leaves a claim of 1 MiB usable in full, and
/// costs nothing until it is written.
const MINIMUM: u64 = 16 << 20;

pub(crate) struct Btrfs;

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

    fn round_up(&self, size: u64) -> u64 {
        size.max(MINIMUM)
    }

    fn create(&self, sys: &dyn Sys, parent: &Dir, name: &str, enforced: u64) -> io::Result<Made> {
        let subvolume = sys.create_subvolume(parent, name)?;
        // The mode of the root of a freshly made filesystem.
        parent.open(name, Mounts::Stay)?.set_mode(0o755)?;
        sys.limit(parent, subvolume, enforced)?;
        Ok(Made {
            subvolume: Some(subvolume),
        })
    }

    fn limit(&self, sys: &dyn Sys, pool: &Dir, record: &VolumeRecord) -> io::Result<()> {
        let subvolume = record
            .subvolume
            .ok_or_else(|| io::Error::other("the record names no subvolume"))?;
        sys.limit(pool, subvolume, record.enforced)
    }

    fn is_it(&self, sys: &dyn Sys, data: &Dir, record: &VolumeRecord) -> io::Result<bool> {
        Ok(record.subvolume.is_some() && sys.subvolume_id(data)? == record.subvolume)
    }

    fn erase(
        &self,
        sys: &dyn Sys,
        parent: &Dir,
        name: &str,
        go_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Erasing> {
        if parent.kind(name)? == Some(Kind::Directory) {
            let data = parent.open(name, Mounts::Stay)?;
            if sys.subvolume_id(&data)?.is_some() {
                drop(data);
                let removed = sys.destroy_subvolume(parent, name)?;
                sys.commit(parent)?;
                return Ok(Erasing::Freeing(removed));
            }
        }
        Ok(if parent.remove_tree(name.as_ref(), go_on)? {
            Erasing::Freed
        } else {
            Erasing::Stopped
        })
    }
}
