//! The writes of a snapshot's life, each with the object that it is for.

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

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The intent, or the Snapshot of what is there already (`spec.adopt`).
    Create(Box<Snapshot>),
    /// Mark the Snapshot, note on the content where it lies, and publish in the
    /// content's status that it is ready.
    Publish {
        /// The Snapshot.
        snapshot: Target,
        /// The mark is not there yet.
        mark: bool,
        /// The content.
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
        /// The content.
        content: Target,
        /// A sentence.
        message: String,
    },
    /// It is known whether a snapshot was taken: remove a sidecar's annotation.
    Settle {
        /// The content.
        content: Target,
    },
    /// The pool is on another node now.
    MoveTo {
        /// The Snapshot.
        snapshot: Target,
        /// The node.
        node: String,
    },
    /// Let the agent erase the data.
    Erase {
        /// The Snapshot.
        snapshot: Target,
        /// Why that is right.
        proof: Proof,
    },
    /// The data is erased: the content's status names no snapshot any more.
    Unpublish {
        /// The content.
        content: Target,
    },
    /// Remove the Snapshot object.
    Drop {
        /// The Snapshot.
        snapshot: Target,
    },
    /// Remove our finalizer from the content.
    Release {
        /// The content.
        content: Target,
        /// The finalizers that stay.
        others: Vec<String>,
    },
}
