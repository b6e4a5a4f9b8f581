//! btrfs's ioctls, one safe function each. By hand: neither rustix nor nix has them, nor
//! open_by_handle_at(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::layout::{
    DEV_STATS, DEV_STATS_PADDING, DevStats, FIRST_FREE_OBJECT, FsInfo, InoLookup, LIMIT_MAX_RFER,
    NAME_V2, QgroupCreate, QgroupLimit, QuotaCtl, QuotaRescan, SearchArgs, VolArgsV2,
};
use super::returned;
use crate::fs::dir::Dir;

const QUOTA_CTL_ENABLE: u64 = 1;
const SUBVOL_RDONLY: u64 = 1 << 1;
const SUBVOL_SPEC_BY_ID: u64 = 1 << 4;

/// `struct file_handle` of open_by_handle_at(2), as btrfs fills it
/// (`FILEID_BTRFS_WITHOUT_PARENT`, fs/btrfs/export.h).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; HANDLE_BYTES],
}

const HANDLE_BYTES: usize = 20;
const HANDLE_KIND: i32 = 0x4d;

mod raw {
    #![allow(
        missing_docs,
        unreachable_pub,
        reason = "the macros write public functions without documentation"
    )]
    use super::{
        DevStats, FsInfo, InoLookup, QgroupCreate, QgroupLimit, QuotaCtl, QuotaRescan, SearchArgs,
        VolArgsV2,
    };
    const MAGIC: u8 = 0x94;
    nix::ioctl_none!(sync, MAGIC, 8);
    nix::ioctl_readwrite!(tree_search, MAGIC, 17, SearchArgs);
    nix::ioctl_readwrite!(ino_lookup, MAGIC, 18, InoLookup);
    nix::ioctl_write_ptr!(snap_create_v2, MAGIC, 23, VolArgsV2);
    nix::ioctl_write_ptr!(subvol_create_v2, MAGIC, 24, VolArgsV2);
    nix::ioctl_read!(subvol_getflags, MAGIC, 25, u64);
    nix::ioctl_write_ptr!(subvol_setflags, MAGIC, 26, u64);
    nix::ioctl_read!(fs_info, MAGIC, 31, FsInfo);
    nix::ioctl_readwrite!(quota_ctl, MAGIC, 40, QuotaCtl);
    nix::ioctl_write_ptr!(qgroup_create, MAGIC, 42, QgroupCreate);
    // The kernel declares this one as reading although it writes.
    nix::ioctl_read!(qgroup_limit, MAGIC, 43, QgroupLimit);
    nix::ioctl_write_ptr!(quota_rescan, MAGIC, 44, QuotaRescan);
    nix::ioctl_none!(quota_rescan_wait, MAGIC, 46);
    nix::ioctl_readwrite!(get_dev_stats, MAGIC, 52, DevStats);
    nix::ioctl_write_ptr!(snap_destroy_v2, MAGIC, 63, VolArgsV2);
}

fn fd(dir: &Dir) -> RawFd {
    dir.as_fd().as_raw_fd()
}

/// UUID of the filesystem that holds `dir`.
pub(crate) fn filesystem_uuid(dir: &Dir) -> io::Result<[u8; 16]> {
    Ok(info(dir)?.fsid)
}

/// Highest id of a device of the filesystem; lower ones may be gone.
pub(crate) fn last_device(dir: &Dir) -> io::Result<u64> {
    Ok(info(dir)?.max_id)
}

fn info(dir: &Dir) -> io::Result<FsInfo> {
    let mut info = FsInfo {
        max_id: 0,
        num_devices: 0,
        fsid: [0; 16],
        rest: [0; 992],
    };
    // SAFETY: the handle is open and `info` has the size that the call's number carries.
    unsafe { raw::fs_info(fd(dir), &mut info) }?;
    Ok(info)
}

