//! Restoring: from a claim's data source, a VolumeSnapshot, to the Snapshot that holds the
//! data.

use berth_api::{
    Bytes, DRIVER, Snapshot, SnapshotPhase, Source, VolumeMode, VolumeSnapshot,
    VolumeSnapshotContent,
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::volumes::{ClaimWait, claim};

/// Where a claim's source data lies. The copy is made in the same pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Id of the pool that holds the data.
    pub pool: String,
    /// Node that the pool is on now.
    pub node: String,
    /// The source as it is written into the Volume's spec.
    pub source: Source,
}

/// The objects between a claim and the data that it asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain<'a> {
    /// The VolumeSnapshot that the claim names.
    pub request: Option<&'a VolumeSnapshot>,
    /// The content that it is bound to.
    pub content: Option<&'a VolumeSnapshotContent>,
    /// The Snapshot that the content names.
    pub snapshot: Option<&'a Snapshot>,
}

/// Name of the content that a VolumeSnapshot is bound to.
pub fn content_of(request: &VolumeSnapshot) -> Option<&str> {
    let status = request.status.as_ref()?;
    status.bound_volume_snapshot_content_name.as_deref()
}

/// Name of the Snapshot that a content's status names.
pub fn snapshot_of(content: &VolumeSnapshotContent) -> Option<&str> {
    content.status.as_ref()?.snapshot_handle.as_deref()
}

