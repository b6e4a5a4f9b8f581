//! What can be written, what a write answers, and how a write is made conditional.

use berth_api::{Pool, Snapshot, Volume, VolumeSnapshotContent};
use berth_kube::write;
use berth_plan::{pools, snapshots, target::Target, volumes::Action};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::CSIStorageCapacity,
};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::node::Node;
use crate::context::{CallError, FIELD_MANAGER};

/// One thing to write. The decision names the object, as it saw it.
pub(super) enum Write {
    /// A write of a volume's life.
    Volume(Action),
    /// A write of a snapshot's life.
    Snapshot(snapshots::Action),
    /// A Pool object (as it was seen), or a node's pool labels.
    Pool {
        write: pools::Write,
        there: Option<Target>,
    },
    /// A capacity object as it should be, and whether it exists already.
    Capacity {
        wanted: Box<CSIStorageCapacity>,
        there: bool,
    },
    /// Delete a capacity object that is no longer needed.
    DropCapacity(Target),
}

/// An object that came back as the answer to a write.
pub(super) enum Observed {
    Volume(Box<Volume>),
    Pv(Box<PersistentVolume>),
    Claim(Box<PersistentVolumeClaim>),
    Pool(Box<Pool>),
    Node(Box<Node>),
    Capacity(Box<CSIStorageCapacity>),
    Snapshot(Box<Snapshot>),
    Content(Box<VolumeSnapshotContent>),
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The cluster is no longer as the decision saw it; decide again.
    #[error("{0}")]
    Stale(String),
}

impl Failure {
    /// Whether nothing is wrong, and another writer was faster.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Stale(_) => true,
            Self::Call(error) => error.is_conflict(),
        }
    }

    /// The whole text, for logs and events.
    pub(super) fn chain(&self) -> String {
        match self {
            Self::Call(error) => error.chain(),
            Self::Stale(text) => text.clone(),
        }
    }
}

pub(super) type Done = Result<Vec<Observed>, Failure>;

pub(super) fn post() -> PostParams {
    write::post(FIELD_MANAGER)
}

pub(super) fn patch() -> PatchParams {
    write::patch(FIELD_MANAGER)
}

/// A merge patch that is refused unless the object is still the one that the decision
/// saw, at the same version.
pub(super) fn conditional(target: &Target, mut change: Value) -> Patch<Value> {
    change["metadata"]["uid"] = json!(target.uid);
    change["metadata"]["resourceVersion"] = json!(target.resource_version);
    Patch::Merge(change)
}

/// A deletion on the same condition.
pub(super) fn if_same(target: &Target) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        uid: target.uid.clone(),
        resource_version: target.resource_version.clone(),
    })
}

/// Treats "not found" as success: what was to be removed is gone.
pub(super) fn gone<T>(result: Result<T, CallError>) -> Done {
    match result {
        Ok(_) => Ok(Vec::new()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
