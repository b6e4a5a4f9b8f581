//! Cuts the pod template and the claim out of Kubernetes' own OpenAPI document.
//!
//! `cargo run -p berth-api --example vendor_schema <swagger.json>` rewrites
//! `proto/api/schema/kubernetes.json`; swagger.json lies in a Kubernetes source
//! tree below `api/openapi-spec/`. Descriptions are cut to their first sentence:
//! with whole ones the CRD would not fit in an object that `kubectl apply`
//! annotates.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

const ROOTS: [&str; 2] = [
    "io.k8s.api.core.v1.PodTemplateSpec",
    "io.k8s.api.core.v1.PersistentVolumeClaim",
];

fn main() {
    let source = std::env::args()
        .nth(1)
        .expect("usage: vendor_schema <swagger.json>");
    let text = std::fs::read_to_string(&source).expect("the OpenAPI document is readable");
    let document: Value = serde_json::from_str(&text).expect("the OpenAPI document is JSON");
    let definitions = document["definitions"]
        .as_object()
        .expect("it has definitions");

    let mut wanted = BTreeSet::new();
    let mut open: Vec<String> = ROOTS.map(str::to_owned).to_vec();
    while let Some(name) = open.pop() {
        if wanted.insert(name.clone()) {
            collect_references(&definitions[&name], &mut open);
        }
    }
    let cut: BTreeMap<&String, Value> = wanted
        .iter()
        .map(|name| (name, shorten(&definitions[name])))
        .collect();
    let out = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/kubernetes.json");
    let text = serde_json::to_string_pretty(&cut).expect("JSON values serialise");
    std::fs::write(out, text + "\n").expect("the schema file is writable");
    println!("{out}: {} definitions", cut.len());
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                into.push(name.rsplit('/').next().unwrap_or(name).to_owned());
            }
            map.values().for_each(|v| collect_references(v, into));
        }
        Value::Array(list) => list.iter().for_each(|v| collect_references(v, into)),
        _ => {}
    }
}

fn shorten(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| {
                !key.starts_with("x-kubernetes-group-version")
                    && !key.starts_with("x-kubernetes-patch")
            })
            .map(|(key, v)| match (key.as_str(), v.as_str()) {
                ("description", Some(text)) => (key.clone(), first_sentence(text).into()),
                _ => (key.clone(), shorten(v)),
            })
            .collect(),
        Value::Array(list) => list.iter().map(shorten).collect(),
        other => other.clone(),
    }
}

fn first_sentence(text: &str) -> &str {
    let line = text.trim().split('\n').next().unwrap_or_default();
    match line.find(". ") {
        Some(end) => &line[..=end],
        None => line,
    }
}
