//! How volumes are made and limited, chosen by what the pool's filesystem can
//! do. The rest of the crate knows records, directories and images only.

mod btrfs;
mod directory;
mod image;
mod project;

use std::io;

pub(crate) use image::{DEVICE_BLOCK, Frozen, MAJOR, ext4_size};
pub(crate) use project::free_project;

use crate::dir::Dir;
use crate::sys::{Filesystem, Space, Sys};
use crate::types::{Backend, VolumeMode};

/// What a backend has to know of a volume or snapshot, whatever its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) backend: Backend,
    pub(crate) mode: VolumeMode,
    /// Bytes that are enforced.
    pub(crate) enforced: u64,
    /// Bytes that its image has at least: fewer than `enforced` while it grows.
    pub(crate) least: u64,
    /// Its image's bytes are taken only when they are written.
    pub(crate) sparse: bool,
    /// It may share blocks with what it was copied from.
    pub(crate) shares: bool,
    pub(crate) subvolume: Option<u64>,
    pub(crate) project: Option<u32>,
}

/// Where and as what something is made: `data` in `parent`.
#[derive(Clone, Copy)]
pub(crate) struct Making<'a> {
    pub(crate) sys: &'a dyn Sys,
    /// A directory in the making; nobody else knows it.
    pub(crate) parent: &'a Dir,
    /// As it is to be. The subvolume is not known yet.
    pub(crate) body: Body,
}

/// A volume or snapshot that is there.
#[derive(Clone, Copy)]
pub(crate) struct Made<'a> {
    pub(crate) sys: &'a dyn Sys,
    /// The pool's directory.
    pub(crate) pool: &'a Dir,
    /// Its directory, that of its record.
    pub(crate) home: &'a Dir,
    pub(crate) body: Body,
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
    fn round_up(&self, size: u64, mode: VolumeMode) -> u64;
    /// Makes it empty and limited. Answers its subvolume, where it has one.
    fn create(&self, making: &Making<'_>) -> io::Result<Option<u64>>;
    /// Makes it of what `source` holds, as a volume, limited, or as a snapshot that
    /// nobody writes to.
    fn copy(
        &self,
        making: &Making<'_>,
        source: &Made<'_>,
        snapshot: bool,
    ) -> io::Result<Option<u64>>;
    /// Sets the limit, which was raised or may have been lost.
    fn limit(&self, made: &Made<'_>) -> io::Result<()>;
    /// Whether the data is what was made.
    fn is_it(&self, made: &Made<'_>) -> io::Result<bool>;
    /// Bytes that its data takes, now that everything is written down: what a
    /// snapshot of it pins.
    fn pinned(&self, made: &Made<'_>) -> io::Result<u64>;
    /// Its space where it is not mounted; `None` where nobody counts it.
    fn space(&self, made: &Made<'_>) -> io::Result<Option<Space>>;
    /// Removes `data` from `parent`, stopping between batches when told to. The
    /// body is `None` when the record could not be read.
    fn erase(
        &self,
        sys: &dyn Sys,
        parent: &Dir,
        body: Option<Body>,
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
    let driver = of(backend);
    match driver.why_not(sys, pool, filesystem) {
        None => Ok(driver),
        Some(why) => Err(why),
    }
}

/// What drives volumes of `backend` that exist.
pub(crate) fn of(backend: Backend) -> &'static dyn Driver {
    match backend {
        Backend::Btrfs => &btrfs::Btrfs,
        Backend::ProjectQuota => &project::ProjectQuota,
        Backend::Image => &image::Image,
        Backend::Directory => &directory::Directory,
    }
}

/// Filesystems that pools are made on: local, and able to keep files that were
/// once written.
const SUPPORTED: [&str; 6] = ["btrfs", "xfs", "ext4", "f2fs", "bcachefs", "zfs"];

/// Whether a filesystem of this type can carry any backend.
///
/// # Errors
/// The reason why not, for people.
pub(crate) fn supported(fstype: &str) -> Result<(), String> {
    if SUPPORTED.contains(&fstype) {
        Ok(())
    } else {
        Err(format!(
            "the filesystem is {fstype}; pools are made on {}",
            SUPPORTED.join(", ")
        ))
    }
}

/// What can make volumes of this mode when none is demanded, the best first.
pub(crate) fn candidates(mode: VolumeMode) -> &'static [Backend] {
    match mode {
        VolumeMode::Filesystem => &[Backend::Btrfs, Backend::ProjectQuota, Backend::Image],
        VolumeMode::Block => &[Backend::Image],
    }
}

/// What can make volumes of this mode at all.
pub(crate) fn possible(backend: Backend, mode: VolumeMode) -> bool {
    mode == VolumeMode::Filesystem || backend == Backend::Image
}
