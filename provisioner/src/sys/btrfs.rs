//! The system calls that nobody wraps for us: btrfs ioctls and the mount calls
//! that take handles. All `unsafe` of this crate is in this file.
//!
//! Layouts and numbers are those of `include/uapi/linux/btrfs.h` and
//! `btrfs_tree.h`; their sizes are asserted below.
#![allow(unsafe_code, reason = "system calls; each block says why it is sound")]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::{Qgroup, Quotas};
use crate::dir::Dir;

const ROOT_TREE: u64 = 1;
const QUOTA_TREE: u64 = 8;
const FIRST_FREE_OBJECT: u64 = 256;
const INODE_ITEM: u32 = 1;
const ROOT_ITEM: u32 = 132;
const ROOT_REF: u32 = 156;
const QGROUP_STATUS: u32 = 240;
const QGROUP_INFO: u32 = 242;
const QGROUP_LIMIT: u32 = 244;
const STATUS_ON: u64 = 1 << 0;
const STATUS_RESCAN: u64 = 1 << 1;
const STATUS_INCONSISTENT: u64 = 1 << 2;
const STATUS_SIMPLE: u64 = 1 << 3;
const LIMIT_MAX_RFER: u64 = 1 << 0;
const QUOTA_CTL_ENABLE: u64 = 1;
const SUBVOL_RDONLY: u64 = 1 << 1;
const SUBVOL_SPEC_BY_ID: u64 = 1 << 4;
/// Qgroups of subvolumes are of level 0; the level is in the upper 16 bits.
const LAST_LEVEL_0: u64 = (1 << 48) - 1;

const SEARCH_BUFFER: usize = 4096 - size_of::<SearchKey>();
const NAME_V2: usize = 4040;

#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    /// A name, or the id of a subvolume in its first eight bytes.
    name: [u8; NAME_V2],
}

#[repr(C)]
#[derive(Default)]
struct QuotaCtl {
    cmd: u64,
    status: u64,
}

#[repr(C)]
#[derive(Default)]
struct QuotaRescan {
    flags: u64,
    progress: u64,
    reserved: [u64; 6],
}

#[repr(C)]
#[derive(Default)]
struct QgroupCreate {
    create: u64,
    qgroup: u64,
}

#[repr(C)]
#[derive(Default)]
struct QgroupLimit {
    qgroup: u64,
    flags: u64,
    max_rfer: u64,
    max_excl: u64,
    rsv_rfer: u64,
    rsv_excl: u64,
}

#[repr(C)]
struct InoLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

#[repr(C)]
struct FsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u8; 992],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SearchKey {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    items: u32,
    unused: u32,
    unused_too: [u64; 4],
}

#[repr(C)]
struct SearchArgs {
    key: SearchKey,
    buffer: [u8; SEARCH_BUFFER],
}

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

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

mod raw {
    #![allow(
        missing_docs,
        unreachable_pub,
        reason = "the macros write public functions without documentation"
    )]
    use super::{
        FsInfo, InoLookup, QgroupCreate, QgroupLimit, QuotaCtl, QuotaRescan, SearchArgs, VolArgsV2,
    };
    const MAGIC: u8 = 0x94;
    nix::ioctl_none!(sync, MAGIC, 8);
    nix::ioctl_readwrite!(tree_search, MAGIC, 17, SearchArgs);
    nix::ioctl_readwrite!(ino_lookup, MAGIC, 18, InoLookup);
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
    nix::ioctl_write_ptr!(snap_destroy_v2, MAGIC, 63, VolArgsV2);
}

fn fd(dir: &Dir) -> RawFd {
    dir.as_fd().as_raw_fd()
}

