//! Volumes that are images: mounted, as raw block devices, and copies of claims.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, api::DeleteParams};
use serde_json::json;

use super::{
    data::{bound_capacity, claim_manifest, class_manifest},
    expect_file,
    refusal::{user_away_from, user_of},
    write,
};
use crate::{
    ctx::{Ctx, node_of},
    wait::{check, until},
};

/// An image holds what was asked for: `df` in the pod shows the limit, a writer
/// stops there, and deleting leaves neither image nor device.
pub async fn image_volume(ctx: &Ctx, ns: &str) -> Result<()> {
    let class = format!("image-{ns}");
    let parameters = json!({"backend": "image"});
    ctx.apply(ns, &class_manifest(&class, parameters, "Delete"))
        .await?;
    ctx.apply(ns, &claim_manifest("disk", &class, "64Mi"))
        .await?;
    ctx.apply(ns, &user_of("disk")).await?;
    let pods = ctx.wait_ready(ns, &["user-of-disk"]).await?;
    let node = node_of(&pods["user-of-disk"]);
    let total: u64 = ctx
        .kubectl
        .shell(ns, "user-of-disk", "df -k /data | awk 'END {print $2}'")
        .await?
        .trim()
        .parse()?;
    ensure!(
        (40 << 10..=64 << 10).contains(&total),
        "df shows {total} KiB of a claim of 64 MiB"
    );
    let fill = "dd if=/dev/urandom of=/data/fill bs=1M count=100 2>&1; true";
    let output = ctx.kubectl.shell(ns, "user-of-disk", fill).await?;
    ensure!(
        output.contains("No space left"),
        "writing 100 MiB to a claim of 64 MiB ended with {output:?}"
    );
    let volume = ctx.volume_of(ns, "disk").await?;
    let id = volume.metadata.name.context("a stored Volume has a name")?;
    gone(ctx, ns, "disk", &id).await?;
    let left = ctx.agent(&node, &["check"]).await;
    let left = left.unwrap_or_else(|e| e.to_string());
    ensure!(!left.contains(&id), "the check still names {id}: {left}");
    delete_class(ctx, &class).await
}

/// A raw block device keeps its bytes when its pod is made again, and grows.
pub async fn block_volume(ctx: &Ctx, ns: &str) -> Result<()> {
    let mut claim = claim_manifest("raw", "berth", "32Mi");
    claim["spec"]["volumeMode"] = json!("Block");
    ctx.apply(ns, &claim).await?;
    let mut pod = user_of("raw");
    let container = &mut pod["spec"]["containers"][0];
    container["volumeMounts"] = json!([]);
    container["volumeDevices"] = json!([{"name": "data", "devicePath": "/dev/raw"}]);
    ctx.apply(ns, &pod).await?;
    ctx.wait_ready(ns, &["user-of-raw"]).await?;
    let put = "printf kept | dd of=/dev/raw bs=1M seek=8 conv=notrunc 2>&1 && sync";
    ctx.kubectl.shell(ns, "user-of-raw", put).await?;
    ctx.pods(ns)
        .delete("user-of-raw", &DeleteParams::default())
        .await?;
    ctx.wait_only(ns, &[]).await?;
    ctx.apply(ns, &pod).await?;
    ctx.wait_ready(ns, &["user-of-raw"]).await?;
    let get = "dd if=/dev/raw bs=1M skip=8 count=1 2>/dev/null | head -c 4";
    let found = ctx.kubectl.shell(ns, "user-of-raw", get).await?;
    ensure!(found == "kept", "the device holds {found:?}");
    let patch = r#"{"spec":{"resources":{"requests":{"storage":"48Mi"}}}}"#;
    ctx.kubectl
        .run(&["-n", ns, "patch", "pvc", "raw", "-p", patch])
        .await?;
    until("the claim to show 48Mi", async || {
        let capacity = bound_capacity(ctx, ns, "raw").await?;
        check(capacity.0 == 48 << 20, || capacity.to_string())
    })
    .await?;
    let size = "dd if=/dev/raw bs=1M 2>/dev/null | wc -c";
    let size = ctx.kubectl.shell(ns, "user-of-raw", size).await?;
    ensure!(
        size.trim() == "50331648",
        "the grown device has {size} bytes"
    );
    Ok(())
}

/// A claim whose data source is another claim starts with its data, wherever the
/// scheduler would rather have had it, and goes its own way.
pub async fn claim_is_copied(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &claim_manifest("first", "berth", "32Mi"))
        .await?;
    ctx.apply(ns, &user_of("first")).await?;
    let pods = ctx.wait_ready(ns, &["user-of-first"]).await?;
    let home = node_of(&pods["user-of-first"]);
    write(ctx, ns, "user-of-first", "/data/file", "copied").await?;

    let mut small = claim_manifest("small", "berth", "16Mi");
    small["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "first"});
    ctx.apply(ns, &small).await?;
    ctx.apply(ns, &user_of("small")).await?;
    super::refusal::expect_event(ctx, ns, "small", "ask for as much").await?;

    let mut claim = claim_manifest("second", "berth", "48Mi");
    claim["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "first"});
    ctx.apply(ns, &claim).await?;
    // The scheduler's first choice is a node where the source is not.
    let pod = user_away_from("second", &home);
    ctx.apply(ns, &pod).await?;
    let pods = ctx.wait_ready(ns, &["user-of-second"]).await?;
    let there = node_of(&pods["user-of-second"]);
    ensure!(
        there == home,
        "the copy is on {there}, its source on {home}"
    );
    expect_file(ctx, ns, "user-of-second", "/data/file", "copied").await?;
    write(ctx, ns, "user-of-second", "/data/file", "changed").await?;
    expect_file(ctx, ns, "user-of-first", "/data/file", "copied").await
}

/// Deletes a claim with its pod, and waits until its volume is gone.
async fn gone(ctx: &Ctx, ns: &str, claim: &str, id: &str) -> Result<()> {
    let params = DeleteParams::default();
    ctx.pods(ns)
        .delete(&format!("user-of-{claim}"), &params)
        .await?;
    ctx.claims(ns).delete(claim, &params).await?;
    until(&format!("Volume {id} to be gone"), async || {
        let volume = ctx.volumes().get_opt(id).await?;
        check(volume.is_none(), || {
            format!("{:?}", volume.map(|v| v.status))
        })
    })
    .await
}

pub(super) async fn delete_class(ctx: &Ctx, class: &str) -> Result<()> {
    let classes: Api<StorageClass> = Api::all(ctx.client.clone());
    classes.delete(class, &DeleteParams::default()).await?;
    Ok(())
}
