//! What callers hand in.

use std::path::PathBuf;

use berth_model::MountFlag;

use super::{Backend, ClaimRef, PoolId, SetRef, Source, VolumeMode};

/// A volume that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Id of the volume, `[a-z0-9][a-z0-9.-]{0,127}`.
    pub id: String,
    /// Bytes asked for. Rounded up to the backend's minimum, see
    /// [`VolumeReport::enforced`].
    pub size: u64,
    /// The claim; without one the volume has no by-claim link.
    pub claim: Option<ClaimRef>,
    /// The set behind the claim.
    pub set: Option<SetRef>,
    /// Backend that is demanded; the pool's best when absent.
    pub backend: Option<Backend>,
    /// Directory tree or block device.
    pub mode: VolumeMode,
    /// What it starts with; empty when absent.
    pub source: Option<Source>,
    /// An image's bytes are taken from the filesystem only when they are written.
    /// The ledger promises them all the same; other backends are sparse anyway.
    pub sparse: bool,
    /// Which object asks: another one of the same id is another life of the volume, see
    /// [`Erasure::unused`].
    pub incarnation: Option<String>,
    /// The volume is known to have existed: return what the pool holds, and
    /// answer [`Error::Lost`](crate::Error::Lost) rather than make an empty one.
    pub expect_existing: bool,
}

/// What is known of a volume that is to be erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasure {
    /// Which object is erased, see [`VolumeSpec::incarnation`].
    pub incarnation: Option<String>,
    /// No pod can ever have used it. Then another object may make the id again: nothing is
    /// lost by that, and the claim could have no volume in this pool otherwise.
    pub unused: bool,
}

/// A snapshot that is wanted; it lies in its volume's pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// Id of the snapshot, `[a-z0-9][a-z0-9.-]{0,127}`.
    pub id: String,
    /// Id of the volume.
    pub volume: String,
}

/// One request to stage a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Id of the volume.
    pub id: String,
    /// A directory below kubelet's; it is the caller's, and stays.
    pub staging: PathBuf,
    /// How the caller takes the volume to be: refused when it is the other.
    pub mode: VolumeMode,
}

/// Options of [`init_pool`](crate::init_pool).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitOptions {
    /// Bytes that volumes may take in all. Without it: the filesystem's size less
    /// a reserve for its own metadata: 2 %, at least 64 MiB, at most 10 GiB.
    pub capacity: Option<u64>,
    /// Accept a directory with files that are not Berth's.
    pub allow_foreign_content: bool,
    /// Accept to switch quotas on for a btrfs on which people already keep
    /// subvolumes: quotas cost every write on that filesystem.
    pub allow_enabling_quotas: bool,
}

/// A pool that somebody remembers: the agent passes what NodeStorage says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPool {
    /// Name of the directory under `pools/`.
    pub dir: String,
    /// The pool that was there.
    pub id: PoolId,
    /// UUID of the filesystem that it was on.
    pub fs_uuid: Option<String>,
}

/// One request to mount a volume for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Id of the volume.
    pub id: String,
    /// Where to mount it; below kubelet's directory. Its parent exists, itself is
    /// made here and removed by unpublish.
    pub target: PathBuf,
    /// Where it was staged, if the caller stages: refused when it is not.
    pub staging: Option<PathBuf>,
    /// How the caller takes the volume to be: refused when it is the other. A block
    /// device's target is a file.
    pub mode: VolumeMode,
    /// Mount it read-only.
    pub readonly: bool,
    /// How the mount is to behave; nothing for a block device.
    pub flags: Vec<MountFlag>,
    /// UID of the pod, empty when unknown.
    pub pod_uid: String,
    /// `<namespace>/<name>` of the pod, empty when unknown.
    pub pod: String,
    /// Refuse while any other publish of the volume stands.
    pub single_writer: bool,
}
