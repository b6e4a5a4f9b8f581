//! Directories by handle. Nothing below a pool or below kubelet's directory is
//! reached by a path from the root: every step starts at a handle that is held,
//! stays beneath it and follows no symbolic link, because what lies there was
//! made by others, and may change under way.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::UnlinkatFlags;

/// Whether a walk may enter a filesystem that is mounted on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// It may: kubelet's directory, the pools themselves.
    Cross,
    /// It may not: inside a pool.
    Stay,
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A directory, a subvolume too.
    Directory,
    /// A symbolic link.
    Link,
    /// Anything else.
    Other,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens a directory that the configuration names; links in it are the
    /// operator's and are followed.
    pub(crate) fn open_root(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self {
            fd,
            path: path.canonicalize()?,
        })
    }

    /// Opens a directory beneath this one.
    pub(crate) fn open(&self, path: impl AsRef<Path>, mounts: Mounts) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        self.open_with(path.as_ref(), flags, mounts)
    }

    /// Opens a directory beneath this one with `O_PATH`: it can be walked from and
    /// mounted on, and its filesystem is not involved.
    pub(crate) fn open_place(&self, path: impl AsRef<Path>) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        let place = OFlag::O_PATH;
        #[cfg(not(target_os = "linux"))]
        let place = OFlag::O_RDONLY;
        let flags = place | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        self.open_with(path.as_ref(), flags, Mounts::Cross)
    }

    fn open_with(&self, path: &Path, flags: OFlag, mounts: Mounts) -> io::Result<Self> {
        Ok(Self {
            fd: beneath(self.as_fd(), path, flags, Mode::empty(), mounts)?,
            path: self.path.join(path),
        })
    }

    /// Opens whatever is at `name`, which may be a link, with `O_PATH`: nothing happens
    /// to it, even if it is a device or a FIFO.
    #[cfg(target_os = "linux")]
    pub(crate) fn open_entry(&self, name: impl AsRef<Path>, mounts: Mounts) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        beneath(self.as_fd(), name.as_ref(), flags, Mode::empty(), mounts)
    }

    /// Makes an empty file, where there must not be anything, and opens it.
    pub(crate) fn create_file(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(mode);
        beneath(self.as_fd(), name.as_ref(), flags, mode, Mounts::Stay).map(File::from)
    }

    /// Opens the regular file `name` with `O_PATH`, so that a node can be mounted on it;
    /// makes an empty one if there is nothing.
    #[cfg(target_os = "linux")]
    pub(crate) fn open_file_place(&self, name: &str) -> io::Result<OwnedFd> {
        match self.create_file(name, 0o600) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        let place = self.open_entry(name, Mounts::Cross)?;
        let stat = nix::sys::stat::fstat(&place)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(place)
    }

    /// Where it was when it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What `name` stands for here; `None` if nothing.
    pub(crate) fn kind(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Kind>> {
        match nix::sys::stat::fstatat(&self.fd, name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(
                match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                    SFlag::S_IFREG => Kind::File,
                    SFlag::S_IFDIR => Kind::Directory,
                    SFlag::S_IFLNK => Kind::Link,
                    _ => Kind::Other,
                },
            )),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Bytes that are allocated for the regular file `name`.
    pub(crate) fn allocated(&self, name: impl AsRef<OsStr>) -> io::Result<u64> {
        let stat = nix::sys::stat::fstatat(&self.fd, name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(io::Error::other("not a regular file"));
        }
        // Their unit is 512 bytes, whatever the filesystem's blocks are.
        Ok(u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512))
    }

    /// When `name` was last written.
    pub(crate) fn modified(&self, name: impl AsRef<OsStr>) -> io::Result<SystemTime> {
        let stat = nix::sys::stat::fstatat(&self.fd, name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// Makes a directory; `false` if there is one already.
    pub(crate) fn make(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<bool> {
        let mode = Mode::from_bits_truncate(mode);
        match nix::sys::stat::mkdirat(&self.fd, name.as_ref(), mode) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) if self.kind(name)? == Some(Kind::Directory) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a directory if there is none, and opens it.
    pub(crate) fn ensure(&self, name: &str, mode: u32, mounts: Mounts) -> io::Result<Self> {
        if self.make(name, mode)? {
            self.sync()?;
        }
        self.open(name, mounts)
    }

    /// Sets this directory's permissions, whatever the umask is.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(nix::sys::stat::fchmod(
            &self.fd,
            Mode::from_bits_truncate(mode),
        )?)
    }

    /// The content of a regular file of at most `max` bytes; `None` if there is
    /// none.
    pub(crate) fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        // Not blocking: a FIFO in the place of a file must not hold us.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = match beneath(
            self.as_fd(),
            Path::new(name),
            flags,
            Mode::empty(),
            Mounts::Stay,
        ) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > max {
            return Err(io::Error::other(format!("longer than {max} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Opens a regular file to read and write it.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        // To open a device can be enough to make it act.
        if self.kind(name)? == Some(Kind::Other) {
            return Err(io::Error::other("not a regular file"));
        }
        // Not blocking: a FIFO in the place of a file must not hold us.
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = beneath(
            self.as_fd(),
            Path::new(name),
            flags,
            Mode::empty(),
            Mounts::Stay,
        )?;
        let file = File::from(fd);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::other("not a regular file"))
        }
    }

    /// Whether `name` is a regular file without content.
    pub(crate) fn is_empty_file(&self, name: &str) -> io::Result<bool> {
        let stat = nix::sys::stat::fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        Ok(kind == SFlag::S_IFREG && stat.st_size == 0)
    }

    /// Replaces the file `name` by one with this content, wholly or not at all,
    /// also across a loss of power.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = replacement_of(name);
        self.remove_file(&temporary)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let fd = beneath(
            self.as_fd(),
            Path::new(&temporary),
            flags,
            mode,
            Mounts::Stay,
        )?;
        let mut file = File::from(fd);
        file.write_all(content)?;
        file.sync_all()?;
        nix::fcntl::renameat(&self.fd, temporary.as_str(), &self.fd, name)?;
        self.sync()
    }

    /// Renames `name` to `new` in `to`, which must not exist there, and makes
    /// both directories durable.
    pub(crate) fn rename(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        nix::fcntl::renameat2(
            &self.fd,
            name,
            &to.fd,
            new,
            nix::fcntl::RenameFlags::RENAME_NOREPLACE,
        )?;
        #[cfg(not(target_os = "linux"))]
        {
            if to.kind(new)?.is_some() {
                return Err(Errno::EEXIST.into());
            }
            nix::fcntl::renameat(&self.fd, name, &to.fd, new)?;
        }
        to.sync()?;
        self.sync()
    }

    /// Replaces whatever non-directory is at `name` by a symbolic link.
    pub(crate) fn link(&self, name: &str, target: &str) -> io::Result<()> {
        let temporary = replacement_of(name);
        // A claim's name can be as long as a file's name may be.
        let temporary = &temporary[..temporary.len().min(255)];
        self.remove_file(temporary)?;
        nix::unistd::symlinkat(target, &self.fd, temporary)?;
        let renamed = nix::fcntl::renameat(&self.fd, temporary, &self.fd, name);
        if renamed.is_err() {
            self.remove_file(temporary)?;
        }
        Ok(renamed?)
    }

    /// Where the symbolic link `name` points to; `None` if there is no such link.
    pub(crate) fn read_link(&self, name: impl AsRef<OsStr>) -> io::Result<Option<OsString>> {
        match nix::fcntl::readlinkat(&self.fd, name.as_ref()) {
            Ok(target) => Ok(Some(target)),
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes a file or link; succeeds if there is none.
    pub(crate) fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match nix::unistd::unlinkat(&self.fd, name.as_ref(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes an empty directory; succeeds if there is none.
    pub(crate) fn remove_empty(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match nix::unistd::unlinkat(&self.fd, name.as_ref(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes what was done in this directory durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.fd)?)
    }
}

/// The name under which a file is written before it replaces `name`.
pub(crate) fn replacement_of(name: &str) -> String {
    format!(".{name}.new")
}

/// The name that a file of this name is about to replace; the inverse of
/// [`replacement_of`].
pub(crate) fn replaced_by(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(".new")
}

#[cfg(target_os = "linux")]
fn beneath(
    from: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    mounts: Mounts,
) -> io::Result<OwnedFd> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};
    let mut resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    if mounts == Mounts::Stay {
        resolve |= ResolveFlag::RESOLVE_NO_XDEV;
    }
    let how = OpenHow::new().flags(flags).mode(mode).resolve(resolve);
    loop {
        match openat2(from, path, how) {
            // The kernel gives up when a rename races with the walk.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            answer => return Ok(answer?),
        }
    }
}

/// Without `openat2` the walk opens one name after the other. This serves tests
/// on developers' machines; agents run on Linux.
#[cfg(not(target_os = "linux"))]
fn beneath(
    from: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    _mounts: Mounts,
) -> io::Result<OwnedFd> {
    use std::path::Component;
    let names: Vec<_> = path.components().collect();
    let mut at = from.try_clone_to_owned()?;
    for (i, name) in names.iter().enumerate() {
        let Component::Normal(name) = name else {
            return Err(Errno::EXDEV.into());
        };
        let flags = if i + 1 == names.len() {
            flags | OFlag::O_NOFOLLOW
        } else {
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
        };
        at = nix::fcntl::openat(&at, *name, flags, mode)?;
    }
    Ok(at)
}

/// Whether an error says that a walk met a link or a mount instead of what should
/// have been there.
pub(crate) fn is_symlink_or_mount_escape(error: &io::Error) -> bool {
    [Errno::ELOOP, Errno::EXDEV, Errno::ENOTDIR]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn temporary() -> (tempfile::TempDir, Dir) {
        let dir = tempfile::tempdir().unwrap();
        let handle = Dir::open_root(dir.path()).unwrap();
        (dir, handle)
    }

    #[test]
    fn walking_follows_no_link_and_leaves_nothing() {
        let (at, dir) = temporary();
        std::fs::create_dir_all(at.path().join("a/b")).unwrap();
        symlink("a", at.path().join("link")).unwrap();
        symlink("/etc", at.path().join("a/etc")).unwrap();
        assert!(dir.open("a/b", Mounts::Stay).is_ok());
        for path in [
            "link",
            "link/b",
            "a/etc",
            "..",
            "a/../..",
            "/etc",
            "a/b/../../..",
        ] {
            assert!(dir.open(path, Mounts::Cross).is_err(), "{path}");
        }
        assert!(is_symlink_or_mount_escape(
            &dir.open("link/b", Mounts::Stay).unwrap_err()
        ));
    }

    #[test]
    fn a_file_is_replaced_wholly_and_links_are_not_written_through() {
        let (at, dir) = temporary();
        let victim = at.path().join("victim");
        std::fs::write(&victim, "keep").unwrap();
        symlink(&victim, at.path().join("record")).unwrap();
        symlink(&victim, at.path().join(".record.new")).unwrap();
        assert!(dir.read("record", 100).is_err());
        dir.write("record", b"one").unwrap();
        assert_eq!(dir.read("record", 100).unwrap().unwrap(), b"one");
        assert_eq!(std::fs::read_to_string(victim).unwrap(), "keep");
        assert!(dir.read("record", 2).is_err());
        assert_eq!(dir.read("none", 2).unwrap(), None);
    }

    #[test]
    fn renaming_replaces_nothing() {
        let (at, dir) = temporary();
        std::fs::create_dir(at.path().join("a")).unwrap();
        std::fs::create_dir(at.path().join("b")).unwrap();
        assert!(dir.rename("a", &dir, "b").is_err());
        dir.rename("a", &dir, "c").unwrap();
        assert_eq!(dir.directories().unwrap(), ["b", "c"]);
    }
}