/// UUID of the filesystem that holds `dir`.
pub(super) fn filesystem_uuid(dir: &Dir) -> io::Result<String> {
    let mut info = FsInfo {
        max_id: 0,
        num_devices: 0,
        fsid: [0; 16],
        rest: [0; 992],
    };
    // SAFETY: the handle is open and `info` has the size that the call's number carries.
    unsafe { raw::fs_info(fd(dir), &mut info) }?;
    let hex = crate::names::hex(&info.fsid);
    Ok([
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-"))
}

/// Makes an empty subvolume.
pub(super) fn create_subvolume(parent: &Dir, name: &str) -> io::Result<()> {
    let args = named(name)?;
    // SAFETY: the handle is open, `args` is whole and its name ends with a zero.
    unsafe { raw::subvol_create_v2(fd(parent), &*args) }?;
    Ok(())
}

/// Removes the subvolume `name` of `parent`.
pub(super) fn destroy(parent: &Dir, name: &str) -> io::Result<()> {
    let args = named(name)?;
    // SAFETY: the handle is open, `args` is whole and its name ends with a zero.
    unsafe { raw::snap_destroy_v2(fd(parent), &*args) }?;
    Ok(())
}

/// Removes a subvolume wherever it is in the filesystem of `dir`.
pub(super) fn destroy_by_id(dir: &Dir, subvolume: u64) -> io::Result<()> {
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

/// Makes a subvolume writable, wherever it is in the filesystem of `dir` and
/// however long the path to it is.
pub(super) fn make_writable(dir: &Dir, subvolume: u64) -> io::Result<()> {
    let root = open_subvolume(dir, subvolume)?;
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

/// Opens the root of a subvolume by its id.
fn open_subvolume(dir: &Dir, subvolume: u64) -> io::Result<OwnedFd> {
    let mut generation = None;
    let key = SearchKey {
        tree: subvolume,
        min_object: FIRST_FREE_OBJECT,
        max_object: FIRST_FREE_OBJECT,
        min_type: INODE_ITEM,
        max_type: INODE_ITEM,
        ..SearchKey::default()
    };
    search(dir, key, &mut |_, body| generation = Some(number(body, 0)))?;
    let generation = generation.ok_or(Errno::ENOENT)?;
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
pub(super) fn subvolume_of(dir: &Dir) -> io::Result<u64> {
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
pub(super) fn sync(dir: &Dir) -> io::Result<()> {
    // SAFETY: the handle is open; the call takes nothing else.
    unsafe { raw::sync(fd(dir)) }?;
    Ok(())
}

/// Switches classic quotas on.
pub(super) fn enable_quotas(dir: &Dir) -> io::Result<()> {
    let mut args = QuotaCtl {
        cmd: QUOTA_CTL_ENABLE,
        status: 0,
    };
    // SAFETY: the handle is open and `args` has the size that the call's number carries.
    unsafe { raw::quota_ctl(fd(dir), &mut args) }?;
    Ok(())
}

/// Starts to count all over again.
pub(super) fn rescan(dir: &Dir) -> io::Result<()> {
    let args = QuotaRescan::default();
    // SAFETY: the handle is open and `args` is whole.
    match unsafe { raw::quota_rescan(fd(dir), &args) } {
        // It runs already.
        Ok(_) | Err(Errno::EINPROGRESS) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Waits until a running count is done.
pub(super) fn wait_for_rescan(dir: &Dir) -> io::Result<()> {
    // SAFETY: the handle is open; the call takes nothing else.
    unsafe { raw::quota_rescan_wait(fd(dir)) }?;
    Ok(())
}

/// Limits what a subvolume may reference.
pub(super) fn limit(dir: &Dir, subvolume: u64, bytes: u64) -> io::Result<()> {
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
pub(super) fn remove_qgroup(dir: &Dir, subvolume: u64) -> io::Result<()> {
    let args = QgroupCreate {
        create: 0,
        qgroup: subvolume,
    };
    // SAFETY: the handle is open and `args` is whole.
    unsafe { raw::qgroup_create(fd(dir), &args) }?;
    Ok(())
}

/// State of the quotas.
pub(super) fn quotas(dir: &Dir) -> io::Result<Quotas> {
    let mut flags = 0;
    let key = SearchKey {
        tree: QUOTA_TREE,
        min_type: QGROUP_STATUS,
        max_type: QGROUP_STATUS,
        ..SearchKey::default()
    };
    // Without quotas there is no such tree.
    match search(dir, key, &mut |_, body| {
        flags = number(body, 16);
    }) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Quotas::Off),
        Err(e) => return Err(e),
    }
    Ok(if flags & STATUS_ON == 0 {
        Quotas::Off
    } else if flags & STATUS_SIMPLE != 0 {
        Quotas::Simple
    } else {
        Quotas::Classic {
            inconsistent: flags & STATUS_INCONSISTENT != 0,
            scanning: flags & STATUS_RESCAN != 0,
        }
    })
}

/// Uses and limits of the subvolumes `first..=last`.
pub(super) fn qgroups(dir: &Dir, first: u64, last: u64) -> io::Result<BTreeMap<u64, Qgroup>> {
    let mut found: BTreeMap<u64, Qgroup> = BTreeMap::new();
    for kind in [QGROUP_INFO, QGROUP_LIMIT] {
        let key = SearchKey {
            tree: QUOTA_TREE,
            min_type: kind,
            max_type: kind,
            min_offset: first,
            max_offset: last.min(LAST_LEVEL_0),
            ..SearchKey::default()
        };
        search(dir, key, &mut |header, body| {
            let group = found.entry(header.offset).or_default();
            if kind == QGROUP_INFO {
                group.used = number(body, 8);
            } else if number(body, 0) & LIMIT_MAX_RFER != 0 {
                group.limit = Some(number(body, 8));
            }
        })?;
    }
    Ok(found)
}

/// Whether the subvolume's tree still takes space.
pub(super) fn root_exists(dir: &Dir, subvolume: u64) -> io::Result<bool> {
    let mut exists = false;
    let key = SearchKey {
        tree: ROOT_TREE,
        min_object: subvolume,
        max_object: subvolume,
        min_type: ROOT_ITEM,
        max_type: ROOT_ITEM,
        max_offset: u64::MAX,
        ..SearchKey::default()
    };
    search(dir, key, &mut |_, _| exists = true)?;
    Ok(exists)
}

/// Subvolumes inside `subvolume`, the innermost first.
pub(super) fn nested(dir: &Dir, subvolume: u64) -> io::Result<Vec<u64>> {
    let mut all = vec![subvolume];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        let key = SearchKey {
            tree: ROOT_TREE,
            min_object: parent,
            max_object: parent,
            min_type: ROOT_REF,
            max_type: ROOT_REF,
            max_offset: u64::MAX,
            ..SearchKey::default()
        };
        search(dir, key, &mut |header, _| all.push(header.offset))?;
        next += 1;
    }
    all.remove(0);
    all.reverse();
    Ok(all)
}

struct Header {
    object: u64,
    offset: u64,
    kind: u32,
}

/// Hands every item of the key's range to `each`.
fn search(dir: &Dir, key: SearchKey, each: &mut dyn FnMut(&Header, &[u8])) -> io::Result<()> {
    let mut args = Box::new(SearchArgs {
        key: SearchKey {
            max_transid: u64::MAX,
            ..key
        },
        buffer: [0; SEARCH_BUFFER],
    });
    loop {
        args.key.items = u32::MAX;
        // SAFETY: the handle is open and `args` has the size that the call's number carries.
        unsafe { raw::tree_search(fd(dir), &mut *args) }?;
        let mut at = 0;
        let mut last = None;
        for _ in 0..args.key.items {
            let head = &args.buffer[at..at + 32];
            let header = Header {
                object: native(head, 8),
                offset: native(head, 16),
                kind: native_half(head, 24),
            };
            let length = native_half(head, 28) as usize;
            // A search returns every item between two keys, also those of other
            // types and offsets.
            let wanted = (key.min_type..=key.max_type).contains(&header.kind)
                && (key.min_offset..=key.max_offset).contains(&header.offset);
            if wanted {
                each(&header, &args.buffer[at + 32..at + 32 + length]);
            }
            at += 32 + length;
            last = Some(header);
        }
        // Goes on behind the last one that was seen.
        match last {
            None => return Ok(()),
            Some(last) if last.offset < u64::MAX => {
                args.key.min_object = last.object;
                args.key.min_type = last.kind;
                args.key.min_offset = last.offset + 1;
            }
            Some(last) if last.kind < key.max_type => {
                args.key.min_object = last.object;
                args.key.min_type = last.kind + 1;
                args.key.min_offset = 0;
            }
            Some(_) => return Ok(()),
        }
    }
}

/// The number at `at` of a search header, which the kernel writes in the
/// machine's own order.
fn native(bytes: &[u8], at: usize) -> u64 {
    number(bytes, at).to_le()
}

fn native_half(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|slice| slice.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

/// The little-endian number at `at` of an item, 0 beyond the end.
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|slice| slice.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

fn returned(result: libc::c_long) -> io::Result<libc::c_long> {
    Ok(Errno::result(result)?)
}

/// A mount of the directory `source` that is attached nowhere yet.
pub(super) fn detached_copy(source: &Dir) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    // SAFETY: the handle is open and the path is an empty C string.
    let tree =
        returned(unsafe { libc::syscall(libc::SYS_open_tree, fd(source), c"".as_ptr(), flags) })?;
    let tree = RawFd::try_from(tree).expect("a file descriptor is an int");
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// Makes a detached mount read-only.
pub(super) fn set_read_only(tree: &OwnedFd) -> io::Result<()> {
    let attributes = MountAttr {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    // SAFETY: the handle is open, the path is an empty C string, and the
    // attributes are whole and of the size that is given.
    returned(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Attaches a detached mount at the directory `target`.
pub(super) fn attach(tree: &OwnedFd, target: &Dir) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both handles are open and the paths are empty C strings.
    returned(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            fd(target),
            c"".as_ptr(),
            flags,
        )
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_the_kernels_sizes() {
        assert_eq!(size_of::<VolArgsV2>(), 4096);
        assert_eq!(size_of::<QuotaCtl>(), 16);
        assert_eq!(size_of::<QuotaRescan>(), 64);
        assert_eq!(size_of::<QgroupCreate>(), 16);
        assert_eq!(size_of::<QgroupLimit>(), 48);
        assert_eq!(size_of::<InoLookup>(), 4096);
        assert_eq!(size_of::<FsInfo>(), 1024);
        assert_eq!(size_of::<SearchKey>(), 104);
        assert_eq!(size_of::<SearchArgs>(), 4096);
        assert_eq!(size_of::<MountAttr>(), 32);
        assert_eq!(size_of::<Handle>(), 8 + HANDLE_BYTES);
    }
}
