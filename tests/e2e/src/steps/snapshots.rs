//! Snapshots, asked for by VolumeSnapshots as in any cluster: upstream's
//! snapshot-controller and its definitions are the administrator's, and come after
//! Berth.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use berth_api::{Snapshot, SnapshotPhase, VolumeSnapshotContent};
use berth_cluster::programs;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{
    data::{claim_manifest, files_named},
    expect_file,
    refusal::{expect_event, user_away_from, user_of},
    tenants,
    tokens::only_its_agent_writes,
    write,
};
use crate::{
    ctx::{Ctx, node_of},
    wait::{check, until},
};

/// A driver that nobody serves.
const OTHER: &str = "other.example.com";

/// The definitions, by name.
const DEFINITIONS: [&str; 3] = [
    "volumesnapshotclasses",
    "volumesnapshotcontents",
    "volumesnapshots",
];

/// A snapshot is ready, a claim restored from it has what the source had then, and the
/// source may go. Deleting it leaves nothing on the disk; with Retain all is kept.
pub async fn snapshot_restores_a_claim(ctx: &Ctx, ns: &str) -> Result<()> {
    let _controller = install(ctx).await?;
    let class = format!("snap-{ns}");
    ctx.apply(ns, &class_manifest(&class, berth_api::DRIVER, "Delete"))
        .await?;
    let theirs = others(ctx, ns).await?;

    ctx.apply(ns, &claim_manifest("first", "berth", "32Mi"))
        .await?;
    ctx.apply(ns, &user_of("first")).await?;
    let pods = ctx.wait_ready(ns, &["user-of-first"]).await?;
    let home = node_of(&pods["user-of-first"]);
    write(ctx, ns, "user-of-first", "/data/file", "monday").await?;
    ctx.apply(ns, &manifest("monday", &class, "first")).await?;
    let (content, snapshot) = ready(ctx, ns, "monday").await?;
    only_its_agent_writes::<Snapshot>(ctx, &snapshot, &home).await?;
    write(ctx, ns, "user-of-first", "/data/file", "tuesday").await?;

    refusals(ctx, ns).await?;
    let victim = ctx.volume_of(ns, "first").await?.metadata.name;
    let victim = victim.context("a stored Volume has a name")?;
    tenants::snapshots_are_out_of_reach(ctx, ns, &class, &victim, &content).await?;

    // The scheduler's first choice is a node where the snapshot is not.
    let pod = user_away_from("second", &home);
    ctx.apply(ns, &restore("second", "48Mi", "monday")).await?;
    ctx.apply(ns, &pod).await?;
    let pods = ctx.wait_ready(ns, &["user-of-second"]).await?;
    let there = node_of(&pods["user-of-second"]);
    ensure!(
        there == home,
        "the copy is on {there}, the snapshot on {home}"
    );
    expect_file(ctx, ns, "user-of-second", "/data/file", "monday").await?;
    expect_file(ctx, ns, "user-of-first", "/data/file", "tuesday").await?;

    gone_with_pod(ctx, ns, "first").await?;
    // The object of the snapshot is lost as well, and found again.
    let snapshots: Api<Snapshot> = Api::all(ctx.client.clone());
    let params = DeleteParams::default();
    let old = snapshots.get(&snapshot).await?.metadata.uid;
    snapshots.delete(&snapshot, &params).await?;
    until(&format!("Snapshot {snapshot} to be adopted"), async || {
        let found = snapshots.get_opt(&snapshot).await?;
        let back = found.as_ref().is_some_and(|s| {
            let phase = s.status.as_ref().map(|s| s.phase);
            s.metadata.uid != old && s.spec.adopt && phase == Some(SnapshotPhase::Ready)
        });
        check(back, || format!("{found:?}"))
    })
    .await?;
    ctx.apply(ns, &restore("third", "32Mi", "monday")).await?;
    ctx.apply(ns, &user_of("third")).await?;
    ctx.wait_ready(ns, &["user-of-third"]).await?;
    expect_file(ctx, ns, "user-of-third", "/data/file", "monday").await?;

    delete(ctx, ns, "volumesnapshot", "monday").await?;
    erased(ctx, &home, &content, &snapshot).await?;
    expect_file(ctx, ns, "user-of-third", "/data/file", "monday").await?;

    retained(ctx, ns, &class, &home).await?;
    leave(ctx, ns, &class, &theirs).await
}

