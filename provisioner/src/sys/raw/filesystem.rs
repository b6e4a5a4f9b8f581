//! Ioctls of files and filesystems of any kind, and extended attributes, one safe
//! function each. rustix makes what it wraps. By hand are the UUIDs of filesystems,
//! project ids (FS_IOC_FSSETXATTR), FIEMAP, FIFREEZE and FITHAW: neither rustix nor nix has them.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::layout::{
    EXTENTS, Ext4Uuid, Extent, Extents, ExtentsHead, FsUuid, FsXattr, XfsGeometry,
};
use crate::fs::dir::Dir;

/// What is made in the directory belongs to its project as well.
const PROJECT_INHERIT: u32 = 0x200;

mod raw {
    #![allow(
        missing_docs,
        unreachable_pub,
        reason = "the macros write public functions without documentation"
    )]
    use super::{FsUuid, FsXattr, XfsGeometry};
    nix::ioctl_read!(fsgetxattr, b'X', 31, FsXattr);
    nix::ioctl_write_ptr!(fssetxattr, b'X', 32, FsXattr);
    nix::ioctl_readwrite!(fifreeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(fithaw, b'X', 120, libc::c_int);
    nix::ioctl_read!(getfsuuid, 0x15, 0, FsUuid);
    nix::ioctl_read!(xfs_geometry_v1, b'X', 100, XfsGeometry);
}

/// `EXT4_IOC_GETFSUUID`: its number carries the size of `struct fsuuid` without the
/// UUID behind it.
const EXT4_GETFSUUID: libc::c_ulong = nix::request_code_read!(b'f', 44, 8);

/// UUID of any filesystem; `None` where it has none, or the kernel is older than
/// Linux 6.9.
pub(crate) fn uuid(dir: &Dir) -> io::Result<Option<[u8; 16]>> {
    let mut answer = FsUuid::default();
    // SAFETY: the handle is open and `answer` has the size that the call's number carries.
    let asked = unsafe { raw::getfsuuid(dir.as_fd().as_raw_fd(), &mut answer) };
    let whole = usize::from(answer.length) == answer.uuid.len();
    known(asked, || whole.then_some(answer.uuid))
}

/// UUID of an ext4; `None` where the kernel is older than Linux 6.0.
pub(crate) fn ext4_uuid(dir: &Dir) -> io::Result<Option<[u8; 16]>> {
    let mut answer = Ext4Uuid {
        length: 16,
        ..Ext4Uuid::default()
    };
    // SAFETY: the handle is open, and behind the head there is as much room as its
    // length says.
    let asked = Errno::result(unsafe {
        libc::ioctl(dir.as_fd().as_raw_fd(), EXT4_GETFSUUID, &raw mut answer)
    });
    known(asked, || Some(answer.uuid))
}

/// UUID of an xfs.
pub(crate) fn xfs_uuid(dir: &Dir) -> io::Result<[u8; 16]> {
    let mut answer = XfsGeometry::default();
    // SAFETY: the handle is open and `answer` has the size that the call's number carries.
    unsafe { raw::xfs_geometry_v1(dir.as_fd().as_raw_fd(), &mut answer) }?;
    Ok(answer.uuid)
}

