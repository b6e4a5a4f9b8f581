//! Everything that touches a disk, and nothing else: pools, the ledger of room,
//! records, trash and tombstones, backends, and publishing by bind mount. No
//! Kubernetes, no gRPC, no async runtime: calls block, and callers that must not
//! block run them elsewhere.
//!
//! ```text
//! <root>/agent.lock                      held by the one process that changes things
//! <root>/leases/<pool>                 held while anything may write to that pool
//! <root>/by-claim/<namespace>/<claim>    link to the data; a convenience, re-derivable
//! <root>/pools/<dir>/                    one pool, usually a mount point
//!   .berth/pool.json                     who the pool is
//!   .berth/probe                       is read to see whether the disk answers
//!   .berth/new/<id>/                     volumes being built, given to nobody yet
//!   volumes/<id>/record.json             what the volume is
//!   volumes/<id>/data                    what pods see
//!   snapshots/<id>/record.json          what the snapshot is
//!   snapshots/<id>/data                 what it keeps
//!   trash/<id>                           deleted, its space not yet freed
//!   tombstones/<id>.json                 what was erased on purpose
//! ```
//!
//! # What always holds
//! - A volume appears under `volumes/` by one rename, complete: with its record,
//!   its data and its limit. What a crash leaves unfinished is empty, and is removed.
//! - Every operation opens the pool anew and compares its identity; a directory
//!   that is not the mount it was is refused, and nothing is written beneath it.
//!   No handle is kept, so that operators can unmount.
//! - Room is promised under one lock before anything is made, and is released
//!   only when the filesystem has freed it.
//! - Records that cannot be read are reported and left alone. Unknown directories
//!   are reported and left alone.

mod backend;
mod discovery;
mod error;
mod fs;
mod layout;
mod locks;
mod mount;
mod names;
mod notify;
mod operation;
mod pool;
mod provisioner;
mod report;
mod store;
mod sys;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod tests;
mod types;
mod volume;
mod workers;

pub use backend::candidates;
pub use error::Error;
pub use pool::{init::init_pool, shared::SharedPool};
pub use provisioner::Provisioner;
pub use types::{
    Backend, CheckReport, ClaimRef, Config, Erasure, Finding, FindingKind, Health, InitOptions,
    KnownPool, MountFlag, PoolId, PoolReport, Problem, ProblemKind, Publication, Publish, Recorded,
    SetRef, SnapshotReport, SnapshotSpec, Source, Stage, Usage, VolumeHealth, VolumeMode,
    VolumeReport, VolumeSpec,
};
