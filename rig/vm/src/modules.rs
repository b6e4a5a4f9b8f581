//! Which kernel modules a guest gets: those it needs with all that they need.

use std::collections::{BTreeMap, BTreeSet};

/// Loaded before the program runs: the guest's disks and its line to the host,
/// and loop, whose control device appears only when it is loaded.
pub(crate) const LOADED: [&str; 4] = ["virtio_pci", "virtio_console", "virtio_blk", "loop"];

/// Brought along; the kernel asks for them when a filesystem is mounted, a quota
/// turned on, a checksum needed.
pub(crate) const BROUGHT: [&str; 9] = [
    "xfs",
    "ext4",
    "btrfs",
    "quota_v2",
    "crc32c_generic",
    "overlay",
    "dm-mod",
    "dm-flakey",
    "dm-log-writes",
];

/// The files of `wanted` and of what they need, relative to the modules'
/// directory, from modules.dep and modules.builtin. Modules that are part of the
/// kernel have no file. The error is a name that the kernel does not have at all.
pub(crate) fn closure<'a>(
    dependencies: &'a str,
    builtin: &str,
    wanted: &[&str],
) -> Result<BTreeSet<&'a str>, String> {
    let needs: BTreeMap<&str, Vec<&str>> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needed)| (file, needed.split_whitespace().collect()))
        .collect();
    let files: BTreeMap<String, &str> = needs.keys().map(|file| (name(file), *file)).collect();
    let builtin: BTreeSet<String> = builtin.lines().map(name).collect();
    let mut found = BTreeSet::new();
    let mut open = Vec::new();
    for module in wanted {
        let module = name(module);
        match files.get(&module) {
            Some(file) => open.push(*file),
            None if builtin.contains(&module) => {}
            None => return Err(module),
        }
    }
    while let Some(file) = open.pop() {
        if found.insert(file) {
            open.extend(needs.get(file).into_iter().flatten());
        }
    }
    Ok(found)
}

/// A module's name from its file: dashes and underscores are one to the kernel,
/// and distributions compress modules.
fn name(file: &str) -> String {
    let file = file.trim().rsplit('/').next().unwrap_or_default();
    let end = file.find(".ko").unwrap_or(file.len());
    file[..end].replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/drivers/md/dm-flakey.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-mod.ko.xz: kernel/drivers/dax/dax.ko.xz
kernel/drivers/dax/dax.ko.xz:
";

    #[test]
    fn what_modules_need_comes_along_however_deep() {
        let files = closure(DEP, "", &["xfs", "dm_flakey"]).unwrap();
        assert_eq!(files.len(), 5);
        assert!(files.contains("kernel/drivers/dax/dax.ko.xz"));
        let only = closure(DEP, "", &["libcrc32c"]).unwrap();
        assert_eq!(
            only.into_iter().collect::<Vec<_>>(),
            ["kernel/lib/libcrc32c.ko"]
        );
    }

    #[test]
    fn built_in_modules_have_no_file_and_unknown_ones_are_named() {
        let builtin = "kernel/fs/ext4/ext4.ko\n";
        assert!(closure(DEP, builtin, &["ext4"]).unwrap().is_empty());
        assert_eq!(closure(DEP, builtin, &["zfs"]), Err("zfs".to_owned()));
    }
}
