//! The provisioner on real btrfs filesystems, loop-backed and sparse: what the
//! kernel does with limits, removed subvolumes and mounts cannot be faked.
//!
//! Each test has a node of its own, so they run side by side. They need root
//! and loop devices, and fail with that sentence where those are missing.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

mod help;
mod mounts;
mod pools;
mod shared;
mod volumes;
