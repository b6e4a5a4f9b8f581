//! Berth's custom resources and every name that controller and agent share.
//!
//! The two programs never import one another: they meet in these objects. Each
//! object has exactly one writer for its spec and one for its status, named in
//! the object's documentation.
#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column has its own priority"
)]

pub mod condition;
pub mod crds;
pub mod names;
pub mod native;
pub mod node_storage;
pub mod ordinal_set;
pub mod pool;
mod rules;
mod schema;
pub mod snapshot;
pub mod volume;
pub mod volume_snapshot;

pub use berth_model::{Backend, Bytes, ClaimRef, Problem, ProblemKind, SetRef, Source, VolumeMode};
pub use native::NativeSet;
pub use node_storage::{
    NodePool, NodeStorage, NodeStorageSpec, NodeStorageStatus, Orphan, PoolHealth,
};
pub use ordinal_set::{
    ClaimRetention, ClaimRetentionPolicy, Disruption, OrdinalSet, OrdinalSetSpec, OrdinalSetStatus,
    Ordinals, PodManagementPolicy, RollingUpdate, UpdateStrategy, UpdateStrategyType,
};
pub use pool::{Pool, PoolSpec, PoolStatus};
pub use snapshot::{ContentRef, Snapshot, SnapshotPhase, SnapshotSpec, SnapshotStatus};
pub use volume::{Publication, Volume, VolumePhase, VolumeSpec, VolumeState, VolumeStatus};
pub use volume_snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};

/// API group of every custom resource; the CSI driver's name and the label and
/// annotation prefixes derive from it.
pub const GROUP: &str = "berth.dev";

/// The one stored version. There is no conversion.
pub const VERSION: &str = "v1alpha1";

/// Name of the CSI driver, as in `CSIDriver`, `StorageClass.provisioner` and
/// `PersistentVolume.spec.csi.driver`.
pub const DRIVER: &str = "csi.berth.dev";
