//! Data stays with its ordinal.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use super::{expect_file, write};
use crate::{
    ctx::{Ctx, node_of, uid_of},
    sets::SetBuilder,
    wait::{check, until},
};

/// A deleted pod comes back under its name, with its data, as another pod.
pub async fn survives_pod_delete(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &SetBuilder::new("web", 1).claim("data", "32Mi").build())
        .await?;
    let before = ctx.wait_ready(ns, &["web-0"]).await?;
    write(ctx, ns, "web-0", "/data/mark", "kept").await?;
    ctx.pods(ns)
        .delete("web-0", &DeleteParams::default())
        .await?;
    wait_replaced(ctx, ns, "web-0", &uid_of(&before["web-0"])).await?;
    expect_file(ctx, ns, "web-0", "/data/mark", "kept").await
}

/// Waits until `pod` is ready again with another UID.
pub async fn wait_replaced(ctx: &Ctx, ns: &str, pod: &str, old_uid: &str) -> Result<()> {
    until(&format!("another {pod}"), async || {
        let found = ctx.pods(ns).get_opt(pod).await?;
        let uid = found.as_ref().map(uid_of);
        check(
            found.as_ref().is_some_and(crate::ctx::is_ready) && uid.as_deref() != Some(old_uid),
            || format!("{pod} with uid {uid:?}"),
        )
    })
    .await
}

/// Scaling 3 -> 1 -> 3 keeps claims, volumes and data.
pub async fn survives_scale(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &SetBuilder::new("web", 3).claim("data", "32Mi").build())
        .await?;
    let names = ["web-0", "web-1", "web-2"];
    ctx.wait_ready(ns, &names).await?;
    for name in names {
        write(ctx, ns, name, "/data/mark", name).await?;
    }
    let claims = claim_uids(ctx, ns).await?;
    ctx.scale(ns, "oset/web", 1).await?;
    ctx.wait_only(ns, &["web-0"]).await?;
    ensure!(
        claim_uids(ctx, ns).await? == claims,
        "scaling down changed the claims"
    );
    ctx.scale(ns, "oset/web", 3).await?;
    ctx.wait_ready(ns, &names).await?;
    ensure!(
        claim_uids(ctx, ns).await? == claims,
        "scaling up changed the claims"
    );
    for name in names {
        expect_file(ctx, ns, name, "/data/mark", name).await?;
    }
    Ok(())
}

async fn claim_uids(ctx: &Ctx, ns: &str) -> Result<Vec<(String, String)>> {
    let claims = ctx.claims(ns).list(&ListParams::default()).await?;
    let mut uids: Vec<_> = claims
        .items
        .into_iter()
        .map(|c| {
            (
                c.metadata.name.unwrap_or_default(),
                c.metadata.uid.unwrap_or_default(),
            )
        })
        .collect();
    uids.sort();
    Ok(uids)
}

/// Deleting a claim leaves nothing in the pool.
pub async fn claim_delete_leaves_nothing(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &SetBuilder::new("web", 1).claim("data", "32Mi").build())
        .await?;
    let pods = ctx.wait_ready(ns, &["web-0"]).await?;
    write(ctx, ns, "web-0", "/data/mark", "to be erased").await?;
    let node = node_of(&pods["web-0"]);
    let volume = ctx.volume_of(ns, "data-web-0").await?;
    let id = volume.metadata.name.context("a stored Volume has a name")?;
    ctx.scale(ns, "oset/web", 0).await?;
    ctx.wait_only(ns, &[]).await?;
    ctx.claims(ns)
        .delete("data-web-0", &DeleteParams::default())
        .await?;
    until(&format!("PV and Volume {id} to be gone"), async || {
        let pv = Api::<PersistentVolume>::all(ctx.client.clone())
            .get_opt(&id)
            .await?;
        let volume = ctx.volumes().get_opt(&id).await?;
        check(pv.is_none() && volume.is_none(), || {
            format!(
                "PV {:?}, Volume {:?}",
                pv.and_then(|p| p.status),
                volume.map(|v| v.status)
            )
        })
    })
    .await?;
    let path = volume
        .status
        .and_then(|s| s.path)
        .context("a ready Volume has a path")?;
    until(&format!("{id} to leave the pool"), async || {
        let left = files_named(ctx, &node, &id).await?;
        // A tombstone remembers what was erased on purpose; it holds no data.
        let left: Vec<_> = left
            .lines()
            .filter(|l| !l.contains("/tombstones/"))
            .collect();
        check(left.is_empty(), || format!("{path} left {left:?}"))
    })
    .await
}

