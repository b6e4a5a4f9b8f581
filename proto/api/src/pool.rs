//! One pool as the cluster sees it: granted to one node at a time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Bytes;

/// A directory on one disk, with an identity of its own: the unit of capacity
/// and of failure.
///
/// **People** write the spec; the **controller** makes the object (its name is
/// the pool's id) and writes the status from what the agents report.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Pool",
    plural = "pools",
    shortname = "bpool",
    category = "berth",
    status = "PoolStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "One directory on one disk: the unit of capacity and of failure. Its name is the id in the pool's identity file.",
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Health",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Healthy\")].reason"
    ),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".status.capacity"),
    printcolumn(name = "Reserved", type_ = "string", json_path = ".status.reserved"),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.volumes"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Cordoned",
        type_ = "boolean",
        json_path = ".spec.cordoned",
        priority = 1
    ),
    printcolumn(
        name = "Path",
        type_ = "string",
        json_path = ".status.path",
        priority = 1
    ),
    printcolumn(
        name = "Filesystem",
        type_ = "string",
        json_path = ".status.filesystem",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
pub struct PoolSpec {
    /// Place no new volumes here. Existing volumes stay and keep working.
    #[serde(default)]
    pub cordoned: bool,
    /// The disk is permanently lost: claims on it can be deleted without erasing the
    /// data first. Only a person can know that.
    #[serde(default)]
    pub lost: bool,
}

/// What the controller knows of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// The one node that may use the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Number of grants so far: it grows by one each time the pool goes to another node.
    #[serde(default)]
    pub epoch: i64,
    /// The pool's directory on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Type of the filesystem, `btrfs` for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// Bytes that volumes may take in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Bytes>,
    /// Bytes that are promised to volumes and snapshots, or not yet freed from the trash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Bytes>,
    /// Number of volumes in the pool.
    #[serde(default)]
    pub volumes: i64,
    /// Conditions: Ready, Unique, Healthy, Full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
