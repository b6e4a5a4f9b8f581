//! Berth's agent: the CSI driver for host directories on one node, the writer of
//! that node's part of the API, and the tool to look at its disks.

pub mod cli;
pub mod csi;
pub mod disks;
pub mod install;
pub mod lanes;
pub mod metrics;
pub mod privileges;
pub mod readiness;
pub mod reconcile;
pub mod registration;
pub mod run;
mod shared_pool;
#[cfg(test)]
mod testdata;
pub mod volume_locks;
