//! Upstream's csi-sanity, unmodified, against `berth-agent run --standalone`:
//! twice on one pool, with the agent killed in between.
//!
//! - [`inside`] runs it, given the two programs and a mounted pool: nothing else
//!   is needed, so that it also runs in a minimal virtual machine.
//! - [`outside`] builds the programs, makes a disk, and calls [`inside`].
//! - The test target `guest` calls [`inside`] in a guest of `berth-qemu`, for what
//!   this machine's kernel may lack.
//!
//! ```text
//! cargo sanity                                    # btrfs
//! cargo sanity --filesystem ext4 --backend image
//! cargo sanity --filesystem ext4 --backend image --block
//! cargo sanity bench                              # times and memory, no verdict
//! sanity inside --agent A --csi-sanity S --root R --backend B [--block]
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("pools are directories on Linux' filesystems; build this package on Linux");

pub mod bench;
mod daemon;
pub mod inside;
pub mod outside;
mod residue;
mod skips;
mod spec;
mod suite;

pub use inside::Verdict;
pub use skips::Why;
pub use spec::Spec;
pub use suite::Report;
