//! The parts of OrdinalSet's schema that come from Kubernetes' own OpenAPI.
//!
//! `schema/kubernetes.json` holds Kubernetes' definitions of the pod template
//! and the claim (see `examples/vendor_schema.rs`). Here they become structural
//! schema: references inlined, list-map keys kept so that server-side apply
//! merges containers by name, and what a CRD cannot say left out.

use std::sync::LazyLock;

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::rules;

/// Numbers with a unit, as `apimachinery/pkg/api/resource` reads them.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../schema/kubernetes.json"))
        .expect("the vendored schema is JSON")
});

pub(crate) fn pod_template(_: &mut SchemaGenerator) -> Schema {
    let mut template = definition("io.k8s.api.core.v1.PodTemplateSpec");
    template["properties"]["metadata"]["properties"]["labels"]["x-kubernetes-validations"] =
        rules::labels("template.metadata.labels");
    let spec = &mut template["properties"]["spec"];
    // A set's pods are replaced by the set: upstream refuses the other policies
    // and a deadline (apps/v1 validation).
    let policy = &mut spec["properties"]["restartPolicy"];
    policy["maxLength"] = json!(16);
    policy["x-kubernetes-validations"] = rules::restart_policy();
    spec["properties"]["activeDeadlineSeconds"] = json!({
        "type": "integer",
        "nullable": true,
        "description": "Not allowed: the pods of a set run until the set ends them.",
        "x-kubernetes-validations": rules::no_deadline(),
    });
    spec["properties"]["containers"]["minItems"] = json!(1);
    template["required"] = json!(["spec"]);
    schema(template)
}

pub(crate) fn claim_templates(_: &mut SchemaGenerator) -> Schema {
    let mut claim = definition("io.k8s.api.core.v1.PersistentVolumeClaim");
    let metadata = &mut claim["properties"]["metadata"];
    metadata["required"] = json!(["name"]);
    let name = &mut metadata["properties"]["name"];
    name["nullable"] = json!(false);
    // The pod's volume has the template's name, and volume names are DNS labels.
    name["maxLength"] = json!(63);
    name["x-kubernetes-validations"] = rules::claim_name();
    let spec = &mut claim["properties"]["spec"];
    spec["x-kubernetes-validations"] = rules::claim_spec();
    let fields = &mut spec["properties"];
    let modes = &mut fields["accessModes"];
    modes["maxItems"] = json!(8);
    modes["items"]["enum"] = json!([
        "ReadWriteOnce",
        "ReadOnlyMany",
        "ReadWriteMany",
        "ReadWriteOncePod"
    ]);
    fields["volumeMode"]["enum"] = json!(["Filesystem", "Block"]);
    // As core has it: without the default, a claim that is shown by the API server
    // would not be the claim that was applied.
    fields["volumeMode"]["default"] = json!("Filesystem");
    for class in ["storageClassName", "volumeAttributesClassName"] {
        fields[class]["maxLength"] = json!(253);
    }
    // Rules read sizes, and a rule sees only what has a type.
    let sizes = &mut fields["resources"]["properties"]["requests"];
    sizes["maxProperties"] = json!(8);
    sizes["additionalProperties"] = json!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 32,
        "pattern": QUANTITY,
    });
    claim["required"] = json!(["metadata", "spec"]);
    schema(json!({
        "type": "array",
        "description": "Claims that each replica gets; the claim `data` of replica 2 of set `web` is `data-web-2`.",
        "maxItems": 32,
        "items": claim,
        "nullable": true,
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": rules::claims(),
    }))
}

pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "object",
        "description": "Selects the set's pods; it must match the labels of the template.",
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels that a pod must have.",
                "maxProperties": 64,
                "additionalProperties": {"type": "string", "maxLength": 63},
                "x-kubernetes-validations": rules::labels("matchLabels"),
            },
            "matchExpressions": {
                "type": "array",
                "description": "Requirements that a pod's labels must meet, all of them.",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "maxLength": 317, "description": "Key of the label."},
                        "operator": {
                            "type": "string",
                            "description": "How the label is compared with values.",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "type": "array",
                            "description": "Values for In and NotIn.",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63},
                            "x-kubernetes-list-type": "atomic",
                        },
                    },
                    "x-kubernetes-validations": rules::match_expression(),
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
        // Also `cpu: 0.5`, a number that is neither integer nor text: there is no type
        // for that, so a pod with a truth value here is only refused when it is made.
        "Quantity" => json!({
            "x-kubernetes-preserve-unknown-fields": true,
            "pattern": QUANTITY,
            "maxProperties": 0,
            "maxItems": 0,
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
        "type": "object", "maxProperties": 256, "nullable": true,
        "additionalProperties": {"type": "string"},
    });
    let mut labels = strings.clone();
    labels["additionalProperties"]["maxLength"] = json!(63);
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "nullable": true},
            "generateName": {"type": "string", "nullable": true},
            "namespace": {"type": "string", "nullable": true},
            "creationTimestamp": {"type": "string", "format": "date-time", "nullable": true},
            "labels": labels,
            "annotations": strings,
            "finalizers": {"type": "array", "nullable": true, "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
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
                let required = map.get("required").and_then(Value::as_array);
                let is_required =
                    |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
                fields
                    .iter()
                    .map(|(name, field)| {
                        let mut field = structural(field);
                        if !is_required(name) {
                            blank(&mut field);
                        }
                        (name.clone(), field)
                    })
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

/// Lets a field be left blank (`nodeSelector:`), as charts do: server-side apply sends the
/// null, and native sets drop it.
fn blank(field: &mut Value) {
    if field.is_object() && field.get("default").is_none() {
        field["nullable"] = json!(true);
    }
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
            if let Some(key) = item["properties"][key].as_object_mut() {
                key.remove("nullable");
            }
        }
    }
}
