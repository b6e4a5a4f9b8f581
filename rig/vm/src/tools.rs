//! The host's programs that every guest has: those that make, mount, resize, check
//! and limit filesystems. Everything else of a userland is busybox.

use std::path::PathBuf;

/// Programs that must be there.
pub const NEEDED: [&str; 6] = [
    "mkfs.xfs",
    "xfs_quota",
    "mkfs.ext4",
    "mount",
    "umount",
    "losetup",
];

/// Programs that are brought along where the host has them.
pub const WELCOME: [&str; 30] = [
    "mke2fs",
    "e2fsck",
    "fsck.ext4",
    "resize2fs",
    "tune2fs",
    "dumpe2fs",
    "debugfs",
    "chattr",
    "lsattr",
    "xfs_io",
    "xfs_growfs",
    "xfs_repair",
    "xfs_db",
    "mkfs.btrfs",
    "btrfs",
    "findmnt",
    "lsblk",
    "blkid",
    "wipefs",
    "blockdev",
    "fallocate",
    "fstrim",
    "dmsetup",
    "setquota",
    "repquota",
    "quotaon",
    "setpriv",
    "fio",
    "strace",
    "filefrag",
];

/// Where `program` lies on this machine.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// All that this machine has, by name.
pub(crate) fn all() -> Vec<(&'static str, PathBuf)> {
    NEEDED
        .iter()
        .copied()
        .chain(WELCOME)
        .filter_map(|program| Some((program, find(program)?)))
        .collect()
}
