//! The real system calls on real loop devices and filesystems, on images in a
//! temporary directory. Everything a test made goes with it, also when it fails.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Linux;
use super::host::{
    Btrfs, Filesystems, Images, Loop, LoopDevices, LoopOptions, MountAs, Mounter, Projects,
};
use crate::fs::dir::Dir;
use crate::testing::{LoopPool, TestNode, unmount_below};
use crate::types::MountFlag;

const MIB: u64 = 1 << 20;

const SHARED: LoopOptions = LoopOptions {
    read_only: false,
    autoclear: false,
    block_size: 4096,
};

const FLEETING: LoopOptions = LoopOptions {
    autoclear: true,
    ..SHARED
};

/// A directory whose mounts and loop devices go with it.
struct Place {
    at: tempfile::TempDir,
    devices: Vec<u32>,
}

impl Place {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        Self {
            at: tempfile::tempdir().unwrap(),
            devices: Vec::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.at.path().canonicalize().unwrap()
    }

    fn dir(&self) -> Dir {
        Dir::open_root(self.at.path()).unwrap()
    }

    /// A new image; `format` makes an ext4 in it.
    fn image(&self, name: &str, size: u64, format: bool) -> File {
        let file = self.dir().create_file(name, 0o600).unwrap();
        Linux.allocate(&file, size, true).unwrap();
        if format {
            Linux.format(&self.dir(), name).unwrap();
        }
        file
    }

    fn attach(&mut self, file: &File, options: LoopOptions) -> (u32, File) {
        let (number, device) = Linux.attach_loop(file, options).unwrap();
        if !options.autoclear {
            self.devices.push(number);
        }
        (number, device)
    }

    fn mounted(&self, number: u32, name: &str, how: MountAs<'_>) -> PathBuf {
        self.dir().make(name, 0o755).unwrap();
        Linux.mount_loop(number, &self.dir(), name, how).unwrap();
        self.path().join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        unmount_below(&self.path());
        for number in &self.devices {
            let _ = Linux.detach_loop(*number);
        }
    }
}

/// The devices of a file, found as the crate finds them.
fn devices_of(file: &File) -> Vec<Loop> {
    let file = file.metadata().unwrap();
    let mut found = Linux.loops().unwrap();
    found.retain(|device| device.shows(&file));
    found
}

/// Waits until a file has no device: the kernel lets a mount's device go a moment
/// after the mount.
fn wait_until_free(file: &File) {
    while !devices_of(file).is_empty() {
        std::thread::yield_now();
    }
}

fn options_of(point: &Path) -> String {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|line| line.split(' ').nth(4) == point.to_str());
    line.expect("it is mounted")
        .split(' ')
        .nth(5)
        .unwrap()
        .into()
}

fn size_of_device(device: &mut File) -> u64 {
    device.seek(SeekFrom::End(0)).unwrap()
}

fn writable(number: u32) -> std::io::Result<File> {
    let path = format!("/dev/loop{number}");
    OpenOptions::new().read(true).write(true).open(path)
}

#[test]
fn a_device_is_found_by_its_file_grows_with_it_and_goes() {
    let mut place = Place::new();
    let file = place.image("image", 8 * MIB, false);
    assert_eq!(devices_of(&file), []);
    let (number, mut device) = place.attach(&file, SHARED);
    let found = devices_of(&file);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].number, found[0].read_only), (number, false));
    // Whatever the file is called now.
    std::fs::rename(place.path().join("image"), place.path().join("other")).unwrap();
    assert_eq!(devices_of(&file), found);

    assert_eq!(size_of_device(&mut device), 8 * MIB);
    Linux.allocate(&file, 12 * MIB, false).unwrap();
    assert_eq!(size_of_device(&mut device), 8 * MIB);
    Linux.resize_loop(number).unwrap();
    assert_eq!(size_of_device(&mut device), 12 * MIB);

    let flag = format!("/sys/block/loop{number}/loop/autoclear");
    assert_eq!(std::fs::read_to_string(flag).unwrap().trim(), "0");
    // Held, it goes with the last holder.
    Linux.detach_loop(number).unwrap();
    assert_eq!(devices_of(&file), found);
    drop(device);
    wait_until_free(&file);
    Linux.detach_loop(number).unwrap();
}

#[test]
fn devices_are_found_on_btrfs_whose_files_have_no_device_of_their_own() {
    let node = TestNode::new();
    let _disk = node.disk("disk", 128 * MIB);
    let pool = Dir::open_root(&node.pool_dir("disk")).unwrap();
    Linux.create_subvolume(&pool, "sub").unwrap();
    let sub = pool.open("sub", crate::fs::dir::Mounts::Stay).unwrap();
    let file = sub.create_file("image", 0o600).unwrap();
    Linux.allocate(&file, 4 * MIB, false).unwrap();
    let (number, device) = Linux.attach_loop(&file, FLEETING).unwrap();
    let found = devices_of(&file);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].number, number);
    drop(device);
    wait_until_free(&file);
}

