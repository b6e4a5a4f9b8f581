//! Loop devices: a file as a block device. The device of a file is found by the
//! file's device and inode, never by name.

mod ioctl;

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag};

use crate::{DeviceNumber, FileId};

/// Major number of loop devices (Documentation/admin-guide/devices.txt).
pub const MAJOR: u32 = 7;

/// One loop device that is attached to a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loop {
    /// N of `/dev/loopN`.
    pub number: u32,
    /// The file.
    pub file: FileId,
    /// The block device that the file is a node of; `None` for a regular file.
    pub node: Option<DeviceNumber>,
    /// Whether it refuses writes.
    pub read_only: bool,
}

impl Loop {
    /// Whether it is attached to this file.
    pub fn shows(&self, file: &Metadata) -> bool {
        self.file == FileId::from(file)
    }
}

/// How a loop device is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopOptions {
    /// It refuses writes.
    pub read_only: bool,
    /// It detaches itself when its last user closes it: for one that is mounted
    /// at once, or that must not outlive this process.
    pub autoclear: bool,
    /// Bytes of its logical blocks, 512 or 4096.
    pub block_size: u32,
}

/// How often a free device is taken by somebody faster before that is an error.
const TRIES: u32 = 100;

/// Every device accepts blocks of this size.
const SMALLEST_BLOCK: u32 = 512;

/// Every device that is attached to a file.
///
/// # Errors
/// Those of /sys/block and of the devices' nodes.
pub fn attached() -> io::Result<Vec<Loop>> {
    let mut found = Vec::new();
    for number in numbers()? {
        found.extend(ask(number)?.map(|(it, _)| it));
    }
    Ok(found)
}

/// What the device of this number is attached to; `None` where that is nothing.
///
/// # Errors
/// Those of the device's node.
pub fn at(number: u32) -> io::Result<Option<Loop>> {
    Ok(ask(number)?.map(|(it, _)| it))
}

/// What a device is attached to, and a handle on it; `None` where it is attached to nothing,
/// or gone.
fn ask(number: u32) -> io::Result<Option<(Loop, File)>> {
    let device = match open(number, false) {
        Ok(device) => device,
        // Detached, and gone, since.
        Err(e) if is_gone(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let Some(info) = ioctl::status(&device)? else {
        return Ok(None);
    };
    let it = Loop {
        number,
        file: FileId {
            device: DeviceNumber::from_kernel(info.device),
            inode: info.inode,
        },
        node: (info.rdevice != 0).then(|| DeviceNumber::from_kernel(info.rdevice)),
        read_only: info.flags & ioctl::READ_ONLY != 0,
    };
    Ok(Some((it, device)))
}

/// Numbers of the devices that have a file: only these have a directory `loop`.
fn numbers() -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
        if let Some(number) = number.and_then(|number| number.parse().ok())
            && entry.path().join("loop").exists()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENXIO as i32)
}

/// Attaches a free device to `file`, with direct I/O where the filesystem can. While the
/// handle is open the device stays. The handle is one for reading: a mount of a device
/// that somebody holds for writing can be refused.
///
/// # Errors
/// Without the right to, or without free devices.
pub fn attach(file: &File, options: LoopOptions) -> io::Result<(u32, File)> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    for _ in 0..TRIES {
        let number = ioctl::free(&control)?;
        let device = match open(number, true) {
            Ok(device) => device,
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(e),
        };
        match configure(&device, file, options) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => continue,
            Err(e) => return Err(e),
        }
        // Until here nothing keeps it from being detached when this fails.
        let writable = match options.read_only {
            // The flag of the attachment says so, and goes with it.
            true => Ok(()),
            false => ioctl::make_writable(&device),
        };
        let ready = writable.and_then(|()| open(number, false));
        match ready {
            Ok(held) => return Ok((number, held)),
            Err(e) => {
                ioctl::detach(&device)?;
                return Err(e);
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("others took {TRIES} free loop devices in a row; try again"),
    ))
}

fn configure(device: &File, file: &File, options: LoopOptions) -> io::Result<()> {
    let mut flags = 0;
    if options.read_only {
        flags |= ioctl::READ_ONLY;
    }
    if options.autoclear {
        flags |= ioctl::AUTOCLEAR;
    }
    let mut answer = Err(Errno::EINVAL.into());
    for (block_size, direct) in [
        (options.block_size, ioctl::DIRECT_IO),
        (options.block_size, 0),
        (SMALLEST_BLOCK, 0),
    ] {
        answer = ioctl::configure(device, file, block_size, flags | direct);
        match &answer {
            Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => {}
            _ => break,
        }
    }
    answer
}

/// Detaches a device, at once or when its last user closes it; succeeds if it is not
/// attached.
///
/// # Errors
/// Without the right to.
pub fn detach(number: u32) -> io::Result<()> {
    match open(number, false) {
        Ok(device) => ioctl::detach(&device),
        Err(e) if is_gone(&e) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Keeps a device that is attached to `file`: while the handle is open, it stays. `None`
/// where it is not, or no longer: one that detaches itself is still listed for an instant
/// after its last user, and answers with errors from then on.
///
/// # Errors
/// When the device cannot be asked.
pub fn hold(number: u32, file: &Metadata) -> io::Result<Option<File>> {
    let shown = ask(number)?.filter(|(it, _)| it.shows(file));
    Ok(shown.map(|(_, device)| device))
}

/// Takes over the length of the device's file.
///
/// # Errors
/// When the device is not attached.
pub fn resize(number: u32) -> io::Result<()> {
    ioctl::set_capacity(&open(number, false)?)
}

fn open(number: u32, write: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .open(node(number)?)
}

/// Path of a device's node, which is made where /dev does not make it by itself,
/// as in a container.
///
/// # Errors
/// When there is no such device, or something else is at its path.
pub fn node(number: u32) -> io::Result<String> {
    let path = format!("/dev/loop{number}");
    // Not made from the number: with partitions, devices lie apart.
    let told = std::fs::read_to_string(format!("/sys/block/loop{number}/dev"))?;
    let device = told
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .map(|(major, minor)| nix::sys::stat::makedev(major, minor))
        .ok_or_else(|| io::Error::other(format!("/sys/block/loop{number}/dev is no device")))?;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match nix::sys::stat::mknod(Path::new(&path), SFlag::S_IFBLK, mode, device) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let there = std::fs::symlink_metadata(&path)?;
    if there.file_type().is_block_device() && there.rdev() == device {
        return Ok(path);
    }
    Err(io::Error::other(format!(
        "{path} is not the node of loop device {number}; remove it"
    )))
}
