//! Views for the planner: of one volume, and of the claims that are placed together.

use std::sync::Arc;

use berth_api::{Volume, VolumeState, names, names::reason};
use berth_model::VolumeName;
use berth_plan::{
    place::{Request, Want},
    room::SetKey,
    volumes::{self, ClaimWait, Class, Decision, Notice, Peers, Step, claim, pv},
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::{pod, state::ClusterState};

/// The claims of one pod that are placed now, and the request for them.
pub(super) struct Group {
    pub(super) members: Vec<Arc<PersistentVolumeClaim>>,
    pub(super) request: Request,
    /// Node of their data source, if they have one.
    pub(super) home: Option<String>,
}

impl ClusterState {
    /// The claim that decides about a volume: the one that its PV is bound to,
    /// else the one that it was made for.
    fn claim_for(&self, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        let pvs = self.pvs_of(name);
        let reference = pvs.first().map(|pv| pv::claim_ref(pv));
        let uid = match reference {
            Some(Some(reference)) => reference.uid,
            // A person removed the claim from the PV.
            Some(None) => return None,
            None => name.parse::<VolumeName>().ok()?.claim_uid().to_owned(),
        };
        self.claim_of_uid(&uid).cloned()
    }

    /// The next write for one volume, and the claim behind it.
    pub(super) fn decide(&self, name: &str) -> (Decision, Option<Arc<PersistentVolumeClaim>>) {
        let claim = self.claim_for(name);
        let pvs = self.pvs_of(name);
        if pvs.len() > 1 {
            let all: Vec<_> = pvs.iter().map(|pv| pv.name_any()).collect();
            let text = format!("{} name one volume; delete all but one", all.join(" and "));
            let decision = Decision {
                step: Step::Nothing,
                wait: Some(text.clone().into()),
                notice: Some(Notice {
                    warning: true,
                    reason: reason::NAME_CONFLICT,
                    text,
                }),
            };
            return (decision, claim);
        }
        let class = claim.as_deref().and_then(|c| self.class_of(c));
        let peers = match (&claim, pvs.is_empty()) {
            (Some(claim), true) => self.peers_state(claim),
            _ => Peers::Ready,
        };
        let pod = claim.as_ref().and_then(|claim| self.pod_of(claim));
        let decision = volumes::decide(&volumes::View {
            claim: claim.as_deref(),
            pod: pod.as_ref(),
            pv: pvs.first().map(|pv| &**pv),
            volume: self.volumes.get("", name).map(|v| &**v),
            class,
            grants: &self.grants,
            rooms: &self.rooms,
            nodes: &self.labels,
            peers: &peers,
        });
        (decision, claim)
    }

    /// What is known of a pod that uses the claim.
    fn pod_of(&self, claim: &PersistentVolumeClaim) -> Option<claim::Pod> {
        let namespace = claim.namespace().unwrap_or_default();
        let pods = self.pods_of(&namespace, &claim.name_any());
        pods.first().map(|pod| pod::facts(pod))
    }

    /// The open claims of the claim's pod, once all of them are due. The error
    /// says what is awaited.
    pub(super) fn group(
        &self,
        first: &Arc<PersistentVolumeClaim>,
        class: &Class,
        asked_node: Option<&str>,
    ) -> Result<Group, ClaimWait> {
        let namespace = first.namespace().unwrap_or_default();
        let pod = self
            .pods_of(&namespace, &first.name_any())
            .into_iter()
            .next();
        let pod = pod.as_deref().map(pod::facts);
        let mut members = vec![first.clone()];
        let mut node = asked_node.map(str::to_owned);
        for peer in self.peers(first) {
            let Some(class_of_peer) = self.class_of(&peer) else {
                continue;
            };
            let name = names::volume_name(claim::uid(&peer));
            let volume = self.volumes.get("", &name).map(|v| &**v);
            match volume.or_else(|| self.assumed.get(&name)) {
                Some(volume) if volume.spec.state == VolumeState::Deleted => {
                    return Err(ClaimWait::in_progress(format!(
                        "waiting for the old volume of {} to be removed",
                        peer.name_any()
                    )));
                }
                // What is bound, or on its way, holds the pod to its node.
                Some(volume) => node = node.or_else(|| Some(volume.spec.node.clone())),
                None if claim::volume_name(&peer).is_some() => {}
                None if asked_node.is_none() && !class.immediate => members.push(peer),
                None if claim::refusal(&peer).is_some() => {
                    return Err(ClaimWait::in_progress(format!(
                        "waiting for the pod's other claim {}",
                        peer.name_any()
                    )));
                }
                None if claim::is_due(&peer, class_of_peer) => members.push(peer),
                None => {
                    return Err(ClaimWait::in_progress(format!(
                        "waiting for the pod's other claim {}",
                        peer.name_any()
                    )));
                }
            }
        }
        let owner = claim::owner(first, pod.as_ref());
        let set: Option<SetKey> = owner
            .as_ref()
            .map(|o| (namespace.clone(), o.kind.clone(), o.name.clone()));
        let mut home = None;
        let mut sources = Vec::new();
        for member in &members {
            let source = self.source_of(member)?;
            home = home.or_else(|| source.as_ref().map(|source| source.node.clone()));
            sources.push(source.map(|source| source.pool));
        }
        let wants = members
            .iter()
            .zip(sources)
            .map(|(member, source)| Want {
                claim: member.name_any(),
                size: claim::size(member).unwrap_or_default(),
                backend: self.class_of(member).and_then(|c| c.backend),
                mode: claim::mode(member),
                source,
                avoid: self
                    .excluded_pools
                    .get(claim::uid(member))
                    .cloned()
                    .unwrap_or_default(),
            })
            .collect();
        let request = Request {
            node,
            nodes: class.allowed(&self.labels),
            set,
            ordinal: owner.as_ref().map(|o| o.ordinal),
            wants,
        };
        Ok(Group {
            members,
            request,
            home,
        })
    }

    /// The spec of a member's volume.
    pub(super) fn intent(
        &self,
        member: &PersistentVolumeClaim,
        node: &str,
        pool: &str,
    ) -> Option<Volume> {
        let namespace = member.namespace().unwrap_or_default();
        let pod = self
            .pods_of(&namespace, &member.name_any())
            .into_iter()
            .next();
        let owner = claim::owner(member, pod.as_deref().map(pod::facts).as_ref());
        let class = self.class_of(member)?;
        let source = self.source_of(member).ok()?.map(|source| source.source);
        let spec = pv::placed(member, owner, class, node, pool, source);
        Some(pv::volume(&names::volume_name(claim::uid(member)), spec))
    }
}