/// Paths on a node, below the pools and the links to claims, whose names hold `id`.
pub async fn files_named(ctx: &Ctx, node: &str, id: &str) -> Result<String> {
    let name = format!("*{id}*");
    let roots = ["/var/lib/berth/pools", "/var/lib/berth/by-claim"];
    ctx.on_node(node, &["find", roots[0], roots[1], "-name", &name])
        .await
}

/// With reclaim policy Retain the data outlives claim and PV.
pub async fn retain_keeps_data(ctx: &Ctx, ns: &str) -> Result<()> {
    let class = format!("retain-{ns}");
    // Subvolumes, whose files can be read on the node while nobody has them mounted.
    let parameters = json!({"backend": "btrfs"});
    ctx.apply(ns, &class_manifest(&class, parameters, "Retain"))
        .await?;
    let set = SetBuilder::new("web", 1).claim_of_class("data", "32Mi", &class);
    ctx.apply(ns, &set.build()).await?;
    let pods = ctx.wait_ready(ns, &["web-0"]).await?;
    let node = node_of(&pods["web-0"]);
    write(ctx, ns, "web-0", "/data/mark", "retained").await?;
    let volume = ctx.volume_of(ns, "data-web-0").await?;
    let id = volume
        .metadata
        .name
        .clone()
        .context("a stored Volume has a name")?;
    let path = volume
        .status
        .and_then(|s| s.path)
        .context("a ready Volume has a path")?;
    ctx.scale(ns, "oset/web", 0).await?;
    ctx.wait_only(ns, &[]).await?;
    ctx.claims(ns)
        .delete("data-web-0", &DeleteParams::default())
        .await?;
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    until(&format!("PV {id} to be released"), async || {
        let phase = pvs.get(&id).await?.status.and_then(|s| s.phase);
        check(phase.as_deref() == Some("Released"), || {
            format!("{phase:?}")
        })
    })
    .await?;
    pvs.delete(&id, &DeleteParams::default()).await?;
    until(&format!("PV {id} to be gone"), async || {
        let left = pvs.get_opt(&id).await?;
        check(left.is_none(), || "it is still there".into())
    })
    .await?;
    let mark = format!("{path}/mark");
    let found = ctx.on_node(&node, &["cat", &mark]).await?;
    ensure!(found == "retained", "{mark} holds {found:?}");
    let classes: Api<k8s_openapi::api::storage::v1::StorageClass> = Api::all(ctx.client.clone());
    classes.delete(&class, &DeleteParams::default()).await?;
    Ok(())
}

/// A StorageClass of this driver.
pub fn class_manifest(name: &str, parameters: Value, reclaim: &str) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": berth_api::DRIVER,
        "parameters": parameters,
        "reclaimPolicy": reclaim,
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    })
}

/// A claim of its own, without a set.
pub fn claim_manifest(name: &str, class: &str, size: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": class,
            "resources": {"requests": {"storage": size}},
        },
    })
}

/// A bound claim's capacity, as the PV shows it.
pub async fn bound_capacity(ctx: &Ctx, ns: &str, claim: &str) -> Result<berth_api::Bytes> {
    let claim: PersistentVolumeClaim = ctx.claims(ns).get(claim).await?;
    let capacity = claim.status.and_then(|s| s.capacity).unwrap_or_default();
    let quantity = capacity.get("storage").context("the claim is bound")?;
    Ok(quantity.0.parse()?)
}