#[test]
fn a_read_only_device_refuses_writes_and_the_next_user_is_not_bound_by_that() {
    let mut place = Place::new();
    let file = place.image("image", 4 * MIB, false);
    let options = LoopOptions {
        read_only: true,
        ..SHARED
    };
    let (number, device) = place.attach(&file, options);
    assert!(devices_of(&file)[0].read_only);
    let refused = writable(number).and_then(|mut device| {
        device.write_all(&[1; 4096])?;
        device.sync_all()
    });
    assert!(refused.is_err());
    // The mark sticks to the device: attaching takes it off.
    drop(device);
    Linux.detach_loop(number).unwrap();
    wait_until_free(&file);
    let (number, _device) = place.attach(&file, SHARED);
    assert!(!devices_of(&file)[0].read_only);
    let mut device = writable(number).unwrap();
    device.write_all(&[1; 4096]).unwrap();
    device.sync_all().unwrap();
    drop(device);
    let mut content = Vec::new();
    let mut image = File::open(place.path().join("image")).unwrap();
    image.read_to_end(&mut content).unwrap();
    assert!(content[..4096].iter().all(|byte| *byte == 1));
}

#[test]
fn an_image_is_mounted_with_its_flags_and_its_device_goes_with_the_mount() {
    let mut place = Place::new();
    let file = place.image("image", 16 * MIB, true);
    let (number, device) = place.attach(&file, FLEETING);
    let how = MountAs {
        read_only: false,
        flags: &[MountFlag::NoSuid, MountFlag::NoDev, MountFlag::NoAtime],
    };
    let at = place.mounted(number, "data", how);
    drop(device);
    assert_eq!(devices_of(&file).len(), 1);
    let options = options_of(&at);
    for option in ["rw", "nosuid", "nodev", "noatime"] {
        assert!(options.split(',').any(|o| o == option), "{options}");
    }
    std::fs::write(at.join("file"), "content").unwrap();

    let data = Dir::open_root(&at).unwrap();
    let space = Linux.space(&data).unwrap();
    assert!(space.total > 8 * MIB && space.total < 16 * MIB, "{space:?}");
    assert!(space.available + space.used <= space.total, "{space:?}");
    // The root and the reserved ones, and the file; no lost+found.
    assert_eq!(space.inodes_used, 11, "{space:?}");
    Linux.freeze(&data).unwrap();
    assert!(Linux.thaw(&data).unwrap());
    assert!(!Linux.thaw(&data).unwrap());
    std::fs::write(at.join("file"), "after").unwrap();
    drop(data);

    Linux.unmount(&place.dir(), "data").unwrap();
    wait_until_free(&file);

    let (number, device) = place.attach(&file, FLEETING);
    let how = MountAs {
        read_only: true,
        flags: &[],
    };
    let at = place.mounted(number, "data", how);
    drop(device);
    assert_eq!(std::fs::read_to_string(at.join("file")).unwrap(), "after");
    assert!(std::fs::write(at.join("file"), "no").is_err());
}

#[test]
fn an_image_that_holds_no_filesystem_is_refused() {
    let mut place = Place::new();
    let file = place.image("image", 4 * MIB, false);
    let (number, _device) = place.attach(&file, FLEETING);
    place.dir().make("data", 0o755).unwrap();
    let refused = Linux.mount_loop(number, &place.dir(), "data", MountAs::default());
    assert!(refused.is_err());
    let refused = Linux.format(&place.dir(), "none").unwrap_err().to_string();
    assert!(refused.contains("mkfs.ext4 failed"), "{refused}");
}

#[test]
fn a_mounted_image_grows_where_that_is_permitted() {
    let mut place = Place::new();
    let file = place.image("image", 16 * MIB, true);
    let (number, device) = place.attach(&file, FLEETING);
    let at = place.mounted(number, "data", MountAs::default());
    drop(device);
    let data = Dir::open_root(&at).unwrap();
    let before = Linux.space(&data).unwrap().total;
    Linux.allocate(&file, 32 * MIB, true).unwrap();
    Linux.resize_loop(number).unwrap();
    match Linux.grow_ext4(&data) {
        Ok(()) => assert!(Linux.space(&data).unwrap().total > before + 12 * MIB),
        // Without CAP_SYS_RESOURCE.
        Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EPERM)),
    }
}

