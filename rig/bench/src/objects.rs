//! The sets that are measured: the same manifest in both kinds.

use serde_json::{Value, json};

/// Annotation of the template; a rollout changes it.
pub const ROUND: &str = "bench.berth.dev/round";

/// Where the sets are.
pub const NAMESPACE: &str = "bench";

/// The kind that a contender works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of apps/v1.
    StatefulSet,
    /// Berth's.
    OrdinalSet,
}

impl Kind {
    /// The kind as the API server names it.
    pub fn resource(self) -> kube::core::ApiResource {
        let (group, version, kind, plural) = match self {
            Self::StatefulSet => ("apps", "v1", "StatefulSet", "statefulsets"),
            Self::OrdinalSet => ("berth.dev", "v1alpha1", "OrdinalSet", "ordinalsets"),
        };
        let kind = kube::core::GroupVersionKind::gvk(group, version, kind);
        kube::core::ApiResource::from_gvk_with_plural(&kind, plural)
    }
}

/// What is different from set to set.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Replicas.
    pub replicas: usize,
    /// `podManagementPolicy: Parallel` instead of OrderedReady.
    pub parallel: bool,
    /// `maxUnavailable` of the rolling update.
    pub max_unavailable: usize,
}

/// A set without claims.
pub fn set(kind: Kind, name: &str, shape: Shape) -> Value {
    let resource = kind.resource();
    let policy = if shape.parallel {
        "Parallel"
    } else {
        "OrderedReady"
    };
    json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": shape.replicas,
            "serviceName": name,
            "podManagementPolicy": policy,
            "selector": {"matchLabels": {"app": name}},
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": shape.max_unavailable},
            },
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {ROUND: "1"}},
                "spec": {"containers": [{"name": "app", "image": "registry.k8s.io/pause:3.10.2"}]},
            },
        },
    })
}

/// The patch that starts a rollout.
pub fn next_round(round: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {ROUND: round}}}}})
}

/// Whether a set's controller has said that its replicas are all there, ready and of the
/// newest template, in the fields that both kinds share.
pub fn is_settled(set: &Value) -> bool {
    let (spec, status) = (&set["spec"], &set["status"]);
    let replicas = spec["replicas"].as_u64().unwrap_or(1);
    let says = |field: &str| status[field].as_u64().unwrap_or(0) == replicas;
    status["observedGeneration"] == set["metadata"]["generation"]
        && says("replicas")
        && says("readyReplicas")
        && says("updatedReplicas")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_differ_in_two_lines() {
        let shape = Shape {
            replicas: 3,
            parallel: true,
            max_unavailable: 2,
        };
        let mut upstream = set(Kind::StatefulSet, "web", shape);
        let ours = set(Kind::OrdinalSet, "web", shape);
        upstream["apiVersion"] = ours["apiVersion"].clone();
        upstream["kind"] = ours["kind"].clone();
        assert_eq!(upstream, ours);
    }

    #[test]
    fn a_status_of_an_older_spec_settles_nothing() {
        let set = |generation: u64, updated: u64| {
            json!({
                "metadata": {"generation": 2}, "spec": {"replicas": 3},
                "status": {
                    "observedGeneration": generation, "replicas": 3, "readyReplicas": 3,
                    "updatedReplicas": updated,
                },
            })
        };
        assert!(is_settled(&set(2, 3)));
        assert!(!is_settled(&set(1, 3)));
        assert!(!is_settled(&set(2, 2)));
        let none = json!({
            "metadata": {"generation": 1}, "spec": {"replicas": 0},
            "status": {"observedGeneration": 1},
        });
        assert!(is_settled(&none));
    }
}
