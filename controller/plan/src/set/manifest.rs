//! Objects to create: a pod and its claims, from opaque templates. What the
//! templates say that Berth does not know of reaches the API server untouched.

use std::collections::BTreeMap;

use berth_api::names::pod::{POD_INDEX, POD_NAME, REVISION};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Map, Value, json};

use super::{
    plan::Object,
    view::{Kind, Set},
};

/// The reference that makes the set an object's controlling owner.
pub(super) fn owner(set: &Set) -> OwnerReference {
    OwnerReference {
        api_version: set.kind.api_version().to_owned(),
        kind: set.kind.name().to_owned(),
        name: set.name.clone(),
        uid: set.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Labels of a pod template.
pub(super) fn template_labels(template: &Value) -> BTreeMap<String, String> {
    let labels = template["metadata"]["labels"].as_object();
    labels
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

/// Labels that are a pod's identity.
pub(super) fn identity_labels(name: &str, ordinal: i32) -> BTreeMap<String, String> {
    BTreeMap::from([
        (POD_NAME.to_owned(), name.to_owned()),
        (POD_INDEX.to_owned(), ordinal.to_string()),
    ])
}

/// The pod of an ordinal at a revision.
pub(super) fn pod(set: &Set, ordinal: i32, revision: &str, template: &Value) -> Object {
    let name = set.pod_name(ordinal);
    let mut labels = template_labels(template);
    labels.extend(identity_labels(&name, ordinal));
    labels.insert(REVISION.to_owned(), revision.to_owned());
    let mut metadata = json!({
        "name": name,
        "generateName": format!("{}-", set.name),
        "namespace": set.namespace,
        "labels": labels,
        "ownerReferences": [owner(set)],
    });
    for field in ["annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut spec = match &template["spec"] {
        Value::Object(fields) => fields.clone(),
        _ => Map::new(),
    };
    spec.insert("hostname".to_owned(), json!(name));
    match set.spec.service_name.as_deref() {
        Some(service) if !service.is_empty() => {
            spec.insert("subdomain".to_owned(), json!(service));
        }
        _ => {
            spec.remove("subdomain");
        }
    }
    // With grace 0 the API server drops the pod while its containers still run:
    // its successor could start beside it.
    if set.kind == Kind::OrdinalSet && spec.get("terminationGracePeriodSeconds") == Some(&json!(0))
    {
        spec.insert("terminationGracePeriodSeconds".to_owned(), json!(1));
    }
    let volumes = volumes(set, ordinal, spec.remove("volumes"));
    if !volumes.is_empty() {
        spec.insert("volumes".to_owned(), Value::Array(volumes));
    }
    Object {
        manifest: json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec,
        }),
        name,
    }
}

/// The claims as volumes, then the template's own that have other names.
fn volumes(set: &Set, ordinal: i32, template: Option<Value>) -> Vec<Value> {
    let mut volumes: Vec<Value> = set
        .claim_names(ordinal)
        .map(|(volume, claim)| json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let ours: Vec<Value> = volumes.iter().map(|v| v["name"].clone()).collect();
    if let Some(Value::Array(others)) = template {
        volumes.extend(others.into_iter().filter(|v| !ours.contains(&v["name"])));
    }
    volumes
}

/// The claims of an ordinal. Where the policy gives the set a reference, they are
/// born with it.
pub(super) fn claims(set: &Set, ordinal: i32) -> Vec<Object> {
    let templates = set.spec.volume_claim_templates.iter();
    templates
        .zip(set.claim_names(ordinal))
        .map(|(template, (_, name))| Object {
            manifest: claim(set, template, &name),
            name,
        })
        .collect()
}

fn claim(set: &Set, template: &Value, name: &str) -> Value {
    let mut metadata = match &template["metadata"] {
        Value::Object(fields) => fields.clone(),
        _ => Map::new(),
    };
    for field in ["creationTimestamp", "generateName", "ownerReferences"] {
        metadata.remove(field);
    }
    let mut labels = template_labels(template);
    labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("namespace".to_owned(), json!(set.namespace));
    metadata.insert("labels".to_owned(), json!(labels));
    if set.delete_when_deleted() {
        metadata.insert("ownerReferences".to_owned(), json!([owner(set)]));
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": template["spec"],
    })
}
