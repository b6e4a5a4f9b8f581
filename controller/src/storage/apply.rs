//! The writes. Each is safe when it lands late or twice: made under a name that
//! follows from the claim's UID, or conditional on UID and resourceVersion.

use std::sync::Arc;

use berth_api::{Pool, Snapshot, Volume, VolumeSnapshotContent, names};
use berth_plan::{
    pools,
    volumes::{Proof, claim, pv},
};
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::CSIStorageCapacity,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::PartialObjectMeta,
};
use serde_json::{Value, json};

use super::{publish, snapshots, sources};
use crate::context::{CallError, Ctx, FIELD_MANAGER, bounded};

/// One thing to do. Objects are as the decision saw them.
pub(super) enum Work {
    /// The intent: a volume for a claim.
    CreateVolume(Volume),
    /// The Volume object is missing; its PV is there.
    Adopt {
        volume: Volume,
        pv: Arc<PersistentVolume>,
    },
    /// Mark, then PV.
    Expose {
        volume: Arc<Volume>,
        mark: bool,
        pv: Box<PersistentVolume>,
    },
    /// Changes of a Volume's spec.
    PatchVolume { volume: Arc<Volume>, spec: Value },
    /// `state: Deleted`.
    Erase { volume: Arc<Volume>, proof: Proof },
    /// The Volume object, and where the scheduler is to choose again, the
    /// claim's node.
    DropVolume {
        volume: Arc<Volume>,
        claim: Option<Arc<PersistentVolumeClaim>>,
    },
    /// The claim's node, so that the scheduler chooses again.
    Select {
        claim: Arc<PersistentVolumeClaim>,
        node: Option<String>,
    },
    /// Deletes a PV.
    DeletePv(Arc<PersistentVolume>),
    /// Takes our finalizer from a PV.
    DropFinalizer(Arc<PersistentVolume>),
    /// A PV's capacity.
    PvCapacity {
        pv: Arc<PersistentVolume>,
        size: u64,
    },
    /// A claim's capacity.
    ClaimCapacity {
        claim: Arc<PersistentVolumeClaim>,
        size: u64,
    },
    /// A Pool object (as it is there), or a node's pool labels.
    Pool {
        write: pools::Write,
        there: Option<Arc<Pool>>,
    },
    /// A capacity object: as wanted, and as it is there.
    Capacity {
        wanted: Box<CSIStorageCapacity>,
        there: bool,
    },
    /// A capacity object that nobody needs.
    DropCapacity(Arc<CSIStorageCapacity>),
    /// Something about a snapshot.
    Snap(snapshots::Work),
}

/// An object that a write answered with.
pub(super) enum Put {
    Volume(Box<Volume>),
    Pv(Box<PersistentVolume>),
    Claim(Box<PersistentVolumeClaim>),
    Pool(Box<Pool>),
    Node(Box<PartialObjectMeta<Node>>),
    Capacity(Box<CSIStorageCapacity>),
    Snapshot(Box<Snapshot>),
    Content(Box<VolumeSnapshotContent>),
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The world is not as the decision saw it; decide anew.
    #[error("{0}")]
    Stale(String),
}

impl Failure {
    /// Nothing is wrong: somebody was faster.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Stale(_) => true,
            Self::Call(error) => error.is_conflict(),
        }
    }

    /// The whole text, for logs and events.
    pub(super) fn chain(&self) -> String {
        match self {
            Self::Call(error) => error.chain(),
            Self::Stale(text) => text.clone(),
        }
    }
}

pub(super) type Done = Result<Vec<Put>, Failure>;

pub(super) fn post() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

pub(super) fn patch() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Merge-patch metadata that makes a patch conditional on the object being the
/// one, and as, that the decision saw.
pub(super) fn same<K: Resource>(object: &K) -> Value {
    json!({"uid": object.uid(), "resourceVersion": object.resource_version()})
}

pub(super) fn if_same<K: Resource>(object: &K) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        uid: object.uid(),
        resource_version: object.resource_version(),
    })
}

