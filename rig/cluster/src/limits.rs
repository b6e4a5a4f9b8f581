//! A limit of the machine that several clusters exceed: inotify instances, of
//! which each node's services take about twenty. It is raised while any instance
//! exists and set back with the last one.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::paths::{read, state_root, write};
use crate::{progress, residue};

const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Enough for a dozen clusters beside what else runs.
const WANTED: u64 = 1024;

/// The value to set, if the present one is too low.
fn raised(present: &str) -> Option<u64> {
    let present: u64 = present.trim().parse().ok()?;
    (present < WANTED).then_some(WANTED)
}

/// Raises the limit if need be; the instance's directory exists already.
pub(crate) fn raise() -> Result<()> {
    let limit = Path::new(LIMIT);
    let present = read(limit)?;
    if let Some(value) = raised(&present) {
        progress::say(format!(
            "raising {LIMIT} from {} to {value} while clusters exist",
            present.trim()
        ));
        if !previous().exists() {
            write(&previous(), present.trim())?;
        }
        write(limit, value.to_string())?;
    }
    Ok(())
}

/// Sets the limit back if no instance is left.
pub(crate) fn restore() -> Result<()> {
    let previous = previous();
    if !previous.exists() || !residue::instances()?.is_empty() {
        return Ok(());
    }
    write(Path::new(LIMIT), read(&previous)?)?;
    std::fs::remove_file(&previous).map_err(Error::io("cannot remove", previous))
}

/// Where the value from before is kept; no instance can have such a name.
fn previous() -> PathBuf {
    state_root().join("+inotify")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_low_limit_is_raised() {
        assert_eq!(raised("128\n"), Some(WANTED));
        assert_eq!(raised("1024\n"), None);
        assert_eq!(raised("8192"), None);
        assert_eq!(raised("no number"), None);
    }
}
