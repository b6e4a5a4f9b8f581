//! What goes wrong under volumes and pools is told where people look: in conditions,
//! in events, on the claim, in metrics.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use berth_api::{Pool, names::condition};
use berth_cluster::Cluster;
use k8s_openapi::{api::core::v1::Event, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use super::{
    backends::delete_class,
    data::{claim_manifest, class_manifest},
    disruption::{node_exec, pool_id, wait_pool_reason},
    expect_file,
    refusal::{expect_event, user_of},
    write,
};
use crate::{
    ctx::{Ctx, SYSTEM, node_of},
    sets::SetBuilder,
    wait::{check, until},
};

/// A volume fills up, then the filesystem in it meets an error: both are told, on the
/// claim too.
pub async fn troubled_volume(ctx: &Ctx, ns: &str) -> Result<()> {
    let class = format!("troubled-{ns}");
    let parameters = json!({"backend": "image"});
    ctx.apply(ns, &class_manifest(&class, parameters, "Delete"))
        .await?;
    ctx.apply(ns, &claim_manifest("sick", &class, "32Mi"))
        .await?;
    ctx.apply(ns, &user_of("sick")).await?;
    let pods = ctx.wait_ready(ns, &["user-of-sick"]).await?;
    let node = node_of(&pods["user-of-sick"]);
    wait_conditions(ctx, ns, ("True", "Healthy"), ("False", "RoomLeft")).await?;

    let fill = "dd if=/dev/zero of=/data/fill bs=1M count=64; sync";
    ctx.kubectl.shell(ns, "user-of-sick", fill).await?;
    expect_event(ctx, ns, "sick", "raise the claim's storage request").await?;
    wait_conditions(ctx, ns, ("True", "Healthy"), ("True", "Full")).await?;

    let device = "awk '$5 == \"/data\" {print $3}' /proc/self/mountinfo";
    let device = ctx.kubectl.shell(ns, "user-of-sick", device).await?;
    ext4_error(device.trim())?;
    expect_event(ctx, ns, "sick", "refuses writes: delete the pods").await?;
    wait_conditions(ctx, ns, ("False", "ReadOnly"), ("True", "Full")).await?;
    let volume = ctx.volume_of(ns, "sick").await?;
    let id = volume.metadata.name.context("a stored Volume has a name")?;
    for words in ["refuses writes: delete the pods", "95 % of its size"] {
        expect_event(ctx, "default", &id, words).await?;
    }
    let port = 9809;
    let agent = ctx.agent_pod(&node).await?;
    let uri = format!("/api/v1/namespaces/{SYSTEM}/pods/{agent}:{port}/proxy/metrics");
    let metrics = ctx.raw("GET", &uri, "").await?;
    let pool = &volume.spec.pool;
    for kind in ["ReadOnly", "IoErrors", "Full"] {
        let start = format!("berth_agent_volume_troubles{{pool=\"{pool}\",kind=\"{kind}\"}} ");
        ensure!(metrics.contains(&start), "{start} is not in\n{metrics}");
    }
    let told = ctx.agent(&node, &["volumes"]).await?;
    ensure!(told.contains("refuses writes"), "{told}");
    delete_class(ctx, &class).await
}

/// A disk that turns read-only is told on its Pool, and told no more once it is not.
/// Nothing may run on it.
pub async fn read_only_pool(ctx: &Ctx, cluster: &Cluster, node: &str) -> Result<()> {
    const DISK: &str = "disk1";
    let pool = pool_id(ctx, node, DISK).await?;
    let path = format!("/var/lib/berth/pools/{DISK}");
    let remount = |options| node_exec(cluster, node, &["mount", "-o", options, &path]);
    remount("remount,ro")?;
    wait_pool_reason(ctx, &pool, "Unhealthy").await?;
    wait_pool_reason(ctx, &pool, "ReadOnly").await?;
    expect_event(ctx, "default", &pool, "mount it writable").await?;
    let since = Api::<Pool>::all(ctx.client.clone()).get(&pool).await?;
    remount("remount,rw")?;
    wait_pool_reason(ctx, &pool, "Granted").await?;
    wait_pool_reason(ctx, &pool, "Healthy").await?;
    let uid = since.metadata.uid;
    let events: Api<Event> = Api::namespaced(ctx.client.clone(), "default");
    until("the recovery to be told", async || {
        let list = events.list(&ListParams::default()).await?.items;
        let reasons: Vec<_> = list
            .into_iter()
            .filter(|event| event.involved_object.uid == uid)
            .filter_map(|event| event.reason)
            .collect();
        let told = reasons.iter().any(|reason| reason == "Granted");
        check(told, || format!("{reasons:?}"))
    })
    .await
}

/// A disk that does not answer stops only itself: it is told, what is asked of the other
/// disks of its node is done meanwhile, and what waits for it goes on once it answers.
pub async fn frozen_pool(ctx: &Ctx, cluster: &Cluster, ns: &str, node: &str) -> Result<()> {
    const DISK: &str = "disk0";
    let pool = pool_id(ctx, node, DISK).await?;
    let set = |name: &str| SetBuilder::new(name, 2).claim("data", "32Mi").on_node(node);
    ctx.apply(ns, &set("before").parallel().build()).await?;
    let before = ["before-0", "before-1"];
    ctx.wait_ready(ns, &before).await?;
    for name in before {
        write(ctx, ns, name, "/data/mark", name).await?;
    }
    let frozen = cluster.freeze_pool(node, DISK)?;
    wait_pool_reason(ctx, &pool, "Unresponsive").await?;
    expect_event(ctx, "default", &pool, "does not answer").await?;
    ctx.apply(ns, &set("meanwhile").build()).await?;
    let meanwhile = ["meanwhile-0", "meanwhile-1"];
    ctx.wait_ready(ns, &meanwhile).await?;
    for name in meanwhile {
        let there = ctx.volume_of(ns, &format!("data-{name}")).await?.spec.pool;
        ensure!(there != pool, "data-{name} was placed on the silent disk");
        write(ctx, ns, name, "/data/mark", name).await?;
    }
    let claim = "data-meanwhile-1";
    let erased = ctx.volume_of(ns, claim).await?;
    let erased = erased.metadata.name.context("a stored Volume has a name")?;
    ctx.scale(ns, "oset/meanwhile", 1).await?;
    let delete = DeleteParams::default();
    ctx.claims(ns).delete(claim, &delete).await?;
    until("a volume of the other disk to be erased", async || {
        let left = ctx.volumes().get_opt(&erased).await?;
        check(left.is_none(), || "it is still there".to_owned())
    })
    .await?;
    frozen.thaw()?;
    wait_pool_reason(ctx, &pool, "Granted").await?;
    for name in before.into_iter().chain(["meanwhile-0"]) {
        expect_file(ctx, ns, name, "/data/mark", name).await?;
    }
    Ok(())
}

/// Waits for the status and reason of Healthy and of Full.
async fn wait_conditions(
    ctx: &Ctx,
    ns: &str,
    healthy: (&str, &str),
    full: (&str, &str),
) -> Result<()> {
    until(
        &format!("Healthy={healthy:?} and Full={full:?}"),
        async || {
            let status = ctx.volume_of(ns, "sick").await?.status.unwrap_or_default();
            let said = |type_: &str| {
                let found = status.conditions.iter().find(|it| it.type_ == type_);
                found.map(|it: &Condition| (it.status.as_str(), it.reason.as_str()))
            };
            let holds =
                said(condition::HEALTHY) == Some(healthy) && said(condition::FULL) == Some(full);
            check(holds, || format!("{:?}", status.conditions))
        },
    )
    .await
}

/// Has the ext4 on a device meet an error, as it would on a bad disk. Nodes are
/// containers: they have this machine's kernel.
fn ext4_error(device: &str) -> Result<()> {
    let device = std::fs::read_link(format!("/sys/dev/block/{device}"))?;
    let name = device.file_name().context("a device has a name")?;
    let knob = Path::new("/sys/fs/ext4")
        .join(name)
        .join("trigger_fs_error");
    std::fs::write(&knob, "a test's").with_context(|| format!("writing {}", knob.display()))
}
