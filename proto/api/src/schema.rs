//! The parts of OrdinalSet's schema that come from Kubernetes' own OpenAPI.
//!
//! `schema/kubernetes.json` holds Kubernetes' definitions of the pod template
//! and the claim (see `examples/vendor_schema.rs`). Here they become structural
//! schema: references inlined, list-map keys kept so that server-side apply
//! merges containers by name, and what a CRD cannot say left out.

use std::sync::LazyLock;

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../schema/kubernetes.json"))
        .expect("the vendored schema is JSON")
});

pub(crate) fn pod_template(_: &mut SchemaGenerator) -> Schema {
    let mut template = definition("io.k8s.api.core.v1.PodTemplateSpec");
    let spec = &mut template["properties"]["spec"];
    // A set's pods are replaced by the set: upstream refuses the other policies
    // and a deadline (apps/v1 validation).
    spec["properties"]["restartPolicy"]["enum"] = json!(["Always"]);
    spec["properties"]["activeDeadlineSeconds"] = json!({
        "type": "integer",
        "description": "Not allowed: the pods of a set run until the set ends them.",
        "x-kubernetes-validations": [{"rule": "false", "message": "activeDeadlineSeconds is not allowed in a set: its pods run until the set ends them"}],
    });
    template["required"] = json!(["spec"]);
    schema(template)
}

pub(crate) fn claim_templates(_: &mut SchemaGenerator) -> Schema {
    let mut claim = definition("io.k8s.api.core.v1.PersistentVolumeClaim");
    let name = &mut claim["properties"]["metadata"]["properties"]["name"];
    // The pod's volume has the template's name, and volume names are DNS labels.
    name["maxLength"] = json!(63);
    name["pattern"] = json!("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$");
    claim["properties"]["metadata"]["required"] = json!(["name"]);
    claim["required"] = json!(["metadata", "spec"]);
    schema(json!({
        "type": "array",
        "maxItems": 32,
        "items": claim,
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": [{
            "rule": "self.all(a, self.exists_one(b, a.metadata.name == b.metadata.name))",
            "message": "two claim templates have the same name",
        }],
    }))
}

pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "object",
        "description": "Selects the set's pods; it must match the labels of the template.",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": {"type": "string", "maxLength": 63},
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "maxLength": 317},
                        "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                        "values": {
                            "type": "array",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63},
                            "x-kubernetes-list-type": "atomic",
                        },
                    },
                },
            },
        },
        "x-kubernetes-map-type": "atomic",
    }))
}

pub(crate) fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    schema(json!({"x-kubernetes-int-or-string": true}))
}

pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let item =
        generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>();
    schema(json!({
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }))
}

fn schema(value: Value) -> Schema {
    Schema::try_from(value).expect("a JSON object is a schema")
}

/// The definition `name` as structural schema.
fn definition(name: &str) -> Value {
    match name.rsplit('.').next().unwrap_or(name) {
        "ObjectMeta" => object_meta(),
        "Quantity" => json!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
        }),
        "IntOrString" => json!({"x-kubernetes-int-or-string": true}),
        "Time" => json!({"type": "string", "format": "date-time"}),
        _ => structural(&DEFINITIONS[name]),
    }
}

/// Metadata of an embedded object: what a template may say of it. The rest is
/// the API server's to write; `creationTimestamp: null` is what many tools emit.
fn object_meta() -> Value {
    let strings = json!({
        "type": "object", "maxProperties": 256, "additionalProperties": {"type": "string"},
    });
    let mut labels = strings.clone();
    labels["additionalProperties"]["maxLength"] = json!(63);
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "generateName": {"type": "string"},
            "namespace": {"type": "string"},
            "creationTimestamp": {"type": "string", "format": "date-time", "nullable": true},
            "labels": labels,
            "annotations": strings,
            "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        },
    })
}

fn structural(value: &Value) -> Value {
    let Value::Object(map) = value else {
        return value.clone();
    };
    if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
        let mut target = definition(reference.rsplit('/').next().unwrap_or(reference));
        if let Some(text) = map.get("description") {
            target["description"] = text.clone();
        }
        return target;
    }
    let mut out = Map::new();
    for (key, child) in map {
        let child = match key.as_str() {
            "x-kubernetes-unions" | "default" => continue,
            "properties" => {
                let fields = child.as_object().expect("properties is an object");
                fields
                    .iter()
                    .map(|(name, field)| (name.clone(), structural(field)))
                    .collect()
            }
            "items" | "additionalProperties" => structural(child),
            _ => child.clone(),
        };
        out.insert(key.clone(), child);
    }
    let mut out = Value::Object(out);
    default_list_map_keys(&mut out);
    out
}

/// Keys of a list-map must be required or have a default (structural schema);
/// the defaults are those of the core API.
fn default_list_map_keys(list: &mut Value) {
    let Some(keys) = list
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .cloned()
    else {
        return;
    };
    let item = &mut list["items"];
    for key in keys.iter().filter_map(Value::as_str) {
        let required = item["required"]
            .as_array()
            .is_some_and(|r| r.iter().any(|k| k == key));
        if !required {
            let default = if key == "protocol" { "TCP" } else { "" };
            item["properties"][key]["default"] = json!(default);
        }
    }
}
