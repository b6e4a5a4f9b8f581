//! One snapshot of a volume, in the volume's pool.
#![allow(
    unreachable_pub,
    reason = "the derive repeats the spec in a private scope"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, VolumeMode, VolumeState, volume::is_marked};

/// A snapshot in the pool of its source volume.
///
/// Its name is `snap-<VolumeSnapshotContent UID>`, which is also the snapshot
/// handle and the id on the disk. The **controller** writes the spec: it is the
/// intent, written before anything happens on a disk. The **agent** of `spec.node`
/// writes the status. Data is erased only on `state: Deleted`, never because this
/// object vanished.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Snapshot",
    plural = "snapshots",
    shortname = "bsnap",
    category = "berth",
    status = "SnapshotStatus",
    derive = "PartialEq",
    doc = "A snapshot of one volume, in the volume's pool. Deleting this object erases nothing: the controller makes it again from the VolumeSnapshotContent.",
    selectable = ".spec.node",
    printcolumn(
        name = "Snapshot",
        type_ = "string",
        json_path = ".spec.content.snapshot"
    ),
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Pins", type_ = "string", json_path = ".status.reserved"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Namespace",
        type_ = "string",
        json_path = ".spec.content.namespace",
        priority = 1
    ),
    printcolumn(
        name = "Content",
        type_ = "string",
        json_path = ".spec.content.name",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    )
)]
pub struct SnapshotSpec {
    /// Name of the source Volume.
    #[x_kube(validation = ("self == oldSelf", "a snapshot keeps its source"))]
    pub volume: String,
    /// Id of the pool that holds the volume and the snapshot.
    #[x_kube(validation = ("self == oldSelf", "a snapshot stays in its pool"))]
    pub pool: String,
    /// Node that the pool was on when the snapshot was asked for; the controller
    /// changes it when the pool appears on another node.
    pub node: String,
    /// The VolumeSnapshotContent that the snapshot is for.
    pub content: ContentRef,
    /// The snapshot existed before this object did: the agent reports what the pool
    /// holds, and never takes a snapshot of later data in its place.
    #[serde(default)]
    pub adopt: bool,
    /// A VolumeSnapshotContent may have shown it as ready: it is set before that happens.
    /// From now on the snapshot is erased only for that content's sake.
    #[serde(default)]
    #[x_kube(validation = ("self || !oldSelf", "what a content has shown stays so"))]
    pub exposed: bool,
    /// Whether to keep or erase the data. A deleted snapshot cannot come back.
    #[serde(default)]
    #[x_kube(validation = ("oldSelf == 'Present' || self == oldSelf", "a deleted snapshot cannot come back"))]
    pub state: VolumeState,
}

impl Snapshot {
    /// Whether a content may have shown the snapshot as ready.
    pub fn is_exposed(&self) -> bool {
        self.spec.adopt || self.spec.exposed || is_marked(self.metadata.annotations.as_ref())
    }
}

/// The VolumeSnapshotContent that a snapshot is for, and the VolumeSnapshot behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContentRef {
    /// Name of the VolumeSnapshotContent.
    pub name: String,
    /// UID of the VolumeSnapshotContent.
    pub uid: String,
    /// Namespace of the VolumeSnapshot.
    pub namespace: String,
    /// Name of the VolumeSnapshot.
    pub snapshot: String,
}

/// What the agent reports about a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    /// Where the snapshot is in its life.
    #[serde(default)]
    pub phase: SnapshotPhase,
    /// What is wrong and what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the snapshot was taken, from the record on the disk. It stays once it is set:
    /// a snapshot is never taken a second time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// Smallest size of a volume that is restored from it, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Bytes that it reserves in the pool: what its volume used when it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Bytes>,
    /// Whether its volume was a directory tree or a block device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<VolumeMode>,
    /// Conditions: Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SnapshotPhase {
    /// The agent has not answered yet.
    #[default]
    Pending,
    /// It was taken, is recorded, and can be used.
    Ready,
    /// It could not be taken, or cannot be used; the message says why. The agent tries
    /// again, but never takes a second snapshot in place of the first.
    Failed,
    /// It was erased on purpose.
    Deleted,
}
