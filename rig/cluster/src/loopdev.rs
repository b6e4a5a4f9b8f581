//! Loop devices: attached so that they detach themselves, and found again by
//! their backing file's device and inode, since names of backing files lie.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};

use crate::error::{Error, Result};
use crate::sys;
use crate::wait::wait_for;

/// The driver's major number (Documentation/admin-guide/devices.txt).
const LOOP_MAJOR: u64 = 7;

/// How often a free device may be lost to another process before giving up.
const ATTEMPTS: u32 = 32;

/// An attached loop device, kept open: while this value lives, the device stays.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The device's path, such as `/dev/loop3`.
    pub path: PathBuf,
    _device: File,
}

/// A file's identity: (major, minor) of its device, and its inode.
pub(crate) type Identity = ((u32, u32), u64);

/// The identity of the file at `path`.
pub(crate) fn identity(path: &Path) -> Result<Identity> {
    let meta = std::fs::metadata(path).map_err(Error::io("cannot inspect", path))?;
    Ok(identity_of(&meta))
}

fn identity_of(meta: &Metadata) -> Identity {
    (
        (narrow(major(meta.dev())), narrow(minor(meta.dev()))),
        meta.ino(),
    )
}

/// Attaches a file to a free loop device.
pub(crate) fn attach(file: &Path) -> Result<Attached> {
    let backing = open(file)?;
    let control = open(Path::new("/dev/loop-control"))?;
    let mut last = std::io::Error::other("no attempt was made");
    for _ in 0..ATTEMPTS {
        let number = sys::free_number(&control)
            .map_err(|e| Error::sys("cannot get a free loop device")(e))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        make_node(&path, number)?;
        let device = open(&path)?;
        match sys::attach(&device, &backing) {
            Ok(()) => {
                return Ok(Attached {
                    path,
                    _device: device,
                });
            }
            // Another process was quicker with this device.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = e,
            Err(e) => {
                let what = format!("cannot attach {} to {}", file.display(), path.display());
                return Err(Error::sys(what)(e));
            }
        }
    }
    Err(Error::sys(format!(
        "cannot attach {} to a loop device",
        file.display()
    ))(last))
}

/// Every loop device in use with what backs it.
fn in_use() -> Result<Vec<(PathBuf, sys::Backing)>> {
    let dir = Path::new("/sys/block");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("cannot list", dir))? {
        let entry = entry.map_err(Error::io("cannot list", dir))?;
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|n| n.strip_prefix("loop")) else {
            continue;
        };
        if !entry.path().join("loop").exists() {
            continue;
        }
        let path = Path::new("/dev").join(&name);
        if let Ok(number) = number.parse() {
            make_node(&path, number)?;
        }
        let identity = File::open(&path).and_then(|device| sys::backing(&device));
        match identity {
            Ok(Some(identity)) => found.push((path, identity)),
            // Gone between the listing and the look.
            Ok(None) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {}
            Err(e) => return Err(Error::io("cannot inspect", path)(e)),
        }
    }
    found.sort();
    Ok(found)
}

/// The device that is attached to the file at `path`.
pub(crate) fn of_file(path: &Path) -> Result<Option<PathBuf>> {
    let wanted = identity(path)?;
    Ok(in_use()?
        .into_iter()
        .find(|(_, it)| it.file == wanted)
        .map(|(p, _)| p))
}

/// Detaches every device whose backing file is one of `files`, with whatever is
/// attached to files on it, and waits until it is so.
pub(crate) fn detach_all(files: &[Identity]) -> Result<()> {
    let (mut doomed, mut inside): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    let all = in_use()?;
    for (path, backing) in &all {
        let path = path.clone();
        if files.contains(&backing.file) {
            inside.extend(images_on(&path)?);
            inside.extend(above(&all, &path)?);
            doomed.push(path);
        }
    }
    // The topmost first; one that is held goes with its last user.
    for path in inside.into_iter().chain(doomed) {
        let device = File::open(&path).map_err(Error::io("cannot open", &path))?;
        match sys::detach(&device) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {}
            Err(e) => return Err(Error::io("cannot detach", path)(e)),
        }
    }
    wait_for(
        "the loop devices to detach",
        Duration::from_secs(30),
        || {
            let left = in_use()?
                .into_iter()
                .filter(|(_, it)| files.contains(&it.file))
                .count();
            Ok(if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} attached"))
            })
        },
    )
}

