//! Claims with a life of their own: shared on their node, renamed, filled by others,
//! grown in vain, brought back from a dump.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, PersistentVolume};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    data::{bound_capacity, claim_manifest, files_named},
    expect_file,
    refusal::{expect_event, user_of},
    write,
};
use crate::{
    ctx::{Ctx, node_of},
    sets::SetBuilder,
    wait::{check, until},
};

/// A backup beside a replica mounts its claim, and the replica comes back beside the
/// backup: ReadWriteOnce means one node.
pub async fn backup_beside_its_replica(ctx: &Ctx, ns: &str) -> Result<()> {
    let set = SetBuilder::new("db", 1)
        .claim("data", "32Mi")
        .read_write_once();
    ctx.apply(ns, &set.build()).await?;
    ctx.wait_ready(ns, &["db-0"]).await?;
    write(ctx, ns, "db-0", "/data/table", "rows").await?;
    ctx.apply(ns, &user_of("data-db-0")).await?;
    let both = ["db-0", "user-of-data-db-0"];
    let pods = ctx.wait_ready(ns, &both).await?;
    expect_file(ctx, ns, both[1], "/data/table", "rows").await?;
    let node = node_of(&pods["db-0"]);
    let volumes = ctx.agent(&node, &["volumes"]).await?;
    ensure!(
        volumes.contains(&format!("pod {ns}/db-0 and 1 more")),
        "`berth-agent volumes` does not name who has it mounted:\n{volumes}"
    );
    let before = pods["db-0"].metadata.uid.clone().unwrap_or_default();
    let delete = DeleteParams::default();
    ctx.pods(ns).delete("db-0", &delete).await?;
    super::data::wait_replaced(ctx, ns, "db-0", &before).await?;
    expect_file(ctx, ns, "db-0", "/data/table", "rows").await
}

