//! No claim waits for ever or in silence: pods with claims of several kinds, claims with
//! several pods, and what is told where nothing can be done.

use anyhow::{Result, ensure};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use serde_json::{Value, json};

use super::{
    data::{claim_manifest, class_manifest},
    refusal::{expect_event, user_of},
};
use crate::{
    ctx::{Ctx, node_of},
    sets::SetBuilder,
    wait::{check, until},
};

/// A pod that mounts two claims.
fn user_of_both(name: &str, first: &str, second: &str) -> Value {
    let mut pod = user_of(first);
    pod["metadata"]["name"] = json!(name);
    pod["spec"]["volumes"] = json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": first}},
        {"name": "more", "persistentVolumeClaim": {"claimName": second}},
    ]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/data"}, {"name": "more", "mountPath": "/more"},
    ]);
    pod
}

async fn delete_class(ctx: &Ctx, name: &str) -> Result<()> {
    let classes: Api<StorageClass> = Api::all(ctx.client.clone());
    classes.delete(name, &Default::default()).await?;
    Ok(())
}

/// A pod with a claim that binds at once and one that waits for it starts, in whatever
/// order they come.
pub async fn both_binding_modes(ctx: &Ctx, ns: &str) -> Result<()> {
    let class = format!("now-{ns}");
    let mut manifest = class_manifest(&class, json!({}), "Delete");
    manifest["volumeBindingMode"] = json!("Immediate");
    ctx.apply(ns, &manifest).await?;
    ctx.apply(ns, &user_of_both("both", "first", "later"))
        .await?;
    ctx.apply(ns, &claim_manifest("first", &class, "16Mi"))
        .await?;
    ctx.apply(ns, &claim_manifest("later", "berth", "16Mi"))
        .await?;
    let set = SetBuilder::new("db", 2)
        .parallel()
        .claim_of_class("data", "16Mi", &class)
        .claim("log", "16Mi");
    ctx.apply(ns, &set.build()).await?;
    ctx.wait_ready(ns, &["both", "db-0", "db-1"]).await?;
    delete_class(ctx, &class).await
}

/// A pod starts though its neighbour on the same claim cannot: it fits no node, or has
/// another claim that is refused.
pub async fn neighbours_that_cannot_run(ctx: &Ctx, ns: &str) -> Result<()> {
    for claim in ["one", "one-more", "two"] {
        ctx.apply(ns, &claim_manifest(claim, "berth", "16Mi"))
            .await?;
    }
    let mut many = claim_manifest("two-more", "berth", "16Mi");
    many["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    ctx.apply(ns, &many).await?;
    let mut nowhere = user_of_both("nowhere", "one", "one-more");
    nowhere["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "no-such-node"});
    ctx.apply(ns, &nowhere).await?;
    ctx.apply(ns, &user_of_both("refused", "two", "two-more"))
        .await?;
    expect_event(ctx, ns, "two-more", "ReadWriteMany").await?;
    for claim in ["one", "two"] {
        ctx.apply(ns, &user_of(claim)).await?;
    }
    ctx.wait_ready(ns, &["user-of-one", "user-of-two"]).await?;
    Ok(())
}

/// A template with spec.nodeName has no scheduler: its claims follow it all the same.
pub async fn node_name(ctx: &Ctx, ns: &str, node: &str) -> Result<()> {
    let set = SetBuilder::new("pinned", 1)
        .claim("data", "16Mi")
        .pod_field("nodeName", json!(node));
    ctx.apply(ns, &set.build()).await?;
    let pods = ctx.wait_ready(ns, &["pinned-0"]).await?;
    let at = node_of(&pods["pinned-0"]);
    let volume = ctx.volume_of(ns, "data-pinned-0").await?;
    ensure!(
        at == node && volume.spec.node == node,
        "{at}, {:?}",
        volume.spec
    );
    let mut lost = user_of("large");
    lost["spec"]["nodeName"] = json!(node);
    ctx.apply(ns, &claim_manifest("large", "berth", "900Ti"))
        .await?;
    ctx.apply(ns, &lost).await?;
    expect_event(ctx, ns, "large", "spec.nodeName").await
}

/// The old annotation names a claim's class.
pub async fn class_in_annotation(ctx: &Ctx, ns: &str) -> Result<()> {
    let mut claim = claim_manifest("old", "berth", "16Mi");
    let spec = claim["spec"].as_object_mut();
    spec.map(|spec| spec.remove("storageClassName"));
    claim["metadata"]["annotations"] = json!({berth_api::names::BETA_STORAGE_CLASS: "berth"});
    ctx.apply(ns, &claim).await?;
    ctx.apply(ns, &user_of("old")).await?;
    ctx.wait_ready(ns, &["user-of-old"]).await?;
    Ok(())
}

/// Mount options that no volume can have are refused at the claim, and nothing is made;
/// the others work.
pub async fn mount_options(ctx: &Ctx, ns: &str) -> Result<()> {
    for option in ["noatime", "discard"] {
        let class = format!("{option}-{ns}");
        let mut manifest = class_manifest(&class, json!({}), "Delete");
        manifest["mountOptions"] = json!([option]);
        ctx.apply(ns, &manifest).await?;
        ctx.apply(ns, &claim_manifest(option, &class, "16Mi"))
            .await?;
        ctx.apply(ns, &user_of(option)).await?;
    }
    ctx.wait_ready(ns, &["user-of-noatime"]).await?;
    expect_event(ctx, ns, "discard", "mount option \"discard\"").await?;
    let claim = ctx.claims(ns).get("discard").await?;
    let id = berth_api::names::volume_name(&claim.metadata.uid.unwrap_or_default());
    let made = ctx.volumes().get_opt(&id).await?;
    ensure!(made.is_none(), "a Volume was made for it");
    for option in ["noatime", "discard"] {
        delete_class(ctx, &format!("{option}-{ns}")).await?;
    }
    Ok(())
}

/// A set says which claim lacks which class, and goes on when the class is there.
pub async fn missing_class(ctx: &Ctx, ns: &str) -> Result<()> {
    let class = format!("later-{ns}");
    let set = SetBuilder::new("typo", 1).claim_of_class("data", "16Mi", &class);
    ctx.apply(ns, &set.build()).await?;
    let sets: Api<berth_api::OrdinalSet> = Api::namespaced(ctx.client.clone(), ns);
    until("the set to name the claim and the class", async || {
        let status = sets.get("typo").await?.status.unwrap_or_default();
        let waiting = status.waiting.unwrap_or_default();
        let named = waiting.contains("data-typo-0") && waiting.contains(&class);
        check(named, || waiting)
    })
    .await?;
    ctx.apply(ns, &class_manifest(&class, json!({}), "Delete"))
        .await?;
    ctx.wait_ready(ns, &["typo-0"]).await?;
    delete_class(ctx, &class).await
}
