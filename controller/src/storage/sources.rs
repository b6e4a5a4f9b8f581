//! What claims start from: another claim's volume, or a snapshot.

use berth_api::VolumeSource;
use berth_plan::{
    snapshots::restore::{self, Chain, Origin},
    volumes::{
        ClaimWait,
        claim::{self, Source},
    },
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::world::World;

impl World {
    /// What a claim is to be a copy of. The error says what is waited for, or wrong.
    pub(super) fn source_of(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<Option<Origin>, ClaimWait> {
        let namespace = claim.namespace().unwrap_or_default();
        match claim::source(claim)? {
            None => Ok(None),
            Some(Source::Claim(name)) => self.claim_source(claim, &namespace, name).map(Some),
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
                let chain = Chain {
                    request,
                    content,
                    snapshot,
                };
                restore::origin(claim, name, &chain).map(Some)
            }
        }
    }

    fn claim_source(
        &self,
        claim: &PersistentVolumeClaim,
        namespace: &str,
        name: &str,
    ) -> Result<Origin, ClaimWait> {
        let Some(source) = self.claims.get(namespace, name) else {
            return Err(format!("waiting for its data source, claim {name}: make it").into());
        };
        let Some(volume) = claim::volume_name(source) else {
            return Err(ClaimWait::in_progress(format!(
                "waiting for its data source, claim {name}, to be bound"
            )));
        };
        let Some(volume) = self.volumes.get("", volume) else {
            return Err(format!("its data source {name} is no volume of Berth's").into());
        };
        let spec = &volume.spec;
        match claim::unlike(claim, &spec.claim.name, spec.mode, spec.size) {
            Some(text) => Err(text.into()),
            None => Ok(Origin {
                pool: spec.pool.clone(),
                node: spec.node.clone(),
                source: VolumeSource {
                    snapshot: None,
                    volume: volume.metadata.name.clone(),
                },
            }),
        }
    }
}
