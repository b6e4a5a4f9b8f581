//! Claims of one pod: they are placed together, and get their PersistentVolumes together,
//! since one PersistentVolume pins the pod to its node.

use std::{collections::BTreeSet, sync::Arc};

use berth_api::names;
use berth_plan::volumes::{Peers, claim};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::{
    pod::{self, Pod},
    state::ClusterState,
};

impl ClusterState {
    /// Marks the other claims of the pods that use a claim: they are placed together.
    pub(super) fn touch_peers(&mut self, namespace: &str, name: &str) {
        for pod in self.pods_of(namespace, name) {
            for peer in pod::claims(&pod) {
                if peer != name {
                    self.touch_claim(namespace, &peer);
                }
            }
        }
    }

    /// Pods that use a claim.
    pub(super) fn pods_of(&self, namespace: &str, name: &str) -> Vec<Arc<Pod>> {
        let key = (namespace.to_owned(), name.to_owned());
        let pods = self.pods_by_claim.get(&key).into_iter().flatten();
        pods.filter_map(|pod| self.pods.get(namespace, pod).cloned())
            .collect()
    }

    /// The other claims of the claim's pods.
    pub(super) fn peers(&self, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolumeClaim>> {
        let namespace = claim.namespace().unwrap_or_default();
        let name = claim.name_any();
        let mut peers = BTreeSet::new();
        for pod in self.pods_of(&namespace, &name) {
            peers.extend(pod::claims(&pod).into_iter().filter(|peer| *peer != name));
        }
        let peers = peers.iter();
        peers
            .filter_map(|peer| self.claims.get(&namespace, peer).cloned())
            .collect()
    }

    /// Whether the claim is held to a node that another open claim of its pod was
    /// taken back from. kube-controller-manager hands a claim to us only once its
    /// node is chosen: one that was handed over and has no node lost it since.
    pub(super) fn is_split(&self, claim: &PersistentVolumeClaim) -> bool {
        let waits = |c: &PersistentVolumeClaim| self.class_of(c).is_some_and(|c| !c.immediate);
        claim::is_open(claim)
            && waits(claim)
            && claim::selected_node(claim).is_some_and(|node| {
                self.peers(claim).iter().any(|peer| {
                    claim::is_open(peer) && waits(peer) && claim::selected_node(peer) != Some(node)
                })
            })
    }

    /// Whether the other claims of the claim's pods are ready for its PV.
    pub(super) fn peers_state(&self, claim: &PersistentVolumeClaim) -> Peers {
        if self.class_of(claim).is_none_or(|c| c.immediate) {
            return Peers::Ready;
        }
        for peer in self.peers(claim) {
            let ours = claim::class_name(&peer).is_some_and(|c| self.parsed.contains_key(c));
            if !ours || claim::volume_name(&peer).is_some() {
                continue;
            }
            let volume = self.volumes.get("", &names::volume_name(claim::uid(&peer)));
            let status = volume.and_then(|v| v.status.as_ref());
            if status.is_none_or(|s| s.phase != berth_api::VolumePhase::Ready) {
                return Peers::Waiting(peer.name_any());
            }
        }
        Peers::Ready
    }
}
