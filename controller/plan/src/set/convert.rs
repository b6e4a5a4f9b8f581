//! API objects converted to what the planner reads. Only what decisions need is kept: the rest of
//! a pod would be most of the controller's memory.

use std::collections::BTreeMap;

use berth_api::{NativeSet, OrdinalSet, OrdinalSetSpec, OrdinalSetStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::ControllerRevision,
        core::v1::{self as core, PersistentVolumeClaim},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use super::native;
use super::view::{Claim, Controller, Kind, Pod, PodPhase, Revision, Set};

fn controller(meta: &ObjectMeta) -> Option<Controller> {
    let owners = meta.owner_references.iter().flatten();
    let owner = owners.into_iter().find(|o| o.controller == Some(true))?;
    Some(Controller {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    })
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

fn set(kind: Kind, meta: &ObjectMeta, spec: &OrdinalSetSpec, status: OrdinalSetStatus) -> Set {
    Set {
        kind,
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        generation: meta.generation.unwrap_or(0),
        deleting: meta.deletion_timestamp.is_some(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        resource_version: text(&meta.resource_version),
        spec: spec.clone(),
        status,
    }
}

impl From<&OrdinalSet> for Set {
    fn from(of: &OrdinalSet) -> Set {
        let status = of.status.clone().unwrap_or_default();
        let mut set = set(Kind::OrdinalSet, &of.metadata, &of.spec, status);
        // Many tools print it, always empty: whether it is there is no other revision.
        if let Some(Value::Object(metadata)) = set.spec.template.get_mut("metadata") {
            metadata.remove("creationTimestamp");
        }
        set
    }
}

impl From<&NativeSet> for Set {
    fn from(of: &NativeSet) -> Set {
        let status = native::read(of);
        set(Kind::StatefulSet, &of.metadata, &of.spec, status)
    }
}

impl From<&core::Pod> for Pod {
    fn from(pod: &core::Pod) -> Pod {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let condition = |name: &str| {
            let conditions = status.and_then(|s| s.conditions.as_ref());
            conditions
                .into_iter()
                .flatten()
                .find(|c| c.type_ == name)
                .cloned()
        };
        let ready = condition("Ready").filter(|c| c.status == "True");
        let scheduled = condition("PodScheduled").filter(|c| c.status == "False");
        let grace = meta.deletion_grace_period_seconds.unwrap_or(0);
        Pod {
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            resource_version: text(&meta.resource_version),
            labels: meta.labels.clone().unwrap_or_default(),
            controller: controller(meta),
            phase: status.and_then(|s| s.phase.as_deref()).and_then(phase),
            // A condition without a time has always held.
            ready: ready.map(|c| c.last_transition_time.map_or(Timestamp::MIN, |t| t.0)),
            created: meta.creation_timestamp.as_ref().map(|t| t.0),
            deleted: meta.deletion_timestamp.as_ref().map(|t| {
                t.0.checked_sub(SignedDuration::from_secs(grace))
                    .unwrap_or(t.0)
            }),
            grace_seconds: spec
                .and_then(|s| s.termination_grace_period_seconds)
                .unwrap_or(30),
            node: spec.and_then(|s| s.node_name.clone()),
            claims: spec
                .and_then(|s| s.volumes.as_ref())
                .into_iter()
                .flatten()
                .filter_map(|v| {
                    let claim = v.persistent_volume_claim.as_ref()?;
                    Some((v.name.clone(), claim.claim_name.clone()))
                })
                .collect(),
            unschedulable: scheduled.is_some(),
            trouble: scheduled
                .and_then(|c| c.message)
                .or_else(|| status.and_then(trouble)),
        }
    }
}

fn phase(text: &str) -> Option<PodPhase> {
    match text {
        "Pending" => Some(PodPhase::Pending),
        "Running" => Some(PodPhase::Running),
        "Succeeded" => Some(PodPhase::Succeeded),
        "Failed" => Some(PodPhase::Failed),
        _ => None,
    }
}

/// What the first container that is not right says, init containers first.
fn trouble(status: &core::PodStatus) -> Option<String> {
    let init = status.init_container_statuses.iter().flatten();
    let main = status.container_statuses.iter().flatten();
    for container in init.chain(main) {
        let state = container.state.as_ref();
        let waiting = state.and_then(|s| s.waiting.as_ref());
        if let Some(reason) = waiting.and_then(|w| w.reason.as_ref()) {
            return Some(format!("container {}: {reason}", container.name));
        }
    }
    let ended = (status.container_statuses.iter().flatten())
        .find_map(|c| Some((c, c.state.as_ref()?.terminated.as_ref()?)));
    if let Some((container, end)) = ended {
        let name = &container.name;
        return Some(format!("container {name}: exit code {}", end.exit_code));
    }
    let unready = status.container_statuses.iter().flatten();
    let unready = unready.into_iter().find(|c| !c.ready);
    unready.map(|c| format!("container {}: readiness probe", c.name))
}

impl From<&PersistentVolumeClaim> for Claim {
    fn from(claim: &PersistentVolumeClaim) -> Claim {
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        Claim {
            namespace: text(&claim.metadata.namespace),
            name: text(&claim.metadata.name),
            uid: text(&claim.metadata.uid),
            resource_version: text(&claim.metadata.resource_version),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            owners: claim.metadata.owner_references.clone().unwrap_or_default(),
            bound: phase == Some("Bound"),
        }
    }
}

impl From<&ControllerRevision> for Revision {
    fn from(revision: &ControllerRevision) -> Revision {
        let meta = &revision.metadata;
        Revision {
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            resource_version: text(&meta.resource_version),
            labels: BTreeMap::clone(meta.labels.as_ref().unwrap_or(&BTreeMap::new())),
            controller: controller(meta).map(|c| c.uid),
            revision: revision.revision,
            created: meta.creation_timestamp.as_ref().map(|t| t.0),
            data: revision
                .data
                .as_ref()
                .map(|d| d.0.clone())
                .unwrap_or_default(),
        }
    }
}
