//! `cargo bench-volumes`: what volumes cost, beside local-path-provisioner and beside bare
//! directories, measured side by side in one run. What is computed from what was seen is
//! pure and tested; the rest looks and waits.

pub mod aims;
pub mod audit;
pub mod bursts;
pub mod fio;
pub mod io;
pub mod local_path;
pub mod memory;
pub mod stats;
pub mod table;
pub mod timeline;
pub mod watch;

/// The namespace that everything is measured in.
pub const NAMESPACE: &str = "berth-bench";
