//! What claims start from: another claim's volume, or a snapshot. Which of the two, and
//! whether the claim may have it, is decided in the planner; here the objects are found,
//! in the caches for a decision and from the API server before a copy begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use berth_api::{Snapshot, Volume, VolumeSnapshot, VolumeSnapshotContent};
use berth_plan::{
    snapshots::restore::{self, Origin},
    volumes::{
        ClaimWait,
        claim::{self, Source},
        clone, pv,
    },
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::{apply::Failure, cache::Key, world::World};
use crate::context::{Ctx, bounded};

/// Claims that wait to be made as copies.
#[derive(Default)]
pub(super) struct Sourced {
    /// Of a VolumeSnapshot.
    snapshots: BTreeSet<Key>,
    /// Of another claim, by that claim.
    claims: BTreeMap<Key, BTreeSet<Key>>,
}

impl World {
    /// What a claim is to be a copy of. The error says what is waited for, or wrong.
    pub(super) fn source_of(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<Option<Origin>, ClaimWait> {
        let namespace = claim.namespace().unwrap_or_default();
        match claim::source(claim)? {
            None => Ok(None),
            Some(Source::Claim(name)) => {
                let source = self.claims.get(&namespace, name).map(|c| &**c);
                let pv = source
                    .and_then(claim::volume_name)
                    .and_then(|name| self.pvs.get("", name))
                    .map(|pv| &**pv);
                let volume = pv
                    .and_then(pv::handle)
                    .and_then(|handle| self.volumes.get("", handle))
                    .map(|v| &**v);
                let chain = clone::Chain {
                    claim: source,
                    pv,
                    volume,
                };
                clone::origin(claim, name, &chain).map(Some)
            }
            Some(Source::Snapshot(name)) => {
                let snaps = &self.snaps;
                if !snaps.is_ready() {
                    return Err(ClaimWait::in_progress(format!(
                        "waiting for its data source, VolumeSnapshot {name}, to be looked up"
                    )));
                }
                let request = snaps.requests.get(&namespace, name).map(|r| &**r);
                let content = request
                    .and_then(restore::content_of)
                    .and_then(|name| snaps.contents.get("", name))
                    .map(|c| &**c);
                let snapshot = content
                    .and_then(restore::snapshot_of)
                    .and_then(|name| snaps.snapshots.get("", name))
                    .map(|s| &**s);
                let chain = restore::Chain {
                    request,
                    content,
                    snapshot,
                };
                restore::origin(claim, name, &chain).map(Some)
            }
        }
    }

    /// Keeps in mind which claims wait for a source.
    pub(super) fn note_sourced(
        &mut self,
        old: Option<&PersistentVolumeClaim>,
        new: Option<&PersistentVolumeClaim>,
    ) {
        for (claim, there) in [(old, false), (new, true)] {
            let Some(claim) = claim else { continue };
            let there = there && claim::is_open(claim);
            let namespace = claim.namespace().unwrap_or_default();
            let key = (namespace.clone(), claim.name_any());
            let sourced = &mut self.sourced;
            match claim::source(claim) {
                Ok(Some(Source::Snapshot(_))) if there => {
                    sourced.snapshots.insert(key);
                }
                Ok(Some(Source::Snapshot(_))) => {
                    sourced.snapshots.remove(&key);
                }
                Ok(Some(Source::Claim(name))) => {
                    let source = (namespace, name.to_owned());
                    let copies = sourced.claims.entry(source.clone()).or_default();
                    if there {
                        copies.insert(key);
                    } else {
                        copies.remove(&key);
                    }
                    if copies.is_empty() {
                        sourced.claims.remove(&source);
                    }
                }
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// Claims that wait for a snapshot.
    pub(super) fn touch_restores(&mut self) {
        for (namespace, name) in self.sourced.snapshots.clone() {
            self.touch_claim(&namespace, &name);
        }
    }

    /// Claims that wait to be copies of a claim of which something changed: the claim,
    /// its PersistentVolume or its Volume.
    pub(super) fn touch_copies_of(&mut self, namespace: &str, name: &str) {
        let source = (namespace.to_owned(), name.to_owned());
        for (namespace, name) in self
            .sourced
            .claims
            .get(&source)
            .cloned()
            .unwrap_or_default()
        {
            self.touch_claim(&namespace, &name);
        }
    }
}

/// Finds again, from the API server itself, what the volume is to be a copy of. Between
/// a look into the caches and a copy, a claim may have been deleted, and its volume given
/// to somebody else.
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
