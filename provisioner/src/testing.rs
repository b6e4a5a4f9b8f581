//! Real filesystems for tests: sparse images behind loop devices, mounted where
//! a test wants them and gone when it ends, also when it failed. Needs root, loop
//! devices and the programs that make filesystems; says so in one sentence where they
//! are missing, and installs nothing.
//!
//! Everything lives in one temporary directory per test, so tests run side by
//! side. Loop devices are set to vanish with their mount, so none outlives it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_linux::{loops, mountinfo};
use tempfile::TempDir;

use crate::types::Config;

/// What a test without the means says.
const NEEDS: &str = "these tests need root and loop devices";

/// A node for tests: a root for Berth, a directory for kubelet, disks.
#[derive(Debug)]
pub struct TestNode {
    dir: TempDir,
}

impl Default for TestNode {
    fn default() -> Self {
        Self::new()
    }
}

impl TestNode {
    /// An empty node.
    ///
    /// # Panics
    /// Without root or loop devices, in one sentence.
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root() && Path::new("/dev/loop-control").exists(),
            "{NEEDS}"
        );
        let dir = tempfile::Builder::new()
            .prefix("berth-node-")
            .tempdir()
            .expect("a temporary directory can be made");
        let node = Self { dir };
        for path in [node.root().join("pools"), node.kubelet().join("pods")] {
            std::fs::create_dir_all(path).expect("a directory can be made");
        }
        node
    }

    /// Berth's root.
    pub fn root(&self) -> PathBuf {
        self.path().join("berth")
    }

    /// Kubelet's directory.
    pub fn kubelet(&self) -> PathBuf {
        self.path().join("kubelet")
    }

    /// The directory of a pool.
    pub fn pool_dir(&self, name: &str) -> PathBuf {
        self.root().join("pools").join(name)
    }

    /// Configuration for it: pools on mount points only, made by hand only.
    pub fn config(&self) -> Config {
        Config {
            root: self.root(),
            kubelet_dir: self.kubelet(),
            allow_root_fs: false,
            create_pools: false,
        }
    }

    /// A directory in which kubelet would have a pod's volume mounted; its parent
    /// exists.
    pub fn target(&self, pod_uid: &str, volume: &str) -> PathBuf {
        let parent = self
            .kubelet()
            .join("pods")
            .join(pod_uid)
            .join("volumes/kubernetes.io~csi")
            .join(volume);
        std::fs::create_dir_all(&parent).expect("a directory can be made");
        parent.join("mount")
    }

    /// A new btrfs of `size` bytes, mounted as a directory of `pools/`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn disk(&self, name: &str, size: u64) -> LoopPool {
        self.disk_of(name, size, "btrfs", "")
    }

    /// The same of another filesystem, mounted with `options`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn disk_of(&self, name: &str, size: u64, fstype: &str, options: &str) -> LoopPool {
        let image = self.path().join(format!("{name}.img"));
        let pool = LoopPool::format(image, size, fstype, options.contains("prjquota"));
        pool.mount(&self.pool_dir(name), options);
        pool
    }

    /// A directory in which kubelet would have a volume staged; it exists.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn staging(&self, volume: &str) -> PathBuf {
        let at = self
            .kubelet()
            .join("plugins/kubernetes.io/csi")
            .join(volume)
            .join("globalmount");
        std::fs::create_dir_all(&at).expect("a directory can be made");
        at
    }

    fn path(&self) -> PathBuf {
        self.dir
            .path()
            .canonicalize()
            .expect("the temporary directory exists")
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        unmount_below(&self.path());
    }
}

/// A filesystem on a sparse image.
#[derive(Debug)]
pub struct LoopPool {
    image: PathBuf,
}

/// The Debian package of `mkfs.<fstype>`; xtask/debian-packages lists them all.
fn package_of(fstype: &str) -> &'static str {
    match fstype {
        "btrfs" => "btrfs-progs",
        "xfs" => "xfsprogs",
        _ => "e2fsprogs",
    }
}

/// Refuses to go on without a program of a package.
///
/// # Panics
/// When it is missing, in one sentence that says what to install.
fn require(program: &str, package: &str) {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    assert!(
        there,
        "{program} is missing: install {package}, or run `cargo xtask setup`"
    );
}

impl LoopPool {
    /// Makes the image and its filesystem: `btrfs`, `ext4` or `xfs`. An ext4 that is to
    /// have project `quotas` is made for them.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn format(image: PathBuf, size: u64, fstype: &str, quotas: bool) -> Self {
        let program = format!("mkfs.{fstype}");
        require(&program, package_of(fstype));
        let file = File::create(&image).expect("an image can be made");
        file.set_len(size).expect("an image can be sparse");
        let options: &[&str] = match fstype {
            "ext4" if quotas => &["-F", "-O", "project,quota", "-E", "quotatype=prjquota"],
            "ext4" => &["-F"],
            _ => &["-f"],
        };
        run(Command::new(program).arg("-q").args(options).arg(&image));
        Self { image }
    }

    /// Mounts it at `at`, which is made; `options` as `mount -o` takes them. The
    /// loop device goes with the last mount.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn mount(&self, at: &Path, options: &str) {
        std::fs::create_dir_all(at).expect("a mount point can be made");
        let options = if options.is_empty() {
            "loop".to_owned()
        } else {
            format!("loop,{options}")
        };
        run(Command::new("mount")
            .args(["-o", &options])
            .arg(&self.image)
            .arg(at));
    }

    /// Unmounts what is mounted at `at`. A worker that looks at the pool holds it for an
    /// instant, so this is tried again.
    ///
    /// # Panics
    /// When it stays busy: nothing of ours may hold a pool.
    pub fn unmount(&self, at: &Path) {
        for _ in 0..200 {
            match nix::mount::umount2(at, nix::mount::MntFlags::empty()) {
                Err(nix::errno::Errno::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                answer => return answer.expect("it can be unmounted"),
            }
        }
        panic!("{} stays busy", at.display());
    }

    /// Whether a loop device still has the image, by device and inode.
    ///
    /// # Panics
    /// When the image is gone.
    pub fn is_attached(&self) -> bool {
        let image = std::fs::metadata(&self.image).expect("the image exists");
        loops::attached()
            .expect(NEEDS)
            .iter()
            .any(|device| device.shows(&image))
    }
}

/// Unmounts everything below a directory, the last mounted first.
pub fn unmount_below(path: &Path) {
    // A mount can be hidden by another: again until nothing is left.
    for _ in 0..100 {
        let Some(mount) = mountinfo::own()
            .unwrap_or_default()
            .into_iter()
            .rev()
            .find(|mount| mount.point.starts_with(path))
        else {
            return;
        };
        let flags = nix::mount::MntFlags::MNT_DETACH;
        if nix::mount::umount2(&mount.point, flags).is_err() {
            return;
        }
    }
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "mkfs.none is missing: install nothing, or run `cargo xtask setup`")]
    fn a_missing_program_is_named_with_its_package() {
        require("mkfs.none", "nothing");
    }
}
