//! rancher's local-path-provisioner on the cluster, as its own manifests install it but for
//! three things: it runs beside the cluster and not in it, as the administrator; its helper
//! pods are of the rig's small userland; and its directories are on the disks that are
//! Berth's pools.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use berth_cluster::programs;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{ctx::Ctx, sets::SHELL_IMAGE};

/// The namespace of its helper pods.
pub const SYSTEM: &str = "local-path-storage";

/// Its class.
pub const CLASS: &str = "local-path";

/// Directory of its volumes in a pool's directory.
pub const DIR: &str = "local-path";

/// Its StorageClass, and one whose volumes are in one directory.
pub fn class(name: &str, path: Option<&str>) -> Value {
    let mut class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "rancher.io/local-path",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    });
    if let Some(path) = path {
        class["parameters"] = json!({"nodePath": path});
    }
    class
}

/// The ConfigMap of its deploy/local-path-storage.yaml, with these directories.
fn config(paths: &[String]) -> Value {
    let map = json!({"nodePathMap": [
        {"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": paths},
    ]});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "priorityClassName": "system-node-critical",
            "tolerations": [
                {"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"},
            ],
            "containers": [
                {"name": "helper-pod", "image": SHELL_IMAGE, "imagePullPolicy": "IfNotPresent"},
            ],
        },
    });
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "local-path-config", "namespace": SYSTEM},
        "data": {
            "config.json": map.to_string(),
            "setup": "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"$VOL_DIR\"\n",
            "teardown": "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n",
            "helperPod.yaml": pod.to_string(),
        },
    })
}

/// Installs it and starts it, with its log in a file; it ends with the value that is
/// returned.
///
/// # Errors
/// When it cannot be built or started.
pub async fn install(ctx: &Ctx, pools: &[String], log: &std::path::Path) -> Result<Child> {
    ensure!(!pools.is_empty(), "there are no pools to measure beside");
    let program = tokio::task::spawn_blocking(programs::local_path).await??;
    let paths: Vec<_> = pools.iter().map(|pool| format!("{pool}/{DIR}")).collect();
    let account = "local-path-provisioner-service-account";
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}),
        config(&paths),
        class(CLASS, None),
    ] {
        ctx.apply(SYSTEM, &object).await?;
    }
    // In a pod, the process has the ConfigMap as files.
    let files = log.with_extension("config");
    std::fs::create_dir_all(&files)?;
    let data = config(&paths)["data"]["config.json"].clone();
    let file = files.join("config.json");
    std::fs::write(&file, data.as_str().unwrap_or_default())?;
    let log =
        std::fs::File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    Command::new(&program)
        .arg("start")
        .arg("--kubeconfig")
        .arg(ctx.kubectl.kubeconfig())
        .arg("--config")
        .arg(&file)
        .args(["--namespace", SYSTEM, "--helper-image", SHELL_IMAGE])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Takes its objects off the cluster again; its volumes are gone already.
///
/// # Errors
/// The API server's.
pub async fn remove(ctx: &Ctx) -> Result<()> {
    let delete = ["delete", "--ignore-not-found"];
    for what in [["namespace", SYSTEM], ["storageclass", CLASS]] {
        ctx.kubectl.run(&[&delete[..], &what].concat()).await?;
    }
    Ok(())
}
