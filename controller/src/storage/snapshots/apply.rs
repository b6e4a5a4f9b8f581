//! The writes for snapshots. Each is safe when it lands late or twice.

use std::sync::Arc;

use berth_api::{
    Snapshot, VolumeSnapshotContent, names, volume_snapshot::VolumeSnapshotContentStatus,
};
use berth_plan::snapshots::{Content, Proof};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PostParams},
};
use serde_json::{Value, json};

use crate::{
    context::{Ctx, bounded},
    storage::apply::{Done, Failure, Put, gone, if_same, patch, post, same},
};

/// One thing to do. Objects are as the decision saw them.
pub(in crate::storage) enum Work {
    /// The intent, or the Snapshot of what is there already.
    Create(Box<Snapshot>),
    /// Mark, note, and tell.
    Tell {
        snapshot: Arc<Snapshot>,
        content: Arc<VolumeSnapshotContent>,
        status: Box<VolumeSnapshotContentStatus>,
    },
    /// Tell what is wrong.
    Fail {
        content: Arc<VolumeSnapshotContent>,
        message: String,
    },
    /// Remove a sidecar's annotation.
    Settle(Arc<VolumeSnapshotContent>),
    /// The node.
    MoveTo {
        snapshot: Arc<Snapshot>,
        node: String,
    },
    /// `state: Deleted`.
    Erase {
        snapshot: Arc<Snapshot>,
        proof: Proof,
    },
    /// The content's word of a snapshot.
    Forget(Arc<VolumeSnapshotContent>),
    /// The Snapshot object.
    Drop(Arc<Snapshot>),
    /// The content's finalizer.
    Release(Arc<VolumeSnapshotContent>),
}

struct Apis {
    snapshots: Api<Snapshot>,
    contents: Api<VolumeSnapshotContent>,
}

/// Does it.
pub(in crate::storage) async fn apply(ctx: &Ctx, work: Work) -> Done {
    let apis = Apis {
        snapshots: Api::all(ctx.client.clone()),
        contents: Api::all(ctx.client.clone()),
    };
    match work {
        Work::Create(snapshot) => apis.create(&snapshot).await,
        Work::Tell {
            snapshot,
            content,
            status,
        } => apis.tell(&snapshot, &content, &status).await,
        Work::Fail { content, message } => {
            let error = json!({"message": message, "time": Timestamp::now()});
            let status = json!({"readyToUse": false, "error": error});
            put(apis.patch_status(&content, status).await?)
        }
        Work::Settle(content) => {
            let annotations = json!({names::content::BEING_CREATED: null});
            put(apis
                .patch_content(&content, json!({"annotations": annotations}))
                .await?)
        }
        Work::MoveTo { snapshot, node } => {
            let spec = json!({"spec": {"node": node}});
            apis.patch_snapshot(&snapshot, spec).await
        }
        Work::Erase { snapshot, proof } => apis.erase(&snapshot, proof).await,
        Work::Forget(content) => {
            let nothing: Value = [
                "snapshotHandle",
                "readyToUse",
                "creationTime",
                "restoreSize",
            ]
            .into_iter()
            .map(|field| (field.to_owned(), Value::Null))
            .collect();
            put(apis.patch_status(&content, nothing).await?)
        }
        Work::Drop(snapshot) => {
            let name = snapshot.name_any();
            let params = if_same(&*snapshot);
            let call = apis.snapshots.delete(&name, &params);
            gone(bounded(format!("delete Snapshot {name}"), call).await)
        }
        Work::Release(content) => {
            let others = content.finalizers().iter();
            let others: Vec<_> = others.filter(|f| *f != names::content::FINALIZER).collect();
            let result = apis.patch_content(&content, json!({"finalizers": others}));
            gone(result.await)
        }
    }
}

fn put(content: VolumeSnapshotContent) -> Done {
    Ok(vec![Put::Content(Box::new(content))])
}

impl Apis {
    /// A content that a cache still shows must not have a snapshot taken, or brought
    /// back.
    async fn create(&self, snapshot: &Snapshot) -> Done {
        let of = &snapshot.spec.content;
        let live = self.live(&of.name, &of.uid).await?;
        let live =
            live.filter(|live| snapshot.spec.adopt || live.metadata.deletion_timestamp.is_none());
        if live.is_none() {
            let text = format!("VolumeSnapshotContent {} is gone", of.name);
            return Err(Failure::Stale(text));
        }
        let name = snapshot.name_any();
        let params: PostParams = post();
        let call = self.snapshots.create(&params, snapshot);
        let there = match bounded(format!("create Snapshot {name}"), call).await {
            // An earlier or another's intent for the same content: it stands.
            Err(error) if error.is_already_exists() => {
                let call = self.snapshots.get(&name);
                bounded(format!("get Snapshot {name}"), call).await?
            }
            other => other?,
        };
        Ok(vec![Put::Snapshot(Box::new(there))])
    }

