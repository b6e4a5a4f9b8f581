//! What users install: both programs built for release, the image that holds them, and
//! everything else that a release consists of. Tests, the demo and `cargo image` use the
//! same code, so what is tested is what is packaged.
//!
//! The image is made here, without a container engine and without root: its files are
//! the two programs, linked statically, and the one program that they run, `mkfs.ext4`,
//! with its libraries from Debian's packages. There is no shell in it.

mod arch;
pub mod archive;
pub mod dist;
mod elf;
pub mod files;
pub mod image;
pub mod listing;
mod manifests;
pub mod programs;
mod run;
mod sbom;
mod userland;

pub use arch::Arch;
pub use image::tag;

use std::path::{Path, PathBuf};

/// The version of everything here, the workspace's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The root of the checkout that is packaged.
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.canonicalize().unwrap_or(here)
}
