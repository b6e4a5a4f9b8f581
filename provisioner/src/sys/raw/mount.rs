//! Mount calls that take handles (open_tree(2), mount_setattr(2), move_mount(2)):
//! a mount gets its flags before anybody sees it, and no path is walked twice.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::returned;
use crate::dir::Dir;

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
    let tree = RawFd::try_from(tree).expect("a file descriptor is an int");
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// Makes a detached mount read-only.
pub(crate) fn set_read_only(tree: &OwnedFd) -> io::Result<()> {
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
pub(crate) fn attach(tree: &OwnedFd, target: &Dir) -> io::Result<()> {
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
}
