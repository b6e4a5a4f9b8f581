//! Views for the planner: of one volume, and of a claim with its pods and their claims.

use std::sync::Arc;

use berth_api::names::reason;
use berth_model::VolumeName;
use berth_plan::{
    claims::{self, ClaimKey, ClassOf},
    volumes::{self, Decision, Notice, Peers, Step, claim, pv},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::{pod, state::ClusterState};

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
    pub(super) fn decide(
        &self,
        name: &str,
        now: Timestamp,
    ) -> (Decision, Option<Arc<PersistentVolumeClaim>>) {
        let claim = self.claim_for(name);
        let pvs = self.pvs_of(name);
        if pvs.len() > 1 {
            let all: Vec<_> = pvs.iter().map(|pv| pv.name_any()).collect();
            let text = format!("{} name one volume; delete all but one", all.join(" and "));
            let decision = Decision {
                step: Step::Nothing,
                wait: Some(text.clone().into()),
                again: None,
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
            (Some(claim), true) => claims::peers(&self.claim_view(claim, now, |_| false)),
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
            nodes: &self.node_facts,
            peers: &peers,
            now,
        });
        (decision, claim)
    }

    /// What is known of a pod that uses the claim.
    fn pod_of(&self, claim: &PersistentVolumeClaim) -> Option<claim::Pod> {
        let namespace = claim.namespace().unwrap_or_default();
        let pods = self.pods_of(&namespace, &claim.name_any());
        pods.first().map(|pod| pod::facts(pod))
    }

    /// What the decision about a claim without a PersistentVolume sees. `busy` tells of the
    /// name of a Volume whether a write about it is under way.
    pub(super) fn claim_view<'a>(
        &'a self,
        claim: &'a PersistentVolumeClaim,
        now: Timestamp,
        busy: impl Fn(&str) -> bool,
    ) -> claims::View<'a> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let pods: Vec<_> = self
            .pods_of(namespace, name)
            .iter()
            .map(|pod| pod::facts(pod))
            .collect();
        let others = pods.iter().flat_map(|pod| &pod.claims);
        let others = others.filter_map(|other| self.claims.get(namespace, other));
        let all = others.map(|other| &**other).chain([claim]);
        let facts = |claim: &'a PersistentVolumeClaim| {
            let used = self.pods_of(namespace, &claim.name_any());
            let mut used = used.iter().map(|pod| pod.name_any());
            let shared = used.any(|name| pods.iter().all(|pod| pod.name != name));
            (claim.name_any(), self.claim_facts(claim, shared, &busy))
        };
        claims::View {
            now,
            claim: name,
            claims: all.map(facts).collect(),
            pods,
            rooms: &self.rooms,
            nodes: &self.node_facts,
            told: &self.told,
            withheld: &self.withheld,
        }
    }

    fn claim_facts<'a>(
        &'a self,
        claim: &'a PersistentVolumeClaim,
        shared: bool,
        busy: impl Fn(&str) -> bool,
    ) -> claims::Claim<'a> {
        let key = ClaimKey::of(claim);
        let name = key.volume();
        let there = self.volumes.get("", &name).map(|v| &**v);
        claims::Claim {
            object: claim,
            class: self.class_as_named(claim),
            volume: there.or_else(|| self.assumed.get(&name)),
            source: self.source_of(claim),
            shared,
            busy: busy(&name),
            tries: self.tries.get(&key),
        }
    }

    fn class_as_named(&self, claim: &PersistentVolumeClaim) -> ClassOf<'_> {
        match claim::class_name(claim).and_then(|name| self.parsed.get(name)) {
            Some(Ok(class)) => ClassOf::Ours(class),
            Some(Err(text)) => ClassOf::Refused(text),
            None => {
                let exists = |name: &str| self.classes.get("", name).is_some();
                claim::missing_class(claim, exists).map_or(ClassOf::Other, ClassOf::Missing)
            }
        }
    }
}
