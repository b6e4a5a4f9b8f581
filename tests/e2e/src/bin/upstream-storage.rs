//! `cargo upstream-storage`: Kubernetes' own tests of storage drivers (External.Storage),
//! unmodified, against Berth's class.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use berth_cluster::{
    Cluster, Error, Options,
    conformance::{self, Choice},
};
use berth_e2e::{
    ctx::Ctx,
    install::{self, Mode},
    rig,
    sets::SHELL_IMAGE,
    steps::snapshots,
};
use clap::Parser;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// All that upstream tests of one driver.
const FOCUS: &str = "External.Storage";

/// What Berth says that it can (k8s.io/kubernetes/test/e2e/storage/framework/testdriver.go).
/// Not among them: ReadWriteMany and ReadOnlyMany, which a disk of one node cannot; mount
/// groups, SELinux mounts, group snapshots and snapshot metadata.
const CAPABILITIES: [&str; 15] = [
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
];

/// Runs Kubernetes' own end-to-end tests of storage drivers, unmodified, on a cluster with
/// Berth and upstream's snapshot-controller. Specs that upstream skips are listed with its
/// reason.
#[derive(Parser)]
#[command(name = "cargo upstream-storage", version)]
struct Args {
    /// Which specs, a regular expression.
    #[arg(long, default_value = FOCUS)]
    focus: String,
    /// Leave out specs whose names contain this; may be repeated.
    #[arg(long)]
    without: Vec<String>,
    /// How many specs run side by side.
    #[arg(long, default_value_t = 6)]
    processes: usize,
    /// A parameter of the class, such as backend=btrfs; may be repeated. Without any, the
    /// class is the one of `deploy`.
    #[arg(long, value_name = "KEY=VALUE")]
    parameter: Vec<String>,
    /// The cluster's name; one that runs is used and left running, with this
    /// checkout's Berth loaded anew.
    #[arg(long)]
    name: Option<String>,
    /// Leave the cluster running.
    #[arg(long)]
    keep: bool,
    /// Where each spec's log goes.
    #[arg(long, default_value_os_t = std::env::temp_dir().join("berth-upstream-storage"))]
    logs: PathBuf,
}

fn main() -> ExitCode {
    berth_cluster::take_role();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let class = class(&args.parameter)?;
    let (cluster, fresh) = cluster(args)?;
    let outcome = Runtime::new()?.block_on(judge(args, &class, &cluster, fresh));
    if !fresh || args.keep {
        println!("kept: cargo cluster --name {} status", cluster.name());
        return outcome;
    }
    let removed = cluster.remove().context("clean-up");
    outcome.and(removed)
}

/// The cluster, and whether it was made just now.
fn cluster(args: &Args) -> Result<(Cluster, bool)> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => Cluster::checkout_name("s")?,
    };
    let made = rig::up_with(&Options {
        name: Some(name.clone()),
        ..Options::default()
    });
    match made {
        Ok(cluster) => Ok((cluster, true)),
        Err(error) if matches!(error.downcast_ref(), Some(Error::AlreadyUp(_))) => {
            let cluster = Cluster::attach(Some(&name))?;
            rig::load(&cluster)?;
            Ok((cluster, false))
        }
        Err(error) => Err(error),
    }
}

/// Installs, runs the specs and prints what became of them.
async fn judge(args: &Args, class: &Value, cluster: &Cluster, fresh: bool) -> Result<()> {
    let ctx = Ctx::of(cluster).await?;
    install::apply(&ctx, Mode::OrdinalSets).await?;
    if !fresh {
        install::restart(&ctx).await?;
    }
    install::ready(&ctx).await?;
    install::init_all_pools(&ctx).await?;
    for node in cluster.workers() {
        stand_in(cluster, &node)?;
    }
    // Ends with this function.
    let _controller = snapshots::install(&ctx).await?;
    fs::create_dir_all(&args.logs)
        .with_context(|| format!("cannot make {}", args.logs.display()))?;
    let put = |name: &str, object: &Value| {
        let path = args.logs.join(name);
        let text = serde_json::to_vec_pretty(object)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        anyhow::Ok(path.to_string_lossy().into_owned())
    };
    let class = put("class.json", class)?;
    let driver = put("driver.json", &driver(&class))?;
    let choice = Choice {
        without: args.without.clone(),
        processes: args.processes,
        logs: Some(args.logs.clone()),
        arguments: vec![format!("-storage.testdriver={driver}")],
        ..Choice::of(&args.focus)
    };
    let report = tokio::task::block_in_place(|| conformance::run(cluster, &choice))?;
    println!("\n{report}");
    ensure!(report.is_success(), "not every spec passed");
    Ok(())
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

/// The class that the specs make copies of.
fn class(parameters: &[String]) -> Result<Value> {
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
