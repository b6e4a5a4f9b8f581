//! Kubernetes' own tests of storage drivers (External.Storage), unmodified: how they are told
//! what Berth's driver is, and run. `cargo upstream-storage` runs all of them, the end-to-end
//! tests a quick part.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use berth_cluster::{
    Cluster,
    conformance::{self, Choice, Report, Spec},
};
use serde_json::{Value, json};

use crate::{
    ctx::{Ctx, SYSTEM},
    sets::SHELL_IMAGE,
    steps::snapshots,
};

/// All that upstream tests of one driver.
pub const FOCUS: &str = "External.Storage";

/// What Berth says that it can (k8s.io/kubernetes/test/e2e/storage/framework/testdriver.go).
/// Not among them: ReadWriteMany and ReadOnlyMany, which a disk of one node cannot; mount
/// groups, SELinux mounts, group snapshots and snapshot metadata.
const CAPABILITIES: [&str; 16] = [
    "persistence",
    "block",
    "exec",
    "multipods",
    "fsGroup",
    "topology",
    "singleNodeVolume",
    "capacity",
    "controllerExpansion",
    "nodeExpansion",
    "offlineExpansion",
    "onlineExpansion",
    "snapshotDataSource",
    "pvcDataSource",
    "readWriteOncePod",
    // As far as the agents are told of one, see `MAX_VOLUMES`.
    "volumeLimits",
];

/// How many volumes each agent says that its node takes: the specs about limits make as many.
pub const MAX_VOLUMES: u16 = 12;

/// The ends of the names of specs that show each part of the driver once.
const QUICK: [&str; 8] = [
    "(default fs)] volumes should store data",
    "(block volmode)] volumes should store data",
    "(default fs)] provisioning should provision storage with pvc data source",
    "(default fs)] provisioning should provision storage with snapshot data source [Feature:VolumeSnapshotDataSource]",
    "(default fs)] read-write-once-pod should block a second pod from using an in-use ReadWriteOncePod volume on the same node",
    "(default fs)] subPath should be able to unmount after the subpath directory is deleted [LinuxOnly]",
    "(default fs)(allowExpansion)] volume-expand Verify if offline PVC expansion works",
    "(delayed binding)] topology should provision a volume and schedule a pod with AllowedTopologies",
];

/// Runs a quick part of upstream's specs.
///
/// # Errors
/// One of them did not run, or did not pass.
pub async fn quick(ctx: &Ctx, cluster: &Cluster) -> Result<()> {
    let logs = tempfile::tempdir()?;
    let ends = QUICK.map(conformance::quote).join("|");
    let choice = Choice::of(format!("{FOCUS}.*Dynamic PV ({ends})$"));
    let report = run(ctx, cluster, &class(&[])?, choice, logs.path()).await?;
    let log = |spec: &Spec| fs::read_to_string(&spec.log).unwrap_or_default();
    let failed = report.specs.iter().filter(|spec| spec.state != "passed");
    let logs: Vec<_> = failed.map(log).collect();
    ensure!(logs.is_empty(), "{report}\n{}", logs.join("\n"));
    ensure!(
        report.specs.len() == QUICK.len(),
        "{report}\nsome are missing"
    );
    Ok(())
}

/// Has every agent tell the scheduler how many volumes its node takes.
pub async fn limit_volumes(ctx: &Ctx) -> Result<()> {
    let limit = format!("BERTH_MAX_VOLUMES={MAX_VOLUMES}");
    let line = ["-n", SYSTEM, "set", "env", "ds/berth-agent", &limit];
    ctx.kubectl.run(&line).await?;
    Ok(())
}

/// Runs chosen specs on a cluster that has Berth and pools. What describes the driver, and
/// each spec's log, goes to `logs`.
pub async fn run(
    ctx: &Ctx,
    cluster: &Cluster,
    class: &Value,
    choice: Choice,
    logs: &Path,
) -> Result<Report> {
    for node in cluster.workers() {
        stand_in(cluster, &node)?;
    }
    // Ends with this function.
    let _controller = snapshots::install(ctx).await?;
    fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let put = |name: &str, object: &Value| {
        let path = logs.join(name);
        let text = serde_json::to_vec_pretty(object)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        anyhow::Ok(path.to_string_lossy().into_owned())
    };
    let class = put("class.json", class)?;
    let driver = put("driver.json", &driver(&class))?;
    let choice = Choice {
        logs: Some(logs.to_owned()),
        arguments: vec![format!("-storage.testdriver={driver}")],
        ..choice
    };
    Ok(tokio::task::block_in_place(|| {
        conformance::run(cluster, &choice)
    })?)
}

/// Images that some specs run a shell in, and nothing else.
const SHELLS: [&str; 2] = [
    "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
    "registry.k8s.io/e2e-test-images/nginx:1.15-4",
];

/// Gives busybox's image their names: they are not to be had without a registry.
fn stand_in(cluster: &Cluster, node: &str) -> Result<()> {
    for shell in SHELLS {
        let tag = ["ctr", "-n", "k8s.io", "images", "tag", "--force"];
        let answer = cluster.node_exec(node, tag.into_iter().chain([SHELL_IMAGE, shell]))?;
        let said = String::from_utf8_lossy(&answer.stderr);
        ensure!(answer.status.success(), "{node}: {}", said.trim());
    }
    Ok(())
}

/// The class that the specs make copies of; `parameters` are `KEY=VALUE`.
///
/// # Errors
/// A parameter is no such pair.
pub fn class(parameters: &[String]) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for parameter in parameters {
        let (key, value) = parameter
            .split_once('=')
            .with_context(|| format!("{parameter:?} is not KEY=VALUE, such as backend=btrfs"))?;
        all.insert(key.to_owned(), json!(value));
    }
    Ok(json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "berth-external"},
        "provisioner": berth_api::DRIVER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
        "parameters": all,
    }))
}

/// The driver, as upstream's tests want it described
/// (k8s.io/kubernetes/test/e2e/storage/external).
fn driver(class: &str) -> Value {
    let capabilities: serde_json::Map<_, _> = CAPABILITIES
        .into_iter()
        .map(|capability| (capability.to_owned(), json!(true)))
        .collect();
    json!({
        "ShortName": "berth",
        "StorageClass": {"FromFile": class},
        "SnapshotClass": {"FromName": true},
        "DriverInfo": {
            "Name": berth_api::DRIVER,
            // The largest file that the specs write has to fit into the smallest claim.
            "MaxFileSize": 100 << 20,
            "SupportedSizeRange": {"Min": "1Gi", "Max": "200Gi"},
            "SupportedFsType": {"": {}},
            "SupportedMountOption": {"noatime": {}, "nodev": {}},
            "TopologyKeys": [berth_api::names::TOPOLOGY_NODE],
            "NumAllowedTopologies": 1,
            "Capabilities": capabilities,
            "StressTestOptions": {"NumPods": 3, "NumRestarts": 3},
            "VolumeSnapshotStressTestOptions": {"NumPods": 2, "NumSnapshots": 2},
        },
    })
}
