//! The real system calls, as far as nix has safe names for them.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use berth_linux::loops;
use berth_linux::mountinfo::{self, MountEntry};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::host::{
    Btrfs, Errors, Filesystem, Filesystems, Images, Loop, LoopDevices, LoopOptions, MountAs,
    Mounter, Project, ProjectLimits, Projects, Qgroup, Quotas, Space,
};
use super::raw::btrfs as raw;
use super::raw::{filesystem, mount, quota};
use super::{btrfs, images};
use crate::fs::dir::Dir;
use crate::names;

/// Inode number of the root directory of every subvolume
/// (`BTRFS_FIRST_FREE_OBJECTID`).
const SUBVOLUME_ROOT_INODE: u64 = 256;

/// Highest tree level that btrfs knows: a threshold of 8 switches off that large
/// removals make quotas inconsistent.
const NEVER_SKIP_ACCOUNTING: &[u8] = b"8";

/// This machine.
#[derive(Debug)]
pub(crate) struct Linux;

/// What an ext4 counts in its superblock (`s_error_count`) until e2fsck resets it.
fn ext4_errors(device: u64) -> io::Result<Vec<Errors>> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let device = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
    let name = device.file_name().ok_or(io::ErrorKind::NotFound)?;
    let counter = Path::new("/sys/fs/ext4").join(name).join("errors_count");
    let count = std::fs::read_to_string(counter)?;
    let count = count.trim().parse().map_err(io::Error::other)?;
    Ok(vec![Errors {
        kind: "filesystem",
        count,
    }])
}

