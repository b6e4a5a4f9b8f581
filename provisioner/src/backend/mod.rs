//! How volumes are made and limited, chosen by what the pool's filesystem can
//! do. The rest of the crate knows records, directories and images only.

mod btrfs;
mod copy;
mod directory;
mod driver;
mod image;
mod project;

pub(crate) use driver::{AsItIs, DataSpec, Driver, EraseProgress, NewData, Stillness, StoredData};
pub(crate) use image::{DEVICE_BLOCK, data_in_image, ext4_size, reflinks};
pub(crate) use project::free_project;

use crate::fs::dir::Dir;
use crate::sys::{Filesystem, Sys};
use crate::types::{Backend, VolumeMode};

/// The driver of `backend`, if it is available on this filesystem.
///
/// # Errors
/// The reason why not, as a sentence.
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

/// The driver of existing volumes of `backend`.
pub(crate) fn of(backend: Backend) -> &'static dyn Driver {
    match backend {
        Backend::Btrfs => &btrfs::Btrfs,
        Backend::ProjectQuota => &project::ProjectQuota,
        Backend::Image => &image::Image,
        Backend::Directory => &directory::Directory,
    }
}

/// Filesystems that pools are made on: local and persistent.
const SUPPORTED: [&str; 6] = ["btrfs", "xfs", "ext4", "f2fs", "bcachefs", "zfs"];

/// Whether a filesystem of this type can carry any backend.
///
/// # Errors
/// The reason why not, as a sentence.
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

/// The backends for volumes of this mode when none is requested, the best first. Plain
/// directories limit nothing, so they are made on demand only.
///
/// A subvolume of btrfs comes after an image: a qgroup's limit also counts what an
/// overwrite pins until its old extents are gone, so a file that is smaller than its
/// volume meets the limit when it is rewritten in place; a full one refuses even to be
/// cut; and `df` in the pod shows the pool. An image does all three as a disk does.
pub fn candidates(mode: VolumeMode) -> &'static [Backend] {
    match mode {
        VolumeMode::Filesystem => &[Backend::ProjectQuota, Backend::Image, Backend::Btrfs],
        VolumeMode::Block => &[Backend::Image],
    }
}

/// Whether a backend can make volumes of this mode at all.
pub(crate) fn possible(backend: Backend, mode: VolumeMode) -> bool {
    mode == VolumeMode::Filesystem || backend == Backend::Image
}
