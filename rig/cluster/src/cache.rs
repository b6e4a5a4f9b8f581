//! The cache of built things: one entry per thing, keyed by all that goes into
//! it, filled in a temporary directory and renamed whole, under a lock.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::names::hex;
use crate::paths::make_dir;
use crate::progress;

/// A hash over labelled parts; no two lists of parts share one.
#[derive(Debug, Clone)]
pub struct Key(Sha256);

impl Key {
    /// A key that begins with what kind of thing it is for.
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).with(kind)
    }

    /// Adds a part; its length goes in too, so that parts do not run together.
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    /// The key as text, 16 hexadecimal digits.
    pub fn text(self) -> String {
        hex(&self.0.finalize())[..16].to_owned()
    }
}

/// Where the entry `name` with `key` lies.
pub(crate) fn entry(cache: &Path, name: &str, key: &str) -> PathBuf {
    cache.join(format!("{name}-{key}"))
}

/// The entry's directory, filled by `fill` if it is not there yet. Older entries
/// of the same name are removed once the new one stands.
pub fn get(
    cache: &Path,
    name: &str,
    key: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let done = entry(cache, name, key);
    if done.is_dir() {
        return Ok(done);
    }
    make_dir(cache)?;
    let _lock = Lock::take(&cache.join(format!("{name}.lock")), |holder| {
        progress::say(format!("waiting for {holder}, which makes {name}"));
    })?;
    if done.is_dir() {
        return Ok(done);
    }
    let partial = cache.join(format!("{name}.partial"));
    // What a killed run left half-made; the lock says that nobody works on it.
    remove(&partial)?;
    make_dir(&partial)?;
    progress::step(&format!("making {name}"), || fill(&partial))?;
    std::fs::rename(&partial, &done).map_err(Error::io("cannot put in place", &done))?;
    prune(cache, name, &done)?;
    Ok(done)
}

/// Removes a directory tree; none there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove", path)(e))
        }
        _ => Ok(()),
    }
}

fn prune(cache: &Path, name: &str, keep: &Path) -> Result<()> {
    let listing = std::fs::read_dir(cache).map_err(Error::io("cannot list", cache))?;
    for old in listing.flatten() {
        let file = old.file_name();
        let key = file
            .to_str()
            .and_then(|f| f.strip_prefix(name)?.strip_prefix('-'));
        let is_key = key.is_some_and(|k| k.len() == 16 && k.bytes().all(|b| b.is_ascii_hexdigit()));
        if is_key && old.path() != keep {
            remove(&old.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn keys_keep_parts_apart() {
        assert_ne!(
            Key::new("go").with("ab").with("c").text(),
            Key::new("go").with("a").with("bc").text()
        );
        assert_eq!(
            Key::new("go").with("a").text(),
            Key::new("go").with("a").text()
        );
    }

    #[test]
    fn an_entry_is_made_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let fill = |d: &Path| {
            fs::write(d.join("f"), "1").unwrap();
            Ok(())
        };
        let first = get(dir.path(), "x", "0123456789abcdef", fill).unwrap();
        let again = get(dir.path(), "x", "0123456789abcdef", |_| {
            panic!("made twice")
        })
        .unwrap();
        assert_eq!(first, again);
        assert_eq!(fs::read_to_string(again.join("f")).unwrap(), "1");
    }

    #[test]
    fn a_failed_filling_leaves_no_entry_and_a_new_key_removes_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let old = get(dir.path(), "x", "0000000000000000", |_| Ok(())).unwrap();
        let longer = get(dir.path(), "x-y", "0000000000000000", |_| Ok(())).unwrap();
        let failed = get(dir.path(), "x", "1111111111111111", |d| {
            fs::write(d.join("junk"), "").unwrap();
            Err(Error::Unexpected("no".to_owned()))
        });
        assert!(failed.is_err() && old.is_dir());
        let new = get(dir.path(), "x", "1111111111111111", |_| Ok(())).unwrap();
        assert!(!new.join("junk").exists() && !old.exists() && longer.is_dir());
    }
}
