//! The proof that a tenant may copy a source: the objects between claim and data, read
//! again from the API server before the copy is made.

use std::fmt::Debug;

use berth_api::{Snapshot, Volume, VolumeSnapshot, VolumeSnapshotContent};
use berth_plan::{
    snapshots::restore,
    volumes::{
        ClaimWait,
        claim::{self, Source},
        clone, pv,
    },
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::write::Failure;
use crate::context::{Ctx, bounded};

/// Finds the source of a volume again, from the API server itself. Between a look into
/// the caches and the copy, a claim may have been deleted, and its volume given to
/// somebody else.
///
/// # Errors
/// [`Failure::Stale`] where the source is no longer the one that the decision saw.
pub(super) async fn prove(ctx: &Ctx, volume: &Volume) -> Result<(), Failure> {
    if volume.spec.source.is_none() {
        return Ok(());
    }
    let wanted = &volume.spec.claim;
    let of = format!("claim {}/{}", wanted.namespace, wanted.name);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &wanted.namespace);
    let claim = get(&claims, Some(&wanted.name)).await?;
    let claim = claim
        .filter(|claim| claim::uid(claim) == wanted.uid)
        .ok_or_else(|| Failure::Stale(format!("{of} is gone")))?;
    let origin = match claim::source(&claim).map_err(Failure::Stale)? {
        None => None,
        Some(Source::Claim(name)) => {
            let source = get(&claims, Some(name)).await?;
            let pv = source.as_ref().and_then(claim::volume_name);
            let pv: Option<PersistentVolume> = get(&Api::all(ctx.client.clone()), pv).await?;
            let handle = pv.as_ref().and_then(pv::handle);
            let volume: Option<Volume> = get(&Api::all(ctx.client.clone()), handle).await?;
            let chain = clone::Chain {
                claim: source.as_ref(),
                pv: pv.as_ref(),
                volume: volume.as_ref(),
            };
            Some(clone::origin(&claim, name, &chain).map_err(stale)?)
        }
        Some(Source::Snapshot(name)) => {
            let requests: Api<VolumeSnapshot> =
                Api::namespaced(ctx.client.clone(), &wanted.namespace);
            let request = get(&requests, Some(name)).await?;
            let content = request.as_ref().and_then(restore::content_of);
            let content: Option<VolumeSnapshotContent> =
                get(&Api::all(ctx.client.clone()), content).await?;
            let snapshot = content.as_ref().and_then(restore::snapshot_of);
            let snapshot: Option<Snapshot> = get(&Api::all(ctx.client.clone()), snapshot).await?;
            let chain = restore::Chain {
                request: request.as_ref(),
                content: content.as_ref(),
                snapshot: snapshot.as_ref(),
            };
            Some(restore::origin(&claim, name, &chain).map_err(stale)?)
        }
    };
    let same = origin.as_ref().is_some_and(|origin| {
        origin.pool == volume.spec.pool && Some(&origin.source) == volume.spec.source.as_ref()
    });
    if same {
        return Ok(());
    }
    Err(Failure::Stale(format!(
        "the data source of {of} is not what it was"
    )))
}

fn stale(wait: ClaimWait) -> Failure {
    Failure::Stale(wait.text)
}

/// An object as the API server has it now, where one is named at all.
async fn get<K>(api: &Api<K>, name: Option<&str>) -> Result<Option<K>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let Some(name) = name else {
        return Ok(None);
    };
    let call = format!("get {} {name}", K::kind(&()));
    Ok(bounded(call, api.get_opt(name)).await?)
}
