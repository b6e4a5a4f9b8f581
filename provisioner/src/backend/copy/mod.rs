//! Copies directory trees that others made, and counts what they take: by handle,
//! entering no mount, following no link, opening nothing but directories and
//! regular files. A copy is complete or an error: whatever cannot be copied is
//! named.

mod descent;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchownat, linkat, lseek, symlinkat, syncfs};

use crate::fs::dir::{Dir, Mounts};
use crate::fs::listing::Names;
use crate::sys::{Sys, attribute, attributes, set_attribute};
use descent::{Descent, Place};

/// Bytes that are copied between two calls of `keep_going`.
const CHUNK: u64 = 16 << 20;

/// Entries between two such calls.
const BATCH: u64 = 1000;

/// Files with several names of which not all were met yet: bounds the memory that a
/// tree can take.
const MAX_LINKED: usize = 1_000_000;

/// Files of a tree that are looked at to see whether it shares blocks.
const MAX_LOOKED_AT: u64 = 100_000;

/// Unit of `st_blocks`.
const SECTOR: u64 = 512;

/// Copies everything in `from` into `to`, which is empty: files (their blocks
/// shared where the filesystem can, their holes kept), directories, links, devices,
/// FIFOs and sockets, names of one file as names of one file; owners, modes, times
/// and extended attributes, those of `from` itself too. While it runs nobody but root
/// can enter `to`; when it returns, all is on the disk.
///
/// `keep_going` is called now and then; returns `false` when it stopped the copy.
pub(crate) fn copy_tree(
    sys: &dyn Sys,
    from: &Dir,
    to: &Dir,
    keep_going: &mut dyn FnMut() -> bool,
) -> io::Result<bool> {
    to.set_mode(0o700)?;
    let mut copy = Copy {
        sys,
        from: Descent::new(from)?,
        to: Descent::new(to)?,
        linked: HashMap::new(),
        entries: 0,
        keep_going,
    };
    if !copy.run()? {
        return Ok(false);
    }
    dress(from, to, &fstat(from)?, to, OsStr::new("."))?;
    syncfs(to)?;
    Ok(true)
}

/// Copies the content of one file into another that reads as zeros. Holes are left as
/// `to` has them: if it was allocated before, it stays so; it is never shortened.
/// `keep_going` is called now and then; returns `false` when it stopped the copy.
pub(crate) fn copy_file(
    from: &File,
    to: &File,
    keep_going: &mut dyn FnMut() -> bool,
) -> io::Result<bool> {
    pour(from, to, keep_going)
}

/// Bytes of a file that [`copy_file`] moves: all but its holes.
pub(crate) fn data_in(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let (mut at, mut bytes) = (0, 0u64);
    while let Some(data) = seek(file, at, Whence::SeekData)? {
        let end = seek(file, data, Whence::SeekHole)?.unwrap_or(length);
        if end <= data {
            break;
        }
        bytes = bytes.saturating_add(end - data);
        at = end;
    }
    Ok(bytes)
}

/// Bytes that are allocated for everything in `dir`, files with several names
/// counted once.
pub(crate) fn used_by(dir: &Dir) -> io::Result<u64> {
    let mut linked = HashSet::new();
    let mut used = 0u64;
    visit(dir, &mut |_, _, stat| {
        if kind(stat) != SFlag::S_IFDIR && stat.st_nlink > 1 {
            if !linked.insert((stat.st_dev, stat.st_ino)) {
                return Ok(true);
            }
            bounded(linked.len())?;
        }
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        used = used.saturating_add(blocks.saturating_mul(SECTOR));
        Ok(true)
    })?;
    Ok(used)
}

/// Whether a file in `dir` may share blocks with another file; `true` as well where there
/// are too many to look at.
pub(crate) fn shares(sys: &dyn Sys, dir: &Dir) -> io::Result<bool> {
    let (mut shares, mut files) = (false, 0);
    visit(dir, &mut |here, name, stat| {
        if kind(stat) == SFlag::S_IFREG && stat.st_blocks > 0 {
            files += 1;
            shares = files > MAX_LOOKED_AT || sys.shares_blocks(&open_regular(here, name)?)?;
        }
        Ok(!shares)
    })?;
    Ok(shares)
}

