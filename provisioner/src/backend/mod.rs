//! How volumes are made and limited, chosen by what the pool's filesystem can
//! do. The rest of the crate knows records and directories only.

mod btrfs;

use std::io;

use crate::dir::Dir;
use crate::record::VolumeRecord;
use crate::sys::{Filesystem, Sys};
use crate::types::{Backend, VolumeMode};

/// What a backend made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// Id of the subvolume, where there is one.
    pub(crate) subvolume: Option<u64>,
}

/// What a step of an erasure came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Erasing {
    /// All is gone and its space is free.
    Freed,
    /// Removed; the filesystem is still freeing the space of these subvolumes.
    Freeing(Vec<u64>),
    /// Told to stop; there is more to remove.
    Stopped,
}

/// One way to make volumes.
pub(crate) trait Driver: Sync {
    /// Why it cannot be had on this filesystem with this state; `None` if it can.
    fn why_not(&self, sys: &dyn Sys, pool: &Dir, filesystem: &Filesystem) -> Option<String>;
    /// What a request of this size is rounded up to.
    fn round_up(&self, size: u64) -> u64;
    /// Makes an empty, limited volume as `name` in `parent`.
    fn create(&self, sys: &dyn Sys, parent: &Dir, name: &str, enforced: u64) -> io::Result<Made>;
    /// Sets the limit of a volume.
    fn limit(&self, sys: &dyn Sys, pool: &Dir, record: &VolumeRecord) -> io::Result<()>;
    /// Whether `data` is what the record says was made.
    fn is_it(&self, sys: &dyn Sys, data: &Dir, record: &VolumeRecord) -> io::Result<bool>;
    /// Removes `name` from `parent`, stopping between batches when told to.
    fn erase(
        &self,
        sys: &dyn Sys,
        parent: &Dir,
        name: &str,
        go_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Erasing>;
}

/// Whether `backend` can be had on this filesystem, and what drives it.
///
/// # Errors
/// The reason why not, for people.
pub(crate) fn driver(
    backend: Backend,
    sys: &dyn Sys,
    pool: &Dir,
    filesystem: &Filesystem,
) -> Result<&'static dyn Driver, String> {
    let driver = of(backend)?;
    match driver.why_not(sys, pool, filesystem) {
        None => Ok(driver),
        Some(why) => Err(why),
    }
}

/// What drives volumes of `backend` that exist.
///
/// # Errors
/// The reason why this version has none.
pub(crate) fn of(backend: Backend) -> Result<&'static dyn Driver, String> {
    match backend {
        Backend::Btrfs => Ok(&btrfs::Btrfs),
        Backend::ProjectQuota | Backend::Image | Backend::Directory => {
            Err("this version does not have it yet".into())
        }
    }
}

/// Whether a filesystem of this type can carry any backend.
///
/// # Errors
/// The reason why not, for people.
pub(crate) fn supported(fstype: &str) -> Result<(), String> {
    if fstype == "btrfs" {
        Ok(())
    } else {
        Err(format!(
            "the filesystem is {fstype}; this version makes volumes on btrfs only"
        ))
    }
}

/// What can make volumes of this mode, the best first.
pub(crate) fn candidates(mode: VolumeMode) -> &'static [Backend] {
    match mode {
        VolumeMode::Filesystem => &[Backend::Btrfs, Backend::ProjectQuota, Backend::Image],
        VolumeMode::Block => &[Backend::Image],
    }
}
