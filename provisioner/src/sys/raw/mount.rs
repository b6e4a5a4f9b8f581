//! Mount calls that take handles (open_tree(2), fsopen(2), mount_setattr(2),
//! move_mount(2)): a mount gets its flags before anybody sees it, and no path is
//! walked twice. rustix makes all of them but mount_setattr(2), which neither it nor
//! nix wraps.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::returned;
use crate::fs::dir::Dir;
use crate::sys::host::MountAs;
use crate::types::MountFlag;

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
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(source, c"", flags)?)
}

/// A mount of one device node, by its path, that is attached nowhere yet.
pub(crate) fn detached_node(path: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    Ok(open_tree(CWD, path, flags)?)
}

/// Mounts the ext4 on a block device; it is attached nowhere yet. From its first
/// error on it refuses writes.
pub(crate) fn detached_ext4(device: &str, how: MountAs<'_>) -> io::Result<OwnedFd> {
    let context = fsopen(c"ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let made = (|| {
        fsconfig_set_string(&context, c"source", device)?;
        fsconfig_set_string(&context, c"errors", c"remount-ro")?;
        if how.read_only {
            fsconfig_set_flag(&context, c"ro")?;
        }
        fsconfig_create(&context)?;
        let behaviour = u32::try_from(attributes(how).set).expect("attributes are 32 bits");
        fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::from_bits_retain(behaviour),
        )
    })();
    made.map_err(|e| explained(e.into(), context))
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
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, c"", target, c"", flags)?)
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
