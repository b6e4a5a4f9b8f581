//! The parts of `snapshot.storage.k8s.io/v1` that Berth reads: the objects by which
//! people ask for snapshots. Their definitions are the cluster's, not Berth's, and
//! may not be there. Upstream's snapshot-controller writes everything of them but
//! the status of contents; fields that are not here are dropped when read, so they
//! are only ever patched.
#![allow(
    unreachable_pub,
    reason = "the derive repeats the spec in a private scope"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{CustomResource, Resource};
use serde::{Deserialize, Serialize};

/// API group of snapshots.
pub const GROUP: &str = "snapshot.storage.k8s.io";

/// Version of the group that Berth speaks.
pub const VERSION: &str = "v1";

/// What a VolumeSnapshotContent says.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshotContent",
    plural = "volumesnapshotcontents",
    status = "VolumeSnapshotContentStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct VolumeSnapshotContentSpec {
    /// CSI driver that the snapshot is of.
    #[serde(default)]
    pub driver: String,
    /// `Delete` or `Retain`.
    #[serde(default)]
    pub deletion_policy: String,
    /// The volume to take it of, or the snapshot that is there already.
    #[serde(default)]
    pub source: ContentSource,
    /// `Filesystem` or `Block`, as the volume was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_volume_mode: Option<String>,
    /// The class, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
    /// The VolumeSnapshot that it is bound to.
    #[serde(default)]
    pub volume_snapshot_ref: SnapshotRef,
}

/// What a content is of: one of the two is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentSource {
    /// Handle of the volume to take a snapshot of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_handle: Option<String>,
    /// Handle of a snapshot that was taken before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
}

/// A VolumeSnapshot, as a content names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// Namespace of the VolumeSnapshot.
    #[serde(default)]
    pub namespace: String,
    /// Name of the VolumeSnapshot.
    #[serde(default)]
    pub name: String,
    /// UID; empty until it is bound.
    #[serde(default)]
    pub uid: String,
}

/// What the driver answered: Berth's controller, for its own driver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotContentStatus {
    /// Handle of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
    /// When it was taken, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<i64>,
    /// Whether a volume can be made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// Bytes that a volume made of it needs at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<i64>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
}

/// What went wrong with a snapshot, and when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotError {
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// What a VolumeSnapshot says. Its source is left to its controller.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshot",
    plural = "volumesnapshots",
    namespaced,
    status = "VolumeSnapshotStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct VolumeSnapshotSpec {}

/// What upstream's snapshot-controller says of a VolumeSnapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotStatus {
    /// The content that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_volume_snapshot_content_name: Option<String>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
}

/// A VolumeSnapshotClass, which has no spec.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = SnapshotClassKind)]
pub struct VolumeSnapshotClass {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// CSI driver that it is for.
    #[serde(default)]
    pub driver: String,
    /// What is asked of the driver.
    #[serde(default)]
    pub parameters: Option<BTreeMap<String, String>>,
}

/// Carries the names of [`VolumeSnapshotClass`], whose fields are not those of a spec.
#[derive(CustomResource, Clone, Debug, Serialize, Deserialize)]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshotClass",
    root = "SnapshotClassKind",
    plural = "volumesnapshotclasses",
    schema = "disabled"
)]
pub struct SnapshotClassKindSpec {}
