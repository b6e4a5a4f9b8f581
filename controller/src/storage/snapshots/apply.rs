//! The writes for snapshots. Each is safe when it lands late or twice.

use berth_api::{Snapshot, VolumeSnapshotContent, names};
use berth_plan::{
    snapshots::{Action, Content, Proof},
    target::Target,
};
use jiff::Timestamp;
use kube::{Api, Resource, ResourceExt, api::PostParams};
use serde_json::{Value, json};

use crate::{
    context::{CallError, Ctx, bounded},
    storage::write::{Done, Failure, Observed, conditional, gone, if_same, patch, post},
};

struct Apis {
    snapshots: Api<Snapshot>,
    contents: Api<VolumeSnapshotContent>,
}

/// Carries out an action.
pub(in crate::storage) async fn apply(ctx: &Ctx, action: Action) -> Done {
    let apis = Apis {
        snapshots: Api::all(ctx.client.clone()),
        contents: Api::all(ctx.client.clone()),
    };
    match action {
        Action::Create(snapshot) => apis.create(&snapshot).await,
        Action::Publish {
            snapshot,
            mark,
            content,
            pool,
            volume,
            status,
        } => {
            let mut seen = Vec::new();
            if mark {
                let marks = json!({"spec": {"exposed": true}});
                seen.extend(apis.patch_snapshot(&snapshot, marks).await?);
            }
            let notes = json!({names::content::POOL: pool, names::content::VOLUME: volume});
            let noted = apis
                .patch_content(&content, json!({"annotations": notes}))
                .await?;
            let mut status = json!(status);
            status["error"] = Value::Null;
            let noted = Target::of(noted.meta());
            let published = apis.patch_status(&noted, status).await?;
            tracing::info!(snapshot = %snapshot.name, content = %content.name, "snapshot is ready");
            seen.push(Observed::Content(Box::new(published)));
            Ok(seen)
        }
        Action::Fail { content, message } => {
            let error = json!({"message": message, "time": Timestamp::now()});
            let status = json!({"readyToUse": false, "error": error});
            observed(apis.patch_status(&content, status).await?)
        }
        Action::Settle { content } => {
            let annotations = json!({names::content::BEING_CREATED: null});
            observed(
                apis.patch_content(&content, json!({"annotations": annotations}))
                    .await?,
            )
        }
        Action::MoveTo { snapshot, node } => {
            let spec = json!({"spec": {"node": node}});
            apis.patch_snapshot(&snapshot, spec).await
        }
        Action::Erase { snapshot, proof } => apis.erase(&snapshot, proof).await,
        Action::Unpublish { content } => {
            let nothing: Value = [
                "snapshotHandle",
                "readyToUse",
                "creationTime",
                "restoreSize",
            ]
            .into_iter()
            .map(|field| (field.to_owned(), Value::Null))
            .collect();
            observed(apis.patch_status(&content, nothing).await?)
        }
        Action::Drop { snapshot } => {
            let params = if_same(&snapshot);
            let call = apis.snapshots.delete(&snapshot.name, &params);
            gone(bounded(format!("delete Snapshot {}", snapshot.name), call).await)
        }
        Action::Release { content, others } => {
            let result = apis.patch_content(&content, json!({"finalizers": others}));
            gone(result.await)
        }
    }
}

fn observed(content: VolumeSnapshotContent) -> Done {
    Ok(vec![Observed::Content(Box::new(content))])
}

impl Apis {
    /// Creates the Snapshot, after a look at the API server: a content that only a cache
    /// still shows must not have a snapshot taken, or brought back.
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
        Ok(vec![Observed::Snapshot(Box::new(there))])
    }

    /// The only place that orders a snapshot to be erased. What the decision took from a
    /// cache is read again from the API server first, and the write is conditional on the
    /// Snapshot being unchanged.
    async fn erase(&self, snapshot: &Target, proof: Proof) -> Done {
        match proof {
            Proof::DeletedContent(name, uid) => {
                let live = self.live(&name, &uid).await?;
                let released = live.is_some_and(|live| {
                    Content(&live).is_released() && live.spec.deletion_policy == "Delete"
                });
                if !released {
                    let text =
                        format!("the snapshot of VolumeSnapshotContent {name} must be kept now");
                    return Err(Failure::Stale(text));
                }
            }
            Proof::NeverPublished(name, uid) => {
                if self.live(&name, &uid).await?.is_some() {
                    let text = format!("VolumeSnapshotContent {name} is still there");
                    return Err(Failure::Stale(text));
                }
            }
        }
        tracing::info!(snapshot = %snapshot.name, "snapshot is to be erased");
        let spec = json!({"spec": {"state": "Deleted"}});
        self.patch_snapshot(snapshot, spec).await
    }

    /// The content of a name and UID, if it is there now.
    async fn live(&self, name: &str, uid: &str) -> Result<Option<VolumeSnapshotContent>, Failure> {
        let call = self.contents.get_opt(name);
        let live = bounded(format!("get VolumeSnapshotContent {name}"), call).await?;
        Ok(live.filter(|live| live.uid().as_deref() == Some(uid)))
    }

    async fn patch_snapshot(&self, snapshot: &Target, change: Value) -> Done {
        let name = &snapshot.name;
        let (params, body) = (patch(), conditional(snapshot, change));
        let call = self.snapshots.patch(name, &params, &body);
        let new = bounded(format!("patch Snapshot {name}"), call).await?;
        Ok(vec![Observed::Snapshot(Box::new(new))])
    }

    async fn patch_content(
        &self,
        content: &Target,
        metadata: Value,
    ) -> Result<VolumeSnapshotContent, CallError> {
        let name = &content.name;
        let body = conditional(content, json!({"metadata": metadata}));
        let params = patch();
        let call = self.contents.patch(name, &params, &body);
        bounded(format!("patch VolumeSnapshotContent {name}"), call).await
    }

    async fn patch_status(
        &self,
        content: &Target,
        status: Value,
    ) -> Result<VolumeSnapshotContent, CallError> {
        let name = &content.name;
        let body = conditional(content, json!({"status": status}));
        let params = patch();
        let call = self.contents.patch_status(name, &params, &body);
        let call = bounded(
            format!("patch status of VolumeSnapshotContent {name}"),
            call,
        );
        call.await
    }
}