fn open_regular(here: &Dir, name: &OsStr) -> io::Result<File> {
    let entry = here.open_entry(name, Mounts::Stay)?;
    if kind(&fstat(&entry)?) != SFlag::S_IFREG {
        return Err(io::Error::other("it was replaced meanwhile"));
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOATIME)
        .open(format!("/proc/self/fd/{}", entry.as_raw_fd()))
}

/// Shows everything beneath `dir`, until `each` says that it is enough.
fn visit(
    dir: &Dir,
    each: &mut dyn FnMut(&Dir, &OsStr, &FileStat) -> io::Result<bool>,
) -> io::Result<()> {
    let mut walk = Descent::new(dir)?;
    let mut levels = vec![Names::new()];
    while let Some(names) = levels.last_mut() {
        let Some(name) = names.next(walk.here()?)? else {
            levels.pop();
            walk.leave();
            continue;
        };
        let here = walk.here()?;
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let stat = match nix::sys::stat::fstatat(here, name.as_os_str(), flags) {
            Err(Errno::ENOENT) => continue,
            stat => stat?,
        };
        if !each(here, &name, &stat).map_err(|e| about(&name, &e))? {
            return Ok(());
        }
        if kind(&stat) == SFlag::S_IFDIR {
            match walk.enter(&name) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                answer => answer.map_err(|e| about(&name, &e))?,
            }
            levels.push(Names::new());
        }
    }
    Ok(())
}

struct Copy<'a> {
    sys: &'a dyn Sys,
    from: Descent<'a>,
    to: Descent<'a>,
    /// Where a file with several names was copied to, and how many more are left.
    linked: HashMap<(u64, u64), (Rc<Place>, libc::nlink_t)>,
    entries: u64,
    keep_going: &'a mut dyn FnMut() -> bool,
}

impl Copy<'_> {
    fn run(&mut self) -> io::Result<bool> {
        // Names still to be copied, and the directory's own name and state.
        let mut levels: Vec<(Names, OsString, Option<FileStat>)> = Vec::new();
        levels.push((Names::new(), OsString::new(), None));
        while let Some((names, _, _)) = levels.last_mut() {
            let Some(name) = names.next(self.from.here()?)? else {
                let (_, name, stat) = levels.pop().expect("it is there");
                if let Some(stat) = stat {
                    self.finish(&name, &stat).map_err(|e| about(&name, &e))?;
                }
                continue;
            };
            self.entries += 1;
            if self.entries.is_multiple_of(BATCH) && !(self.keep_going)() {
                return Ok(false);
            }
            let entry = match self.from.here()?.open_entry(&name, Mounts::Stay) {
                // Removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                entry => entry.map_err(|e| about(&name, &e))?,
            };
            let stat = fstat(&entry)?;
            if kind(&stat) == SFlag::S_IFDIR {
                match self.descend(&name, &stat) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    answer => answer.map_err(|e| about(&name, &e))?,
                }
                levels.push((Names::new(), name, Some(stat)));
            } else if !self
                .entry(&entry, &name, &stat)
                .map_err(|e| about(&name, &e))?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn descend(&mut self, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        self.from.enter(name)?;
        let entered = fstat(self.from.here()?)?;
        if (entered.st_dev, entered.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(io::Error::other("it was replaced meanwhile"));
        }
        self.to.here()?.make(name, 0o700)?;
        self.to.enter(name)
    }

    /// Goes up again; only now does the directory get its owner and mode, so that
    /// nobody comes in before.
    fn finish(&mut self, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        let from = self.from.here()?.open(".", Mounts::Stay)?;
        let to = self.to.here()?.open(".", Mounts::Stay)?;
        self.from.leave();
        self.to.leave();
        dress(&from, &to, stat, self.to.here()?, name)
    }

    /// Copies whatever is no directory; `false` when it was stopped.
    fn entry(&mut self, entry: &OwnedFd, name: &OsStr, stat: &FileStat) -> io::Result<bool> {
        let id = (stat.st_dev, stat.st_ino);
        if let Some((place, left)) = self.linked.get_mut(&id) {
            let (parent, first) = self.to.parent_of(place)?;
            linkat(&parent, first, self.to.here()?, name, AtFlags::empty())?;
            *left -= 1;
            if *left == 0 {
                self.linked.remove(&id);
            }
            return Ok(true);
        }
        if !self.make(entry, name, stat)? {
            return Ok(false);
        }
        if stat.st_nlink > 1 {
            let place = self.to.place(name);
            self.linked.insert(id, (place, stat.st_nlink - 1));
            bounded(self.linked.len())?;
        }
        Ok(true)
    }

    fn make(&mut self, entry: &OwnedFd, name: &OsStr, stat: &FileStat) -> io::Result<bool> {
        let to = self.to.here()?;
        match kind(stat) {
            SFlag::S_IFREG => {
                // The very file that was looked at, whatever has its name now.
                let from = OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_NONBLOCK | libc::O_NOATIME)
                    .open(format!("/proc/self/fd/{}", entry.as_raw_fd()))?;
                let made = to.create_file(name, 0o600)?;
                if !self.sys.reflink(&from, &made)? && !pour(&from, &made, self.keep_going)? {
                    return Ok(false);
                }
                dress(entry, &made, stat, to, name)?;
            }
            SFlag::S_IFLNK => {
                let target = nix::fcntl::readlinkat(entry, "")?;
                symlinkat(target.as_os_str(), to, name)?;
                let (owner, group) = owner(stat);
                fchownat(to, name, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                set_times(to, name, stat)?;
            }
            special => {
                mknodat(to, name, special, Mode::S_IRUSR, stat.st_rdev)?;
                let made = to.open_entry(name, Mounts::Stay)?;
                dress(entry, &made, stat, to, name)?;
            }
        }
        Ok(true)
    }
}