fn fd_path(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

impl Filesystems for Linux {
    fn filesystem(&self, dir: &Dir, mount: &MountEntry) -> io::Result<Filesystem> {
        let stat = fstatvfs(dir)?;
        let unit = stat.fragment_size();
        let uuid = match mount.fstype.as_str() {
            "btrfs" => Some(raw::filesystem_uuid(dir)?),
            "ext4" => filesystem::uuid(dir)?.or(filesystem::ext4_uuid(dir)?),
            "xfs" => Some(filesystem::xfs_uuid(dir)?),
            // Others may not even know the question.
            _ => filesystem::uuid(dir).unwrap_or_default(),
        };
        let uuid = uuid.map(|uuid| names::uuid(&uuid));
        Ok(Filesystem {
            fstype: mount.fstype.clone(),
            uuid,
            size: stat.blocks().saturating_mul(unit),
            free: stat.blocks_available().saturating_mul(unit),
            read_only: mount.filesystem_read_only || stat.flags().contains(FsFlags::ST_RDONLY),
        })
    }

    fn probe(&self, dir: &Dir, entry: &str, file: &str) -> io::Result<()> {
        // To make what is there already changes nothing, and yet waits for its turn to
        // write, for as long as the filesystem is frozen (filename_create in fs/namei.c).
        // Reads, and the sync of what is clean, do not wait.
        dir.make(entry, 0o700)?;
        filesystem::read_uncached(dir, file)
    }

    fn errors(&self, dir: &Dir) -> io::Result<Vec<Errors>> {
        // By its magic number: the mount table is long, and each image's filesystem is asked.
        match fstatfs(dir)?.filesystem_type() {
            BTRFS_SUPER_MAGIC => btrfs::errors(dir),
            EXT4_SUPER_MAGIC => ext4_errors(nix::sys::stat::fstat(dir)?.st_dev),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn space(&self, dir: &Dir) -> io::Result<Space> {
        let stat = fstatvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Ok(Space {
            total: bytes(stat.blocks()),
            used: bytes(stat.blocks().saturating_sub(stat.blocks_free())),
            available: bytes(stat.blocks_available()),
            inodes: stat.files(),
            inodes_used: stat.files().saturating_sub(stat.files_free()),
        })
    }

    fn commit(&self, dir: &Dir) -> io::Result<()> {
        match raw::sync(dir) {
            // Not a btrfs.
            Err(e) if e.raw_os_error() == Some(Errno::ENOTTY as i32) => {
                Ok(nix::unistd::syncfs(dir)?)
            }
            answer => answer,
        }
    }

    fn freeze(&self, dir: &Dir) -> io::Result<()> {
        filesystem::freeze(dir)
    }

    fn thaw(&self, dir: &Dir) -> io::Result<bool> {
        filesystem::thaw(dir)
    }

    fn grow_ext4(&self, dir: &Dir) -> io::Result<()> {
        images::grow_ext4(dir)
    }
}

impl Mounter for Linux {
    fn mounts(&self) -> io::Result<Vec<MountEntry>> {
        mountinfo::own()
    }

    fn mount_id(&self, dir: &Dir) -> io::Result<u64> {
        let info = format!("/proc/self/fdinfo/{}", dir.as_fd().as_raw_fd());
        std::fs::read_to_string(info)?
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok())
            .ok_or_else(|| io::Error::other("the kernel does not report the mount of a handle"))
    }

    fn mount_of(&self, dir: &Dir) -> io::Result<MountEntry> {
        let id = self.mount_id(dir)?;
        self.mounts()?
            .into_iter()
            .find(|mount| mount.id == id)
            .ok_or_else(|| io::Error::other("its mount is not in the mount table any more"))
    }

    fn bind(&self, source: &Dir, parent: &Dir, name: &str, how: MountAs<'_>) -> io::Result<()> {
        let target = parent.open_place(name)?;
        let tree = mount::detached_copy(source)?;
        let mut remount = false;
        if how != MountAs::default() {
            // Before it is attached: a copy that propagates to the host takes the
            // flags along, a later remount would not.
            match mount::set_attributes(&tree, how) {
                Ok(()) => {}
                Err(e) if e.raw_os_error() == Some(Errno::ENOSYS as i32) => {
                    if !how.flags.is_empty() {
                        return Err(io::Error::new(
                            io::ErrorKind::Unsupported,
                            "mount options other than ro need a kernel of 5.12 or later",
                        ));
                    }
                    remount = true;
                }
                Err(e) => return Err(e),
            }
        }
        mount::attach(&tree, &target)?;
        if remount {
            let attached = parent.open_place(name)?;
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            let path = fd_path(&attached);
            let none = None::<&Path>;
            if let Err(e) = nix::mount::mount(none, path.as_str(), none, flags, none) {
                drop(attached);
                self.unmount(parent, name)?;
                return Err(e.into());
            }
        }
        Ok(())
    }

    fn unmount(&self, parent: &Dir, name: &str) -> io::Result<()> {
        let path = format!("{}/{name}", fd_path(parent));
        Ok(nix::mount::umount2(
            path.as_str(),
            MntFlags::UMOUNT_NOFOLLOW,
        )?)
    }

    fn mount_loop(
        &self,
        number: u32,
        parent: &Dir,
        name: &str,
        how: MountAs<'_>,
    ) -> io::Result<()> {
        let target = parent.open_place(name)?;
        let tree = mount::detached_ext4(&loops::node(number)?, how)?;
        mount::attach(&tree, &target)
    }

    fn bind_loop(&self, number: u32, parent: &Dir, name: &str) -> io::Result<()> {
        let target = parent.open_file_place(name)?;
        let tree = mount::detached_node(&loops::node(number)?)?;
        mount::attach(&tree, &target)
    }
}

impl Btrfs for Linux {
    fn quotas(&self, dir: &Dir) -> io::Result<Quotas> {
        btrfs::quotas(dir)
    }

    fn enable_quotas(&self, dir: &Dir) -> io::Result<()> {
        raw::enable_quotas(dir)?;
        raw::wait_for_rescan(dir)
    }

    fn keep_quotas(&self, dir: &Dir) -> io::Result<()> {
        let uuid = names::uuid(&raw::filesystem_uuid(dir)?);
        let knob = format!("/sys/fs/btrfs/{uuid}/qgroups/drop_subtree_threshold");
        // Kernels before 6.1 have no such knob, and always account.
        if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(knob) {
            io::Write::write_all(&mut file, NEVER_SKIP_ACCOUNTING)?;
        }
        let damaged = Quotas::Classic {
            inconsistent: true,
            scanning: false,
        };
        if btrfs::quotas(dir)? == damaged {
            raw::rescan(dir)?;
        }
        Ok(())
    }

    fn qgroups(&self, dir: &Dir) -> io::Result<BTreeMap<u64, Qgroup>> {
        btrfs::qgroups(dir, 0, u64::MAX)
    }

    fn qgroup(&self, dir: &Dir, subvolume: u64) -> io::Result<Option<Qgroup>> {
        Ok(btrfs::qgroups(dir, subvolume, subvolume)?.remove(&subvolume))
    }

    fn limit(&self, dir: &Dir, subvolume: u64, bytes: u64) -> io::Result<()> {
        raw::limit(dir, subvolume, bytes)
    }

    fn remove_qgroup(&self, dir: &Dir, subvolume: u64) -> io::Result<()> {
        match raw::remove_qgroup(dir, subvolume) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            answer => answer,
        }
    }

    fn create_subvolume(&self, parent: &Dir, name: &str) -> io::Result<u64> {
        raw::create_subvolume(parent, name)?;
        let made = parent.open(name, crate::fs::dir::Mounts::Stay)?;
        raw::subvolume_of(&made)
    }

    fn snapshot_subvolume(
        &self,
        source: &Dir,
        parent: &Dir,
        name: &str,
        read_only: bool,
    ) -> io::Result<u64> {
        raw::snapshot(source, parent, name, read_only)?;
        let made = parent.open(name, crate::fs::dir::Mounts::Stay)?;
        raw::subvolume_of(&made)
    }

    fn subvolume_id(&self, dir: &Dir) -> io::Result<Option<u64>> {
        if nix::sys::stat::fstat(dir)?.st_ino != SUBVOLUME_ROOT_INODE {
            return Ok(None);
        }
        raw::subvolume_of(dir).map(Some)
    }

    fn nested_subvolumes(&self, dir: &Dir, subvolume: u64) -> io::Result<Vec<u64>> {
        btrfs::nested(dir, subvolume)
    }

    fn destroy_subvolume(&self, parent: &Dir, name: &str) -> io::Result<Vec<u64>> {
        let doomed = parent.open(name, crate::fs::dir::Mounts::Stay)?;
        let id = raw::subvolume_of(&doomed)?;
        let mut removed = btrfs::nested(&doomed, id)?;
        for nested in &removed {
            match raw::destroy_by_id(parent, *nested) {
                Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                    // A pod may have frozen the subvolume round it.
                    btrfs::make_writable(parent, id)?;
                    for frozen in &removed {
                        match btrfs::make_writable(parent, *frozen) {
                            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                            _ => {}
                        }
                    }
                    raw::destroy_by_id(parent, *nested)?;
                }
                answer => answer?,
            }
        }
        drop(doomed);
        raw::destroy(parent, name)?;
        removed.push(id);
        Ok(removed)
    }

    fn subvolume_exists(&self, dir: &Dir, subvolume: u64) -> io::Result<bool> {
        btrfs::root_exists(dir, subvolume)
    }
}

