//! What callers hand in and get back: plain data, all serialisable, so that the
//! agent can put it into the API and the command line can print it as JSON.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names;
use crate::trouble::Trouble;

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
    /// The volume is known to have existed: return what the pool holds, and
    /// answer [`Error::Lost`](crate::Error::Lost) rather than make an empty one.
    pub expect_existing: bool,
}

/// A snapshot that is wanted; it lies in its volume's pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// Id of the snapshot, `[a-z0-9][a-z0-9.-]{0,127}`.
    pub id: String,
    /// Id of the volume.
    pub volume: String,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotReport {
    /// Id of the snapshot.
    pub id: String,
    /// Id of the volume that it was taken of, which may be gone.
    pub volume: String,
    /// Pool that holds it.
    pub pool: PoolId,
    /// Bytes that a volume restored from it needs at least: its volume's size.
    pub size: u64,
    /// Bytes of the pool's room that it holds: what it pins however much is
    /// written to its volume.
    pub reserved: u64,
    /// Backend that took it; a volume restored from it has the same.
    pub backend: Backend,
    /// Directory tree or block device.
    pub mode: VolumeMode,
    /// When it was taken (RFC 3339, UTC).
    pub created: String,
    /// Where its data lies.
    pub path: PathBuf,
    /// Whether it can be used.
    pub health: VolumeHealth,
}

/// How one mount of a volume behaves, beside being writable or not
/// (mount_setattr(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountFlag {
    /// Device nodes cannot be opened.
    NoDev,
    /// Set-user-id bits and file capabilities mean nothing.
    NoSuid,
    /// Nothing can be executed.
    NoExec,
    /// Access times are not written.
    NoAtime,
    /// Access times of directories are not written.
    NoDirAtime,
    /// Access times are written now and then, as is usual.
    RelAtime,
    /// Access times are written always.
    StrictAtime,
}

impl MountFlag {
    /// Every flag, with its name in mount options.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::NoDev, "nodev"),
        (Self::NoSuid, "nosuid"),
        (Self::NoExec, "noexec"),
        (Self::NoAtime, "noatime"),
        (Self::NoDirAtime, "nodiratime"),
        (Self::RelAtime, "relatime"),
        (Self::StrictAtime, "strictatime"),
    ];
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
    /// a reserve, see [`ledger`](crate::ledger).
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

/// Whether a directory under `pools/` can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "why")]
pub enum Health {
    /// Usable.
    Healthy,
    /// No identity file, and none known: `pools init` has not been run on it.
    Uninitialized,
    /// A pool was here and its identity file or filesystem is not: the disk is
    /// not mounted. Nothing is written.
    LostMount,
    /// Mounted read-only.
    ReadOnly,
    /// The identity file is damaged, or the filesystem answers with errors.
    Damaged(String),
    /// The filesystem cannot carry any backend.
    Unsupported(String),
}

impl Health {
    /// The name that reports and metrics use.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Uninitialized => "Uninitialized",
            Self::LostMount => "LostMount",
            Self::ReadOnly => "ReadOnly",
            Self::Damaged(_) => "Damaged",
            Self::Unsupported(_) => "Unsupported",
        }
    }
}

/// One directory under `pools/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// Id from the identity file, or the remembered one when the mount is lost.
    pub id: Option<PoolId>,
    /// Name of the directory under `pools/`.
    pub dir: String,
    /// The directory.
    pub path: PathBuf,
    /// Whether it can be used.
    pub health: Health,
    /// For people: what is wrong and what to do; empty when all is well.
    pub message: String,
    /// What is wrong although it can be used.
    pub troubles: Vec<Trouble>,
    /// Errors that its filesystem counted, of whatever kind.
    pub io_errors: u64,
    /// Type of the filesystem, `btrfs` for example.
    pub filesystem: String,
    /// UUID of the filesystem, where it has one.
    pub fs_uuid: Option<String>,
    /// Backends that volumes can be made with, the best first.
    pub backends: Vec<Backend>,
    /// For every other backend the reason why not.
    pub why_not: Vec<(Backend, String)>,
    /// Bytes that volumes may take in all.
    pub capacity: u64,
    /// Bytes promised to volumes, and held by trash that is not yet freed.
    pub reserved: u64,
    /// Bytes that a new volume could be given now: what the ledger has left, and
    /// never more than the filesystem can still keep.
    pub room: u64,
    /// Bytes that the filesystem has free.
    pub free: u64,
    /// Volumes in the pool.
    pub volumes: u64,
    /// Snapshots in the pool.
    pub snapshots: u64,
    /// Deleted volumes whose space is not freed yet.
    pub trash: u64,
}

