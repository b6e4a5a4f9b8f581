//! Volumes and snapshots: making, growing and deleting them.

pub(crate) mod by_claim;
mod create;
mod delete;
mod snapshot;
pub(crate) mod source;
pub(crate) mod trash;