/// Devices of images on the filesystem of a disk that a killed node left behind:
/// they outlive it, and hold the disk. The filesystem is mounted once more to tell
/// its device number; kubelet's own devices are backed by the nodes of those.
fn images_on(disk: &Path) -> Result<Vec<PathBuf>> {
    let look = tempfile::tempdir().map_err(Error::sys("cannot make a temporary directory"))?;
    let mounted = ["btrfs", "xfs", "ext4"].iter().any(|kind| {
        let none = None::<&str>;
        nix::mount::mount(Some(disk), look.path(), Some(*kind), MsFlags::empty(), none).is_ok()
    });
    if !mounted {
        // Nobody made a filesystem on it yet.
        return Ok(Vec::new());
    }
    let device = identity(look.path()).map(|(device, _)| device);
    nix::mount::umount2(look.path(), MntFlags::MNT_DETACH)
        .map_err(|e| Error::sys(format!("cannot unmount {}", look.path().display()))(e))?;
    let device = device?;
    let all = in_use()?;
    let images: Vec<_> = all.iter().filter(|(_, it)| it.file.0 == device).collect();
    let mut found = Vec::new();
    for (path, _) in &images {
        found.extend(above(&all, path)?);
    }
    found.extend(images.into_iter().map(|(path, _)| path.clone()));
    Ok(found)
}

/// Those of `all` that are attached to the node of a device, as kubelet does.
fn above(all: &[(PathBuf, sys::Backing)], device: &Path) -> Result<Vec<PathBuf>> {
    let node = std::fs::metadata(device).map_err(Error::io("cannot inspect", device))?;
    let node = (narrow(major(node.rdev())), narrow(minor(node.rdev())));
    let above = all.iter().filter(|(_, it)| it.node == node);
    Ok(above.map(|(path, _)| path.clone()).collect())
}

/// Files below `root`, and on its filesystem, that loop devices are attached to: images
/// in pools on the nodes' own filesystem. It takes a while, and is done only where a
/// device has a file of that filesystem at all.
pub(crate) fn files_below(root: &Path) -> Result<Vec<Identity>> {
    let (device, _) = identity(root)?;
    let attached: Vec<Identity> = in_use()?
        .into_iter()
        .map(|(_, it)| it.file)
        .filter(|file| file.0 == device)
        .collect();
    let (mut found, mut ahead) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = ahead.pop().filter(|_| !attached.is_empty()) {
        // What goes meanwhile is gone.
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let identity = identity_of(&meta);
            if meta.is_dir() && identity.0 == device {
                ahead.push(entry.path());
            } else if meta.is_file() && attached.contains(&identity) {
                found.push(identity);
            }
        }
    }
    Ok(found)
}

fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Makes the device's node where /dev does not make it by itself.
fn make_node(path: &Path, number: u32) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let made = mknod(
        path,
        SFlag::S_IFBLK,
        Mode::from_bits_truncate(0o660),
        makedev(LOOP_MAJOR, u64::from(number)),
    );
    match made {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(e) => Err(Error::sys(format!("cannot make {}", path.display()))(e)),
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io("cannot open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_anywhere_below_a_directory_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(files_below(dir.path()).expect("it is there"), []);
        let deep = dir.path().join("volumes/x");
        std::fs::create_dir_all(&deep).expect("directories");
        let image = deep.join("image");
        File::create(&image)
            .and_then(|file| file.set_len(1 << 20))
            .expect("a sparse file");
        std::fs::write(deep.join("other"), "").expect("a file");
        let attached = attach(&image).expect("root and loop devices");
        let wanted = [identity(&image).expect("it is there")];
        assert_eq!(files_below(dir.path()).expect("it is there"), wanted);
        assert_eq!(files_below(&deep).expect("it is there"), wanted);
        drop(attached);
    }

    /// As a killed node leaves it: the disk is mounted nowhere, and an image on it is
    /// still attached, by a device that does not go by itself.
    #[test]
    fn images_that_hold_a_disk_are_detached_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = dir.path().join("disk.img");
        let file = File::create(&disk).expect("a file");
        file.set_len(64 << 20).expect("a sparse file");
        let made = std::process::Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&disk)
            .status();
        assert!(made.expect("e2fsprogs is installed").success());
        let files = [identity(&disk).expect("it is there")];
        let attached = attach(&disk).expect("root and loop devices");
        let at = dir.path().join("mounted");
        std::fs::create_dir(&at).expect("a directory");
        let none = None::<&str>;
        let device = attached.path.as_path();
        nix::mount::mount(Some(device), &at, Some("ext4"), MsFlags::empty(), none)
            .expect("it can be mounted");
        let image = at.join("image");
        let inside = File::create(&image).expect("a file");
        inside.set_len(1 << 20).expect("a sparse file");
        let wanted = identity(&image).expect("it is there");
        // Not by us, so that it stays when nobody uses it.
        let shown = std::process::Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&image)
            .output()
            .expect("util-linux is installed");
        assert!(shown.status.success(), "{shown:?}");
        nix::mount::umount2(&at, MntFlags::MNT_DETACH).expect("it can be unmounted");
        drop((attached, inside));
        let there = in_use().expect("it can be asked");
        assert!(there.iter().any(|(_, it)| it.file == wanted));

        detach_all(&files).expect("both are gone");
        let left = in_use().expect("it can be asked");
        assert!(
            !left
                .iter()
                .any(|(_, it)| it.file == wanted || files.contains(&it.file))
        );
    }
}
