//! What watches report, one kind of object a variant.

use berth_api::{
    NodeStorage, Pool, Snapshot, Volume, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent,
};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSIStorageCapacity, StorageClass},
};
use kube::runtime::watcher::Event;

use super::{node::Node, pod::Pod};

/// An event of one watch.
#[expect(clippy::large_enum_variant, reason = "one at a time, taken in at once")]
pub(super) enum Update {
    Claim(Event<PersistentVolumeClaim>),
    Pv(Event<PersistentVolume>),
    Class(Event<StorageClass>),
    Node(Event<Node>),
    Pool(Event<Pool>),
    Volume(Event<Volume>),
    Report(Event<NodeStorage>),
    Pod(Event<Pod>),
    Capacity(Event<CSIStorageCapacity>),
    Snapshot(Event<Snapshot>),
    Content(Event<VolumeSnapshotContent>),
    Request(Event<VolumeSnapshot>),
    SnapshotClass(Event<VolumeSnapshotClass>),
}
