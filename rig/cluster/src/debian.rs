//! Root filesystems of Debian packages, for machines that reach a Debian mirror
//! but no image registry.

use std::path::PathBuf;

use crate::cache::{self, Key};
use crate::error::Result;
use crate::paths;
use crate::run::Run;

/// The suite where the machine is no Debian.
pub(crate) const DEFAULT_SUITE: &str = "bookworm";

/// The packages of a list file: one a line, `#` begins a comment.
pub(crate) fn packages(list: &str) -> Vec<&str> {
    list.lines()
        .map(|l| l.split('#').next().unwrap_or_default().trim())
        .filter(|l| !l.is_empty())
        .collect()
}

/// The suite to build on, from /etc/os-release: the machine's own where that is
/// Debian, so that programs linked here find their C library there.
pub(crate) fn suite(os_release: &str) -> String {
    let field = |name: &str| {
        os_release
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='))
            .map(|v| v.trim_matches('"').to_owned())
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(suite)) if !suite.is_empty() => suite,
        _ => DEFAULT_SUITE.to_owned(),
    }
}

/// The suite for this machine.
pub(crate) fn suite_here() -> String {
    suite(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// A root filesystem as a tar file.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// Its name and cache entry.
    pub name: &'static str,
    /// The Debian suite.
    pub suite: String,
    /// mmdebstrap's variant: which packages are in beside the listed ones.
    pub variant: &'static str,
    /// The packages.
    pub packages: Vec<String>,
}

impl Root {
    /// The key of its cache entry, also the tag of the image made of it.
    pub(crate) fn key(&self) -> String {
        Key::new("root")
            .with(&self.suite)
            .with(self.variant)
            .with(self.packages.join(" "))
            .text()
    }

    /// The tar file, made if need be.
    pub(crate) fn get(&self) -> Result<PathBuf> {
        let dir = cache::get(&paths::cache(), self.name, &self.key(), |dir| {
            Run::new("mmdebstrap")
                .arg(format!("--variant={}", self.variant))
                .arg(format!("--include={}", self.packages.join(",")))
                .args(["--dpkgopt=path-exclude=/usr/share/man/*"])
                .args(["--dpkgopt=path-exclude=/usr/share/doc/*"])
                .args(["--dpkgopt=path-exclude=/usr/share/locale/*"])
                .arg(&self.suite)
                .arg(dir.join("root.tar"))
                .stdout()
                .map(drop)
        })?;
        Ok(dir.join("root.tar"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_names_and_comments() {
        assert_eq!(
            packages("# tools\nxfsprogs\n\n btrfs-progs # both\n"),
            ["xfsprogs", "btrfs-progs"]
        );
    }

    #[test]
    fn the_suite_is_debians_own_or_the_default() {
        assert_eq!(suite("ID=debian\nVERSION_CODENAME=trixie\n"), "trixie");
        assert_eq!(suite("ID=ubuntu\nVERSION_CODENAME=noble\n"), DEFAULT_SUITE);
        assert_eq!(suite(""), DEFAULT_SUITE);
    }

    #[test]
    fn another_package_is_another_root() {
        let root = |packages: &[&str]| Root {
            name: "r",
            suite: "bookworm".to_owned(),
            variant: "apt",
            packages: packages.iter().map(|p| (*p).to_owned()).collect(),
        };
        assert_ne!(root(&["a"]).key(), root(&["a", "b"]).key());
    }
}
