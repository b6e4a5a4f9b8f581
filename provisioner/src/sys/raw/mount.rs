//! Mount calls that take handles (open_tree(2), fsopen(2), mount_setattr(2),
//! move_mount(2)): a mount gets its flags before anybody sees it, and no path is
//! walked twice.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::returned;
use crate::fs::dir::Dir;
use crate::sys::host::MountAs;
use crate::types::MountFlag;

// Commands of fsconfig(2) (`include/uapi/linux/mount.h`).
const SET_FLAG: u32 = 0;
const SET_STRING: u32 = 1;
const CREATE: u32 = 6;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// A mount of the directory `source` that is attached nowhere yet.
pub(crate) fn detached_copy(source: &Dir) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    // SAFETY: the handle is open and the path is an empty C string.
    let tree = returned(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            source.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    })?;
    Ok(owned(tree))
}

/// A mount of one device node, by its path, that is attached nowhere yet.
pub(crate) fn detached_node(path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_SYMLINK_NOFOLLOW as u32;
    // SAFETY: the path is a C string that outlives the call.
    let tree = returned(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)
    })?;
    Ok(owned(tree))
}

/// Mounts the ext4 on a block device; it is attached nowhere yet. From its first
/// error on it refuses writes.
pub(crate) fn detached_ext4(device: &str, how: MountAs<'_>) -> io::Result<OwnedFd> {
    let device = CString::new(device)?;
    // SAFETY: the name is a C string.
    let context = owned(returned(unsafe {
        libc::syscall(libc::SYS_fsopen, c"ext4".as_ptr(), libc::FSOPEN_CLOEXEC)
    })?);
    let made = (|| {
        configure(&context, SET_STRING, Some(c"source"), Some(&device))?;
        configure(&context, SET_STRING, Some(c"errors"), Some(c"remount-ro"))?;
        if how.read_only {
            configure(&context, SET_FLAG, Some(c"ro"), None)?;
        }
        configure(&context, CREATE, None, None)?;
        // SAFETY: the handle is open; the rest are numbers.
        returned(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                context.as_raw_fd(),
                libc::FSMOUNT_CLOEXEC,
                attributes(how).set,
            )
        })
    })();
    match made {
        Ok(tree) => Ok(owned(tree)),
        Err(e) => Err(explained(e, context)),
    }
}

fn configure(
    context: &OwnedFd,
    command: u32,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the handle is open; key and value are C strings that outlive the call,
    // or null where the command takes none.
    returned(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            pointer(key),
            pointer(value),
            0,
        )
    })?;
    Ok(())
}

/// Adds what the kernel says about a mount that it refused; an error it says
/// nothing about stays as it is.
fn explained(error: io::Error, context: OwnedFd) -> io::Error {
    let mut context = File::from(context);
    let mut said = Vec::new();
    let mut message = [0; 1024];
    // One message a read, until there is none.
    while let Ok(length @ 1..) = context.read(&mut message) {
        let text = String::from_utf8_lossy(&message[..length]);
        said.push(text.trim().to_owned());
    }
    if said.is_empty() {
        return error;
    }
    io::Error::new(error.kind(), format!("{error}: {}", said.join("; ")))
}

fn owned(fd: libc::c_long) -> OwnedFd {
    let fd = RawFd::try_from(fd).expect("a file descriptor is an int");
    // SAFETY: callers hand over what a call that makes a descriptor returned, and
    // nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What mount_setattr(2) and fsmount(2) call a mount's behaviour. Of several kinds
/// of access times the last one counts, as in mount(8).
fn attributes(how: MountAs<'_>) -> MountAttr {
    let mut attributes = MountAttr::default();
    if how.read_only {
        attributes.set |= libc::MOUNT_ATTR_RDONLY;
    }
    for flag in how.flags {
        attributes.set |= match flag {
            MountFlag::NoDev => libc::MOUNT_ATTR_NODEV,
            MountFlag::NoSuid => libc::MOUNT_ATTR_NOSUID,
            MountFlag::NoExec => libc::MOUNT_ATTR_NOEXEC,
            MountFlag::NoDirAtime => libc::MOUNT_ATTR_NODIRATIME,
            MountFlag::NoAtime | MountFlag::RelAtime | MountFlag::StrictAtime => {
                // A number, not bits: the old one must go.
                attributes.clear = libc::MOUNT_ATTR__ATIME;
                attributes.set &= !libc::MOUNT_ATTR__ATIME;
                match flag {
                    MountFlag::NoAtime => libc::MOUNT_ATTR_NOATIME,
                    MountFlag::StrictAtime => libc::MOUNT_ATTR_STRICTATIME,
                    _ => libc::MOUNT_ATTR_RELATIME,
                }
            }
        };
    }
    attributes
}

/// Gives a detached mount its behaviour; `ENOSYS` on kernels before 5.12.
pub(crate) fn set_attributes(tree: &OwnedFd, how: MountAs<'_>) -> io::Result<()> {
    let attributes = attributes(how);
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

/// Attaches a detached mount at `target`: a directory on a directory, a node on a
/// file.
pub(crate) fn attach(tree: &OwnedFd, target: impl AsFd) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both handles are open and the paths are empty C strings.
    returned(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
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
    fn attributes_have_the_kernels_size() {
        assert_eq!(size_of::<MountAttr>(), 32);
    }

    #[test]
    fn of_several_access_times_the_last_counts_and_replaces_the_old_one() {
        let how = MountAs {
            read_only: true,
            flags: &[
                MountFlag::NoAtime,
                MountFlag::NoDev,
                MountFlag::StrictAtime,
                MountFlag::NoDirAtime,
            ],
        };
        let made = attributes(how);
        assert_eq!(
            made.set,
            libc::MOUNT_ATTR_RDONLY
                | libc::MOUNT_ATTR_NODEV
                | libc::MOUNT_ATTR_STRICTATIME
                | libc::MOUNT_ATTR_NODIRATIME
        );
        assert_eq!(made.clear, libc::MOUNT_ATTR__ATIME);
        let plain = attributes(MountAs::default());
        assert_eq!((plain.set, plain.clear), (0, 0));
    }
}
