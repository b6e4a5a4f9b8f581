//! Image files and the ext4 in them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::sys::statvfs::fstatvfs;

use berth_linux::loops::{self, LoopOptions};
use rustix::fs::{AtFlags, unlinkat};

use super::host::MountAs;
use super::raw::{filesystem, mount};
use crate::fs::dir::Dir;

const MKFS: &str = "mkfs.ext4";
const RESIZE: &str = "resize2fs";

/// Bytes of the blocks of an ext4, and of the device that it is mounted from.
const BLOCK: u32 = 4096;

/// How often it is looked whether a device that goes by itself is gone.
const PATIENCE: u32 = 200;

/// Unit of the sizes in /sys/block, whatever the device's own blocks are.
const SECTOR: u64 = 512;

/// Makes a file at least this long; never shortens it.
pub(super) fn allocate(file: &File, bytes: u64, sparse: bool) -> io::Result<()> {
    let length = file.metadata()?.len();
    if bytes <= length {
        return Ok(());
    }
    if sparse {
        return file.set_len(bytes);
    }
    let offset = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(Errno::EFBIG));
    let (from, more) = (offset(length)?, offset(bytes - length)?);
    loop {
        match nix::fcntl::fallocate(file, FallocateFlags::empty(), from, more) {
            Err(Errno::EINTR) => {}
            answer => return Ok(answer?),
        }
    }
}

/// Makes an ext4 in the file `name` of `dir`.
///
/// Its blocks are [`BLOCK`] bytes, also where mkfs would take less because the image is
/// small: a device of 4 KiB blocks refuses those. The image is fresh and reads as
/// zeros, so nothing is written over with zeros, now or by the first mount; and
/// nothing is discarded, which would give allocated blocks back.
pub(super) fn format(dir: &Dir, name: &str) -> io::Result<()> {
    let mut mkfs = Command::new(MKFS);
    mkfs.args(["-q", "-F", "-m", "0", "-b", &BLOCK.to_string()])
        .args(["-E", "nodiscard,assume_storage_prezeroed=1"]);
    run(mkfs, MKFS, dir, name)?;
    empty(dir, name)
}

/// Grows the ext4 in the file `name` of `dir`, which is mounted nowhere, to the file's
/// length. resize2fs asks for a whole check first (`-f` does without): a filesystem that is
/// mounted afterwards anyway is checked by the kernel as it is then.
pub(super) fn grow_unmounted(dir: &Dir, name: &str) -> io::Result<()> {
    let mut resize = Command::new(RESIZE);
    resize.arg("-f");
    run(resize, RESIZE, dir, name)
}

/// Runs a program of e2fsprogs on the file `name` of `dir`.
fn run(mut program: Command, called: &str, dir: &Dir, name: &str) -> io::Result<()> {
    let output = program
        .arg(format!("./{name}"))
        .current_dir(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{called} is not installed; install e2fsprogs"),
            ),
            _ => e,
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{called} failed ({}): {}",
        output.status,
        said.trim()
    )))
}

/// Removes the directory `lost+found`, which mkfs always makes: databases refuse a data
/// directory that is not empty. e2fsck makes it again where it needs one. The filesystem is
/// mounted for that, but nowhere, so nobody else sees it.
fn empty(dir: &Dir, name: &str) -> io::Result<()> {
    let image = dir.open_file(name)?;
    let options = LoopOptions {
        read_only: false,
        autoclear: true,
        block_size: BLOCK,
    };
    let (number, device) = loops::attach(&image, options)?;
    let root = mount::detached_ext4(&loops::node(number)?, MountAs::default())?;
    let removed = unlinkat(&root, "lost+found", AtFlags::REMOVEDIR);
    drop((root, device));
    // The device goes with its last user, an instant later.
    let is = image.metadata()?;
    for _ in 0..PATIENCE {
        // This one is asked, and not every device of the machine, of which each volume that
        // is mounted has one.
        if loops::hold(number, &is)?.is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(removed?)
}

/// Grows the mounted ext4 with root `dir` to the size of its device.
pub(super) fn grow_ext4(dir: &Dir) -> io::Result<()> {
    let device = nix::sys::stat::fstat(dir)?.st_dev;
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let size = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/size"))?;
    let sectors: u64 = size.trim().parse().map_err(io::Error::other)?;
    let block = fstatvfs(dir)?.block_size();
    filesystem::resize_ext4(dir, sectors.saturating_mul(SECTOR) / block)
}