/// Errors of one device: of writing, reading and flushing, wrong checksums and
/// wrong generations (`enum btrfs_dev_stat_values`). `None` where there is none of
/// that id.
pub(crate) fn device_errors(dir: &Dir, device: u64) -> io::Result<Option<[u64; DEV_STATS]>> {
    let mut stats = DevStats {
        device,
        items: DEV_STATS as u64,
        flags: 0,
        values: [0; DEV_STATS],
        unused: [0; DEV_STATS_PADDING],
    };
    // SAFETY: the handle is open and `stats` has the size that the call's number carries.
    match unsafe { raw::get_dev_stats(fd(dir), &mut stats) } {
        Ok(_) => Ok(Some(stats.values)),
        Err(Errno::ENODEV) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Makes an empty subvolume.
pub(crate) fn create_subvolume(parent: &Dir, name: &str) -> io::Result<()> {
    let args = named(name)?;
    // SAFETY: the handle is open, `args` is whole and its name ends with a zero.
    unsafe { raw::subvol_create_v2(fd(parent), &*args) }?;
    Ok(())
}

/// Makes a snapshot of the subvolume that `source` is the root of. The kernel
/// writes the source's cached data down first (`btrfs_start_delalloc_snapshot`).
pub(crate) fn snapshot(source: &Dir, parent: &Dir, name: &str, read_only: bool) -> io::Result<()> {
    let mut args = named(name)?;
    args.fd = i64::from(fd(source));
    if read_only {
        args.flags = SUBVOL_RDONLY;
    }
    // SAFETY: both handles are open, `args` is whole and its name ends with a zero.
    unsafe { raw::snap_create_v2(fd(parent), &*args) }?;
    Ok(())
}

/// Removes the subvolume `name` of `parent`.
pub(crate) fn destroy(parent: &Dir, name: &str) -> io::Result<()> {
    let args = named(name)?;
    // SAFETY: the handle is open, `args` is whole and its name ends with a zero.
    unsafe { raw::snap_destroy_v2(fd(parent), &*args) }?;
    Ok(())
}

/// Removes a subvolume wherever it is in the filesystem of `dir`.
pub(crate) fn destroy_by_id(dir: &Dir, subvolume: u64) -> io::Result<()> {
    let mut args = named("")?;
    args.flags = SUBVOL_SPEC_BY_ID;
    args.name[..8].copy_from_slice(&subvolume.to_ne_bytes());
    // SAFETY: the handle is open, `args` is whole, and its flags say that it holds an id.
    unsafe { raw::snap_destroy_v2(fd(dir), &*args) }?;
    Ok(())
}

fn named(name: &str) -> io::Result<Box<VolArgsV2>> {
    if name.len() > 255 || name.contains(['/', '\0']) {
        return Err(Errno::EINVAL.into());
    }
    let mut args = Box::new(VolArgsV2 {
        fd: 0,
        transid: 0,
        flags: 0,
        unused: [0; 4],
        name: [0; NAME_V2],
    });
    args.name[..name.len()].copy_from_slice(name.as_bytes());
    Ok(args)
}

/// One search of a tree: `args` holds the question, then the answer.
pub(crate) fn tree_search(dir: &Dir, args: &mut SearchArgs) -> io::Result<()> {
    // SAFETY: the handle is open and `args` has the size that the call's number carries.
    unsafe { raw::tree_search(fd(dir), args) }?;
    Ok(())
}

/// Takes the read-only flag off a subvolume.
pub(crate) fn make_writable(root: &OwnedFd) -> io::Result<()> {
    let mut flags = 0;
    // SAFETY: the handle is open and `flags` has the size that the call's number carries.
    unsafe { raw::subvol_getflags(root.as_raw_fd(), &mut flags) }?;
    if flags & SUBVOL_RDONLY != 0 {
        let flags = flags & !SUBVOL_RDONLY;
        // SAFETY: the handle is open and `flags` is whole.
        unsafe { raw::subvol_setflags(root.as_raw_fd(), &flags) }?;
    }
    Ok(())
}

/// Opens the root of a subvolume by its id and its root inode's generation.
pub(crate) fn open_subvolume(dir: &Dir, subvolume: u64, generation: u64) -> io::Result<OwnedFd> {
    let mut handle = Handle {
        bytes: HANDLE_BYTES as u32,
        kind: HANDLE_KIND,
        data: [0; HANDLE_BYTES],
    };
    handle.data[..8].copy_from_slice(&FIRST_FREE_OBJECT.to_ne_bytes());
    handle.data[8..16].copy_from_slice(&subvolume.to_ne_bytes());
    // The kernel keeps the lower half in handles.
    handle.data[16..].copy_from_slice(&(generation as u32).to_ne_bytes());
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the handle is open, and the structure is whole and as long as its
    // first field says.
    let root = returned(unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, fd(dir), &raw mut handle, flags)
    })?;
    let root = RawFd::try_from(root).expect("a file descriptor is an int");
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(root) })
}