/// The source data of a claim whose data source is the VolumeSnapshot `name`.
///
/// # Errors
/// What is awaited, or what is wrong, as a sentence for the claim's event.
pub fn origin(
    claim: &PersistentVolumeClaim,
    name: &str,
    chain: &Chain<'_>,
) -> Result<Origin, ClaimWait> {
    let what = format!("its data source, VolumeSnapshot {name}");
    let Some(request) = chain.request else {
        return Err(format!(
            "waiting for {what}: create it, where snapshots are installed in the cluster"
        )
        .into());
    };
    if request.metadata.namespace != claim.metadata.namespace {
        return Err(format!("{what}, is in another namespace; restore within one").into());
    }
    if request.metadata.deletion_timestamp.is_some() {
        return Err(format!("{what}, is being deleted: name another").into());
    }
    let why = |error: Option<&berth_api::volume_snapshot::SnapshotError>| {
        let message = error.and_then(|error| error.message.as_deref());
        message.map_or(String::new(), |message| format!(" ({message})"))
    };
    let Some(content) = content_of(request).and(chain.content) else {
        let error = request.status.as_ref().and_then(|s| s.error.as_ref());
        return Err(ClaimWait::in_progress(format!(
            "waiting for {what}, to be bound{}",
            why(error)
        )));
    };
    let spec = &content.spec;
    if spec.driver != DRIVER {
        return Err(format!(
            "{what}, is of driver {}, whose data Berth cannot read: use a StorageClass of that driver",
            spec.driver
        )
        .into());
    }
    let of = &spec.volume_snapshot_ref;
    // A content that names another VolumeSnapshot is not this one's to give away.
    if Some(of.uid.as_str()) != request.metadata.uid.as_deref()
        || Some(of.namespace.as_str()) != request.metadata.namespace.as_deref()
    {
        return Err(format!(
            "{what}, and its content {} do not name each other",
            content.metadata.name.as_deref().unwrap_or_default()
        )
        .into());
    }
    // Nor is the snapshot that its status names, unless its spec leads there too.
    let handle = snapshot_of(content);
    if handle.is_some() && handle != super::content::handle(content).as_deref() {
        return Err(format!(
            "{what}, has a content whose spec and status name different snapshots"
        )
        .into());
    }
    let told = content.status.as_ref();
    if told.and_then(|s| s.ready_to_use) != Some(true) {
        let error = told.and_then(|s| s.error.as_ref());
        return Err(ClaimWait::in_progress(format!(
            "waiting for {what}, to be ready{}",
            why(error)
        )));
    }
    let ready = |s: &&Snapshot| s.status.as_ref().map(|s| s.phase) == Some(SnapshotPhase::Ready);
    let Some(snapshot) = snapshot_of(content).and(chain.snapshot).filter(ready) else {
        let snapshot = snapshot_of(content).unwrap_or_default();
        return Err(ClaimWait::in_progress(format!(
            "waiting for {what}: its Snapshot {snapshot} is not ready"
        )));
    };
    let status = snapshot.status.as_ref();
    let mode = match spec.source_volume_mode.as_deref() {
        Some("Block") => Some(VolumeMode::Block),
        Some(_) => Some(VolumeMode::Filesystem),
        None => status.and_then(|s| s.mode),
    };
    let size = status.and_then(|s| s.size).unwrap_or(Bytes(u64::MAX));
    let what = format!("VolumeSnapshot {name}");
    if let Some(text) = claim::unlike(claim, &what, mode.unwrap_or_default(), size) {
        return Err(text.into());
    }
    Ok(Origin {
        pool: snapshot.spec.pool.clone(),
        node: snapshot.spec.node.clone(),
        source: Source::Snapshot(snapshot.metadata.name.clone().unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    /// A claim, the VolumeSnapshot, its content and the Snapshot, all well.
    fn well() -> [Value; 4] {
        [
            json!({
                "metadata": {"name": "restored", "namespace": "shop"},
                "spec": {"resources": {"requests": {"storage": "1Gi"}}},
            }),
            json!({
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                "metadata": {"name": "monday", "namespace": "shop", "uid": "vs-1"},
                "spec": {"source": {"persistentVolumeClaimName": "data"}},
                "status": {"boundVolumeSnapshotContentName": "c", "readyToUse": true},
            }),
            json!({
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
                "metadata": {"name": "c", "uid": "1"},
                "spec": {
                    "driver": DRIVER,
                    "source": {"volumeHandle": "pvc-1"},
                    "sourceVolumeMode": "Filesystem",
                    "volumeSnapshotRef": {"namespace": "shop", "name": "monday", "uid": "vs-1"},
                },
                "status": {"snapshotHandle": "snap-1", "readyToUse": true},
            }),
            json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "Snapshot",
                "metadata": {"name": "snap-1"},
                "spec": {
                    "volume": "pvc-1", "pool": "p1", "node": "n1",
                    "content": {"name": "c", "uid": "1", "namespace": "shop", "snapshot": "monday"},
                },
                "status": {"phase": "Ready", "size": "1Gi", "mode": "Filesystem"},
            }),
        ]
    }

    fn check(change: impl Fn(&mut [Value; 4]), expected: Expect) {
        let mut all = well();
        change(&mut all);
        let [claim, request, content, snapshot] = all;
        fn read<T: serde::de::DeserializeOwned>(value: Value) -> Option<T> {
            (!value.is_null()).then(|| serde_json::from_value(value).expect("an object"))
        }
        let (request, content, snapshot) = (read(request), read(content), read(snapshot));
        let chain = Chain {
            request: request.as_ref(),
            content: content.as_ref(),
            snapshot: snapshot.as_ref(),
        };
        let claim = read(claim).expect("a claim");
        expected.assert_eq(&match origin(&claim, "monday", &chain) {
            Ok(Origin {
                pool,
                node,
                source: Source::Snapshot(snapshot),
            }) => format!("{snapshot} in {pool} on {node}"),
            Ok(other) => format!("{other:?}"),
            Err(wait) => wait.text,
        });
    }

    #[test]
    fn what_a_claim_starts_from() {
        const CLAIM: usize = 0;
        const REQUEST: usize = 1;
        const CONTENT: usize = 2;
        const SNAPSHOT: usize = 3;
        check(|_| {}, expect!["snap-1 in p1 on n1"]);
        check(
            |a| a[REQUEST] = Value::Null,
            expect![
                "waiting for its data source, VolumeSnapshot monday: create it, where snapshots are installed in the cluster"
            ],
        );
        check(
            |a| a[REQUEST]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            expect!["its data source, VolumeSnapshot monday, is being deleted: name another"],
        );
        check(
            |a| a[REQUEST]["status"] = json!({"error": {"message": "no class"}}),
            expect!["waiting for its data source, VolumeSnapshot monday, to be bound (no class)"],
        );
        check(
            |a| a[CONTENT]["spec"]["driver"] = json!("other.example"),
            expect![
                "its data source, VolumeSnapshot monday, is of driver other.example, whose data Berth cannot read: use a StorageClass of that driver"
            ],
        );
        check(
            |a| a[CONTENT]["spec"]["volumeSnapshotRef"]["uid"] = json!("vs-2"),
            expect![
                "its data source, VolumeSnapshot monday, and its content c do not name each other"
            ],
        );
        check(
            |a| a[CONTENT]["status"]["snapshotHandle"] = json!("snap-2"),
            expect![
                "its data source, VolumeSnapshot monday, has a content whose spec and status name different snapshots"
            ],
        );
        check(
            |a| a[REQUEST]["metadata"]["namespace"] = json!("victim"),
            expect![
                "its data source, VolumeSnapshot monday, is in another namespace; restore within one"
            ],
        );
        check(
            |a| a[CONTENT]["status"] = json!({"readyToUse": false, "error": {"message": "full"}}),
            expect!["waiting for its data source, VolumeSnapshot monday, to be ready (full)"],
        );
        check(
            |a| a[SNAPSHOT]["status"]["phase"] = json!("Failed"),
            expect![
                "waiting for its data source, VolumeSnapshot monday: its Snapshot snap-1 is not ready"
            ],
        );
        check(
            |a| a[CLAIM]["spec"]["resources"]["requests"]["storage"] = json!("1023Mi"),
            expect!["its data source VolumeSnapshot monday has 1Gi: ask for as much, or more"],
        );
        check(
            |a| a[CLAIM]["spec"]["volumeMode"] = json!("Block"),
            expect!["its data source VolumeSnapshot monday is of volumeMode Filesystem"],
        );
    }
}
