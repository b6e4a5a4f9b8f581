//! The interface to the kernel, one trait for each concern. No method has a default: an
//! implementation that forgets one does not compile.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;

pub(crate) use berth_linux::loops::{Loop, LoopOptions};
use berth_linux::mountinfo::MountEntry;

use crate::fs::dir::Dir;
use crate::types::MountFlag;

/// What a filesystem is, as seen from one of its directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filesystem {
    /// Type, as mountinfo names it.
    pub(crate) fstype: String,
    /// UUID, where the filesystem reports one.
    pub(crate) uuid: Option<String>,
    /// Bytes in all.
    pub(crate) size: u64,
    /// Bytes that can be written.
    pub(crate) free: u64,
    /// Whether it is read-only, by its own state or by this mount's.
    pub(crate) read_only: bool,
}

/// Errors that a filesystem counted of one kind since it was made or they were reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Errors {
    /// `write`, `corruption` and so on, as the filesystem's tools name it.
    pub(crate) kind: &'static str,
    /// How many.
    pub(crate) count: u64,
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
    /// Simple quotas: what a subvolume allocated, snapshots not distinguished.
    Simple,
}

/// Use and limit of one subvolume's qgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Qgroup {
    /// Bytes referenced, as of the filesystem's last commit.
    pub(crate) used: u64,
    /// Bytes of these that nobody else references.
    pub(crate) exclusive: u64,
    /// Limit of the referenced bytes.
    pub(crate) limit: Option<u64>,
}

/// Use and limit of subvolumes, by subvolume id.
pub(crate) type Qgroups = BTreeMap<u64, Qgroup>;

/// Use and limit of one project (quotactl(2), `Q_GETQUOTA` of `PRJQUOTA`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Project {
    /// Bytes.
    pub(crate) used: u64,
    /// Limit of the bytes.
    pub(crate) limit: Option<u64>,
    /// Inodes.
    pub(crate) inodes: u64,
    /// Limit of the inodes.
    pub(crate) inode_limit: Option<u64>,
}

/// What a project may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProjectLimits {
    /// Bytes, rounded up to KiB.
    pub(crate) bytes: u64,
    /// Inodes; `None` for as many as there are.
    pub(crate) inodes: Option<u64>,
}

/// Space of a mounted filesystem (statfs(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes in all.
    pub(crate) total: u64,
    /// Bytes in use.
    pub(crate) used: u64,
    /// Bytes that can be written.
    pub(crate) available: u64,
    /// Inodes in all.
    pub(crate) inodes: u64,
    /// Inodes in use.
    pub(crate) inodes_used: u64,
}

/// How a mount behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountAs<'a> {
    /// Nothing can be written.
    pub(crate) read_only: bool,
    /// Beside that.
    pub(crate) flags: &'a [MountFlag],
}

/// Filesystems of any type.
pub(crate) trait Filesystems {
    /// What `dir`, which was opened on `mount`, lies on.
    fn filesystem(&self, dir: &Dir, mount: &MountEntry) -> io::Result<Filesystem>;
    /// Returns once the filesystem of `dir` would take a write, and its disk has answered
    /// a read. Writes nothing: `entry` of `dir`, which exists, is made once more in vain,
    /// and `file` of `dir`, if it exists, is read past what is in memory, where the
    /// filesystem can do that.
    fn probe(&self, dir: &Dir, entry: &str, file: &str) -> io::Result<()>;
    /// Errors that the filesystem of `dir` counted, one entry per kind even if it is
    /// zero. Not every filesystem counts.
    fn errors(&self, dir: &Dir) -> io::Result<Vec<Errors>>;
    /// Space of the filesystem that `dir` is in.
    fn space(&self, dir: &Dir) -> io::Result<Space>;
    /// Commits the filesystem of `dir`, and has it clean up soon.
    fn commit(&self, dir: &Dir) -> io::Result<()>;
    /// Flushes a mounted filesystem and suspends its writers until [`Filesystems::thaw`].
    fn freeze(&self, dir: &Dir) -> io::Result<()>;
    /// Resumes writers; `false` if it was not frozen.
    fn thaw(&self, dir: &Dir) -> io::Result<bool>;
    /// Grows the mounted ext4 with root `dir` to the size of its device.
    fn grow_ext4(&self, dir: &Dir) -> io::Result<()>;
}