/// Id of the subvolume that holds `dir`.
pub(crate) fn subvolume_of(dir: &Dir) -> io::Result<u64> {
    let mut args = Box::new(InoLookup {
        tree: 0,
        object: FIRST_FREE_OBJECT,
        name: [0; 4080],
    });
    // SAFETY: the handle is open and `args` has the size that the call's number carries.
    unsafe { raw::ino_lookup(fd(dir), &mut *args) }?;
    Ok(args.tree)
}

/// Writes everything down; wakes the cleaner of removed subvolumes as well.
pub(crate) fn sync(dir: &Dir) -> io::Result<()> {
    // SAFETY: the handle is open; the call takes nothing else.
    unsafe { raw::sync(fd(dir)) }?;
    Ok(())
}

/// Switches classic quotas on.
pub(crate) fn enable_quotas(dir: &Dir) -> io::Result<()> {
    let mut args = QuotaCtl {
        cmd: QUOTA_CTL_ENABLE,
        status: 0,
    };
    // SAFETY: the handle is open and `args` has the size that the call's number carries.
    unsafe { raw::quota_ctl(fd(dir), &mut args) }?;
    Ok(())
}

/// Starts to count all over again.
pub(crate) fn rescan(dir: &Dir) -> io::Result<()> {
    let args = QuotaRescan::default();
    // SAFETY: the handle is open and `args` is whole.
    match unsafe { raw::quota_rescan(fd(dir), &args) } {
        // It runs already.
        Ok(_) | Err(Errno::EINPROGRESS) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Waits until a running count is done.
pub(crate) fn wait_for_rescan(dir: &Dir) -> io::Result<()> {
    // SAFETY: the handle is open; the call takes nothing else.
    unsafe { raw::quota_rescan_wait(fd(dir)) }?;
    Ok(())
}

/// Limits what a subvolume may reference.
pub(crate) fn limit(dir: &Dir, subvolume: u64, bytes: u64) -> io::Result<()> {
    let mut args = QgroupLimit {
        qgroup: subvolume,
        flags: LIMIT_MAX_RFER,
        max_rfer: bytes,
        ..QgroupLimit::default()
    };
    // SAFETY: the handle is open and `args` has the size that the call's number carries.
    unsafe { raw::qgroup_limit(fd(dir), &mut args) }?;
    Ok(())
}

/// Removes the qgroup of a subvolume that is gone.
pub(crate) fn remove_qgroup(dir: &Dir, subvolume: u64) -> io::Result<()> {
    let args = QgroupCreate {
        create: 0,
        qgroup: subvolume,
    };
    // SAFETY: the handle is open and `args` is whole.
    unsafe { raw::qgroup_create(fd(dir), &args) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_have_the_kernels_size() {
        assert_eq!(size_of::<Handle>(), 8 + HANDLE_BYTES);
    }
}