/// The answer, where the filesystem supports the request.
fn known<T>(
    asked: Result<libc::c_int, Errno>,
    answer: impl FnOnce() -> Option<T>,
) -> io::Result<Option<T>> {
    match asked {
        Ok(_) => Ok(answer()),
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Sets `FS_NOCOW_FL` (chattr +C) on an empty file, where there is such a flag: btrfs.
pub(crate) fn overwrite_in_place(file: &File) -> io::Result<()> {
    use rustix::io::Errno;
    let set = ioctl_getflags(file).and_then(|flags| ioctl_setflags(file, flags | IFlags::NOCOW));
    match set {
        // ext4 and xfs overwrite in place anyway, and know no such flag.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Lets `to`, which is empty, share all blocks of `from`; `false` when the filesystem
/// cannot. On btrfs both have to be overwritten in place, or neither.
pub(crate) fn reflink(from: &File, to: &File) -> io::Result<bool> {
    use rustix::io::Errno;
    if ioctl_getflags(from).is_ok_and(|flags| flags.contains(IFlags::NOCOW)) {
        overwrite_in_place(to)?;
    }
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// `FS_IOC_FIEMAP`.
const FIEMAP: libc::c_ulong = nix::request_code_readwrite!(b'f', 11, size_of::<ExtentsHead>());
/// What is in memory only is written first (`FIEMAP_FLAG_SYNC`).
const SYNC: u32 = 1;
/// The last extent of the file (`FIEMAP_EXTENT_LAST`).
const LAST: u32 = 1;
/// Another file has the blocks as well (`FIEMAP_EXTENT_SHARED`).
const SHARED: u32 = 0x2000;

/// Whether any block of a file belongs to another file too (fiemap.rst); `true` where the
/// filesystem does not tell.
pub(crate) fn shares_blocks(file: &File) -> io::Result<bool> {
    let mut start = 0;
    loop {
        let mut asked = Extents {
            head: ExtentsHead {
                start,
                length: u64::MAX - start,
                flags: SYNC,
                count: u32::try_from(EXTENTS).unwrap_or(u32::MAX),
                ..ExtentsHead::default()
            },
            extents: [Extent::default(); EXTENTS],
        };
        // SAFETY: the handle is open, and behind the head there are as many extents as its
        // count says.
        let answer =
            Errno::result(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FIEMAP, &raw mut asked) });
        match answer {
            Ok(_) => {}
            Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EBADR) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
        let mapped = usize::try_from(asked.head.mapped).unwrap_or(EXTENTS);
        let found = &asked.extents[..mapped.min(EXTENTS)];
        if found.iter().any(|extent| extent.flags & SHARED != 0) {
            return Ok(true);
        }
        match found.last() {
            Some(last) if last.flags & LAST == 0 => {
                start = last.logical.saturating_add(last.length.max(1));
            }
            _ => return Ok(false),
        }
    }
}

/// Block that direct I/O can read on any disk.
const BLOCK: usize = 4096;

/// Reads the beginning of a file from the disk, past what is in memory. A file that is
/// not there, and a filesystem that cannot do it, are no errors.
pub(crate) fn read_uncached(dir: &Dir, name: &str) -> io::Result<()> {
    let file = match dir.open_file(name) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::DIRECT).is_err() {
        return Ok(());
    }
    let mut memory = vec![0; 2 * BLOCK];
    let aligned = memory.as_ptr().align_offset(BLOCK);
    let Some(block) = memory.get_mut(aligned..aligned.saturating_add(BLOCK)) else {
        return Ok(());
    };
    match file.read_at(block, 0) {
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        answer => answer.map(drop),
    }
}

fn flags(dir: &Dir) -> io::Result<FsXattr> {
    let mut flags = FsXattr::default();
    // SAFETY: the handle is open and `flags` has the size that the call's number carries.
    unsafe { raw::fsgetxattr(dir.as_fd().as_raw_fd(), &mut flags) }?;
    Ok(flags)
}

/// The project of a directory.
pub(crate) fn project_of(dir: &Dir) -> io::Result<u32> {
    Ok(flags(dir)?.project)
}

/// Puts a directory, and what will be made in it, into a project; 0 takes it out.
pub(crate) fn set_project(dir: &Dir, project: u32) -> io::Result<()> {
    let mut flags = flags(dir)?;
    flags.project = project;
    if project == 0 {
        flags.flags &= !PROJECT_INHERIT;
    } else {
        flags.flags |= PROJECT_INHERIT;
    }
    // SAFETY: the handle is open and `flags` is whole.
    unsafe { raw::fssetxattr(dir.as_fd().as_raw_fd(), &flags) }?;
    Ok(())
}

/// Grows a mounted ext4 to this many of its blocks.
pub(crate) fn resize_ext4(dir: &Dir, blocks: u64) -> io::Result<()> {
    Ok(rustix::fs::ext4_ioc_resize_fs(dir, blocks)?)
}

/// Flushes a filesystem and suspends its writers.
pub(crate) fn freeze(dir: &Dir) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: the handle is open; the argument is not looked at.
    unsafe { raw::fifreeze(dir.as_fd().as_raw_fd(), &mut unused) }?;
    Ok(())
}

/// Resumes writers; `false` if it was not frozen.
pub(crate) fn thaw(dir: &Dir) -> io::Result<bool> {
    let mut unused = 0;
    // SAFETY: the handle is open; the argument is not looked at.
    match unsafe { raw::fithaw(dir.as_fd().as_raw_fd(), &mut unused) } {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The path by which this process reaches what a handle stands for, even if the
/// handle was opened with `O_PATH`. It leads to that very file, and to no other.
fn path(handle: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())
}

/// Names of the extended attributes of whatever `handle` stands for, a link
/// excepted; none where there is no such thing.
pub(crate) fn attributes(handle: &impl AsFd) -> io::Result<Vec<CString>> {
    let path = path(handle);
    let list = sized(
        || rustix::fs::listxattr_query(path.as_str()),
        |buffer| rustix::fs::listxattr(path.as_str(), buffer),
    );
    match list {
        Ok(list) => Ok(list
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|name| CStr::from_bytes_with_nul(name).ok().map(CStr::to_owned))
            .collect()),
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// One extended attribute; `None` if it is gone.
pub(crate) fn attribute(handle: &impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let path = path(handle);
    let value = sized(
        || rustix::fs::getxattr_query(path.as_str(), name),
        |buffer| rustix::fs::getxattr(path.as_str(), name, buffer),
    );
    match value {
        Ok(value) => Ok(Some(value)),
        Err(rustix::io::Errno::NODATA) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Sets an extended attribute.
pub(crate) fn set_attribute(handle: &impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::setxattr(
        path(handle).as_str(),
        name,
        value,
        flags,
    )?)
}

/// Asks for the size, then for the content, again if it grew in between. The
/// kernel's bound of both is 64 KiB.
fn sized(
    size: impl Fn() -> rustix::io::Result<usize>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    loop {
        let mut buffer = vec![0; size()?];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(rustix::io::Errno::RANGE) => {}
            Err(e) => return Err(e),
        }
    }
}
