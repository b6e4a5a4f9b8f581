//! What callers hand in and get back: plain data, all serialisable, so that the
//! agent can put it into the API and the command line can print it as JSON.

mod asked;
mod told;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names;

pub use asked::{InitOptions, KnownPool, MountFlag, Publish, SnapshotSpec, Stage, VolumeSpec};
pub use told::{
    CheckReport, Finding, FindingKind, Health, PoolReport, Publication, SnapshotReport, Usage,
    VolumeHealth, VolumeReport,
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

/// Id of a pool: `<directory name>-<12 hex digits>`. Valid as the name of an
/// object and of a label (63 characters at most), and for ever the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolId(String);

impl PoolId {
    /// Checks that `id` is a DNS label.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) otherwise.
    pub fn new(id: impl Into<String>) -> Result<Self, crate::Error> {
        let id = id.into();
        names::dns_label("pool id", &id)?;
        Ok(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PoolId {
    type Error = crate::Error;
    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl From<PoolId> for String {
    fn from(id: PoolId) -> Self {
        id.0
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a volume is made and limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// btrfs subvolume, limited by a qgroup.
    Btrfs,
    /// Directory, limited by a project quota (xfs, ext4).
    ProjectQuota,
    /// Image file behind a loop device.
    Image,
    /// Plain directory without a limit.
    Directory,
}

impl Backend {
    /// Every backend that there is a name for, the best first.
    pub const ALL: [Self; 4] = [
        Self::Btrfs,
        Self::ProjectQuota,
        Self::Image,
        Self::Directory,
    ];

    /// The name that records, StorageClass parameters and reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::ProjectQuota => "project-quota",
            Self::Image => "image",
            Self::Directory => "directory",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Directory tree or block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeMode {
    /// A mounted directory tree.
    #[default]
    Filesystem,
    /// A raw block device.
    Block,
}

/// What a new volume starts with instead of being empty; in the same pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The snapshot of this id.
    Snapshot(String),
    /// The volume of this id, as it is at that moment.
    Volume(String),
}

/// The claim that a volume is for; what its by-claim link is named by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRef {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim.
    pub name: String,
    /// UID of the claim: a later claim of the same name is another claim.
    pub uid: String,
}

/// The set and ordinal behind a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetRef {
    /// Kind of the set: `OrdinalSet` or `StatefulSet`.
    pub kind: String,
    /// Name of the set, in the claim's namespace.
    pub name: String,
    /// The replica's number.
    pub ordinal: i32,
}
