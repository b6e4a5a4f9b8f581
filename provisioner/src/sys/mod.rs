//! What only the kernel can do, behind one trait: mounts, subvolumes, quotas.
//! Everything else in this crate is decisions, and is tested against
//! a fake of this trait on any machine, without privileges.

#[cfg(target_os = "linux")]
mod btrfs;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod raw;

use std::collections::BTreeMap;
use std::io;

use crate::dir::Dir;
use crate::mountinfo::MountEntry;

#[cfg(target_os = "linux")]
pub(crate) use linux::Linux;

/// What a filesystem is, as seen from one of its directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filesystem {
    /// Type, as mountinfo names it.
    pub(crate) fstype: String,
    /// UUID, where it tells.
    pub(crate) uuid: Option<String>,
    /// Bytes in all.
    pub(crate) size: u64,
    /// Bytes that can be written.
    pub(crate) free: u64,
    /// Whether it is read-only, by its own state or by this mount's.
    pub(crate) read_only: bool,
}

/// State of a btrfs filesystem's quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quotas {
    /// Off.
    Off,
    /// Classic qgroups; `inconsistent` when limits are not enforced exactly until
    /// a rescan is done, `scanning` while one runs.
    Classic {
        /// Numbers cannot be trusted.
        inconsistent: bool,
        /// They are being counted.
        scanning: bool,
    },
    /// Simple quotas: what a subvolume allocated, snapshots not told apart.
    Simple,
}

/// Use and limit of one subvolume's qgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Qgroup {
    /// Bytes referenced, as of the filesystem's last commit.
    pub(crate) used: u64,
    /// Limit of the referenced bytes.
    pub(crate) limit: Option<u64>,
}

/// The system calls.
pub(crate) trait Sys: Send + Sync {
    /// The mount table of this process's namespace.
    fn mounts(&self) -> io::Result<Vec<MountEntry>>;
    /// The mount that `dir` was opened on.
    fn mount_of(&self, dir: &Dir) -> io::Result<MountEntry>;
    /// What `dir` lies on.
    fn filesystem(&self, dir: &Dir) -> io::Result<Filesystem>;
    /// Makes what is at `source` visible at `target`, which is then remounted
    /// read-only if asked; `parent` and `name` lead to the target again.
    fn bind(&self, source: &Dir, parent: &Dir, name: &str, read_only: bool) -> io::Result<()>;
    /// Takes the topmost mount off `name`.
    fn unmount(&self, parent: &Dir, name: &str) -> io::Result<()>;

    /// State of the quotas of the btrfs that holds `dir`.
    fn quotas(&self, dir: &Dir) -> io::Result<Quotas>;
    /// Switches classic quotas on and waits until everything is counted.
    fn enable_quotas(&self, dir: &Dir) -> io::Result<()>;
    /// Sees to it that the kernel keeps the numbers consistent: counts again if
    /// they are not, and is not to give accounting up when large subvolumes go.
    fn keep_quotas(&self, dir: &Dir) -> io::Result<()>;
    /// Uses and limits, by subvolume id.
    fn qgroups(&self, dir: &Dir) -> io::Result<BTreeMap<u64, Qgroup>>;
    /// Use and limit of one subvolume.
    fn qgroup(&self, dir: &Dir, subvolume: u64) -> io::Result<Option<Qgroup>>;
    /// Sets a limit.
    fn limit(&self, dir: &Dir, subvolume: u64, bytes: u64) -> io::Result<()>;
    /// Removes the qgroup of a subvolume that is gone; gone already is fine.
    fn remove_qgroup(&self, dir: &Dir, subvolume: u64) -> io::Result<()>;
    /// Makes a subvolume in `parent` and returns its id.
    fn create_subvolume(&self, parent: &Dir, name: &str) -> io::Result<u64>;
    /// Id of the subvolume that `dir` is the root of; `None` if it is not a root.
    fn subvolume_id(&self, dir: &Dir) -> io::Result<Option<u64>>;
    /// Ids of the subvolumes that were made inside this one, the innermost first.
    fn nested_subvolumes(&self, dir: &Dir, subvolume: u64) -> io::Result<Vec<u64>>;
    /// Removes the subvolume `name` of `parent`, with all that were made inside
    /// it, and returns their ids; their space is freed later, see
    /// [`Sys::subvolume_exists`].
    fn destroy_subvolume(&self, parent: &Dir, name: &str) -> io::Result<Vec<u64>>;
    /// Whether a subvolume, even a removed one, still takes space.
    fn subvolume_exists(&self, dir: &Dir, subvolume: u64) -> io::Result<bool>;
    /// Has the filesystem of `dir` write everything down and clean up soon.
    fn commit(&self, dir: &Dir) -> io::Result<()>;
}