/// Gives `made`, which is `name` of `parent`, the owner, mode, attributes and times
/// of `from`. In this order: a new owner takes capabilities and set-user-id bits
/// off, and an access list goes with the mode.
fn dress(
    from: &impl AsFd,
    made: &impl AsFd,
    stat: &FileStat,
    parent: &Dir,
    name: &OsStr,
) -> io::Result<()> {
    let (owner, group) = owner(stat);
    fchownat(made, "", owner, group, AtFlags::AT_EMPTY_PATH)?;
    let path = format!("/proc/self/fd/{}", made.as_fd().as_raw_fd());
    std::fs::set_permissions(path, Permissions::from_mode(stat.st_mode & 0o7777))?;
    for attribute_name in attributes(from)? {
        if let Some(value) = attribute(from, &attribute_name)? {
            set_attribute(made, &attribute_name, &value).map_err(|e| {
                let name = attribute_name.to_string_lossy();
                io::Error::new(e.kind(), format!("attribute {name}: {e}"))
            })?;
        }
    }
    set_times(parent, name, stat)
}

fn owner(stat: &FileStat) -> (Option<Uid>, Option<Gid>) {
    let owner = Uid::from_raw(stat.st_uid);
    (Some(owner), Some(Gid::from_raw(stat.st_gid)))
}

fn set_times(parent: &Dir, name: &OsStr, stat: &FileStat) -> io::Result<()> {
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    let flag = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(parent, name, &accessed, &modified, flag)?)
}

/// Copies the content, as long as it was at the start; `false` when it was stopped.
fn pour(mut from: &File, mut to: &File, keep_going: &mut dyn FnMut() -> bool) -> io::Result<bool> {
    let length = from.metadata()?.len();
    if to.metadata()?.len() < length {
        to.set_len(length)?;
    }
    let mut at = 0;
    while at < length {
        let Some(data) = seek(from, at, Whence::SeekData)? else {
            break;
        };
        let end = seek(from, data, Whence::SeekHole)?.unwrap_or(length);
        let end = end.min(length).min(data.saturating_add(CHUNK));
        if data >= end {
            break;
        }
        from.seek(SeekFrom::Start(data))?;
        to.seek(SeekFrom::Start(data))?;
        let copied = io::copy(&mut from.take(end - data), &mut to)?;
        if copied == 0 {
            // It was shortened meanwhile.
            break;
        }
        at = data + copied;
        if !keep_going() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the next data or hole begins; `None` if there is no more.
fn seek(file: &File, from: u64, what: Whence) -> io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(io::Error::other)?;
    match lseek(file, from, what) {
        Ok(at) => Ok(u64::try_from(at).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn bounded(linked: usize) -> io::Result<()> {
    if linked <= MAX_LINKED {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "more than {MAX_LINKED} files have several names"
    )))
}

fn about(name: &OsStr, error: &io::Error) -> io::Error {
    let name = name.to_string_lossy();
    if error.raw_os_error() == Some(Errno::EXDEV as i32) {
        return io::Error::other(format!("{name}: something is mounted there; unmount it"));
    }
    io::Error::new(error.kind(), format!("{name}: {error}"))
}
