//! The request for a pool on a node's own filesystem.

use crate::error::Error;
use crate::names;
use crate::types::InitOptions;

/// A pool on the filesystem that the node's system uses too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPool {
    dir: String,
    capacity: u64,
}

impl SharedPool {
    /// A pool in the directory `dir` of `pools/` whose volumes may take `capacity`
    /// bytes in all.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when `dir` is no plain name or the capacity is 0.
    pub fn new(dir: impl Into<String>, capacity: u64) -> Result<Self, Error> {
        let dir = dir.into();
        names::pool_dir(&dir)?;
        if capacity == 0 {
            return Err(Error::invalid(
                "size of a shared pool",
                "0",
                "must be greater than zero",
            ));
        }
        Ok(Self { dir, capacity })
    }

    /// Name of its directory under `pools/`.
    pub(crate) fn dir(&self) -> &str {
        &self.dir
    }

    /// Bytes that its volumes may take in all.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The options to make it with.
    pub(crate) fn options(&self) -> InitOptions {
        InitOptions {
            capacity: Some(self.capacity),
            ..InitOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes_are_checked() {
        for name in ["shared", "disk.0", "A-1_b", "x"] {
            assert!(SharedPool::new(name, 1).is_ok(), "{name}");
        }
        let long = "x".repeat(64);
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/a",
            "-a",
            "lost+found",
            "a b",
            "a\0",
            "ä",
            &long,
        ] {
            assert!(SharedPool::new(name, 1).is_err(), "{name:?}");
        }
        assert!(SharedPool::new("shared", 0).is_err());
    }
}
