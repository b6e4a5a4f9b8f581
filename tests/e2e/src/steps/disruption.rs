//! What breaks, and what stays whole.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use berth_api::{NodeStorage, PoolHealth};
use berth_cluster::Cluster;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use super::{data::wait_replaced, expect_file, write};
use crate::{
    ctx::{Ctx, SYSTEM, node_of, uid_of},
    install,
    sets::SetBuilder,
    wait::{Seen, check, until},
};

/// A pod deleted by force while it still stops: the next pod gets the volume only
/// when the old one has let go of it.
pub async fn forced_delete_has_one_writer(ctx: &Ctx, ns: &str) -> Result<()> {
    // Each pod writes its UID several times a second, until it is really gone.
    let line = "while true; do echo $UID_OF_POD >> /data/log; sleep 0.1; done";
    let set = SetBuilder::new("web", 1)
        .claim("data", "32Mi")
        .read_write_once()
        .command(line)
        .container_field(
            "env",
            json!([{"name": "UID_OF_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]),
        )
        .container_field("lifecycle", json!({"preStop": {"exec": {"command": ["sleep", "15"]}}}))
        .pod_field("terminationGracePeriodSeconds", json!(30));
    ctx.apply(ns, &set.build()).await?;
    let pods = ctx.wait_ready(ns, &["web-0"]).await?;
    let old = uid_of(&pods["web-0"]);
    ctx.kubectl
        .run(&[
            "-n",
            ns,
            "delete",
            "pod",
            "web-0",
            "--force",
            "--grace-period=0",
            "--wait=false",
        ])
        .await?;
    wait_replaced(ctx, ns, "web-0", &old).await?;
    let new = uid_of(&ctx.pods(ns).get("web-0").await?);
    let log = until("both pods in the log", async || {
        let log = ctx.kubectl.shell(ns, "web-0", "cat /data/log").await?;
        Ok(if log.contains(&new) {
            Seen::Done(log)
        } else {
            Seen::NotYet("only the old".into())
        })
    })
    .await?;
    let lines: Vec<_> = log.lines().collect();
    let first_new = lines
        .iter()
        .position(|l| *l == new)
        .context("the new pod has written")?;
    ensure!(
        first_new > 0 && lines[0] == old,
        "the old pod's lines are gone"
    );
    let late = lines[first_new..].iter().filter(|l| **l == old).count();
    ensure!(
        late == 0,
        "the old pod wrote {late} lines after the new one had begun"
    );
    Ok(())
}

/// The agent dies hard; pods go on, and the next agent serves the same volumes.
pub async fn agent_killed(ctx: &Ctx, cluster: &Cluster, ns: &str) -> Result<()> {
    ctx.apply(ns, &SetBuilder::new("web", 1).claim("data", "32Mi").build())
        .await?;
    let pods = ctx.wait_ready(ns, &["web-0"]).await?;
    write(ctx, ns, "web-0", "/data/mark", "kept").await?;
    let node = node_of(&pods["web-0"]);
    kill_container(ctx, cluster, &ctx.agent_pod(&node).await?).await?;
    // The pod did not notice.
    expect_file(ctx, ns, "web-0", "/data/mark", "kept").await?;
    let after = ctx.pods(ns).get("web-0").await?;
    ensure!(
        uid_of(&after) == uid_of(&pods["web-0"]),
        "the pod was replaced"
    );
    // And the new agent unpublishes and publishes what the old one published.
    ctx.pods(ns)
        .delete("web-0", &DeleteParams::default())
        .await?;
    wait_replaced(ctx, ns, "web-0", &uid_of(&after)).await?;
    expect_file(ctx, ns, "web-0", "/data/mark", "kept").await
}

/// The leading controller dies hard in the middle of a scale-out: in the end
/// there is exactly one pod, claim, Volume and PV for each ordinal.
pub async fn controller_killed(ctx: &Ctx, cluster: &Cluster, ns: &str) -> Result<()> {
    const REPLICAS: usize = 9;
    let names: Vec<_> = (0..REPLICAS).map(|i| format!("web-{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    ctx.apply(
        ns,
        &SetBuilder::new("web", 1)
            .parallel()
            .claim("data", "16Mi")
            .build(),
    )
    .await?;
    ctx.wait_ready(ns, &["web-0"]).await?;
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), SYSTEM);
    let leader = leases
        .get("berth-controller")
        .await?
        .spec
        .and_then(|s| s.holder_identity)
        .context("nobody leads")?;
    ctx.scale(ns, "oset/web", REPLICAS as i32).await?;
    until("the scale-out to be under way", async || {
        let pods = ctx.pods(ns).list(&ListParams::default()).await?.items.len();
        check(pods > 1, || format!("{pods} pods"))
    })
    .await?;
    kill_container(ctx, cluster, &leader).await?;
    ctx.wait_ready(ns, &names).await?;
    ctx.wait_only(ns, &names).await?;
    let claims = ctx.claims(ns).list(&ListParams::default()).await?.items;
    ensure!(
        claims.len() == REPLICAS,
        "{} claims for {REPLICAS} replicas",
        claims.len()
    );
    let ours: BTreeSet<_> = claims
        .iter()
        .filter_map(|c| c.metadata.uid.clone())
        .collect();
    let of_namespace = |claim: &berth_api::ClaimRef| claim.namespace == ns;
    let volumes = ctx.volumes().list(&ListParams::default()).await?.items;
    let volumes: BTreeSet<_> = volumes
        .into_iter()
        .filter(|v| of_namespace(&v.spec.claim))
        .map(|v| v.spec.claim.uid)
        .collect();
    ensure!(volumes == ours, "claims {ours:?}, Volumes {volumes:?}");
    Ok(())
}

/// A node crashes and returns: the same pod, on the same node, with its data.
pub async fn node_crash(ctx: &Ctx, cluster: &Cluster, ns: &str) -> Result<()> {
    ctx.apply(
        ns,
        &SetBuilder::new("web", 3)
            .claim("data", "32Mi")
            .anti_affinity()
            .build(),
    )
    .await?;
    let names = ["web-0", "web-1", "web-2"];
    let before = ctx.wait_ready(ns, &names).await?;
    for name in names {
        write(ctx, ns, name, "/data/mark", name).await?;
    }
    // Not a node that runs the cluster's DNS or the leader: the crash is about storage.
    let node = node_of(&before["web-2"]);
    crash_and_return(ctx, cluster, &node).await?;
    let after = ctx.wait_ready(ns, &names).await?;
    ensure!(
        node_of(&after["web-2"]) == node,
        "web-2 went to {}",
        node_of(&after["web-2"])
    );
    for name in names {
        expect_file(ctx, ns, name, "/data/mark", name).await?;
    }
    Ok(())
}

/// Kills a node, waits until the cluster noticed, and starts it again.
pub async fn crash_and_return(ctx: &Ctx, cluster: &Cluster, node: &str) -> Result<()> {
    let pool = pool_id(ctx, node, "disk0").await?;
    cluster.kill_node(node)?;
    wait_node(ctx, node, false).await?;
    wait_pool_reason(ctx, &pool, "NodeNotReady").await?;
    cluster.start_node(node)?;
    wait_node(ctx, node, true).await?;
    wait_pool_reason(ctx, &pool, "Granted").await
}

/// Waits until a node is, or is not, Ready.
pub async fn wait_node(ctx: &Ctx, node: &str, ready: bool) -> Result<()> {
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    until(
        &format!("node {node} to be {}ready", if ready { "" } else { "not " }),
        async || {
            let conditions = nodes.get(node).await?.status.and_then(|s| s.conditions);
            let found = conditions
                .unwrap_or_default()
                .into_iter()
                .find(|c| c.type_ == "Ready")
                .map(|c| c.status)
                .unwrap_or_default();
            check((found == "True") == ready, || format!("Ready={found}"))
        },
    )
    .await
}

/// An unmounted pool is a lost mount, and a pool without its identity file is no
/// pool: both are refused, nothing is written, and both heal by themselves.
pub async fn lost_pool(ctx: &Ctx, cluster: &Cluster, ns: &str, node: &str) -> Result<()> {
    const DISK: &str = "disk1";
    let path = format!("/var/lib/berth/pools/{DISK}");
    let pool = pool_id(ctx, node, DISK).await?;

    cluster.unmount_pool(node, DISK)?;
    wait_health(ctx, node, DISK, PoolHealth::LostMount).await?;
    wait_pool_reason(ctx, &pool, "LostMount").await?;
    place_and_expect_other_pool(ctx, ns, "unmounted", node, &pool).await?;
    let left = node_exec(cluster, node, &["find", &path, "-mindepth", "1"])?;
    ensure!(
        left.trim().is_empty(),
        "something was written under the empty mount point: {left}"
    );
    cluster.mount_pool(node, DISK)?;
    wait_health(ctx, node, DISK, PoolHealth::Healthy).await?;

    let identity = format!("{path}/.berth/pool.json");
    let aside = format!("{path}/.berth/aside");
    node_exec(cluster, node, &["mv", &identity, &aside])?;
    wait_health(ctx, node, DISK, PoolHealth::LostMount).await?;
    place_and_expect_other_pool(ctx, ns, "nameless", node, &pool).await?;
    let made = node_exec(
        cluster,
        node,
        &["sh", "-c", &format!("test -e {identity} || echo absent")],
    )?;
    ensure!(made.trim() == "absent", "the identity file was made again");
    node_exec(cluster, node, &["mv", &aside, &identity])?;
    wait_health(ctx, node, DISK, PoolHealth::Healthy).await?;
    wait_pool_reason(ctx, &pool, "Granted").await
}

/// Deleting every CRD removes no data; reinstalling finds it.
pub async fn crds_deleted(ctx: &Ctx, ns: &str) -> Result<()> {
    let set = SetBuilder::new("web", 2).claim("data", "32Mi").build();
    ctx.apply(ns, &set).await?;
    ctx.wait_ready(ns, &["web-0", "web-1"]).await?;
    for name in ["web-0", "web-1"] {
        write(ctx, ns, name, "/data/mark", name).await?;
    }
    let before = ctx
        .volume_of(ns, "data-web-0")
        .await?
        .status
        .and_then(|s| s.path);
    install::delete_crds(ctx).await?;
    // The sets went with their definition, and their pods with them.
    ctx.wait_only(ns, &[]).await?;
    install::apply_crds(ctx).await?;
    until("the Volumes to be adopted", async || {
        let mut phases = Vec::new();
        for claim in ["data-web-0", "data-web-1"] {
            let status = ctx.volume_of(ns, claim).await?.status.unwrap_or_default();
            phases.push((status.phase, status.path));
        }
        check(
            phases
                .iter()
                .all(|(p, _)| *p == berth_api::VolumePhase::Ready),
            || format!("{phases:?}"),
        )
    })
    .await?;
    ctx.apply(ns, &set).await?;
    ctx.wait_ready(ns, &["web-0", "web-1"]).await?;
    for name in ["web-0", "web-1"] {
        expect_file(ctx, ns, name, "/data/mark", name).await?;
    }
    let after = ctx
        .volume_of(ns, "data-web-0")
        .await?
        .status
        .and_then(|s| s.path);
    ensure!(
        before == after,
        "the volume was at {before:?} and is at {after:?}"
    );
    Ok(())
}

async fn place_and_expect_other_pool(
    ctx: &Ctx,
    ns: &str,
    name: &str,
    node: &str,
    lost: &str,
) -> Result<()> {
    let set = SetBuilder::new(name, 2).claim("data", "32Mi").on_node(node);
    ctx.apply(ns, &set.build()).await?;
    let pods = [format!("{name}-0"), format!("{name}-1")];
    ctx.wait_ready(ns, &[&pods[0], &pods[1]]).await?;
    for pod in &pods {
        let volume = ctx.volume_of(ns, &format!("data-{pod}")).await?;
        ensure!(
            volume.spec.pool != lost,
            "data-{pod} was placed in the lost pool"
        );
    }
    Ok(())
}

async fn node_pool(ctx: &Ctx, node: &str, disk: &str) -> Result<berth_api::NodePool> {
    let all: Api<NodeStorage> = Api::all(ctx.client.clone());
    let pools = all.get(node).await?.status.unwrap_or_default().pools;
    let suffix = format!("/{disk}");
    pools
        .into_iter()
        .find(|p| p.path.ends_with(&suffix))
        .with_context(|| format!("{node} does not report {disk}"))
}

pub(super) async fn pool_id(ctx: &Ctx, node: &str, disk: &str) -> Result<String> {
    node_pool(ctx, node, disk)
        .await?
        .id
        .with_context(|| format!("{disk} has no id"))
}

async fn wait_health(ctx: &Ctx, node: &str, disk: &str, health: PoolHealth) -> Result<()> {
    until(&format!("{disk} of {node} to be {health:?}"), async || {
        let found = node_pool(ctx, node, disk).await?;
        check(found.health == health, || {
            format!("{:?}: {:?}", found.health, found.message)
        })
    })
    .await
}

pub(super) async fn wait_pool_reason(ctx: &Ctx, pool: &str, reason: &str) -> Result<()> {
    let pools: Api<berth_api::Pool> = Api::all(ctx.client.clone());
    until(&format!("pool {pool} to be {reason}"), async || {
        let conditions = pools.get(pool).await?.status.unwrap_or_default().conditions;
        let found: Vec<_> = conditions.iter().map(|c| c.reason.as_str()).collect();
        check(found.contains(&reason), || format!("{found:?}"))
    })
    .await
}

/// Runs a program on a node and returns what it printed.
pub(super) fn node_exec(cluster: &Cluster, node: &str, args: &[&str]) -> Result<String> {
    let out = cluster.node_exec(node, args)?;
    let error = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "{} on {node}: {}",
        args.join(" "),
        error.trim()
    );
    Ok(String::from_utf8(out.stdout)?)
}

/// Kills the first process of a pod's first container, as the node's kernel
/// would, and waits until kubelet has started another.
async fn kill_container(ctx: &Ctx, cluster: &Cluster, pod: &str) -> Result<()> {
    let found = ctx.pods(SYSTEM).get(pod).await?;
    let node = node_of(&found);
    let container = |pod: &k8s_openapi::api::core::v1::Pod| {
        let statuses = pod
            .status
            .as_ref()
            .and_then(|s| s.container_statuses.clone());
        statuses.unwrap_or_default().into_iter().next()
    };
    let before = container(&found).context("the pod has no container yet")?;
    let id = before.container_id.context("the container has no id yet")?;
    let id = id.trim_start_matches("containerd://");
    let inspect = node_exec(cluster, &node, &["crictl", "inspect", id])?;
    let inspect: Value = serde_json::from_str(&inspect)?;
    let Some(pid) = inspect["info"]["pid"].as_u64() else {
        bail!("crictl does not know the process of {id}");
    };
    node_exec(cluster, &node, &["kill", "-9", &pid.to_string()])?;
    until(&format!("{pod} to run again"), async || {
        let now = container(&ctx.pods(SYSTEM).get(pod).await?).context("no container")?;
        check(
            now.ready && now.restart_count > before.restart_count,
            || format!("restarts {}, ready {}", now.restart_count, now.ready),
        )
    })
    .await
}
