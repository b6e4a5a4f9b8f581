//! What callers get back.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Backend, ClaimRef, PoolId, Problem, ProblemKind, SetRef, Source, VolumeMode};

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

/// A volume as its record says, without a look at its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Id of the volume.
    pub id: String,
    /// Pool that holds it.
    pub pool: PoolId,
    /// The claim that it was made for.
    pub claim: Option<ClaimRef>,
    /// Bytes of the pool's room that it holds.
    pub enforced: u64,
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
    /// Its disk has not answered for 10 seconds, or not yet at all. What it holds
    /// stays as it is; nothing new is made there until it answers.
    Unresponsive,
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
            Self::Unresponsive => "Unresponsive",
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
    /// When its disk answered last (RFC 3339, UTC): what follows is as of then. Empty if
    /// it has not answered yet.
    pub taken_at: String,
    /// Whether it can be used.
    pub health: Health,
    /// For people: what is wrong and what to do; empty when all is well.
    pub message: String,
    /// What is wrong although it can be used.
    pub troubles: Vec<Problem>,
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
    /// The part of `reserved` that volumes have.
    pub reserved_by_volumes: u64,
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
    /// `<namespace>/<name>` of the pod, empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Whether that mount is read-only.
    pub readonly: bool,
}

impl Publication {
    /// Whose mount it is, for people: the pod's name where it is known, else its UID.
    pub fn user(&self) -> String {
        match (self.pod.as_str(), self.pod_uid.as_str()) {
            ("", "") => "a process".to_owned(),
            ("", uid) => format!("pod {uid}"),
            (pod, _) => format!("pod {pod}"),
        }
    }
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
    pub troubles: Vec<Problem>,
    /// Bytes in use, where the backend can tell; btrfs counts at each commit, so
    /// this lags by up to its commit interval (30 s by default).
    pub used: Option<u64>,
    /// Mounts other than staging mounts, from this host's mount table.
    pub published: Vec<Publication>,
    /// Staging mounts.
    pub staged: Vec<PathBuf>,
}

impl VolumeReport {
    /// Kinds of what is wrong, each once, with the volume's pool.
    pub fn kinds_of_problem(&self) -> impl Iterator<Item = (PoolId, ProblemKind)> {
        let kinds: BTreeSet<_> = self.troubles.iter().map(|it| it.kind).collect();
        kinds.into_iter().map(|kind| (self.pool.clone(), kind))
    }
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