/// A person gives a volume to a claim of another name through its PersistentVolume. It is
/// known by that name everywhere, can be copied, and goes with that claim.
pub async fn claim_renamed(ctx: &Ctx, ns: &str) -> Result<()> {
    let (node, id) = used_claim(ctx, ns, "old", "rows").await?;
    policy(ctx, &id, "Retain").await?;
    end(ctx, ns, "old").await?;
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    released(&pvs, &id).await?;
    merge(&pvs, &id, json!({"spec": {"claimRef": null}})).await?;
    let mut claim = claim_manifest("new", "berth", "32Mi");
    claim["spec"]["volumeName"] = json!(id);
    ctx.apply(ns, &claim).await?;
    ctx.apply(ns, &user_of("new")).await?;
    ctx.wait_ready(ns, &["user-of-new"]).await?;
    expect_file(ctx, ns, "user-of-new", "/data/table", "rows").await?;
    until("the volume to be known as claim new", async || {
        let volume = ctx.volumes().get(&id).await?.spec.claim;
        let links = format!("/var/lib/berth/by-claim/{ns}");
        let links = ctx.on_node(&node, &["ls", &links]).await?;
        check(volume.name == "new" && links.trim() == "new", || {
            format!("the Volume says {}, by-claim {links:?}", volume.name)
        })
    })
    .await?;
    let mut copy = claim_manifest("copy", "berth", "32Mi");
    copy["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "new"});
    ctx.apply(ns, &copy).await?;
    ctx.apply(ns, &user_of("copy")).await?;
    ctx.wait_ready(ns, &["user-of-copy"]).await?;
    expect_file(ctx, ns, "user-of-copy", "/data/table", "rows").await?;
    policy(ctx, &id, "Delete").await?;
    end(ctx, ns, "new").await?;
    erased(ctx, &node, &id).await
}

/// A volume populator: a claim of a foreign source waits in peace, and gets the volume
/// that was filled for another claim.
pub async fn populator_hands_over(ctx: &Ctx, ns: &str) -> Result<()> {
    let mut claim = claim_manifest("guest", "berth", "32Mi");
    claim["spec"]["dataSourceRef"] =
        json!({"apiGroup": "example.com", "kind": "Filler", "name": "disk"});
    ctx.apply(ns, &claim).await?;
    ctx.apply(ns, &user_of("guest")).await?;
    let node = until("the scheduler to choose a node", async || {
        let claim = ctx.claims(ns).get("guest").await?;
        let all = claim.metadata.annotations.unwrap_or_default();
        Ok(match all.get(berth_api::names::SELECTED_NODE) {
            Some(node) => crate::wait::Seen::Done(node.clone()),
            None => crate::wait::Seen::NotYet("none is chosen".to_owned()),
        })
    })
    .await?;
    let mut prime = claim_manifest("prime", "berth", "32Mi");
    prime["metadata"]["annotations"] = json!({berth_api::names::SELECTED_NODE: node});
    ctx.apply(ns, &prime).await?;
    let mut filler = user_of("prime");
    filler["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    ctx.apply(ns, &filler).await?;
    ctx.wait_ready(ns, &["user-of-prime"]).await?;
    write(ctx, ns, "user-of-prime", "/data/disk", "of the guest").await?;
    let delete = DeleteParams::default();
    ctx.pods(ns).delete("user-of-prime", &delete).await?;
    let id = volume_of(ctx, ns, "prime").await?;
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let uid = ctx.claims(ns).get("guest").await?.metadata.uid;
    let reference = json!({"namespace": ns, "name": "guest", "uid": uid, "resourceVersion": null});
    merge(&pvs, &id, json!({"spec": {"claimRef": reference}})).await?;
    until("claim guest to be bound", async || {
        let phase = ctx.claims(ns).get("guest").await?.status;
        let phase = phase.and_then(|s| s.phase).unwrap_or_default();
        check(phase == "Bound", || phase)
    })
    .await?;
    ctx.claims(ns).delete("prime", &delete).await?;
    ctx.wait_ready(ns, &["user-of-guest"]).await?;
    expect_file(ctx, ns, "user-of-guest", "/data/disk", "of the guest").await?;
    let events: Api<Event> = Api::namespaced(ctx.client.clone(), ns);
    let fields = "involvedObject.kind=PersistentVolumeClaim,involvedObject.name=guest";
    let events = events.list(&ListParams::default().fields(fields)).await?;
    let warnings: Vec<_> = events
        .items
        .iter()
        .filter(|e| e.type_.as_deref() == Some("Warning"))
        .filter_map(|e| e.message.as_deref())
        .filter(|text| text.contains("data source"))
        .collect();
    ensure!(warnings.is_empty(), "claim guest was warned: {warnings:?}");
    Ok(())
}

/// A growth that cannot be is told on the claim, keeps no pod from starting, and gives way
/// to a smaller one.
pub async fn growth_in_vain_is_lowered(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &SetBuilder::new("db", 1).claim("data", "32Mi").build())
        .await?;
    let pods = ctx.wait_ready(ns, &["db-0"]).await?;
    ask(ctx, ns, "9223372036854775807Gi").await?;
    expect_event(ctx, ns, "data-db-0", "ask for less").await?;
    until("the claim to tell that it cannot grow", async || {
        let status = ctx.claims(ns).get("data-db-0").await?.status;
        let status = status.unwrap_or_default();
        let all = status.allocated_resource_statuses.unwrap_or_default();
        let state = all.get("storage").cloned().unwrap_or_default();
        check(state == "ControllerResizeInfeasible", || state)
    })
    .await?;
    let uid = pods["db-0"].metadata.uid.clone().unwrap_or_default();
    let delete = DeleteParams::default();
    ctx.pods(ns).delete("db-0", &delete).await?;
    super::data::wait_replaced(ctx, ns, "db-0", &uid).await?;
    ask(ctx, ns, "48Mi").await?;
    until(
        "the claim to have 48Mi, and no resize to be left",
        async || {
            let capacity = bound_capacity(ctx, ns, "data-db-0").await?;
            let status = ctx.claims(ns).get("data-db-0").await?.status;
            let status = status.unwrap_or_default();
            let left = status.allocated_resource_statuses.unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            check(
                capacity.0 == 48 << 20 && left.is_empty() && conditions.is_empty(),
                || format!("{capacity}, {left:?}, {conditions:?}"),
            )
        },
    )
    .await
}

/// What a dump brings back names a claim that is gone. Nothing is erased for that, until
/// the volume has had a living claim again.
pub async fn what_a_dump_brings_back_stays(ctx: &Ctx, ns: &str) -> Result<()> {
    let (node, id) = used_claim(ctx, ns, "first", "kept").await?;
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    // The dump, as `kubectl get -o yaml` gives it, without status and identity.
    let pv = dumped(json!(pvs.get(&id).await?));
    let volume = dumped(json!(ctx.volumes().get(&id).await?));
    forget(ctx, ns, "first", &id).await?;
    ctx.apply(ns, &volume).await?;
    ctx.apply(ns, &pv).await?;
    released(&pvs, &id).await?;
    expect_event(ctx, "default", &id, "not erased").await?;
    let state = ctx.volumes().get(&id).await?.spec.state;
    ensure!(
        state == berth_api::VolumeState::Present,
        "the Volume is {state:?}"
    );
    // Bound anew, the data is there; deleted then, it goes.
    merge(&pvs, &id, json!({"spec": {"claimRef": null}})).await?;
    let mut claim = claim_manifest("second", "berth", "32Mi");
    claim["spec"]["volumeName"] = json!(id);
    ctx.apply(ns, &claim).await?;
    ctx.apply(ns, &user_of("second")).await?;
    ctx.wait_ready(ns, &["user-of-second"]).await?;
    expect_file(ctx, ns, "user-of-second", "/data/table", "kept").await?;
    until("the Volume to be known as claim second", async || {
        let claim = ctx.volumes().get(&id).await?.spec.claim;
        check(claim.name == "second", || claim.name)
    })
    .await?;
    end(ctx, ns, "second").await?;
    erased(ctx, &node, &id).await
}

/// A volume that no object names any more keeps its data, is told, and is erased by order.
pub async fn what_has_no_object_is_told(ctx: &Ctx, ns: &str) -> Result<()> {
    let (node, id) = used_claim(ctx, ns, "kept", "rows").await?;
    let volume = ctx.volumes().get(&id).await?;
    let pool = volume.spec.pool.clone();
    forget(ctx, ns, "kept", &id).await?;
    expect_event(ctx, "default", &pool, &id).await?;
    let there = files_named(ctx, &node, &id).await?;
    ensure!(there.contains("/volumes/"), "the data of {id}: {there:?}");
    let mut order = dumped(json!(volume));
    order["spec"]["state"] = json!("Deleted");
    ctx.apply(ns, &order).await?;
    erased(ctx, &node, &id).await
}

/// Ends a claim, and takes away every object of its volume; the data stays.
async fn forget(ctx: &Ctx, ns: &str, claim: &str, id: &str) -> Result<()> {
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    policy(ctx, id, "Retain").await?;
    end(ctx, ns, claim).await?;
    released(&pvs, id).await?;
    let delete = DeleteParams::default();
    pvs.delete(id, &delete).await?;
    until("the PersistentVolume to be gone", async || {
        let left = pvs.get_opt(id).await?;
        check(left.is_none(), || "it is still there".to_owned())
    })
    .await?;
    ctx.volumes().delete(id, &delete).await?;
    Ok(())
}

/// A claim with a pod that wrote a file; the node and the volume.
async fn used_claim(ctx: &Ctx, ns: &str, name: &str, text: &str) -> Result<(String, String)> {
    ctx.apply(ns, &claim_manifest(name, "berth", "32Mi"))
        .await?;
    ctx.apply(ns, &user_of(name)).await?;
    let pod = format!("user-of-{name}");
    let pods = ctx.wait_ready(ns, &[&pod]).await?;
    write(ctx, ns, &pod, "/data/table", text).await?;
    Ok((node_of(&pods[&pod]), volume_of(ctx, ns, name).await?))
}

async fn volume_of(ctx: &Ctx, ns: &str, claim: &str) -> Result<String> {
    let volume = ctx.volume_of(ns, claim).await?;
    volume.metadata.name.context("a stored Volume has a name")
}

/// Deletes a claim and its pod.
async fn end(ctx: &Ctx, ns: &str, claim: &str) -> Result<()> {
    let delete = DeleteParams::default();
    ctx.pods(ns)
        .delete(&format!("user-of-{claim}"), &delete)
        .await?;
    ctx.claims(ns).delete(claim, &delete).await?;
    Ok(())
}

async fn released(pvs: &Api<PersistentVolume>, id: &str) -> Result<()> {
    until(&format!("PV {id} to be released"), async || {
        let phase = pvs.get(id).await?.status.and_then(|s| s.phase);
        let phase = phase.unwrap_or_default();
        check(phase == "Released", || phase)
    })
    .await
}

/// Waits until nothing of a volume is left but its tombstone.
async fn erased(ctx: &Ctx, node: &str, id: &str) -> Result<()> {
    until(
        &format!("{id} to leave the cluster and the pool"),
        async || {
            let volume = ctx.volumes().get_opt(id).await?;
            let left = files_named(ctx, node, id).await?;
            let left: Vec<_> = left
                .lines()
                .filter(|line| !line.contains("/tombstones/"))
                .collect();
            check(volume.is_none() && left.is_empty(), || format!("{left:?}"))
        },
    )
    .await
}

async fn ask(ctx: &Ctx, ns: &str, size: &str) -> Result<()> {
    let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let line = ["-n", ns, "patch", "pvc", "data-db-0", "-p"];
    let patch = patch.to_string();
    ctx.kubectl.run(&[&line[..], &[&patch]].concat()).await?;
    Ok(())
}

async fn policy(ctx: &Ctx, id: &str, policy: &str) -> Result<()> {
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let change = json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
    merge(&pvs, id, change).await
}

async fn merge(pvs: &Api<PersistentVolume>, id: &str, change: Value) -> Result<()> {
    pvs.patch(id, &PatchParams::default(), &Patch::Merge(change))
        .await?;
    Ok(())
}

fn dumped(mut object: Value) -> Value {
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
    ] {
        object["metadata"]
            .as_object_mut()
            .map(|all| all.remove(field));
    }
    object.as_object_mut().map(|all| all.remove("status"));
    object
}