#[test]
fn a_device_is_visible_at_a_file_and_at_nothing_else() {
    let mut place = Place::new();
    let file = place.image("image", 4 * MIB, false);
    let (number, _device) = place.attach(&file, SHARED);
    let dir = place.dir();
    Linux.bind_loop(number, &dir, "block").unwrap();
    let block = std::fs::metadata(place.path().join("block")).unwrap();
    assert!(block.file_type().is_block_device());
    let node = std::fs::metadata(format!("/dev/loop{number}")).unwrap();
    assert_eq!(block.rdev(), node.rdev());
    Linux.unmount(&dir, "block").unwrap();
    let file = std::fs::metadata(place.path().join("block")).unwrap();
    assert!(file.is_file() && file.len() == 0);

    dir.make("directory", 0o755).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", place.path().join("link")).unwrap();
    assert!(Linux.bind_loop(number, &dir, "directory").is_err());
    assert!(Linux.bind_loop(number, &dir, "link").is_err());
    assert!(Linux.bind_loop(number, &dir, "../outside").is_err());
}

#[test]
fn a_directory_is_bound_with_flags() {
    let place = Place::new();
    let dir = place.dir();
    dir.make("source", 0o755).unwrap();
    dir.make("target", 0o755).unwrap();
    let source = dir.open("source", crate::fs::dir::Mounts::Stay).unwrap();
    let how = MountAs {
        read_only: true,
        flags: &[MountFlag::NoExec, MountFlag::StrictAtime],
    };
    Linux.bind(&source, &dir, "target", how).unwrap();
    let options = options_of(&place.path().join("target"));
    assert!(
        options.contains("ro") && options.contains("noexec"),
        "{options}"
    );
    assert!(!options.contains("relatime"), "{options}");
    Linux.unmount(&dir, "target").unwrap();
}

#[test]
fn images_are_allocated_or_sparse_and_never_shortened() {
    let place = Place::new();
    let full = place.dir().create_file("full", 0o600).unwrap();
    Linux.allocate(&full, 2 * MIB, false).unwrap();
    Linux.format(&place.dir(), "full").unwrap();
    let stat = full.metadata().unwrap();
    assert_eq!(stat.len(), 2 * MIB);
    assert!(stat.blocks() * 512 >= 2 * MIB, "mkfs gave blocks back");
    let sparse = place.image("sparse", 64 * MIB, true);
    assert!(sparse.metadata().unwrap().blocks() * 512 < 16 * MIB);
    Linux.allocate(&sparse, MIB, true).unwrap();
    Linux.allocate(&sparse, MIB, false).unwrap();
    assert_eq!(sparse.metadata().unwrap().len(), 64 * MIB);
}

#[test]
fn a_snapshot_holds_what_was_written_before_and_nothing_later() {
    let node = TestNode::new();
    let _disk = node.disk("disk", 128 * MIB);
    let at = node.pool_dir("disk");
    let pool = Dir::open_root(&at).unwrap();
    let id = Linux.create_subvolume(&pool, "source").unwrap();
    let content = vec![7; 4 << 20];
    // Not synced: it is in the page cache only.
    std::fs::write(at.join("source/file"), &content).unwrap();
    let source = pool.open("source", crate::fs::dir::Mounts::Stay).unwrap();
    let snapshot = Linux
        .snapshot_subvolume(&source, &pool, "frozen", true)
        .unwrap();
    let clone = Linux
        .snapshot_subvolume(&source, &pool, "clone", false)
        .unwrap();
    assert!(id < snapshot && snapshot < clone);
    std::fs::write(at.join("source/file"), "later").unwrap();
    assert_eq!(std::fs::read(at.join("frozen/file")).unwrap(), content);
    let refused = std::fs::write(at.join("frozen/file"), "no").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    std::fs::write(at.join("clone/file"), "yes").unwrap();
    assert_eq!(std::fs::read(at.join("frozen/file")).unwrap(), content);
}

#[test]
fn blocks_are_shared_where_the_filesystem_can() {
    let node = TestNode::new();
    for (fstype, size, can) in [("xfs", 320 * MIB, true), ("ext4", 16 * MIB, false)] {
        let at = node.pool_dir(fstype);
        let image = node.root().join(format!("{fstype}.img"));
        LoopPool::format(image, size, fstype, false).mount(&at, "");
        let dir = Dir::open_root(&at).unwrap();
        let mut from = dir.create_file("from", 0o600).unwrap();
        from.write_all(b"content").unwrap();
        let mut to = dir.create_file("to", 0o600).unwrap();
        assert_eq!(Linux.reflink(&from, &to).unwrap(), can, "{fstype}");
        let mut content = String::new();
        to.read_to_string(&mut content).unwrap();
        assert_eq!(content, if can { "content" } else { "" });
        assert!(!Linux.project_quotas(&dir).unwrap(), "{fstype}");
        assert_eq!(Linux.project_of(&dir).unwrap(), 0, "{fstype}");
    }
}

#[test]
fn a_device_is_attached_with_direct_io() {
    let mut place = Place::new();
    let file = place.image("image", 4 * MIB, false);
    let (number, _device) = place.attach(&file, SHARED);
    let told = std::fs::read_to_string(format!("/sys/block/loop{number}/loop/dio")).unwrap();
    assert_eq!(told.trim(), "1");
}
