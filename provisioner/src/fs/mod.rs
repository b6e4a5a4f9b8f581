//! Directories and files by handle: reached without following links, replaced as a
//! whole, removed in batches. Knows no pools, only what is on any filesystem.

pub(crate) mod dir;
pub(crate) mod envelope;
pub(crate) mod listing;
mod remove;

pub(crate) use remove::is_moved_aside;
