//! Locks between processes: flock on a file that also names the holder. The
//! kernel lets go when the holder ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::paths::make_dir;

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock or answers who holds it, as `pid: command line`.
    pub(crate) fn try_take(path: &Path) -> Result<std::result::Result<Self, String>> {
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Ok(Self::held(file, path)?)),
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                file.read_to_string(&mut text)
                    .map_err(Error::io("cannot read", path))?;
                let known = text.trim();
                Ok(Err(if known.is_empty() {
                    "a process that has just begun".to_owned()
                } else {
                    known.to_owned()
                }))
            }
            Err((_, errno)) => Err(Error::sys(format!("cannot lock {}", path.display()))(errno)),
        }
    }

    /// Waits for the lock; `waiting` is told once who holds it.
    pub(crate) fn take(path: &Path, waiting: impl FnOnce(&str)) -> Result<Self> {
        match Self::try_take(path)? {
            Ok(lock) => Ok(lock),
            Err(holder) => {
                waiting(&holder);
                let file = Flock::lock(open(path)?, FlockArg::LockExclusive)
                    .map_err(|(_, e)| Error::sys(format!("cannot lock {}", path.display()))(e))?;
                Self::held(file, path)
            }
        }
    }

    fn held(mut file: Flock<File>, path: &Path) -> Result<Self> {
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "process {}: {command}", std::process::id()))
            .map_err(Error::io("cannot write", path))?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Error::io("cannot open the lock", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/lock");
        let first = Lock::try_take(&path).unwrap().unwrap();
        let holder = Lock::try_take(&path).unwrap().unwrap_err();
        assert!(
            holder.contains(&format!("process {}", std::process::id())),
            "{holder}"
        );
        drop(first);
        assert!(Lock::try_take(&path).unwrap().is_ok());
    }
}
