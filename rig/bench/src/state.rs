//! Where a run keeps what it makes, and how the next one finds and removes what a killed
//! run left: a directory for each run, named by its process, that lists the processes it
//! started. A number alone means nothing, since numbers come again; with the time of its
//! start it means one process.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::stat::started;

const PREFIX: &str = "berth-bench-scale-";

/// The list of a run's processes, the run itself first.
const PROCESSES: &str = "processes";

/// The directory of one control plane; dropping it removes it.
#[derive(Debug)]
pub struct State {
    dir: tempfile::TempDir,
}

impl State {
    /// A fresh directory of this run.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir();
        let state = Self {
            dir: dir.context("cannot make a directory for temporary files")?,
        };
        state.note_process(std::process::id())?;
        Ok(state)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A process belongs to this run.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn note_process(&self, pid: u32) -> Result<()> {
        let file = self.dir().join(PROCESSES);
        let write = || -> std::io::Result<()> {
            let mut list = File::options().create(true).append(true).open(&file)?;
            writeln!(list, "{pid} {}", started(pid).unwrap_or_default())
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }

    /// Writes a file and answers where it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf> {
        let file = self.dir().join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Leaves the directory where it is, for people to read; answers where.
    pub fn keep(mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }
}

/// A process as a list names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    pid: u32,
    started: u64,
}

impl Listed {
    fn lives(self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

fn parse(list: &str) -> Vec<Listed> {
    let line = |line: &str| {
        let (pid, started) = line.split_once(' ')?;
        Some(Listed {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    };
    list.lines().filter_map(line).collect()
}

/// Ends the processes of runs that were killed and removes their directories. How many
/// directories there were.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_leftovers() -> Result<usize> {
    remove_leftovers_in(&std::env::temp_dir())
}

fn remove_leftovers_in(parent: &Path) -> Result<usize> {
    let mut removed = 0;
    let listing = fs::read_dir(parent);
    let listing = listing.with_context(|| format!("cannot list {}", parent.display()))?;
    for entry in listing.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(list) = fs::read_to_string(entry.path().join(PROCESSES)) else {
            continue;
        };
        let listed = parse(&list);
        if listed.first().is_none_or(|run| run.lives()) {
            continue;
        }
        for process in listed.into_iter().filter(|process| process.lives()) {
            if let Ok(pid) = i32::try_from(process.pid) {
                // It fails where the process has ended meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let dir = entry.path();
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleep() -> Child {
        let child = Command::new("sleep").arg("600").spawn();
        child.expect("sleep starts")
    }

    fn leave(parent: &Path, name: &str, processes: &[(u32, u64)]) -> PathBuf {
        let dir = parent.join(format!("{PREFIX}{name}"));
        fs::create_dir(&dir).expect("a directory");
        let lines = processes.iter().map(|(pid, at)| format!("{pid} {at}\n"));
        fs::write(dir.join(PROCESSES), lines.collect::<String>()).expect("a file");
        dir
    }

    #[test]
    fn only_what_a_dead_run_left_is_removed() {
        let parent = tempfile::tempdir().expect("a directory");
        let (mut left, mut other) = (sleep(), sleep());
        let at = |child: &Child| started(child.id()).expect("it runs");
        // No process was started before the machine was.
        let dead_run = (std::process::id(), 0);
        let dead = [
            dead_run,
            (left.id(), at(&left)),
            // The number of a process that is somebody else's by now.
            (other.id(), at(&other) + 1),
        ];
        let dead = leave(parent.path(), "dead", &dead);
        let me = (
            std::process::id(),
            started(std::process::id()).expect("I run"),
        );
        let living = leave(parent.path(), "living", &[me, (other.id(), at(&other))]);
        assert_eq!(remove_leftovers_in(parent.path()).expect("works"), 1);
        left.wait().expect("it was killed");
        assert!(!dead.exists() && living.exists());
        assert!(other.try_wait().expect("a child").is_none());
        other.kill().expect("it runs");
        other.wait().expect("ends");
    }
}
