//! Values that the API, the records on disks and both programs share, each with its
//! one text form: names, sizes, backends, modes, parameters. No I/O, no clock.
//!
//! Objects of the API and records on disks are types of their own, so that a disk
//! outlives a version of the API; only the values in them are shared.

pub mod bytes;
pub mod claim;
pub mod class_parameters;
pub mod mount_options;
pub mod names;
pub mod problem;
pub mod urgency;
pub mod volume;

pub use bytes::Bytes;
pub use claim::{ClaimRef, SetRef};
pub use class_parameters::ClassParameters;
pub use mount_options::{MountFlag, MountOption};
pub use names::{InvalidName, PoolId, SnapshotName, VolumeName};
pub use problem::{Problem, ProblemKind};
pub use urgency::Urgency;
pub use volume::{Backend, Source, VolumeMode};
