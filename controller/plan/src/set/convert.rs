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
        // Blank fields (`nodeSelector:`) mean nothing, and many tools print
        // `creationTimestamp: null`: whether they are there is no other revision.
        drop_blanks(&mut set.spec.template);
        set.spec
            .volume_claim_templates
            .iter_mut()
            .for_each(drop_blanks);
        if let Some(Value::Object(metadata)) = set.spec.template.get_mut("metadata") {
            metadata.remove("creationTimestamp");
        }
        set
    }
}

/// Removes fields that are null, as the API server does of native sets.
fn drop_blanks(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_blanks);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_blanks),
        _ => {}
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
        let is_true = |name: &str| condition(name).is_some_and(|c| c.status == "True");
        let gates = spec.and_then(|s| s.readiness_gates.as_ref());
        let open_gate = (gates.into_iter().flatten()).find(|g| !is_true(&g.condition_type));
        let unready = condition("Ready").filter(|c| c.status == "False");
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
            scheduling_gates: (spec.and_then(|s| s.scheduling_gates.as_ref()))
                .into_iter()
                .flatten()
                .map(|g| g.name.clone())
                .collect(),
            // The node controller changes the condition Ready of a silent node's pods, and
            // nothing else of them.
            node_silent: unready.is_some() && is_true("ContainersReady") && open_gate.is_none(),
            unready: unready.and_then(|c| c.last_transition_time.map(|t| t.0)),
            trouble: scheduled
                .and_then(|c| c.message)
                .or_else(|| status.and_then(|status| trouble(spec, status)))
                .or_else(|| {
                    let gate = open_gate.filter(|_| is_true("ContainersReady"))?;
                    Some(format!("readiness gate {}", gate.condition_type))
                }),
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

/// What keeps the pod from being ready, as its containers tell: init containers and
/// sidecars in their order, since each holds back what comes after it, then the rest.
fn trouble(spec: Option<&core::PodSpec>, status: &core::PodStatus) -> Option<String> {
    // A node that rejects or evicts a pod says so of the whole.
    if status.phase.as_deref() == Some("Failed")
        && let Some(reason) = &status.reason
    {
        return Some(reason.clone());
    }
    let is_sidecar = |name: &str| {
        let init = spec.and_then(|s| s.init_containers.as_ref());
        let found = init.into_iter().flatten().find(|c| c.name == name);
        found.is_some_and(|c| c.restart_policy.as_deref() == Some("Always"))
    };
    let init = || status.init_container_statuses.iter().flatten();
    for container in init() {
        let name = &container.name;
        if is_sidecar(name) {
            if let Some(why) = waiting(container) {
                return Some(format!("sidecar {name}: {why}"));
            }
            if container.started == Some(false) {
                return Some(format!("sidecar {name}: startup probe"));
            }
        } else if let Some(why) = unfinished(container) {
            return Some(format!("init container {name}: {why}"));
        }
    }
    let main = || status.container_statuses.iter().flatten();
    if let Some((name, why)) = main().find_map(|c| Some((&c.name, waiting(c)?))) {
        return Some(format!("container {name}: {why}"));
    }
    if let Some((name, code)) = main().find_map(|c| Some((&c.name, exit_code(c)?))) {
        return Some(format!("container {name}: exit code {code}"));
    }
    if let Some(sidecar) = init().find(|c| is_sidecar(&c.name) && !c.ready) {
        return Some(format!("sidecar {}: readiness probe", sidecar.name));
    }
    let unready = main().find(|c| !c.ready)?;
    let probe = if unready.started == Some(false) {
        "startup"
    } else {
        "readiness"
    };
    Some(format!("container {}: {probe} probe", unready.name))
}

fn waiting(container: &core::ContainerStatus) -> Option<&str> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    waiting.reason.as_deref()
}

fn exit_code(container: &core::ContainerStatus) -> Option<i32> {
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// Why an init container is not done.
fn unfinished(container: &core::ContainerStatus) -> Option<String> {
    if let Some(why) = waiting(container) {
        return Some(why.to_owned());
    }
    match exit_code(container) {
        Some(0) => None,
        Some(code) => Some(format!("exit code {code}")),
        None => Some("running".to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why(spec: Value, status: Value) -> Option<String> {
        let pod = json!({"metadata": {"name": "web-0"}, "spec": spec, "status": status});
        let pod: core::Pod = serde_json::from_value(pod).unwrap();
        Pod::from(&pod).trouble
    }

    fn status(name: &str, ready: bool, started: bool, state: &str) -> Value {
        let state = match state {
            "running" => json!({"running": {}}),
            "done" => json!({"terminated": {"exitCode": 0}}),
            reason => json!({"waiting": {"reason": reason}}),
        };
        json!({
            "name": name, "ready": ready, "started": started, "state": state,
            "image": "i", "imageID": "i", "restartCount": 0,
        })
    }

    #[test]
    fn a_wait_names_what_holds_the_pod() {
        let spec = |policy: &str| {
            json!({
                "initContainers": [{"name": "first", "restartPolicy": policy}],
                "containers": [{"name": "app"}],
            })
        };
        let app = || status("app", false, false, "PodInitializing");
        let of = |policy: &str, first: Value, app: Value| {
            let status = json!({
                "phase": "Pending", "initContainerStatuses": [first], "containerStatuses": [app],
            });
            why(spec(policy), status).unwrap()
        };
        let runs = || status("first", false, false, "running");
        assert_eq!(of("", runs(), app()), "init container first: running");
        assert_eq!(of("Always", runs(), app()), "sidecar first: startup probe");
        let started = status("first", false, true, "running");
        let up = || status("app", true, true, "running");
        assert_eq!(
            of("Always", started, up()),
            "sidecar first: readiness probe"
        );
        let crashed = status("first", false, false, "CrashLoopBackOff");
        let text = of("", crashed, app());
        assert_eq!(text, "init container first: CrashLoopBackOff");
        let done = || status("first", true, false, "done");
        let slow = status("app", false, false, "running");
        assert_eq!(of("", done(), slow), "container app: startup probe");
        let unready = status("app", false, true, "running");
        assert_eq!(of("", done(), unready), "container app: readiness probe");
    }

    #[test]
    fn gates_and_silent_nodes_are_told_from_containers() {
        let conditions = json!([
            {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "ContainersReady", "status": "True"},
        ]);
        let status = json!({"phase": "Running", "conditions": conditions});
        let gate =
            json!({"containers": [], "readinessGates": [{"conditionType": "a.b/in-service"}]});
        let held = why(gate, status.clone());
        assert_eq!(held.as_deref(), Some("readiness gate a.b/in-service"));
        let pod = json!({"metadata": {}, "spec": {"containers": []}, "status": status});
        let pod = Pod::from(&serde_json::from_value::<core::Pod>(pod).unwrap());
        assert!(pod.node_silent && pod.trouble.is_none());
        let pod = json!({
            "metadata": {},
            "spec": {"containers": [], "schedulingGates": [{"name": "a.b/quota"}]},
        });
        let pod = Pod::from(&serde_json::from_value::<core::Pod>(pod).unwrap());
        assert_eq!(pod.scheduling_gates, ["a.b/quota"]);
    }

    #[test]
    fn a_rejected_pod_says_why() {
        let status = json!({"phase": "Failed", "reason": "OutOfcpu"});
        let why = why(json!({"containers": []}), status);
        assert_eq!(why.as_deref(), Some("OutOfcpu"));
    }
}
