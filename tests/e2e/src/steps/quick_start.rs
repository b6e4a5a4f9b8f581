//! Nodes without disks: volumes are images on the nodes' own filesystems.

use anyhow::{Context, Result, ensure};
use berth_api::{Backend, Pool};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};

use super::{data::wait_replaced, expect_file, write};
use crate::{
    ctx::{Ctx, uid_of},
    sets::SetBuilder,
};

/// The pool's directory that the quick start names.
const DIR: &str = "shared";

/// A set on a cluster that was installed by the quick start gets limited volumes in
/// the nodes' shared pools, and they keep their data.
pub async fn set_without_disks(ctx: &Ctx, ns: &str) -> Result<()> {
    let set = SetBuilder::new("web", 3)
        .claim("data", "32Mi")
        .anti_affinity()
        .parallel();
    ctx.apply(ns, &set.build()).await?;
    let names = ["web-0", "web-1", "web-2"];
    let pods = ctx.wait_ready(ns, &names).await?;
    for name in names {
        let volume = ctx.volume_of(ns, &format!("data-{name}")).await?;
        let status = volume.status.context("a mounted volume has a status")?;
        ensure!(
            volume.spec.pool.starts_with(&format!("{DIR}-"))
                && status.backend == Some(Backend::Image),
            "{name} has its volume in pool {} as {:?}",
            volume.spec.pool,
            status.backend
        );
        write(ctx, ns, name, "/data/mark", name).await?;
    }
    let size = "df -k /data | tail -1 | awk '{print $2}'";
    let shown: u64 = ctx.kubectl.shell(ns, "web-0", size).await?.trim().parse()?;
    ensure!(
        (16 << 10..=32 << 10).contains(&shown),
        "df shows {shown} KiB in a claim of 32 MiB"
    );
    let fill = "dd if=/dev/urandom of=/data/fill bs=1M count=64 2>&1; sync; true";
    let output = ctx.kubectl.shell(ns, "web-0", fill).await?;
    ensure!(
        output.contains("No space left"),
        "writing 64 MiB to a claim of 32 MiB ended with {output:?}"
    );
    write(ctx, ns, "web-1", "/data/more", "its neighbour goes on").await?;
    ctx.pods(ns)
        .delete("web-0", &DeleteParams::default())
        .await?;
    wait_replaced(ctx, ns, "web-0", &uid_of(&pods["web-0"])).await?;
    for name in names {
        expect_file(ctx, ns, name, "/data/mark", name).await?;
    }
    Ok(())
}

/// Keeps new volumes off the pools of the quick start: the nodes' disks take its place.
pub async fn cordon(ctx: &Ctx) -> Result<()> {
    let pools: Api<Pool> = Api::all(ctx.client.clone());
    for pool in pools.list(&ListParams::default()).await? {
        let name = pool.metadata.name.context("an object has a name")?;
        if name.starts_with(&format!("{DIR}-")) {
            let patch = r#"{"spec":{"cordoned":true}}"#;
            ctx.kubectl
                .run(&["patch", "bpool", &name, "--type=merge", "-p", patch])
                .await?;
        }
    }
    Ok(())
}