/// Whether a volume can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "why")]
pub enum VolumeHealth {
    /// Usable.
    Ready,
    /// The data is not where the record says, or its pool is not there.
    Lost(String),
    /// The record cannot be trusted. Nothing is made in its place.
    Damaged(String),
}

/// One mount of a volume below kubelet's directory, or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publication {
    /// UID of the pod: from the target's path, else as [`Publish`] said; empty
    /// when neither tells.
    pub pod_uid: String,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Whether that mount is read-only.
    pub readonly: bool,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeReport {
    /// Id of the volume.
    pub id: String,
    /// Pool that holds it.
    pub pool: PoolId,
    /// The claim.
    pub claim: Option<ClaimRef>,
    /// The set behind the claim.
    pub set: Option<SetRef>,
    /// Bytes asked for.
    pub size: u64,
    /// Bytes that the backend enforces: never less than asked for.
    pub enforced: u64,
    /// Backend that made it.
    pub backend: Backend,
    /// Directory tree or block device.
    pub mode: VolumeMode,
    /// When it was made (RFC 3339, UTC).
    pub created: String,
    /// Directory or image that holds the data.
    pub path: PathBuf,
    /// What it was made from.
    pub source: Option<Source>,
    /// Whether it can be used.
    pub health: VolumeHealth,
    /// What is wrong although it can be used.
    pub troubles: Vec<Trouble>,
    /// Bytes in use, where the backend can tell; btrfs counts at each commit, so
    /// this lags by up to its commit interval (30 s by default).
    pub used: Option<u64>,
    /// Mounts other than staging mounts, from this host's mount table.
    pub published: Vec<Publication>,
    /// Staging mounts.
    pub staged: Vec<PathBuf>,
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
    /// Refuse while any other publish of the volume stands.
    pub single_writer: bool,
}

/// Space of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Bytes that the backend enforces.
    pub total: u64,
    /// Bytes in use; lags like [`VolumeReport::used`].
    pub used: u64,
    /// Bytes that can still be written: the limit's rest, and never more than
    /// the filesystem has free.
    pub available: u64,
    /// Inodes in all, where the filesystem counts them (btrfs does not).
    pub inodes: Option<u64>,
    /// Inodes in use.
    pub inodes_used: Option<u64>,
}

/// What [`check`](crate::Provisioner::check) found. Nothing was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Directories, records and links that were looked at.
    pub checked: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The kind of thing.
    pub kind: FindingKind,
    /// The pool, where it has to do with one.
    pub pool: Option<PoolId>,
    /// The volume, where it has to do with one.
    pub volume: Option<String>,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// Kinds of [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A pool directory that cannot be used.
    Pool,
    /// Something in the pool that Berth did not make.
    Orphan,
    /// A record that cannot be read or does not match its checksum.
    DamagedRecord,
    /// A record without data.
    MissingData,
    /// Data that is not what was made, or not whole.
    DamagedData,
    /// Data without a record.
    MissingRecord,
    /// The enforced limit is not the recorded one.
    Limit,
    /// A subvolume that was made inside a volume: it has no limit.
    NestedSubvolume,
    /// A by-claim link that is missing or points elsewhere.
    StaleLink,
    /// A mount of a volume that no record knows.
    UnknownMount,
    /// Something deleted whose space is not freed yet.
    Trash,
}