/// A deletion of what is gone already is done.
pub(super) fn gone<T>(result: Result<T, CallError>) -> Done {
    match result {
        Ok(_) => Ok(Vec::new()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Does it.
pub(super) async fn apply(ctx: &Ctx, work: Work) -> Done {
    let volumes: Api<Volume> = Api::all(ctx.client.clone());
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    match work {
        Work::CreateVolume(volume) => {
            sources::prove(ctx, &volume).await?;
            create_volume(&volumes, volume).await
        }
        Work::Adopt { volume, pv } => {
            // A PV that a cache still shows must not bring its volume back.
            let name = pv.name_any();
            let live = bounded(format!("get PersistentVolume {name}"), pvs.get_opt(&name)).await?;
            if live.is_none_or(|live| live.uid() != pv.uid()) {
                return Err(Failure::Stale(format!("PersistentVolume {name} is gone")));
            }
            create_volume(&volumes, volume).await
        }
        Work::Expose { volume, mark, pv } => expose(&volumes, &pvs, &volume, mark, &pv).await,
        Work::PatchVolume { volume, spec } => {
            let name = volume.name_any();
            let body = Patch::Merge(json!({"metadata": same(&*volume), "spec": spec}));
            let params = patch();
            let call = volumes.patch(&name, &params, &body);
            let volume = bounded(format!("patch Volume {name}"), call).await?;
            Ok(vec![Put::Volume(Box::new(volume))])
        }
        Work::Erase { volume, proof } => erase(ctx, &volumes, &pvs, &volume, proof).await,
        Work::DropVolume { volume, claim } => {
            let name = volume.name_any();
            let params = if_same(&*volume);
            let call = volumes.delete(&name, &params);
            gone(bounded(format!("delete Volume {name}"), call).await)?;
            match claim {
                Some(claim) => select(ctx, &claim, None).await,
                None => Ok(Vec::new()),
            }
        }
        Work::Select { claim, node } => select(ctx, &claim, node.as_deref()).await,
        Work::DeletePv(pv) => {
            let name = pv.name_any();
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: pv.uid(),
                resource_version: None,
            });
            let call = pvs.delete(&name, &params);
            gone(bounded(format!("delete PersistentVolume {name}"), call).await)
        }
        Work::DropFinalizer(pv) => {
            let name = pv.name_any();
            let mut metadata = same(&*pv);
            let others = pv.finalizers().iter();
            let others: Vec<_> = others.filter(|f| *f != names::PV_FINALIZER).collect();
            metadata["finalizers"] = json!(others);
            let body = Patch::Merge(json!({"metadata": metadata}));
            let params = patch();
            let call = pvs.patch(&name, &params, &body);
            gone(bounded(format!("patch PersistentVolume {name}"), call).await)
        }
        Work::PvCapacity { pv, size } => {
            let name = pv.name_any();
            let body = Patch::Merge(json!({
                "metadata": same(&*pv),
                "spec": {"capacity": {"storage": berth_api::Bytes(size)}},
            }));
            let params = patch();
            let call = pvs.patch(&name, &params, &body);
            let pv = bounded(format!("patch PersistentVolume {name}"), call).await?;
            Ok(vec![Put::Pv(Box::new(pv))])
        }
        Work::ClaimCapacity { claim, size } => {
            let (api, name) = claim_api(ctx, &claim);
            let body = Patch::Merge(json!({
                "metadata": same(&*claim),
                "status": {"capacity": {"storage": berth_api::Bytes(size)}},
            }));
            let params = patch();
            let call = api.patch_status(&name, &params, &body);
            let claim = bounded(format!("patch status of claim {name}"), call).await?;
            Ok(vec![Put::Claim(Box::new(claim))])
        }
        Work::Snap(work) => snapshots::apply::apply(ctx, work).await,
        Work::Pool { write, there } => publish::pool(ctx, write, there).await,
        Work::Capacity { wanted, there } => publish::capacity(ctx, *wanted, there).await,
        Work::DropCapacity(object) => {
            let api: Api<CSIStorageCapacity> =
                Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
            let name = object.name_any();
            let params = if_same(&*object);
            let call = api.delete(&name, &params);
            gone(bounded(format!("delete CSIStorageCapacity {name}"), call).await)
        }
    }
}

async fn create_volume(api: &Api<Volume>, volume: Volume) -> Done {
    let name = volume.name_any();
    match bounded(
        format!("create Volume {name}"),
        api.create(&post(), &volume),
    )
    .await
    {
        Ok(volume) => Ok(vec![Put::Volume(Box::new(volume))]),
        // An earlier or another's intent for the same claim: it stands.
        Err(error) if error.is_already_exists() => {
            let volume = bounded(format!("get Volume {name}"), api.get(&name)).await?;
            Ok(vec![Put::Volume(Box::new(volume))])
        }
        Err(error) => Err(error.into()),
    }
}

async fn expose(
    volumes: &Api<Volume>,
    pvs: &Api<PersistentVolume>,
    volume: &Volume,
    mark: bool,
    pv: &PersistentVolume,
) -> Done {
    let name = volume.name_any();
    let mut put = Vec::new();
    if mark {
        let mut metadata = same(volume);
        metadata["annotations"] = json!({names::EXPOSED: "true"});
        let body = Patch::Merge(json!({"metadata": metadata}));
        let params = patch();
        let call = volumes.patch(&name, &params, &body);
        let marked = bounded(format!("patch Volume {name}"), call).await?;
        put.push(Put::Volume(Box::new(marked)));
    }
    let wanted = pv::claim_ref(pv);
    match bounded(
        format!("create PersistentVolume {name}"),
        pvs.create(&post(), pv),
    )
    .await
    {
        Ok(pv) => put.push(Put::Pv(Box::new(pv))),
        Err(error) if error.is_already_exists() => {
            let call = format!("get PersistentVolume {name}");
            let there = bounded(call, pvs.get(&name)).await?;
            if pv::handle(&there) != Some(&name) || pv::claim_ref(&there) != wanted {
                return Err(Failure::Stale(format!(
                    "another PersistentVolume has the name {name}; delete it"
                )));
            }
            put.push(Put::Pv(Box::new(there)));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(put)
}

/// The only place that lets data be erased. What the decision took from a cache
/// is read again from the API server first, and the write is conditional on the
/// Volume being as it was.
async fn erase(
    ctx: &Ctx,
    volumes: &Api<Volume>,
    pvs: &Api<PersistentVolume>,
    volume: &Volume,
    proof: Proof,
) -> Done {
    let name = volume.name_any();
    if let Proof::ReleasedPv { pv, uid } = proof {
        let call = format!("get PersistentVolume {pv}");
        let live = bounded(call, pvs.get_opt(&pv)).await?;
        let live = live
            .filter(|live| live.uid().as_ref() == Some(&uid))
            .ok_or_else(|| Failure::Stale(format!("PersistentVolume {pv} is gone")))?;
        let spec = live.spec.clone().unwrap_or_default();
        let phase = live.status.as_ref().and_then(|s| s.phase.as_deref());
        let released = phase == Some("Released") || live.metadata.deletion_timestamp.is_some();
        if spec.persistent_volume_reclaim_policy.as_deref() != Some("Delete") || !released {
            let text = format!("PersistentVolume {pv} is not to be erased any more");
            return Err(Failure::Stale(text));
        }
        let claim = pv::claim_ref(&live)
            .ok_or_else(|| Failure::Stale(format!("PersistentVolume {pv} has no claim")))?;
        let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &claim.namespace);
        let call = format!("get claim {}/{}", claim.namespace, claim.name);
        let there = bounded(call, api.get_opt(&claim.name)).await?;
        if there.is_some_and(|there| claim::uid(&there) == claim.uid) {
            let text = format!("claim {}/{} is still there", claim.namespace, claim.name);
            return Err(Failure::Stale(text));
        }
    }
    let body = Patch::Merge(json!({"metadata": same(volume), "spec": {"state": "Deleted"}}));
    let params = patch();
    let call = volumes.patch(&name, &params, &body);
    let erased = bounded(format!("patch Volume {name}"), call).await?;
    tracing::info!(volume = %name, claim = %format!("{}/{}", volume.spec.claim.namespace, volume.spec.claim.name), "data is to be erased");
    Ok(vec![Put::Volume(Box::new(erased))])
}

fn claim_api(ctx: &Ctx, claim: &PersistentVolumeClaim) -> (Api<PersistentVolumeClaim>, String) {
    let namespace = claim.namespace().unwrap_or_default();
    (
        Api::namespaced(ctx.client.clone(), &namespace),
        claim.name_any(),
    )
}

async fn select(ctx: &Ctx, claim: &PersistentVolumeClaim, node: Option<&str>) -> Done {
    let (api, name) = claim_api(ctx, claim);
    let mut metadata = same(claim);
    metadata["annotations"] = json!({names::SELECTED_NODE: node});
    let body = Patch::Merge(json!({"metadata": metadata}));
    let params = patch();
    let call = api.patch(&name, &params, &body);
    let claim = bounded(format!("patch claim {name}"), call).await?;
    Ok(vec![Put::Claim(Box::new(claim))])
}
