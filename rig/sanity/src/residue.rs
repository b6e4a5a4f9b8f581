//! What a driver may leave behind on a machine: mounts, loop devices, processes.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use berth_linux::mountinfo;

/// What is there, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Residue(BTreeSet<String>);

impl Residue {
    /// What there is below some directories, and of a program that runs on one of them.
    pub(crate) fn look(program: &Path, dirs: &[&Path]) -> Result<Self> {
        let dirs: Vec<PathBuf> = dirs
            .iter()
            .map(|dir| dir.canonicalize())
            .collect::<Result<_, _>>()
            .context("cannot find a directory")?;
        let below = |path: &Path| dirs.iter().any(|dir| path.starts_with(dir));
        let table = std::fs::read("/proc/self/mountinfo").context("cannot read the mounts")?;
        let mut found: BTreeSet<String> = mountinfo::parse(&table)
            .into_iter()
            .filter(|mount| below(&mount.point))
            .map(|mount| format!("mount {}", mount.point.display()))
            .collect();
        for device in std::fs::read_dir("/sys/block").context("cannot list devices")? {
            let device = device?;
            // Only loop devices that are attached have this file.
            let file = device.path().join("loop/backing_file");
            let Ok(file) = std::fs::read(file) else {
                continue;
            };
            let file = Path::new(std::ffi::OsStr::from_bytes(file.trim_ascii_end()));
            if below(file) {
                let name = device.file_name();
                found.insert(format!("{} on {}", name.to_string_lossy(), file.display()));
            }
        }
        let program = program.canonicalize().context("cannot find the program")?;
        for process in std::fs::read_dir("/proc").context("cannot list processes")? {
            let process = process?.path();
            // Processes end while they are looked at.
            let Ok(exe) = std::fs::read_link(process.join("exe")) else {
                continue;
            };
            let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let ours = arguments
                .split(|byte| *byte == 0)
                .any(|argument| below(Path::new(std::ffi::OsStr::from_bytes(argument))));
            if exe == program && ours {
                found.insert(format!("process {}", process.display()));
            }
        }
        Ok(Self(found))
    }

    /// What is there now and was not before.
    pub(crate) fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_seen_while_it_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        // Its second argument is what makes it ours; it waits for the end of its input.
        let program = Path::new("/bin/cat").canonicalize().expect("there");
        let look = || Residue::look(&program, &[dir.path()]).expect("looks");
        let before = look();
        let mut child = Command::new(&program)
            .arg("-")
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        // The child is the program only once it has been executed.
        while look().since(&before).is_empty() {
            assert!(child.try_wait().expect("a child").is_none(), "it ended");
            std::thread::yield_now();
        }
        drop(child.stdin.take());
        child.wait().expect("ends");
        assert_eq!(look().since(&before), Vec::<String>::new());
    }
}
