//! The operations of the filesystem that a call cannot do without, done plainly: no
//! record, no ledger, no check of who asks.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use berth_provisioner::Backend;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::statvfs,
};

use super::calls::{Call, SIZE};

/// A plain operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A directory is made and is on the disk.
    Make,
    /// A directory is moved aside, as what is to be erased is, and this is on the disk.
    Move,
    /// A file is allocated and formatted, and is on the disk.
    Format,
    /// The program mount mounts an image.
    Mount,
    /// An image is let go of again, and its loop device with it.
    Unmount,
    /// A directory is bound to another.
    Bind,
    /// It is let go of again.
    Unbind,
    /// Statistics of a filesystem.
    Look,
    /// A file is replaced, and the new one is on the disk.
    Replace,
}

impl Operation {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Make => "mkdir, fsync",
            Self::Move => "rename, fsync",
            Self::Format => "fallocate, mkfs.ext4, fsync",
            Self::Mount => "mount -o loop",
            Self::Unmount => "umount of a loop device",
            Self::Bind => "bind mount",
            Self::Unbind => "umount",
            Self::Look => "statfs",
            Self::Replace => "write, fsync, rename, fsync",
        }
    }
}

/// A directory to work in, and what is bound there.
pub(super) struct Plain {
    backend: Backend,
    dir: PathBuf,
    bound: PathBuf,
}

impl Plain {
    pub(super) fn new(backend: Backend, dir: &Path) -> Result<Self> {
        let bound = dir.join("bound");
        fs::create_dir_all(dir.join("trash"))
            .and_then(|()| fs::create_dir_all(&bound))
            .context("cannot make a directory")?;
        let plain = Self {
            backend,
            dir: dir.to_owned(),
            bound,
        };
        if backend == Backend::Image {
            plain.format(&plain.image())?;
        }
        Ok(plain)
    }

    /// What to put beside a call.
    pub(super) fn operation_of(&self, call: Call) -> Operation {
        match (call, self.backend) {
            (Call::CreateVolume, Backend::Image) => Operation::Format,
            (Call::CreateVolume | Call::CreateSnapshot, _) => Operation::Make,
            (Call::DeleteVolume | Call::DeleteSnapshot, _) => Operation::Move,
            (Call::Stage, Backend::Image) => Operation::Mount,
            (Call::Unstage, Backend::Image) => Operation::Unmount,
            (Call::Stage | Call::Publish, _) => Operation::Bind,
            (Call::Unstage | Call::Unpublish, _) => Operation::Unbind,
            (Call::Stats, _) => Operation::Look,
            (Call::Expand, _) => Operation::Replace,
        }
    }

    /// Does it; what must be there before, and what must go after, is not counted.
    pub(super) fn time(&self, operation: Operation) -> Result<Duration> {
        let (one, other) = (self.dir.join("one"), self.dir.join("trash/one"));
        match operation {
            Operation::Move => fs::create_dir(&one)?,
            Operation::Unbind => self.bind()?,
            Operation::Unmount => self.mount()?,
            _ => {}
        }
        let started = Instant::now();
        match operation {
            Operation::Make => fs::create_dir(&one).and_then(|()| sync(&[&one, &self.dir])),
            Operation::Move => {
                fs::rename(&one, &other).and_then(|()| sync(&[&self.dir, &self.dir.join("trash")]))
            }
            Operation::Format => self.format(&one),
            Operation::Mount => self.mount(),
            Operation::Bind => self.bind(),
            Operation::Unbind | Operation::Unmount => self.unbind(),
            Operation::Look => statvfs(&self.dir).map(drop).map_err(Into::into),
            Operation::Replace => self.replace(),
        }
        .with_context(|| operation.as_str())?;
        let took = started.elapsed();
        match operation {
            Operation::Make => fs::remove_dir(&one)?,
            Operation::Move => fs::remove_dir(&other)?,
            Operation::Format => fs::remove_file(&one)?,
            Operation::Mount | Operation::Bind => self.unbind()?,
            _ => {}
        }
        Ok(took)
    }

    fn bind(&self) -> std::io::Result<()> {
        let none = None::<&str>;
        let source = Some(self.dir.join("trash"));
        mount(source.as_deref(), &self.bound, none, MsFlags::MS_BIND, none)?;
        Ok(())
    }

    fn unbind(&self) -> std::io::Result<()> {
        Ok(umount2(&self.bound, MntFlags::empty())?)
    }

    fn replace(&self) -> std::io::Result<()> {
        let new = self.dir.join("record.new");
        fs::write(&new, "record")?;
        sync(&[&new])?;
        fs::rename(&new, self.dir.join("record"))?;
        sync(&[&self.dir])
    }

    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    fn mount(&self) -> std::io::Result<()> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(self.image())
            .arg(&self.bound))
    }

    fn format(&self, image: &Path) -> std::io::Result<()> {
        let file = File::create(image)?;
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, SIZE)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-E", "nodiscard"])
            .arg(image))?;
        sync(&[image, &self.dir])
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // What an error left bound; else nothing is.
        let _ = self.unbind();
    }
}

fn run(command: &mut Command) -> std::io::Result<()> {
    let ended = command.status()?;
    if ended.success() {
        return Ok(());
    }
    Err(std::io::Error::other(format!(
        "{command:?} ended with {ended}"
    )))
}

fn sync(paths: &[&Path]) -> std::io::Result<()> {
    paths
        .iter()
        .try_for_each(|path| File::open(path).and_then(|file| file.sync_all()))
}
