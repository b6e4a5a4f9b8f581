//! The CustomResourceDefinitions as they are installed: derived from the types,
//! with the rules that only the API server can hold people to.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{NodeStorage, OrdinalSet, Pool, Snapshot, Volume, rules};

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
    drop_nullable(&mut root["properties"]);
    root["x-kubernetes-validations"] = rules::set_name();
    let spec = &mut root["properties"]["spec"];
    spec["x-kubernetes-validations"] = rules::set_spec();
    let properties = &mut spec["properties"];
    for (field, minimum, default) in [
        ("replicas", Some(0), Some(1)),
        ("minReadySeconds", Some(0), None),
        ("progressDeadlineSeconds", Some(1), None),
        // A negative limit keeps all, as upstream.
        ("revisionHistoryLimit", None, Some(10)),
    ] {
        if let Some(minimum) = minimum {
            properties[field]["minimum"] = json!(minimum);
        }
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
    rolling["maxUnavailable"]["x-kubernetes-validations"] = rules::max_unavailable();
    properties["serviceName"]["maxLength"] = json!(63);
    properties["serviceName"]["x-kubernetes-validations"] = rules::service_name();
    properties["rollbackTo"]["maxLength"] = json!(253);
    properties["rollbackTo"]["x-kubernetes-validations"] = rules::rollback_to();
    // Not those whose default somebody else reads, or may never change.
    for field in [
        "minReadySeconds",
        "ordinals",
        "persistentVolumeClaimRetentionPolicy",
        "progressDeadlineSeconds",
        "restartedAt",
        "revisionHistoryLimit",
        "rollbackTo",
        "serviceName",
        "updateStrategy",
    ] {
        properties[field]["nullable"] = json!(true);
    }
    properties["ordinals"]["properties"]["start"]["nullable"] = json!(true);
    let strategy = &mut properties["updateStrategy"]["properties"];
    strategy["rollingUpdate"]["nullable"] = json!(true);
    for field in ["partition", "maxUnavailable"] {
        strategy["rollingUpdate"]["properties"][field]["nullable"] = json!(true);
    }
    let status = &mut root["properties"]["status"];
    status["x-kubernetes-validations"] = rules::status();
    for counter in [
        "observedGeneration",
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "currentReplicas",
        "updatedReplicas",
        "collisionCount",
    ] {
        status["properties"][counter]["minimum"] = json!(0);
    }
    serde_json::from_value(crd).expect("what was a CRD still is one")
}

/// A field left empty is an absent field, as in core, and gets its default: the API
/// server drops what is empty but may not be. It does not for server-side apply, which
/// refuses such a field. So in the templates, which have hardly a default, it may be, and
/// the planner drops it; and so it may be elsewhere, where what is absent and what has the
/// default mean the same.
fn drop_nullable(properties: &mut Value) {
    for (name, field) in properties.as_object_mut().into_iter().flatten() {
        if ["template", "volumeClaimTemplates"].contains(&name.as_str()) {
            continue;
        }
        field.as_object_mut().map(|field| field.remove("nullable"));
        for part in ["properties", "items", "additionalProperties"] {
            match field.get_mut(part) {
                Some(inner) if part == "properties" => drop_nullable(inner),
                Some(inner) => {
                    inner.as_object_mut().map(|inner| inner.remove("nullable"));
                    if let Some(inner) = inner.get_mut("properties") {
                        drop_nullable(inner);
                    }
                }
                None => {}
            }
        }
    }
}
