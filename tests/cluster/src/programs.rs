//! Programs for tests that need no cluster, built and kept as the cluster's are.

use std::path::PathBuf;

use crate::components::{CSI_SANITY, Go};
use crate::error::Result;
use crate::image::cargo;
use crate::paths;
use crate::progress;

/// The agent of this checkout.
///
/// # Errors
/// When it cannot be built.
pub fn agent() -> Result<PathBuf> {
    let checkout = paths::checkout()?;
    progress::step("building berth-agent", || {
        cargo(&checkout, "build", "berth-agent", &[])
    })
}

/// Upstream's csi-sanity, at the version that is pinned.
///
/// # Errors
/// When it is not in the cache and cannot be built.
pub fn csi_sanity() -> Result<PathBuf> {
    Ok(CSI_SANITY.get(&Go::here()?)?.join("csi-sanity"))
}