/// Mounts.
pub(crate) trait Mounter {
    /// The mount table of this process's namespace.
    fn mounts(&self) -> io::Result<Vec<MountEntry>>;
    /// The mount that `dir` was opened on; reads the mount table.
    fn mount_of(&self, dir: &Dir) -> io::Result<MountEntry>;
    /// The id of the mount that `dir` was opened on.
    fn mount_id(&self, dir: &Dir) -> io::Result<u64>;
    /// Makes the directory `source` visible at the directory `name` of `parent`.
    fn bind(&self, source: &Dir, parent: &Dir, name: &str, how: MountAs<'_>) -> io::Result<()>;
    /// Unmounts the topmost mount at `name`.
    fn unmount(&self, parent: &Dir, name: &str) -> io::Result<()>;
    /// Mounts the ext4 on a loop device at the directory `name` of `parent`.
    fn mount_loop(&self, number: u32, parent: &Dir, name: &str, how: MountAs<'_>)
    -> io::Result<()>;
    /// Makes the node of a loop device visible at the file `name` of `parent`.
    fn bind_loop(&self, number: u32, parent: &Dir, name: &str) -> io::Result<()>;
}

/// Subvolumes and quotas of btrfs.
pub(crate) trait Btrfs {
    /// State of the quotas of the btrfs that holds `dir`.
    fn quotas(&self, dir: &Dir) -> io::Result<Quotas>;
    /// Switches classic quotas on and waits until everything is counted.
    fn enable_quotas(&self, dir: &Dir) -> io::Result<()>;
    /// Keeps the kernel's numbers consistent: starts a rescan if they are not, and stops
    /// the kernel from skipping the accounting of large removed subvolumes.
    fn keep_quotas(&self, dir: &Dir) -> io::Result<()>;
    /// Uses and limits, by subvolume id.
    fn qgroups(&self, dir: &Dir) -> io::Result<BTreeMap<u64, Qgroup>>;
    /// Use and limit of one subvolume.
    fn qgroup(&self, dir: &Dir, subvolume: u64) -> io::Result<Option<Qgroup>>;
    /// Sets a limit.
    fn limit(&self, dir: &Dir, subvolume: u64, bytes: u64) -> io::Result<()>;
    /// Removes the qgroup of a subvolume that is gone; succeeds if there is none.
    fn remove_qgroup(&self, dir: &Dir, subvolume: u64) -> io::Result<()>;
    /// Makes a subvolume in `parent` and returns its id.
    fn create_subvolume(&self, parent: &Dir, name: &str) -> io::Result<u64>;
    /// Makes a snapshot of the subvolume `source` as `name` of `parent`, and returns
    /// its id; what was written to the source before is in it.
    fn snapshot_subvolume(
        &self,
        source: &Dir,
        parent: &Dir,
        name: &str,
        read_only: bool,
    ) -> io::Result<u64>;
    /// Id of the subvolume that `dir` is the root of; `None` if it is not a root.
    fn subvolume_id(&self, dir: &Dir) -> io::Result<Option<u64>>;
    /// Ids of the subvolumes that were made inside this one, the innermost first.
    fn nested_subvolumes(&self, dir: &Dir, subvolume: u64) -> io::Result<Vec<u64>>;
    /// Removes the subvolume `name` of `parent`, with all that were made inside
    /// it, and returns their ids; their space is freed later, see
    /// [`Btrfs::subvolume_exists`].
    fn destroy_subvolume(&self, parent: &Dir, name: &str) -> io::Result<Vec<u64>>;
    /// Whether a subvolume, even a removed one, still takes space.
    fn subvolume_exists(&self, dir: &Dir, subvolume: u64) -> io::Result<bool>;
}

/// Project quotas of xfs and ext4.
pub(crate) trait Projects {
    /// Whether the filesystem of `dir` counts projects and enforces their limits.
    fn project_quotas(&self, dir: &Dir) -> io::Result<bool>;
    /// The project that `dir` belongs to, 0 for none.
    fn project_of(&self, dir: &Dir) -> io::Result<u32>;
    /// Puts `dir`, and whatever will be made in it, into a project.
    fn set_project(&self, dir: &Dir, project: u32) -> io::Result<()>;
    /// Use and limit of a project; zeros for one that the filesystem does not know.
    fn project(&self, dir: &Dir, project: u32) -> io::Result<Project>;
    /// Limits a project; `None` takes every limit off.
    fn limit_project(
        &self,
        dir: &Dir,
        project: u32,
        limits: Option<ProjectLimits>,
    ) -> io::Result<()>;
}

/// Files that become images.
pub(crate) trait Images {
    /// Makes `file` at least `bytes` long, its blocks allocated (fallocate(2)) unless
    /// `sparse`. Never shortens it.
    fn allocate(&self, file: &File, bytes: u64, sparse: bool) -> io::Result<()>;
    /// Has `file`, which is empty, be overwritten where it lies, also on a filesystem that
    /// would write elsewhere: what is allocated stays enough. Nothing on others.
    fn overwrite_in_place(&self, file: &File) -> io::Result<()>;
    /// Makes an ext4 in the file `name` of `dir`, which holds nothing; nothing is in it
    /// either.
    fn format(&self, dir: &Dir, name: &str) -> io::Result<()>;
    /// Grows the ext4 in the file `name` of `dir` to the file's length, while it is mounted
    /// nowhere.
    fn grow_unmounted(&self, dir: &Dir, name: &str) -> io::Result<()>;
    /// Lets `to`, which is empty, share the blocks of `from` (FICLONE); `false` when
    /// the filesystem cannot.
    fn reflink(&self, from: &File, to: &File) -> io::Result<bool>;
    /// Whether any block of `file` belongs to another file as well; `true` where the
    /// filesystem does not tell.
    fn shares_blocks(&self, file: &File) -> io::Result<bool>;
}

/// Loop devices.
pub(crate) trait LoopDevices {
    /// Every loop device that is attached.
    fn loops(&self) -> io::Result<Vec<Loop>>;
    /// The loop device of this number; `None` where it is attached to nothing.
    fn loop_at(&self, number: u32) -> io::Result<Option<Loop>>;
    /// Attaches a loop device to `file`, with direct I/O where the filesystem can;
    /// makes the device's node where there are too few. While the handle is open the
    /// device stays.
    fn attach_loop(&self, file: &File, options: LoopOptions) -> io::Result<(u32, File)>;
    /// Keeps a loop device that shows `file` for as long as the handle is open; `None` where
    /// it shows that no longer.
    fn hold_loop(&self, number: u32, file: &Metadata) -> io::Result<Option<File>>;
    /// Detaches a loop device; one that is still held goes with its last user.
    fn detach_loop(&self, number: u32) -> io::Result<()>;
    /// Makes a loop device take over the length of its file.
    fn resize_loop(&self, number: u32) -> io::Result<()>;
}

/// Everything that this crate asks of the kernel.
pub(crate) trait Sys:
    Filesystems + Mounter + Btrfs + Projects + Images + LoopDevices + Send + Sync
{
}

impl<T> Sys for T where
    T: Filesystems + Mounter + Btrfs + Projects + Images + LoopDevices + Send + Sync
{
}

/// The loop devices of a file, matched by its device and inode.
pub(crate) fn loops_of(sys: &dyn Sys, file: &Metadata) -> io::Result<Vec<Loop>> {
    let mut loops = sys.loops()?;
    loops.retain(|it| it.shows(file));
    Ok(loops)
}