impl Projects for Linux {
    fn project_quotas(&self, dir: &Dir) -> io::Result<bool> {
        quota::enforced(dir)
    }

    fn project_of(&self, dir: &Dir) -> io::Result<u32> {
        filesystem::project_of(dir)
    }

    fn set_project(&self, dir: &Dir, project: u32) -> io::Result<()> {
        filesystem::set_project(dir, project)
    }

    fn project(&self, dir: &Dir, project: u32) -> io::Result<Project> {
        quota::project(dir, project)
    }

    fn limit_project(
        &self,
        dir: &Dir,
        project: u32,
        limits: Option<ProjectLimits>,
    ) -> io::Result<()> {
        quota::limit(dir, project, limits)
    }
}

impl Images for Linux {
    fn allocate(&self, file: &File, bytes: u64, sparse: bool) -> io::Result<()> {
        images::allocate(file, bytes, sparse)
    }

    fn overwrite_in_place(&self, file: &File) -> io::Result<()> {
        filesystem::overwrite_in_place(file)
    }

    fn format(&self, dir: &Dir, name: &str) -> io::Result<()> {
        images::format(dir, name)
    }

    fn grow_unmounted(&self, dir: &Dir, name: &str) -> io::Result<()> {
        images::grow_unmounted(dir, name)
    }

    fn reflink(&self, from: &File, to: &File) -> io::Result<bool> {
        filesystem::reflink(from, to)
    }

    fn shares_blocks(&self, file: &File) -> io::Result<bool> {
        filesystem::shares_blocks(file)
    }
}

impl LoopDevices for Linux {
    fn loops(&self) -> io::Result<Vec<Loop>> {
        loops::attached()
    }

    fn loop_at(&self, number: u32) -> io::Result<Option<Loop>> {
        loops::at(number)
    }

    fn attach_loop(&self, file: &File, options: LoopOptions) -> io::Result<(u32, File)> {
        loops::attach(file, options)
    }

    fn hold_loop(&self, number: u32, file: &Metadata) -> io::Result<Option<File>> {
        loops::hold(number, file)
    }

    fn detach_loop(&self, number: u32) -> io::Result<()> {
        loops::detach(number)
    }

    fn resize_loop(&self, number: u32) -> io::Result<()> {
        loops::resize(number)
    }
}