/// A snapshot of a claim that is gone; the name of both VolumeSnapshot and class.
pub async fn of_volume_that_is_gone(ctx: &Ctx, ns: &str) -> Result<String> {
    let name = format!("left-{ns}");
    ctx.apply(ns, &class_manifest(&name, berth_api::DRIVER, "Delete"))
        .await?;
    ctx.apply(ns, &claim_manifest("gone", "berth", "32Mi"))
        .await?;
    ctx.apply(ns, &user_of("gone")).await?;
    ctx.wait_ready(ns, &["user-of-gone"]).await?;
    write(ctx, ns, "user-of-gone", "/data/file", "kept").await?;
    ctx.apply(ns, &manifest(&name, &name, "gone")).await?;
    ready(ctx, ns, &name).await?;
    gone_with_pod(ctx, ns, "gone").await?;
    Ok(name)
}

/// Deletes what [`of_volume_that_is_gone`] made.
pub async fn delete_with_class(ctx: &Ctx, ns: &str, name: &str) -> Result<()> {
    delete(ctx, ns, "volumesnapshot", name).await?;
    delete(ctx, ns, "volumesnapshotclass", name).await
}

/// What is refused, and in which words.
async fn refusals(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &restore("small", "16Mi", "monday")).await?;
    ctx.apply(ns, &user_of("small")).await?;
    expect_event(ctx, ns, "small", "ask for as much, or more").await?;
    ctx.apply(ns, &restore("early", "32Mi", "sunday")).await?;
    ctx.apply(ns, &user_of("early")).await?;
    expect_event(ctx, ns, "early", "VolumeSnapshot sunday: create it").await?;
    ctx.apply(ns, &restore("foreign", "32Mi", "theirs")).await?;
    ctx.apply(ns, &user_of("foreign")).await?;
    expect_event(ctx, ns, "foreign", &format!("is of driver {OTHER}")).await?;

    let odd = format!("odd-{ns}");
    let mut class = class_manifest(&odd, berth_api::DRIVER, "Delete");
    class["parameters"] = json!({"incremental": "true"});
    ctx.apply(ns, &class).await?;
    ctx.apply(ns, &manifest("odd", &odd, "first")).await?;
    until("the odd snapshot to say what is odd", async || {
        let status = status_of(ctx, ns, "odd").await?;
        let message = status["error"]["message"].as_str().unwrap_or_default();
        check(message.contains("\"incremental\""), || status.to_string())
    })
    .await?;
    delete(ctx, ns, "volumesnapshot", "odd").await?;
    delete(ctx, ns, "volumesnapshotclass", &odd).await?;
    for claim in ["small", "early", "foreign"] {
        gone_with_pod(ctx, ns, claim).await?;
    }
    Ok(())
}

/// A snapshot of another driver's claim; its content.
async fn others(ctx: &Ctx, ns: &str) -> Result<String> {
    let class = format!("other-snap-{ns}");
    ctx.apply(ns, &class_manifest(&class, OTHER, "Delete"))
        .await?;
    let volume = format!("theirs-{ns}");
    let pv = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "32Mi"},
            "csi": {"driver": OTHER, "volumeHandle": volume},
            "claimRef": {"namespace": ns, "name": "theirs"},
            "storageClassName": "",
        },
    });
    ctx.apply(ns, &pv).await?;
    let mut claim = claim_manifest("theirs", "", "32Mi");
    claim["spec"]["volumeName"] = json!(volume);
    ctx.apply(ns, &claim).await?;
    ctx.apply(ns, &manifest("theirs", &class, "theirs")).await?;
    until("the other driver's snapshot to be bound", async || {
        let status = status_of(ctx, ns, "theirs").await?;
        let content = status["boundVolumeSnapshotContentName"].as_str();
        match content {
            Some(content) => Ok(crate::wait::Seen::Done(content.to_owned())),
            None => Ok(crate::wait::Seen::NotYet(status.to_string())),
        }
    })
    .await
}

