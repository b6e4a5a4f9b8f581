//! Programs for tests that are no part of a cluster, built and kept as the cluster's
//! are.

use std::path::PathBuf;

use crate::components::{
    CSI_SANITY, ETCD, Go, KUBERNETES_PROGRAMS, KWOK, LOCAL_PATH, SNAPSHOT_CONTROLLER,
};
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

/// What a control plane without nodes is made of, and nodes that only seem to be there.
#[derive(Debug, Clone)]
pub struct ControlPlanePrograms {
    /// etcd.
    pub etcd: PathBuf,
    /// Every Kubernetes program in one; it acts as the name that it is called by.
    pub kubernetes: PathBuf,
    /// kwok, which plays the nodes and their kubelets.
    pub kwok: PathBuf,
    /// What kwok does with a pod or node in which state, in its own YAML: one file each.
    pub kwok_stages: Vec<PathBuf>,
}

/// These programs, at the versions that are pinned.
///
/// # Errors
/// When they are not in the cache and cannot be built.
pub fn control_plane() -> Result<ControlPlanePrograms> {
    let go = Go::here()?;
    let stages = KWOK.module_dir("sigs.k8s.io/kwok")?.join("kustomize/stage");
    let stages = [
        "pod/fast/pod-ready.yaml",
        "pod/fast/pod-delete.yaml",
        "node/fast/node-initialize.yaml",
        "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    ]
    .map(|file| stages.join(file));
    Ok(ControlPlanePrograms {
        etcd: ETCD.get(&go)?.join("etcd"),
        kubernetes: KUBERNETES_PROGRAMS.get(&go)?.join("kubernetes"),
        kwok: KWOK.get(&go)?.join("kwok"),
        kwok_stages: stages.to_vec(),
    })
}
