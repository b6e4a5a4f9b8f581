//! Installing Berth the way a user does: two kustomizations and one command per
//! node.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{core::v1::Node, storage::v1::StorageClass};
use kube::{Api, api::ListParams};
use serde_json::Value;

use crate::{
    ctx::{Ctx, SYSTEM},
    wait::{check, until},
};

/// The class that `deploy` brings.
const CLASS: &str = "berth";

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// A directory of the checkout.
pub fn checkout(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

async fn kustomize(ctx: &Ctx, verb: &[&str], path: &str) -> Result<String> {
    let path = checkout(path);
    let path = path.to_str().context("the checkout's path is not UTF-8")?;
    let mut args = verb.to_vec();
    args.extend(["-k", path]);
    ctx.kubectl.run(&args).await
}

/// Installs the CustomResourceDefinitions and waits until they are served.
pub async fn apply_crds(ctx: &Ctx) -> Result<()> {
    // A definition that is still on its way out would take the new one with it.
    until("the definitions to be applied", async || {
        kustomize(ctx, &["apply"], "deploy/crds").await?;
        let names = berth_api::crds::all()
            .into_iter()
            .filter_map(|crd| crd.metadata.name);
        let names: Vec<_> = names.collect();
        let mut wait = vec!["wait", "--for=condition=Established", "--timeout=5s", "crd"];
        wait.extend(names.iter().map(String::as_str));
        ctx.kubectl.run(&wait).await?;
        check(true, String::new)
    })
    .await
}

/// Deletes the CustomResourceDefinitions, and with them every object of theirs.
pub async fn delete_crds(ctx: &Ctx) -> Result<()> {
    kustomize(ctx, &["delete", "--wait=true"], "deploy/crds").await?;
    Ok(())
}

/// What is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sets of Berth's own kind, on disks.
    OrdinalSets,
    /// Native StatefulSets too.
    NativeStatefulSets,
    /// Sets of Berth's own kind, on each node's own filesystem.
    QuickStart,
}

impl Mode {
    /// The kustomization that installs it.
    pub fn path(self) -> &'static str {
        match self {
            Self::OrdinalSets => "deploy",
            Self::NativeStatefulSets => "deploy/native-statefulsets",
            Self::QuickStart => "deploy/quick-start",
        }
    }
}

/// Installs Berth and waits until controller and agents are ready.
pub async fn install(ctx: &Ctx, image: Option<&str>) -> Result<()> {
    install_in(ctx, Mode::OrdinalSets, image).await
}

/// As [`install`], in a mode; on a cluster that has Berth, changes the mode.
pub async fn install_in(ctx: &Ctx, mode: Mode, image: Option<&str>) -> Result<()> {
    apply(ctx, mode).await?;
    if let Some(image) = image {
        for (workload, container) in [
            ("deploy/berth-controller", "controller"),
            ("ds/berth-agent", "agent"),
        ] {
            let image = format!("{container}={image}");
            ctx.kubectl
                .run(&["-n", SYSTEM, "set", "image", workload, &image])
                .await?;
        }
    }
    ready(ctx).await
}

/// Applies what a user applies, without waiting for the pods.
pub async fn apply(ctx: &Ctx, mode: Mode) -> Result<()> {
    apply_crds(ctx).await?;
    kustomize(ctx, &["apply"], mode.path()).await?;
    Ok(())
}

/// Waits until the pods of controller and agents are those of their workloads and
/// ready, and every node has the driver.
pub async fn ready(ctx: &Ctx) -> Result<()> {
    for workload in ["ds/berth-agent", "deploy/berth-controller"] {
        let status = ["rollout", "status", workload, "--timeout=240s"];
        ctx.kubectl
            .run(&[&["-n", SYSTEM][..], &status].concat())
            .await
            .with_context(|| format!("{workload} does not become ready"))?;
    }
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    until("kubelet to accept the driver on every node", async || {
        let all = nodes.list(&ListParams::default()).await?.items.len();
        let ours = ctx.storage_nodes().await?.len();
        check(ours == all, || format!("{ours} of {all} nodes"))
    })
    .await
}

/// Starts controller and agents anew, for an image that changed under its name;
/// [`ready`] waits for them.
pub async fn restart(ctx: &Ctx) -> Result<()> {
    for workload in ["ds/berth-agent", "deploy/berth-controller"] {
        ctx.kubectl
            .run(&["-n", SYSTEM, "rollout", "restart", workload])
            .await?;
    }
    Ok(())
}

/// Makes Berth's class the one that claims without a class get.
pub async fn make_default_class(ctx: &Ctx) -> Result<()> {
    let classes: Api<StorageClass> = Api::all(ctx.client.clone());
    for class in classes.list(&ListParams::default()).await? {
        let name = class.metadata.name.context("an object has a name")?;
        let mark = format!("{DEFAULT_CLASS}={}", name == CLASS);
        ctx.kubectl
            .run(&["annotate", "--overwrite", "storageclass", &name, &mark])
            .await?;
    }
    Ok(())
}

/// Makes a pool of each disk that is mounted under the pools root of a node, and
/// returns what the agent said.
pub async fn init_pools(ctx: &Ctx, node: &str) -> Result<String> {
    ctx.agent(node, &["pools", "init", "--all"]).await
}

async fn has_uninitialized(ctx: &Ctx, node: &str) -> Result<bool> {
    Ok(pools_of(ctx, node)
        .await?
        .iter()
        .any(|pool| pool["id"].is_null()))
}

async fn pools_of(ctx: &Ctx, node: &str) -> Result<Vec<Value>> {
    Ok(serde_json::from_str(
        &ctx.agent(node, &["pools", "--output", "json"]).await?,
    )?)
}

/// Nodes whose agents see at least one directory that can be a pool.
pub async fn nodes_with_pools(ctx: &Ctx) -> Result<Vec<String>> {
    let mut nodes = Vec::new();
    for node in ctx.storage_nodes().await? {
        if !pools_of(ctx, &node).await?.is_empty() {
            nodes.push(node);
        }
    }
    Ok(nodes)
}

/// Makes the pools of every node that has disks, and waits until the cluster
/// knows them.
pub async fn init_all_pools(ctx: &Ctx) -> Result<Vec<String>> {
    let nodes = nodes_with_pools(ctx).await?;
    ensure!(
        !nodes.is_empty(),
        "no node has a disk mounted below /var/lib/berth/pools: mount one per pool and try again"
    );
    for node in &nodes {
        if has_uninitialized(ctx, node).await? {
            init_pools(ctx, node).await?;
        }
    }
    granted(ctx, &nodes).await?;
    Ok(nodes)
}

/// Waits until the agents have made the pools of the quick start, and the cluster
/// knows one on every node; returns the nodes.
pub async fn shared_pools(ctx: &Ctx) -> Result<Vec<String>> {
    let nodes = ctx.storage_nodes().await?;
    granted(ctx, &nodes).await?;
    Ok(nodes)
}

async fn granted(ctx: &Ctx, nodes: &[String]) -> Result<()> {
    let pools: Api<berth_api::Pool> = Api::all(ctx.client.clone());
    until("the pools to be granted", async || {
        let all = pools.list(&ListParams::default()).await?.items;
        let granted = |node: &String| {
            all.iter().any(|p| {
                p.status.as_ref().is_some_and(|s| {
                    s.node.as_ref() == Some(node)
                        && s.conditions
                            .iter()
                            .any(|c| c.reason == berth_api::names::reason::GRANTED)
                })
            })
        };
        check(nodes.iter().all(granted), || {
            format!("{} pools known", all.len())
        })
    })
    .await
}
