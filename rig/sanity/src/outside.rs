//! Builds the programs, makes a disk, and runs csi-sanity on it.

use anyhow::{Context, Result, ensure};
use berth_cluster::programs;
use berth_provisioner::{Backend, testing::TestNode};

use crate::inside::{Inside, Verdict};

/// Bytes of the disk, which is sparse: room for what the specs make, while what
/// they erased is still being freed.
const DISK: u64 = 16 << 30;

/// Name of the pool's directory.
const POOL: &str = "disk0";

/// Filesystem of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Filesystem {
    /// btrfs.
    Btrfs,
    /// ext4.
    Ext4,
    /// xfs.
    Xfs,
}

impl Filesystem {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The backend that volumes on it get by themselves, where it is mounted
    /// without options.
    pub fn usual_backend(self) -> Backend {
        match self {
            Self::Btrfs => Backend::Btrfs,
            Self::Ext4 | Self::Xfs => Backend::Image,
        }
    }
}

/// What to run csi-sanity on.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    /// Filesystem of the pool.
    pub filesystem: Filesystem,
    /// Backend of the volumes.
    pub backend: Backend,
    /// Raw block volumes instead of mounted ones.
    pub block: bool,
}

impl Outside {
    /// Runs everything. Needs root and loop devices, and Go's toolchain where
    /// csi-sanity is not in the cache yet.
    ///
    /// # Errors
    /// What kept it from running; what specs say is in the verdict.
    ///
    /// # Panics
    /// When the disk cannot be made.
    pub fn run(&self) -> Result<Verdict> {
        ensure!(
            (self.backend, self.filesystem) != (Backend::ProjectQuota, Filesystem::Btrfs),
            "btrfs has no project quotas: ask for --filesystem ext4 or xfs"
        );
        let agent = berth_package::programs::debug_agent().context("cannot build the agent")?;
        let csi_sanity = programs::csi_sanity().context("cannot build csi-sanity")?;
        let node = TestNode::new();
        let options = match self.backend {
            Backend::ProjectQuota => "prjquota",
            Backend::Btrfs | Backend::Image | Backend::Directory => "",
        };
        let disk = node.disk_of(POOL, DISK, self.filesystem.as_str(), options);
        let mut verdict = Inside {
            agent,
            csi_sanity,
            root: node.root(),
            kubelet: node.kubelet(),
            backend: self.backend,
            block: self.block,
        }
        .run()?;
        // Whoever still holds the pool keeps it from being unmounted.
        disk.unmount(&node.pool_dir(POOL));
        if disk.is_attached() {
            verdict.left.push("the loop device of the pool".to_owned());
        }
        Ok(verdict)
    }
}
