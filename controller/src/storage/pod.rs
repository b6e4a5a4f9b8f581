//! Pods as storage sees them. Everything else of a pod is dropped while it is
//! read, since a cluster has very many pods and the loop needs little of each.

use berth_api::names;
use berth_plan::volumes::claim;
use k8s_openapi::api::core::v1;
use kube::{
    Api, Client,
    core::{ApiResource, Object},
};
use serde::{Deserialize, Serialize};

/// A pod: who owns it and which claims it uses.
pub(super) type Pod = Object<Spec, Status>;

/// The part of a pod's spec that names claims, and its node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    volumes: Vec<PodVolume>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodVolume {
    name: String,
    #[serde(default)]
    persistent_volume_claim: Option<ClaimSource>,
    #[serde(default)]
    ephemeral: Option<Ephemeral>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSource {
    claim_name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ephemeral {}

/// The part of a pod's status that says whether it still wants claims.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    phase: String,
}

/// Pods of the whole cluster.
pub(super) fn api(client: Client) -> Api<Pod> {
    Api::all_with(client, &ApiResource::erase::<v1::Pod>(&()))
}

/// Names of the claims that a pod uses; none once it has ended.
pub(super) fn claims(pod: &Pod) -> Vec<String> {
    let phase = pod.status.as_ref().map(|s| s.phase.as_str());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.volumes.iter();
    volumes
        .filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
            (Some(source), _) => Some(source.claim_name.clone()),
            (None, Some(_)) => Some(format!("{name}-{}", v.name)),
            (None, None) => None,
        })
        .collect()
}

/// The pod as the planner sees it.
pub(super) fn facts(pod: &Pod) -> claim::Pod {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let labels = pod.metadata.labels.as_ref();
    claim::Pod {
        name: pod.metadata.name.clone().unwrap_or_default(),
        controller: owners
            .iter()
            .find(|o| o.controller == Some(true))
            .map(|o| (o.kind.clone(), o.name.clone())),
        index: labels.and_then(|l| l.get(names::pod::POD_INDEX)).cloned(),
        node: (pod.spec.node_name.clone())
            .filter(|node| !node.is_empty() && pod.metadata.deletion_timestamp.is_none()),
        claims: claims(pod),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_of_a_pod() {
        let mut value = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-2",
                "labels": {"apps.kubernetes.io/pod-index": "2"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true}],
            },
            "spec": {
                "containers": [{"name": "c", "image": "i"}],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-2"}},
                    {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                    {"name": "tmp", "emptyDir": {}},
                ],
            },
            "status": {"phase": "Pending"},
        });
        let pod: Pod = serde_json::from_value(value.clone()).expect("a pod");
        let facts = facts(&pod);
        assert_eq!(facts.claims, ["data-web-2", "web-2-scratch"]);
        assert_eq!(facts.controller, Some(("StatefulSet".into(), "web".into())));
        assert_eq!(facts.index.as_deref(), Some("2"));
        assert_eq!(facts.node, None);
        value["spec"]["nodeName"] = json!("n1");
        let pod: Pod = serde_json::from_value(value.clone()).expect("a pod");
        assert_eq!(super::facts(&pod).node.as_deref(), Some("n1"));
        value["status"]["phase"] = json!("Succeeded");
        let pod: Pod = serde_json::from_value(value).expect("a pod");
        assert!(claims(&pod).is_empty());
    }
}
