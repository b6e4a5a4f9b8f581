//! What callers and people learn about pools, volumes and snapshots. Nothing that
//! writes depends on this module.

pub(crate) mod check;
pub(crate) mod pools;
mod problems;
pub(crate) mod snapshots;
pub(crate) mod volumes;
