//! The members of the workspace, as its Cargo.toml lists them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::circles::{self, Circle};
use crate::files::Source;
use crate::measure::Measure;

/// A package of the workspace.
#[derive(Debug)]
pub struct Member {
    /// The package's name.
    pub name: String,
    source: Source,
}

impl Member {
    /// Reads the package at `dir`.
    ///
    /// # Errors
    /// Files that cannot be read or are no Rust.
    pub fn read(dir: &Path) -> Result<Self> {
        let manifest = read(&dir.join("Cargo.toml"))?;
        let name = manifest
            .lines()
            .find_map(|line| line.strip_prefix("name = ")?.split('"').nth(1))
            .with_context(|| format!("{} has no name", dir.display()))?;
        Ok(Self {
            name: name.to_owned(),
            source: Source::read(&dir.join("src"))?,
        })
    }

    /// The circles of its files.
    pub fn circles(&self) -> Vec<Circle> {
        circles::of(&self.source)
    }

    /// Its numbers.
    pub fn measure(&self) -> Measure {
        Measure::of(&self.source)
    }
}

/// Every member of the workspace at `root`, in the order of its Cargo.toml.
///
/// # Errors
/// See [`Member::read`].
pub fn members(root: &Path) -> Result<Vec<Member>> {
    let manifest = read(&root.join("Cargo.toml"))?;
    manifest
        .lines()
        .skip_while(|line| !line.starts_with("members = ["))
        .skip(1)
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| line.split('"').nth(1))
        .map(|dir| Member::read(&root.join(dir)))
        .collect()
}

/// The checkout that this program was built from.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
