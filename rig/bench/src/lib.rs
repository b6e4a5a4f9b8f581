//! Upstream's StatefulSet controller and Berth's, measured on equal control planes: etcd,
//! API server, scheduler and the rest of kube-controller-manager as plain processes on
//! loopback, with nodes that kwok plays. No containers, no disks: what is measured is what
//! a controller asks of the API and how long pods wait for it.
//!
//! kwok deletes a pod by its name and now and then twice, so that a few successors are
//! deleted with it: some pods are made twice in a rollout, on every side.
//!
//! It prints and asserts nothing: figures depend on the machine and on what else runs
//! there. Each measurement has a control plane of its own, fresh, with one contender.

#[cfg(not(target_os = "linux"))]
compile_error!("processes are measured by Linux's /proc; build this package on Linux");

pub mod audit;
pub mod case;
pub mod contender;
pub mod measure;
pub mod objects;
pub mod plane;
pub mod process;
pub mod report;
mod setup;
pub mod stat;
pub mod state;
pub mod stats;
pub mod tally;
pub mod watch;
