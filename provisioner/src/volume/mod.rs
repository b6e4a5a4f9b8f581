//! Volumes and snapshots: making, growing, limiting and deleting them.

pub(crate) mod assign;
pub(crate) mod build;
pub(crate) mod by_claim;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod grow;
pub(crate) mod limit;
pub(crate) mod shares;
pub(crate) mod snapshot;
mod source;
pub(crate) mod trash;