/// Retain: the snapshot outlives VolumeSnapshot and content, and can be named again.
async fn retained(ctx: &Ctx, ns: &str, delete_class: &str, home: &str) -> Result<()> {
    let class = format!("retain-snap-{ns}");
    ctx.apply(ns, &class_manifest(&class, berth_api::DRIVER, "Retain"))
        .await?;
    write(ctx, ns, "user-of-third", "/data/file", "wednesday").await?;
    ctx.apply(ns, &manifest("kept", &class, "third")).await?;
    let (content, snapshot) = ready(ctx, ns, "kept").await?;
    delete(ctx, ns, "volumesnapshot", "kept").await?;
    delete(ctx, ns, "volumesnapshotcontent", &content).await?;
    let left = files_named(ctx, home, &snapshot).await?;
    ensure!(!left.is_empty(), "{snapshot} is not on {home} any more");

    let again = format!("again-{ns}");
    let content = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": again},
        "spec": {
            "driver": berth_api::DRIVER,
            "deletionPolicy": "Delete",
            "source": {"snapshotHandle": snapshot},
            "sourceVolumeMode": "Filesystem",
            "volumeSnapshotClassName": delete_class,
            "volumeSnapshotRef": {"namespace": ns, "name": "again"},
        },
    });
    ctx.apply(ns, &content).await?;
    let mut request = manifest("again", delete_class, "");
    request["spec"]["source"] = json!({"volumeSnapshotContentName": again});
    ctx.apply(ns, &request).await?;
    let (content, found) = ready(ctx, ns, "again").await?;
    ensure!(found == snapshot, "{again} names {found}, not {snapshot}");
    ctx.apply(ns, &restore("fourth", "32Mi", "again")).await?;
    ctx.apply(ns, &user_of("fourth")).await?;
    ctx.wait_ready(ns, &["user-of-fourth"]).await?;
    expect_file(ctx, ns, "user-of-fourth", "/data/file", "wednesday").await?;
    delete(ctx, ns, "volumesnapshot", "again").await?;
    erased(ctx, home, &content, &snapshot).await?;
    delete(ctx, ns, "volumesnapshotclass", &class).await
}

/// Cleans up; what another driver's side would have answered is still not answered.
async fn leave(ctx: &Ctx, ns: &str, class: &str, theirs: &str) -> Result<()> {
    let contents: Api<VolumeSnapshotContent> = Api::all(ctx.client.clone());
    let content = contents.get(theirs).await?;
    ensure!(
        content.status.is_none(),
        "another driver's content {theirs} was answered: {content:?}"
    );
    let uid = content.metadata.uid.unwrap_or_default();
    let snapshots: Api<Snapshot> = Api::all(ctx.client.clone());
    let name = berth_api::names::snapshot_name(&uid);
    ensure!(
        snapshots.get_opt(&name).await?.is_none(),
        "a Snapshot was made for another driver"
    );
    let kubectl = &ctx.kubectl;
    let begin = ["-n", ns, "delete", "volumesnapshot", "theirs"];
    kubectl
        .run(&[&begin[..], &["--wait=false"]].concat())
        .await?;
    // Nobody else lets it go.
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    until("the other driver's content to be gone", async || {
        let left = contents.get_opt(theirs).await?;
        if left
            .as_ref()
            .is_some_and(|c| c.metadata.deletion_timestamp.is_some())
        {
            let free = [
                "patch",
                "volumesnapshotcontent",
                theirs,
                "--type=merge",
                "-p",
                patch,
            ];
            kubectl.run(&free).await?;
        }
        check(left.is_none(), || format!("{left:?}"))
    })
    .await?;
    delete(ctx, ns, "pvc", "theirs").await?;
    delete(ctx, ns, "pv", &format!("theirs-{ns}")).await?;
    delete(ctx, ns, "volumesnapshotclass", &format!("other-snap-{ns}")).await?;
    delete(ctx, ns, "volumesnapshotclass", class).await
}

