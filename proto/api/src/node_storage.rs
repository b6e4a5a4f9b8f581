//! What one node's agent sees: its pools.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Backend, Bytes, ClaimRef, Problem};

/// The pools that one node's agent sees.
///
/// Its name is the node's. The **agent** on that node makes it and writes its
/// status; nobody else writes it. An admission policy compares the writer's
/// node-name claim with the name.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "NodeStorage",
    plural = "nodestorages",
    shortname = "bnode",
    category = "berth",
    status = "NodeStorageStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "The pools that one node's agent sees. Its name is the node's.",
    printcolumn(name = "Summary", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agentVersion"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct NodeStorageSpec {}

/// What the agent on the node reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStorageStatus {
    /// Version and commit of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// The pools in a few words, `2 pools, 1 unhealthy: disk2 ReadOnly`, for the SUMMARY
    /// column: a column can show only one value.
    #[serde(default)]
    pub summary: String,
    /// Every directory under the pools root, including those that cannot be used.
    #[serde(default)]
    pub pools: Vec<NodePool>,
}

/// One directory under the pools root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePool {
    /// The pool's id from its identity file; absent where the directory has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The directory on the node.
    pub path: String,
    /// Whether it can be used, and if not, the kind of reason.
    pub health: PoolHealth,
    /// What is wrong and what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What is wrong with a pool that can nevertheless be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Problem>,
    /// Type of the filesystem, `btrfs` for example.
    #[serde(default)]
    pub filesystem: String,
    /// UUID of the filesystem, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem_uuid: Option<String>,
    /// Backends that the filesystem can carry, the best first.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// Bytes that volumes may take in all.
    #[serde(default)]
    pub capacity: Bytes,
    /// Bytes that the ledger has promised to volumes, snapshots and trash.
    #[serde(default)]
    pub reserved: Bytes,
    /// The part of `reserved` that volumes have; the rest is snapshots and trash. Absent
    /// where the agent is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_by_volumes: Option<Bytes>,
    /// Bytes that the agent would give to a new volume, as of some time ago: what is left of
    /// `capacity`, or of the filesystem where that is less. Absent where the agent is older
    /// than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Bytes>,
    /// Bytes that the filesystem has free.
    #[serde(default)]
    pub free: Bytes,
    /// Number of volumes in the pool.
    #[serde(default)]
    pub volumes: i64,
    /// Volumes on the disk that no Volume object of this node names, as of some minutes ago;
    /// the first twenty of them. They keep their space, and nothing erases them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<Orphan>,
}

/// A volume on a disk that no Volume object names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Orphan {
    /// Its id, which would be its object's name.
    pub id: String,
    /// The claim that it was made for, as its record says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimRef>,
    /// Bytes that it takes of the pool.
    pub size: Bytes,
}

/// Whether a directory under the pools root can be used.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum PoolHealth {
    /// The pool can be used.
    Healthy,
    /// No identity file: `berth-agent pools init` has not been run on it.
    Uninitialized,
    /// The cluster knows a pool at this path, but the directory has no identity file or
    /// is on another filesystem: the disk is not mounted. Nothing is written.
    LostMount,
    /// The filesystem is mounted read-only.
    ReadOnly,
    /// The disk has not answered for 10 seconds, or not yet since the agent started. The
    /// pool stays where it is, and gets nothing new until the disk answers.
    Unresponsive,
    /// The identity file is damaged, or the filesystem answers with errors.
    Damaged,
    /// The filesystem cannot carry any backend.
    Unsupported,
}
