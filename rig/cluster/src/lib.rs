//! A real Kubernetes cluster on one machine, round kind: nodes are containers,
//! each worker with disks of its own.
//!
//! Every program that makes clusters calls [`take_role`] first in `main`.
//!
//! ```no_run
//! fn main() -> berth_cluster::Result<()> {
//!     berth_cluster::take_role();
//!     let cluster = berth_cluster::Cluster::up(&berth_cluster::Options::default())?;
//!     println!("{}", cluster.kubectl(["get", "nodes"])?);
//!     cluster.remove()
//! }
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("the cluster's nodes, disks and engine are Linux's; build this package on Linux");

mod builder;
pub mod cache;
mod cluster;
mod cni;
mod components;
pub mod conformance;
mod controllers;
mod debian;
mod engine;
mod engine_init;
mod error;
mod freeze;
mod kind_config;
mod limits;
mod lock;
mod loopdev;
mod make;
mod names;
mod node_build;
mod node_image;
mod node_recipe;
mod nodes;
mod options;
mod paths;
pub mod preflight;
pub mod programs;
pub mod progress;
mod reexec;
pub mod residue;
mod role;
pub mod run;
mod runtime_shim;
mod sys;
mod teardown;
mod thaw;
mod wait;

pub use cluster::{Cluster, build_all};
pub use engine::Kind as EngineKind;
pub use error::{Error, Result};
pub use freeze::Frozen;
pub use options::{Filesystem, GIB, Options, POOLS_DIR, parse_gate, parse_size};
pub use paths::{cache as cache_dir, checkout};
pub use reexec::take_role;
pub use residue::instances;
