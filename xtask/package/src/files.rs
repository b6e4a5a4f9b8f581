//! The files of an image, sorted, each with what becomes of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A copy of a file here; whether it may be run.
    Copy(PathBuf, bool),
    /// A symbolic link to this.
    Link(String),
}

/// Files by their path in the image, without the leading slash.
pub type Files = BTreeMap<String, Content>;

/// The bytes of a file in the image.
///
/// # Errors
/// A file that is not there.
pub fn size(content: &Content) -> Result<u64> {
    match content {
        Content::Copy(from, _) => Ok(metadata(from)?.len()),
        Content::Link(_) => Ok(0),
    }
}

fn metadata(path: &Path) -> Result<std::fs::Metadata> {
    std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))
}
