//! The writes of a snapshot's life. Each carries the object that it is for.

use berth_api::{Snapshot, volume_snapshot::VolumeSnapshotContentStatus};

use crate::target::Target;

/// What proves that a snapshot may be erased. The shell checks it against the API
/// server itself, not a cache, before it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A released content with policy Delete: name and UID.
    DeletedContent(String, String),
    /// It was never published, and the content that it was for is gone.
    NeverPublished(String, String),
}

/// One write, and the object that it is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The intent, or the Snapshot of what is there already (`spec.adopt`).
    Create(Box<Snapshot>),
    /// Mark the Snapshot, note on the content where it lies, and publish in the
    /// content's status that it is ready.
    Publish {
        /// The Snapshot that gets the mark.
        snapshot: Target,
        /// Whether the mark is still to be written.
        mark: bool,
        /// The content that gets annotations and status.
        content: Target,
        /// Id of the pool in which the snapshot lies.
        pool: String,
        /// Name of the Volume that it is of.
        volume: String,
        /// The content's new status.
        status: Box<VolumeSnapshotContentStatus>,
    },
    /// Write into the content's status what is wrong.
    Fail {
        /// The content whose `status.error` is written.
        content: Target,
        /// What is wrong and what to do, as one sentence.
        message: String,
    },
    /// It is known whether a snapshot was taken: remove a sidecar's annotation.
    Settle {
        /// The content that carries the annotation.
        content: Target,
    },
    /// The pool is on another node now.
    MoveTo {
        /// The Snapshot whose `spec.node` changes.
        snapshot: Target,
        /// The node that has the pool now.
        node: String,
    },
    /// Order the agent to erase the data.
    Erase {
        /// The Snapshot whose `spec.state` becomes `Deleted`.
        snapshot: Target,
        /// What proves that erasing is right.
        proof: Proof,
    },
    /// The data is erased: clear the snapshot from the content's status.
    Unpublish {
        /// The content whose status is cleared.
        content: Target,
    },
    /// Remove the Snapshot object.
    Drop {
        /// The Snapshot object to delete.
        snapshot: Target,
    },
    /// Remove our finalizer from the content.
    Release {
        /// The content that our finalizer holds.
        content: Target,
        /// The finalizers that stay.
        others: Vec<String>,
    },
}