/// Waits for a VolumeSnapshot, and returns the names of its content and Snapshot.
async fn ready(ctx: &Ctx, ns: &str, name: &str) -> Result<(String, String)> {
    let status = until(&format!("VolumeSnapshot {name} to be ready"), async || {
        let status = status_of(ctx, ns, name).await?;
        match status["readyToUse"] == true {
            true => Ok(crate::wait::Seen::Done(status)),
            false => Ok(crate::wait::Seen::NotYet(status.to_string())),
        }
    })
    .await?;
    let size: berth_api::Bytes = status["restoreSize"]
        .as_str()
        .context("a ready snapshot has a size")?
        .parse()?;
    ensure!(size.0 == 32 << 20, "{name} is of 32Mi and says {size}");
    let content = status["boundVolumeSnapshotContentName"]
        .as_str()
        .context("a ready snapshot is bound")?;
    let contents: Api<VolumeSnapshotContent> = Api::all(ctx.client.clone());
    let handle = contents.get(content).await?.status;
    let handle = handle.and_then(|s| s.snapshot_handle);
    Ok((
        content.to_owned(),
        handle.context("a ready content has a handle")?,
    ))
}

async fn status_of(ctx: &Ctx, ns: &str, name: &str) -> Result<Value> {
    let get = ["-n", ns, "get", "volumesnapshot", name, "-o", "json"];
    let object: Value = serde_json::from_str(&ctx.kubectl.run(&get).await?)?;
    Ok(object["status"].clone())
}

/// Waits until neither objects nor data of a snapshot are left.
async fn erased(ctx: &Ctx, node: &str, content: &str, snapshot: &str) -> Result<()> {
    let contents: Api<VolumeSnapshotContent> = Api::all(ctx.client.clone());
    let snapshots: Api<Snapshot> = Api::all(ctx.client.clone());
    until(&format!("snapshot {snapshot} to be gone"), async || {
        let content = contents.get_opt(content).await?;
        let object = snapshots.get_opt(snapshot).await?;
        check(content.is_none() && object.is_none(), || {
            format!("{content:?} {object:?}")
        })
    })
    .await?;
    until(&format!("{snapshot} to leave the pool"), async || {
        let left = files_named(ctx, node, snapshot).await?;
        check(left.is_empty(), || left)
    })
    .await
}

async fn gone_with_pod(ctx: &Ctx, ns: &str, claim: &str) -> Result<()> {
    delete(ctx, ns, "pod", &format!("user-of-{claim}")).await?;
    delete(ctx, ns, "pvc", claim).await
}

/// Deletes an object and waits until it is gone.
async fn delete(ctx: &Ctx, ns: &str, kind: &str, name: &str) -> Result<()> {
    let args = ["-n", ns, "delete", kind, name, "--timeout=240s"];
    ctx.kubectl.run(&args).await?;
    Ok(())
}

/// Installs the definitions and runs the controller, both upstream's.
pub async fn install(ctx: &Ctx) -> Result<Child> {
    let build = || {
        anyhow::Ok((
            programs::snapshot_definitions()?,
            programs::snapshot_controller()?,
        ))
    };
    let (definitions, program) = tokio::task::spawn_blocking(build).await??;
    for kind in DEFINITIONS {
        let file = definitions.join(format!("snapshot.storage.k8s.io_{kind}.yaml"));
        let file = file.to_str().context("the path is not UTF-8")?;
        ctx.kubectl.run(&["apply", "-f", file]).await?;
        let name = format!("crd/{kind}.snapshot.storage.k8s.io");
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            &name,
        ];
        ctx.kubectl.run(&wait).await?;
    }
    Command::new(&program)
        .arg("--kubeconfig")
        .arg(ctx.kubectl.kubeconfig())
        .args(["--kube-api-qps=50", "--kube-api-burst=100"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

fn class_manifest(name: &str, driver: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": name},
        "driver": driver,
        "deletionPolicy": policy,
    })
}

fn manifest(name: &str, class: &str, claim: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {
            "volumeSnapshotClassName": class,
            "source": {"persistentVolumeClaimName": claim},
        },
    })
}

fn restore(name: &str, size: &str, snapshot: &str) -> Value {
    let mut claim = claim_manifest(name, "berth", size);
    claim["spec"]["dataSource"] = json!({
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": snapshot,
    });
    claim
}