    async fn tell(
        &self,
        snapshot: &Snapshot,
        content: &VolumeSnapshotContent,
        status: &VolumeSnapshotContentStatus,
    ) -> Done {
        let mut puts = Vec::new();
        if !berth_plan::snapshots::is_told(snapshot) {
            let marks = json!({"metadata": {"annotations": {names::EXPOSED: "true"}}});
            puts.extend(self.patch_snapshot(snapshot, marks).await?);
        }
        let notes = json!({
            names::content::POOL: snapshot.spec.pool,
            names::content::VOLUME: snapshot.spec.volume,
        });
        let noted = self
            .patch_content(content, json!({"annotations": notes}))
            .await?;
        let mut status = json!(status);
        status["error"] = Value::Null;
        let told = self.patch_status(&noted, status).await?;
        tracing::info!(snapshot = %snapshot.name_any(), content = %content.name_any(), "snapshot is ready");
        puts.push(Put::Content(Box::new(told)));
        Ok(puts)
    }

    /// The only place that lets a snapshot be erased. What the decision took from a
    /// cache is read again from the API server first, and the write is conditional on
    /// the Snapshot being as it was.
    async fn erase(&self, snapshot: &Snapshot, proof: Proof) -> Done {
        match proof {
            Proof::DeletedContent(name, uid) => {
                let live = self.live(&name, &uid).await?;
                let let_go = live.is_some_and(|live| {
                    Content(&live).is_let_go() && live.spec.deletion_policy == "Delete"
                });
                if !let_go {
                    let text =
                        format!("the snapshot of VolumeSnapshotContent {name} is to stay now");
                    return Err(Failure::Stale(text));
                }
            }
            Proof::NeverTold(name, uid) => {
                if self.live(&name, &uid).await?.is_some() {
                    let text = format!("VolumeSnapshotContent {name} is still there");
                    return Err(Failure::Stale(text));
                }
            }
        }
        tracing::info!(snapshot = %snapshot.name_any(), volume = %snapshot.spec.volume, "snapshot is to be erased");
        let spec = json!({"spec": {"state": "Deleted"}});
        self.patch_snapshot(snapshot, spec).await
    }

    /// The content of a name and UID, if it is there now.
    async fn live(&self, name: &str, uid: &str) -> Result<Option<VolumeSnapshotContent>, Failure> {
        let call = self.contents.get_opt(name);
        let live = bounded(format!("get VolumeSnapshotContent {name}"), call).await?;
        Ok(live.filter(|live| live.uid().as_deref() == Some(uid)))
    }

    async fn patch_snapshot(&self, snapshot: &Snapshot, mut body: Value) -> Done {
        let name = snapshot.name_any();
        let same = same(snapshot);
        for field in ["uid", "resourceVersion"] {
            body["metadata"][field] = same[field].clone();
        }
        let (params, body) = (patch(), Patch::Merge(body));
        let call = self.snapshots.patch(&name, &params, &body);
        let new = bounded(format!("patch Snapshot {name}"), call).await?;
        Ok(vec![Put::Snapshot(Box::new(new))])
    }

    async fn patch_content(
        &self,
        content: &VolumeSnapshotContent,
        mut metadata: Value,
    ) -> Result<VolumeSnapshotContent, crate::context::CallError> {
        let name = content.name_any();
        let same = same(content);
        for field in ["uid", "resourceVersion"] {
            metadata[field] = same[field].clone();
        }
        let (params, body) = (patch(), Patch::Merge(json!({"metadata": metadata})));
        let call = self.contents.patch(&name, &params, &body);
        bounded(format!("patch VolumeSnapshotContent {name}"), call).await
    }

    async fn patch_status(
        &self,
        content: &VolumeSnapshotContent,
        status: Value,
    ) -> Result<VolumeSnapshotContent, crate::context::CallError> {
        let name = content.name_any();
        let body = Patch::Merge(json!({"metadata": same(content), "status": status}));
        let params = patch();
        let call = self.contents.patch_status(&name, &params, &body);
        let call = bounded(
            format!("patch status of VolumeSnapshotContent {name}"),
            call,
        );
        call.await
    }
}
