//! The guest's kernel: Debian's for clouds, small and with few drivers, from the
//! machine's own package sources, kept in the cache by its version.

use std::path::{Path, PathBuf};

use berth_cluster::cache::{self, Key};
use berth_cluster::run::Run;

use crate::error::{Error, Result};

/// The package that depends on the newest kernel of the machine's Debian.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel and its modules.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// The kernel's image.
    pub image: PathBuf,
    /// The directory of its modules, with modules.dep and its like.
    pub modules: PathBuf,
    /// What `uname -r` says in the guest.
    pub release: String,
}

/// The kernel, fetched if need be.
pub(crate) fn get() -> Result<Kernel> {
    let text = Run::new("apt-cache").args(["depends", PACKAGE]).stdout()?;
    let package = dependency(&text).ok_or_else(|| {
        Error::Unexpected(format!(
            "apt does not know what {PACKAGE} depends on: run `cargo xtask setup`"
        ))
    })?;
    // Somewhere else than here: a file of that name would make apt say nothing.
    let empty = tempfile::tempdir().map_err(Error::io(
        "cannot make a directory in",
        std::env::temp_dir(),
    ))?;
    let uri = Run::new("apt-get")
        .dir(empty.path())
        .args(["download", "--print-uris", package])
        .stdout()?;
    let file = file_name(&uri).ok_or_else(|| {
        Error::Unexpected(format!("apt does not say which file {package} is: {uri}"))
    })?;
    let key = Key::new("vm-kernel").with(file).text();
    let entry = cache::get(&berth_cluster::cache_dir(), "vm-kernel", &key, |dir| {
        Run::new("apt-get")
            .dir(dir)
            .args(["download", "-q", package])
            .stdout()?;
        let archive = single(dir, |name| name.ends_with(".deb"))?;
        Run::new("dpkg-deb")
            .arg("-x")
            .args([&archive, dir])
            .stdout()?;
        std::fs::remove_file(&archive)
            .map_err(berth_cluster::Error::io("cannot remove", &archive))?;
        // The package's own installation would do this.
        let modules = modules_root(dir);
        let release = single(&modules, |_| true)?;
        Run::new("busybox")
            .args(["depmod", "-b"])
            .arg(if modules.starts_with(dir.join("usr")) {
                dir.join("usr")
            } else {
                dir.to_owned()
            })
            .args(release.file_name())
            .stdout()
            .map(drop)
    })?;
    let modules = single(&modules_root(&entry), |_| true)?;
    let release = modules
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(Kernel {
        image: entry.join(format!("boot/vmlinuz-{release}")),
        modules,
        release,
    })
}

/// Where a package keeps modules: Debian moved them below /usr.
fn modules_root(dir: &Path) -> PathBuf {
    let merged = dir.join("usr/lib/modules");
    if merged.is_dir() {
        merged
    } else {
        dir.join("lib/modules")
    }
}

/// The one file of a directory whose name `fits`.
fn single(dir: &Path, fits: impl Fn(&str) -> bool) -> berth_cluster::Result<PathBuf> {
    std::fs::read_dir(dir)
        .map_err(berth_cluster::Error::io("cannot list", dir))?
        .flatten()
        .find(|file| file.file_name().to_str().is_some_and(&fits))
        .map(|file| file.path())
        .ok_or_else(|| {
            berth_cluster::Error::Unexpected(format!(
                "the kernel's package lacks what was looked for in {}; remove that directory's entry of the cache and try again",
                dir.display()
            ))
        })
}

/// The first dependency in the output of `apt-cache depends`.
fn dependency(text: &str) -> Option<&str> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|package| package.starts_with("linux-image-"))
}

/// The file's name, with its version, in the output of `apt-get download --print-uris`.
fn file_name(text: &str) -> Option<&str> {
    text.lines()
        .filter(|line| line.starts_with('\''))
        .find_map(|line| line.split_whitespace().nth(1))
        .filter(|file| file.ends_with(".deb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_what_the_package_depends_on() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(dependency(text), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(dependency("linux-image-cloud-amd64\n"), None);
    }

    #[test]
    fn the_file_carries_the_version() {
        let text = "'http://mirror/pool/l.deb' linux_6.1.192-2_amd64.deb 26713492 SHA256:12\n";
        assert_eq!(file_name(text), Some("linux_6.1.192-2_amd64.deb"));
        assert_eq!(file_name("W: nothing\n"), None);
    }
}
