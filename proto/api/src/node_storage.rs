//! What one node's agent sees: its pools.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Backend, Bytes, Problem};

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
    /// The pools in a few words, `2 pools, 1 unhealthy: disk2 ReadOnly`. Columns
    /// of `kubectl get` can show one value, not those of every pool.
    #[serde(default)]
    pub summary: String,
    /// Every directory under the pools root, also those that are not usable.
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
    /// For people: what is wrong and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What is wrong although it can be used.
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
    /// Bytes that the filesystem has free.
    #[serde(default)]
    pub free: Bytes,
    /// Volumes in the pool.
    #[serde(default)]
    pub volumes: i64,
}

/// Whether a directory under the pools root can be used.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum PoolHealth {
    /// Usable.
    Healthy,
    /// No identity file: `berth-agent pools init` has not been run on it.
    Uninitialized,
    /// Known to the cluster at this path and now without its identity file or
    /// on another filesystem: the disk is not mounted. Nothing is written.
    LostMount,
    /// Mounted read-only.
    ReadOnly,
    /// The identity file is damaged, or the filesystem answers with errors.
    Damaged,
    /// The filesystem cannot carry any backend.
    Unsupported,
}
