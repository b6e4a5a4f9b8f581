//! What callers and people learn about pools, volumes and snapshots. Nothing that
//! writes depends on this module.

mod check;
mod pools;
pub(crate) mod problems;
pub(crate) mod volumes;
