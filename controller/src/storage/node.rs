//! Nodes as storage sees them: their labels, and whether they are ready. Everything else is
//! dropped while it is read, since a Node lists every image that it ever pulled.

use berth_plan::node;
use k8s_openapi::{api::core::v1, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api, Client,
    core::{ApiResource, Object},
};
use serde::{Deserialize, Serialize};

/// A Node: its labels and conditions.
pub(super) type Node = Object<Spec, Status>;

/// Nothing of it is needed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Spec {}

/// The part of a Node's status that says whether it is ready.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    #[serde(default)]
    last_transition_time: Option<Time>,
}

/// Nodes of the cluster.
pub(super) fn api(client: Client) -> Api<Node> {
    Api::all_with(client, &ApiResource::erase::<v1::Node>(&()))
}

/// The Node as the planner sees it. One that says nothing of the kind counts as ready: it
/// was made just now, or by hand.
pub(super) fn facts(node: &Node) -> node::Node {
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.into_iter().find(|it| it.type_ == "Ready");
    let silent = ready.filter(|ready| ready.status != "True");
    node::Node {
        labels: node.metadata.labels.clone().unwrap_or_default(),
        silent: silent.and_then(|ready| Some(ready.last_transition_time.as_ref()?.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_silent_since_its_condition_changed() {
        let silent = |conditions: serde_json::Value| {
            let node: Node = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": "n1", "labels": {"a": "b"}},
                "spec": {"podCIDR": "10.0.0.0/24"},
                "status": {"conditions": conditions, "images": [{"names": ["x"]}]},
            }))
            .expect("a Node");
            let facts = facts(&node);
            assert_eq!(facts.labels, [("a".to_owned(), "b".to_owned())].into());
            facts.silent.map(|since| since.to_string())
        };
        let at = "2026-01-02T03:04:05Z";
        let ready = |status| {
            json!([
                {"type": "MemoryPressure", "status": "False", "lastTransitionTime": at},
                {"type": "Ready", "status": status, "lastTransitionTime": at},
            ])
        };
        assert_eq!(silent(ready("True")), None);
        assert_eq!(silent(ready("False")).as_deref(), Some(at));
        assert_eq!(silent(ready("Unknown")).as_deref(), Some(at));
        assert_eq!(silent(json!([])), None);
    }
}
