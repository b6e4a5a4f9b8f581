//! What callers hand in and get back: plain data, all serialisable, so that the
//! agent can put it into the API and the command line can print it as JSON.

mod asked;
mod told;

use std::path::PathBuf;

use berth_model::InvalidName;

pub use asked::{Erasure, InitOptions, KnownPool, Publish, SnapshotSpec, Stage, VolumeSpec};
pub use berth_model::MountFlag;
pub use berth_model::{
    Backend, ClaimRef, PoolId, Problem, ProblemKind, SetRef, Source, VolumeMode,
};
pub use told::{
    CheckReport, Finding, FindingKind, Health, PoolReport, Publication, Recorded, SnapshotReport,
    Usage, VolumeHealth, VolumeReport,
};

/// Where the provisioner works and what it may do there.
#[derive(Clone, Debug)]
pub struct Config {
    /// Root on the node, `/var/lib/berth`. Pools are the directories of `pools/`
    /// beneath it.
    pub root: PathBuf,
    /// Kubelet's directory, `/var/lib/kubelet`. Nothing is mounted outside it.
    pub kubelet_dir: PathBuf,
    /// Whether a pool may be made in a directory that is not a mount point.
    pub allow_root_fs: bool,
    /// Whether [`rescan`](crate::Provisioner::rescan) initialises directories that
    /// are mount points, empty, of a supported filesystem and not remembered as
    /// something else.
    pub create_pools: bool,
}

impl From<InvalidName> for crate::Error {
    fn from(error: InvalidName) -> Self {
        Self::invalid(error.what, error.value, error.why)
    }
}
