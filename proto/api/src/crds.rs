//! The CustomResourceDefinitions as they are installed: derived from the types,
//! with the rules that only the API server can hold people to.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{NodeStorage, OrdinalSet, Pool, Snapshot, Volume};

/// Every CustomResourceDefinition of Berth.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        ordinal_set(),
        Pool::crd(),
        Volume::crd(),
        Snapshot::crd(),
        NodeStorage::crd(),
    ]
}

/// OrdinalSet's definition: defaults and set-level rules as `apps/v1` has them
/// (`pkg/apis/apps/validation` and `pkg/apis/apps/v1/defaults.go` upstream),
/// except that a name whose pods could not be labelled is refused at once.
fn ordinal_set() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(OrdinalSet::crd()).expect("a CRD serialises");
    let root = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    root["x-kubernetes-validations"] = json!([
        // Pods carry the revision's name, <set>-<10 characters>, as a label value of at most 63.
        rule(
            "size(self.metadata.name) <= 52",
            "the name is too long: pods carry <name>-<hash> in a label, so at most 52 characters are possible"
        ),
        rule(
            "!self.metadata.name.contains('.')",
            "the name must be a DNS label: no dots, since it becomes part of each pod's hostname"
        ),
    ]);
    let spec = &mut root["properties"]["spec"];
    spec["x-kubernetes-validations"] = set_rules();
    let properties = &mut spec["properties"];
    for (field, minimum, default) in [
        ("replicas", 0, Some(1)),
        ("minReadySeconds", 0, None),
        ("revisionHistoryLimit", 0, Some(10)),
    ] {
        properties[field]["minimum"] = json!(minimum);
        if let Some(default) = default {
            properties[field]["default"] = json!(default);
        }
    }
    properties["podManagementPolicy"]["default"] = json!("OrderedReady");
    properties["updateStrategy"]["default"] = json!({"type": "RollingUpdate"});
    properties["updateStrategy"]["properties"]["type"]["default"] = json!("RollingUpdate");
    let retention = &mut properties["persistentVolumeClaimRetentionPolicy"];
    retention["default"] = json!({});
    for when in ["whenDeleted", "whenScaled"] {
        retention["properties"][when]["default"] = json!("Retain");
    }
    properties["ordinals"]["properties"]["start"]["minimum"] = json!(0);
    let rolling = &mut properties["updateStrategy"]["properties"]["rollingUpdate"]["properties"];
    rolling["partition"]["minimum"] = json!(0);
    rolling["maxUnavailable"]["x-kubernetes-validations"] = json!([rule(
        "type(self) == int ? self > 0 : self.matches('^([1-9][0-9]?|100)%$')",
        "maxUnavailable must be a number above 0 or a percentage from 1% to 100%"
    )]);
    properties["serviceName"]["maxLength"] = json!(63);
    properties["serviceName"]["pattern"] = json!("^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$");
    serde_json::from_value(crd).expect("what was a CRD still is one")
}

fn set_rules() -> Value {
    let labels = "has(self.template.metadata) && has(self.template.metadata.labels)";
    let expression = "\
        e.operator == 'In' ? (e.key in self.template.metadata.labels && has(e.values) && self.template.metadata.labels[e.key] in e.values) : \
        e.operator == 'NotIn' ? !(e.key in self.template.metadata.labels && has(e.values) && self.template.metadata.labels[e.key] in e.values) : \
        e.operator == 'Exists' ? e.key in self.template.metadata.labels : \
        !(e.key in self.template.metadata.labels)";
    let mismatch = "the selector does not match the labels of the template: the set could not find its own pods";
    let mut rules = vec![
        rule(
            "(has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0) || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)",
            "the selector is empty: it would select every pod of the namespace",
        ),
        rule(
            &format!(
                "!has(self.selector.matchLabels) || ({labels} && self.selector.matchLabels.all(k, k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))"
            ),
            mismatch,
        ),
        rule(
            &format!(
                "!has(self.selector.matchExpressions) || ({labels} && self.selector.matchExpressions.all(e, {expression}))"
            ),
            mismatch,
        ),
        rule(
            "!has(self.updateStrategy) || !has(self.updateStrategy.rollingUpdate) || self.updateStrategy.type == 'RollingUpdate'",
            "updateStrategy.rollingUpdate is only for type RollingUpdate",
        ),
    ];
    for field in [
        "selector",
        "serviceName",
        "podManagementPolicy",
        "volumeClaimTemplates",
    ] {
        rules.push(rule(
            &format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"),
            &format!("{field} cannot be changed after creation; to change it, delete the set with --cascade=orphan and create it again: pods, claims and data stay"),
        ));
    }
    Value::Array(rules)
}

fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}
