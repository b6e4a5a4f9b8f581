//! Loop devices: attached so that they detach themselves, and found again by
//! their backing file's device and inode, since names of backing files lie.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Ok((
        (narrow(major(meta.dev())), narrow(minor(meta.dev()))),
        meta.ino(),
    ))
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

/// Every loop device in use with its backing file's identity.
pub(crate) fn in_use() -> Result<Vec<(PathBuf, Identity)>> {
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
        .find(|(_, i)| *i == wanted)
        .map(|(p, _)| p))
}

/// Detaches every device whose backing file is one of `files`, and waits until it is so.
pub(crate) fn detach_all(files: &[Identity]) -> Result<()> {
    for (path, identity) in in_use()? {
        if files.contains(&identity) {
            let device = File::open(&path).map_err(Error::io("cannot open", &path))?;
            match sys::detach(&device) {
                Ok(()) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {}
                Err(e) => return Err(Error::io("cannot detach", path)(e)),
            }
        }
    }
    wait_for(
        "the loop devices to detach",
        Duration::from_secs(30),
        || {
            let left = in_use()?
                .into_iter()
                .filter(|(_, i)| files.contains(i))
                .count();
            Ok(if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} attached"))
            })
        },
    )
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
