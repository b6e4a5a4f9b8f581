//! Data sources of claims: another claim's volume, or a snapshot. The planner decides
//! which of the two it is and whether the claim may have it; here the objects are found.

use berth_plan::{
    snapshots::restore::{self, Origin},
    volumes::{
        ClaimWait,
        claim::{self, Source},
        clone, pv,
    },
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::state::ClusterState;

impl ClusterState {
    /// The source data of a claim, if it names any. The error says what is awaited, or what
    /// is wrong.
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
                let snapshots = &self.snapshots;
                if !snapshots.is_ready() {
                    return Err(ClaimWait::in_progress(format!(
                        "waiting for its data source, VolumeSnapshot {name}, to be looked up"
                    )));
                }
                let request = snapshots.requests.get(&namespace, name).map(|r| &**r);
                let content = request
                    .and_then(restore::content_of)
                    .and_then(|name| snapshots.contents.get("", name))
                    .map(|c| &**c);
                let snapshot = content
                    .and_then(restore::snapshot_of)
                    .and_then(|name| snapshots.snapshots.get("", name))
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
}
