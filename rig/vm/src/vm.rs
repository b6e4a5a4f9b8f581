//! A guest: what is asked for, one run of it, and what came of it.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::guest::{self, Contents};
use crate::kernel::{self, Kernel};
use crate::preflight;
use crate::qemu::{self, Files};

/// How many lines of the kernel's messages an error carries.
const LINES: usize = 20;

/// Where a disk's content lies.
#[derive(Debug, Clone)]
enum Disk {
    /// Nowhere yet: an empty disk of so many bytes, gone with the guest.
    Scratch(u64),
    /// A file of the host, which stays.
    File(PathBuf),
}

/// A guest to be run.
#[derive(Debug, Clone)]
pub struct Vm {
    contents: Contents,
    disks: Vec<Disk>,
    memory: u64,
    processors: usize,
    limit: Duration,
    keep: Option<PathBuf>,
}

/// How a guest's program ended.
#[derive(Debug)]
pub struct Outcome {
    /// The program's exit code; 128 and the signal's number after a signal.
    pub code: u8,
    trace: String,
}

impl Outcome {
    /// Whether the program succeeded.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// For a message about a failure: the end of the kernel's messages, where all
    /// of them are, and qemu's command. Empty when the program succeeded.
    pub fn trace(&self) -> &str {
        &self.trace
    }
}

impl Vm {
    /// A guest that runs `program`: the host's if there is a slash in it, else the
    /// guest's own. One GiB of memory, two processors, no disks, ten minutes.
    pub fn new<S: Into<String>>(
        program: impl Into<String>,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut words = vec![program.into()];
        words.extend(args.into_iter().map(Into::into));
        Self {
            contents: Contents {
                program: words,
                ..Contents::default()
            },
            disks: Vec::new(),
            memory: 1024,
            processors: 2,
            limit: Duration::from_secs(600),
            keep: None,
        }
    }

    /// Adds an empty disk of so many bytes: /dev/vda is the first. It takes space
    /// on the host only as it is written.
    pub fn disk(&mut self, bytes: u64) -> &mut Self {
        self.disks.push(Disk::Scratch(bytes));
        self
    }

    /// Adds a file of the host as a disk; it keeps what the guest has synced. A guest
    /// always ends as by a power cut, so the rest is lost.
    pub fn disk_file(&mut self, file: impl Into<PathBuf>) -> &mut Self {
        self.disks.push(Disk::File(file.into()));
        self
    }

    /// Sets the memory in MiB, beside what the initramfs takes.
    pub fn memory(&mut self, mib: u64) -> &mut Self {
        self.memory = mib;
        self
    }

    /// Puts the host's file `from` at `to`, with the libraries that it needs.
    pub fn copy(&mut self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> &mut Self {
        self.contents.files.insert(to.into(), from.into());
        self
    }

    /// Sets an environment variable of the program.
    pub fn env(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.contents.env.insert(key.into(), value.into());
        self
    }

    /// Loads a further kernel module before the program runs.
    pub fn module(&mut self, name: impl Into<String>) -> &mut Self {
        self.contents.modules.push(name.into());
        self
    }

    /// Sets the time after which the guest is ended.
    pub fn limit(&mut self, limit: Duration) -> &mut Self {
        self.limit = limit;
        self
    }

    /// Leaves initramfs, disks and the kernel's messages in a directory.
    pub fn keep(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.keep = Some(dir.into());
        self
    }

    /// Boots the guest, runs the program with its output to `output`, and ends the
    /// guest.
    ///
    /// # Errors
    /// What the machine lacks; a guest that took too long or ended on its own. A
    /// program that failed is not an error.
    pub fn run(&self, output: &mut dyn Write) -> Result<Outcome> {
        let kernel = prepare()?;
        let (mut initramfs, initramfs_path) = self.file("initramfs")?;
        guest::tree(&kernel, &self.contents)?.write(&mut std::io::BufWriter::with_capacity(
            1 << 20,
            &mut initramfs,
        ))?;
        let size = initramfs
            .stream_position()
            .map_err(Error::io("cannot look at", &initramfs_path))?;
        let (mut log, log_path) = self.file("kernel.log")?;
        let (mut status, status_path) = self.file("status")?;
        let mut scratch = Vec::new();
        let mut disks = Vec::new();
        for (number, disk) in self.disks.iter().enumerate() {
            disks.push(match disk {
                Disk::File(path) => path.clone(),
                Disk::Scratch(bytes) => {
                    let (file, path) = self.file(&format!("disk{number}"))?;
                    file.set_len(*bytes)
                        .map_err(Error::io("cannot make a sparse file of", &path))?;
                    // Open until the guest has ended: the path leads to it only so long.
                    scratch.push(file);
                    path
                }
            });
        }
        let files = Files {
            kernel: kernel.image,
            initramfs: initramfs_path,
            log: log_path,
            status: status_path,
            disks,
        };
        // The archive and what is unpacked from it are there at the same time.
        let memory = self.memory + 2 * size.div_ceil(1 << 20);
        let args = qemu::arguments(&files, memory, self.processors);
        let ended = qemu::run(&args, self.limit, output)?;
        let code = qemu::read(&mut status).trim().parse::<u8>().ok();
        let mut trace = || self.trace(&mut log, &files.log, &args);
        match (ended, code) {
            (_, Some(0)) => Ok(Outcome {
                code: 0,
                trace: String::new(),
            }),
            (_, Some(code)) => Ok(Outcome {
                code,
                trace: trace(),
            }),
            (None, None) => Err(Error::Timeout {
                after: self.limit,
                trace: trace(),
            }),
            (Some(status), None) => Err(Error::NoAnswer {
                status: status.to_string(),
                trace: trace(),
            }),
        }
    }

    /// A file for the guest and a path for qemu to open it by: in the directory to
    /// be kept, else without a name, so that it goes with this process.
    fn file(&self, name: &str) -> Result<(File, PathBuf)> {
        if let Some(dir) = &self.keep {
            let path = dir.join(name);
            let file = std::fs::create_dir_all(dir).and_then(|()| {
                File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&path)
            });
            return Ok((file.map_err(Error::io("cannot make", &path))?, path));
        }
        let temp = std::env::temp_dir();
        let file = tempfile::tempfile().map_err(Error::io("cannot make a file in", temp))?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        Ok((file, path.into()))
    }

    /// What helps after a failure; the kernel's messages get a name now.
    fn trace(&self, log: &mut File, path: &Path, args: &[String]) -> String {
        let words = qemu::excerpt(&qemu::read(log), LINES);
        let place = if self.keep.is_some() {
            path.display().to_string()
        } else {
            name_log(log).unwrap_or_else(|e| format!("lost: {e}"))
        };
        format!(
            "{words}\nkernel's messages: {place}\ncommand: {}",
            qemu::line(args)
        )
    }
}

/// The machine made ready and the kernel fetched, by one guest of several at a time:
/// apt refuses to work twice at once.
fn prepare() -> Result<Kernel> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    preflight::ready()?;
    kernel::get()
}

/// Copies a log to a file that stays; the answer is its path.
fn name_log(log: &mut File) -> std::io::Result<String> {
    let mut kept = tempfile::Builder::new()
        .prefix("berth-vm-")
        .suffix(".kernel.log")
        .tempfile()?;
    log.rewind()?;
    std::io::copy(log, &mut kept)?;
    let (_, path) = kept.keep().map_err(|e| e.error)?;
    Ok(path.display().to_string())
}
