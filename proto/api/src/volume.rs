//! One volume: what a claim is bound to.
#![allow(
    unreachable_pub,
    reason = "the derive repeats the spec in a private scope"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use crate::{Backend, Bytes, ClaimRef, SetRef, Source, VolumeMode, names, rules};

/// A volume in one pool on one node.
///
/// Its name is `pvc-<claim UID>`, which is also the PV's name and the volume
/// handle. The **controller** writes the spec: it is the intent, written before
/// anything happens on a disk. The **agent** of `spec.node` writes the status.
/// Data is erased only on `state: Deleted`, never because this object vanished.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Volume",
    plural = "volumes",
    shortname = "bvol",
    category = "berth",
    status = "VolumeStatus",
    derive = "PartialEq",
    doc = "A volume in one pool on one node, bound to one claim. Deleting this object erases nothing: the controller makes it again from the PersistentVolume.",
    selectable = ".spec.node",
    selectable = ".spec.pool",
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claim.name"),
    printcolumn(name = "Ordinal", type_ = "integer", json_path = ".spec.owner.ordinal"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.used"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Health",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Healthy\")].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Namespace",
        type_ = "string",
        json_path = ".spec.claim.namespace",
        priority = 1
    ),
    printcolumn(
        name = "Set",
        type_ = "string",
        json_path = ".spec.owner.name",
        priority = 1
    ),
    printcolumn(
        name = "Path",
        type_ = "string",
        json_path = ".status.path",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    )
)]
pub struct VolumeSpec {
    /// Id of the pool that holds the volume.
    #[x_kube(validation = ("self == oldSelf", "a volume stays in its pool"))]
    pub pool: String,
    /// Node that the pool was on when the volume was placed; the controller
    /// changes it when the pool appears on another node.
    pub node: String,
    /// Size in bytes, as the claim asks for it. It may grow.
    pub size: Bytes,
    /// Whether the volume is a directory tree or a block device.
    #[serde(default)]
    pub mode: VolumeMode,
    /// The claim that the volume is for.
    pub claim: ClaimRef,
    /// The set and ordinal behind the claim, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SetRef>,
    /// The snapshot or volume whose data the volume starts with; an empty volume when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::source")]
    pub source: Option<Source>,
    /// Backend that the StorageClass demands; the pool's best when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// For an image: it takes space from the pool's filesystem only as it is written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sparse: bool,
    /// The volume existed before this object did (the PV is older): the agent
    /// adopts what the pool holds, and never makes an empty one in its place.
    #[serde(default)]
    pub adopt: bool,
    /// UID of this very object, since its PersistentVolume is or was bound to a living
    /// claim. Only then may the end of a claim erase the data: an object that a backup
    /// brought back has another UID, and names claims that are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    /// Pods may have put data there: it is set before there is a PersistentVolume. From now on
    /// a missing PersistentVolume or claim no longer means that nothing is lost by erasing.
    #[serde(default)]
    #[x_kube(validation = ("self || !oldSelf", "what pods may have used stays so"))]
    pub exposed: bool,
    /// Whether to keep or erase the data. A deleted volume cannot come back.
    #[serde(default)]
    #[x_kube(validation = ("oldSelf == 'Present' || self == oldSelf", "a deleted volume cannot come back"))]
    pub state: VolumeState,
}

impl Volume {
    /// Whether pods may have put data into the volume.
    pub fn is_exposed(&self) -> bool {
        self.spec.adopt || self.spec.exposed || is_marked(self.metadata.annotations.as_ref())
    }
}

/// Whether an object has the mark of versions before the field `spec.exposed`.
pub(crate) fn is_marked(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations.is_some_and(|all| all.contains_key(names::EXPOSED))
}

/// Whether to keep or erase the data of a volume or snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeState {
    /// Keep the data.
    #[default]
    Present,
    /// Erase the data. Written only after the controller saw a released PV with policy
    /// Delete, or a claim that vanished before a PV was made; for a snapshot, a released
    /// VolumeSnapshotContent with policy Delete.
    Deleted,
}

/// What the agent reports about a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// Where the volume is in its life.
    #[serde(default)]
    pub phase: VolumePhase,
    /// What is wrong and what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Directory on the node that holds the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Size that the backend enforces: never less than asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Bytes of data in the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Bytes>,
    /// Backend that made the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Pods that have the volume mounted, as of some seconds ago.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Publication>,
    /// Conditions: Ready, Limited, Healthy, Full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Where a volume is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumePhase {
    /// The agent has not answered yet.
    #[default]
    Pending,
    /// It exists, is recorded, and can be used.
    Ready,
    /// The agent's ledger has no room for it in this pool; nothing was made.
    NoRoom,
    /// It could not be made, or is damaged; the message says why. The agent tries again.
    Failed,
    /// The data should be in this pool and is not. No empty volume is made in its place.
    Lost,
    /// Erased on purpose; a tombstone remembers it.
    Deleted,
}

/// One pod that has the volume mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Publication {
    /// UID of the pod.
    pub pod_uid: String,
    /// Namespace and name of the pod (`shop/db-0`); empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Where kubelet had it mounted.
    pub target: String,
}
