//! One snapshot of a volume, in the volume's pool.
#![allow(
    unreachable_pub,
    reason = "the derive repeats the spec in a private scope"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, VolumeState};

/// A snapshot in the pool of its source volume.
///
/// Its name is `snap-<VolumeSnapshotContent UID>`. The **controller** writes the
/// spec, the **agent** of `spec.node` the status, as for a Volume.
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
    doc = "A snapshot of one volume, in the volume's pool.",
    selectable = ".spec.node",
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct SnapshotSpec {
    /// Name of the source Volume.
    #[x_kube(validation = ("self == oldSelf", "a snapshot keeps its source"))]
    pub volume: String,
    /// Id of the pool that holds both.
    pub pool: String,
    /// Node that the pool is on.
    pub node: String,
    /// Whether the snapshot is wanted.
    #[serde(default)]
    pub state: VolumeState,
}

/// What the agent reports about a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    /// Where the snapshot is in its life.
    #[serde(default)]
    pub phase: SnapshotPhase,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bytes that a volume restored from it needs at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SnapshotPhase {
    /// The agent has not answered yet.
    #[default]
    Pending,
    /// Taken, recorded, usable.
    Ready,
    /// It could not be taken; the message says why.
    Failed,
    /// Erased on purpose.
    Deleted,
}
