//! Where volumes go.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::{
    ctx::{Ctx, node_of},
    sets::SetBuilder,
};

/// Three replicas with anti-affinity land on three nodes, each volume on its
/// pod's node.
pub async fn spread_over_nodes(ctx: &Ctx, ns: &str) -> Result<()> {
    let set = SetBuilder::new("web", 3)
        .claim("data", "32Mi")
        .anti_affinity();
    ctx.apply(ns, &set.build()).await?;
    let pods = ctx.wait_ready(ns, &["web-0", "web-1", "web-2"]).await?;
    let nodes: BTreeSet<_> = pods.values().map(node_of).collect();
    ensure!(nodes.len() == 3, "three replicas are on {nodes:?}");
    for (name, pod) in &pods {
        let volume = ctx.volume_of(ns, &format!("data-{name}")).await?;
        let node = node_of(pod);
        ensure!(
            volume.spec.node == node,
            "{name} is on {node}, its volume on {}",
            volume.spec.node
        );
    }
    Ok(())
}

/// Two replicas that must share a node get two different pools.
pub async fn one_node_two_pools(ctx: &Ctx, ns: &str, node: &str) -> Result<()> {
    let set = SetBuilder::new("pair", 2)
        .claim("data", "32Mi")
        .on_node(node);
    ctx.apply(ns, &set.build()).await?;
    ctx.wait_ready(ns, &["pair-0", "pair-1"]).await?;
    let first = ctx.volume_of(ns, "data-pair-0").await?.spec;
    let second = ctx.volume_of(ns, "data-pair-1").await?.spec;
    ensure!(
        first.node == node && second.node == node,
        "not on {node}: {first:?}, {second:?}"
    );
    ensure!(
        first.pool != second.pool,
        "both volumes are in pool {}",
        first.pool
    );
    Ok(())
}

/// Two claims of one pod land on one node, under their exact names, and
/// `by-claim` leads to them.
pub async fn two_claims_one_pod(ctx: &Ctx, ns: &str) -> Result<()> {
    let set = SetBuilder::new("db", 1)
        .claim("data", "32Mi")
        .claim("wal", "32Mi");
    ctx.apply(ns, &set.build()).await?;
    let pods = ctx.wait_ready(ns, &["db-0"]).await?;
    let node = node_of(pods.get("db-0").context("db-0 was waited for")?);
    for claim in ["data-db-0", "wal-db-0"] {
        let volume = ctx.volume_of(ns, claim).await?;
        ensure!(
            volume.spec.node == node,
            "{claim} is on {}, the pod on {node}",
            volume.spec.node
        );
        let owner = volume.spec.owner.context("a set's volume names its set")?;
        ensure!(
            (owner.kind.as_str(), owner.name.as_str(), owner.ordinal) == ("OrdinalSet", "db", 0),
            "{claim} belongs to {owner:?}"
        );
        super::write(
            ctx,
            ns,
            "db-0",
            &format!("/{}/mark", claim.trim_end_matches("-db-0")),
            claim,
        )
        .await?;
        let path = format!("/var/lib/berth/by-claim/{ns}/{claim}/mark");
        let found = ctx.on_node(&node, &["cat", &path]).await?;
        ensure!(found == claim, "{path} holds {found:?}");
    }
    Ok(())
}

/// A set that Kubernetes' own controller runs gets its volumes from the same
/// class, spread over pools in the same way.
pub async fn native_set(ctx: &Ctx, ns: &str, node: &str) -> Result<()> {
    let set = SetBuilder::new("sts", 2)
        .native()
        .claim("data", "32Mi")
        .on_node(node);
    ctx.apply(ns, &set.build()).await?;
    ctx.wait_ready(ns, &["sts-0", "sts-1"]).await?;
    let first = ctx.volume_of(ns, "data-sts-0").await?.spec;
    let second = ctx.volume_of(ns, "data-sts-1").await?.spec;
    ensure!(
        first.pool != second.pool,
        "both volumes are in pool {}",
        first.pool
    );
    let owner = second.owner.context("a set's volume names its set")?;
    ensure!(
        owner.kind == "StatefulSet" && owner.ordinal == 1,
        "the owner is {owner:?}"
    );
    Ok(())
}
