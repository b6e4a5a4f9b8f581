//! Programs for tests that are no part of a cluster, built and kept as the cluster's
//! are.

use std::path::PathBuf;

use crate::components::{CSI_SANITY, Go, LOCAL_PATH, SNAPSHOT_CONTROLLER};
use crate::error::Result;

/// Upstream's csi-sanity, at the version that is pinned.
///
/// # Errors
/// When it is not in the cache and cannot be built.
pub fn csi_sanity() -> Result<PathBuf> {
    Ok(CSI_SANITY.get(&Go::here()?)?.join("csi-sanity"))
}

/// rancher's local-path-provisioner, at the version that is pinned.
///
/// # Errors
/// When it is not in the cache and cannot be built.
pub fn local_path() -> Result<PathBuf> {
    Ok(LOCAL_PATH.get(&Go::here()?)?.join("local-path-provisioner"))
}

/// Upstream's snapshot-controller, at the version that is pinned.
///
/// # Errors
/// When it is not in the cache and cannot be built.
pub fn snapshot_controller() -> Result<PathBuf> {
    let name = SNAPSHOT_CONTROLLER.name;
    Ok(SNAPSHOT_CONTROLLER.get(&Go::here()?)?.join(name))
}

/// The directory of the definitions that it works on, which a cluster's administrator
/// installs with it.
///
/// # Errors
/// When their module is not available.
pub fn snapshot_definitions() -> Result<PathBuf> {
    let module = "github.com/kubernetes-csi/external-snapshotter/client/v8";
    Ok(SNAPSHOT_CONTROLLER.module_dir(module)?.join("config/crd"))
}
