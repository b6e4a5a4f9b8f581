//! StatefulSets of many shapes, to be run by one controller after another: each
//! holds something that two encoders of the same template could write differently.

use serde_json::{Value, json};

use crate::sets::SetBuilder;

/// A set, and how it is changed once it runs.
#[derive(Clone, Debug)]
pub struct Shape {
    /// As it is made.
    pub set: Value,
    /// As it is applied when its pods run, for sets that are handed on between two templates.
    pub second: Option<Value>,
}

impl Shape {
    /// The set's name.
    pub fn name(&self) -> &str {
        self.set["metadata"]["name"].as_str().unwrap_or_default()
    }
}

fn native(name: &str, replicas: i32) -> SetBuilder {
    SetBuilder::new(name, replicas).native().parallel()
}

/// The set as it is, and with a template that differs by one variable.
fn changed(set: SetBuilder) -> Shape {
    let second = set
        .clone()
        .container_field("env", json!([{"name": "SECOND", "value": "1"}]));
    Shape {
        set: set.build(),
        second: Some(second.build()),
    }
}

/// All of them.
pub fn shapes() -> Vec<Shape> {
    let rolling = json!({"type": "RollingUpdate"});
    let partition = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    let mut shapes: Vec<_> = [
        SetBuilder::new("plain", 1).native().build(),
        probes(),
        containers(),
        text(),
        resources(),
        native("claims", 1)
            .claim("data", "32Mi")
            .claim("logs", "16Mi")
            .read_write_once()
            .field(
                "persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Delete", "whenScaled": "Delete"}),
            )
            .build(),
        native("rolling", 1)
            .field("updateStrategy", rolling)
            .build(),
        native("patient", 1)
            .field("minReadySeconds", json!(2))
            .build(),
        native("start", 1)
            .field("ordinals", json!({"start": 3}))
            .build(),
        volumes(),
    ]
    .map(|set| Shape { set, second: None })
    .into();
    shapes.push(changed(
        native("canary", 2).field("updateStrategy", partition),
    ));
    shapes.push(changed(
        native("manual", 1).field("updateStrategy", json!({"type": "OnDelete"})),
    ));
    shapes.push(changed(native("second", 1)));
    shapes
}

fn probes() -> Value {
    let exec = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    native("probes", 1)
        .container_field("startupProbe", exec.clone())
        .container_field("readinessProbe", exec)
        .container_field(
            "livenessProbe",
            json!({
                "exec": {"command": ["sh", "-c", "test 1 -lt 2 && true"]},
                "terminationGracePeriodSeconds": 5,
            }),
        )
        .container_field(
            "lifecycle",
            json!({"preStop": {"exec": {"command": ["true"]}}}),
        )
        .build()
}

fn containers() -> Value {
    let image = crate::sets::SHELL_IMAGE;
    let wait = "trap 'exit 0' TERM; sleep 1000000 & wait";
    native("containers", 1)
        .pod_field("initContainers", json!([
            {"name": "first", "image": image, "command": ["true"]},
            {"name": "beside", "image": image, "restartPolicy": "Always", "command": ["sh", "-c", wait]},
        ]))
        .build()
}

/// What encoders escape: HTML's characters, JavaScript's line ends, quotes, controls.
fn text() -> Value {
    let mut set = native("text", 1)
        .container_field(
            "env",
            json!([
                {"name": "HTML", "value": "<a href=\"x?y=1&z=2\">'é'</a>"},
                {"name": "LINES", "value": "a\u{2028}b\u{2029}c\nd\te\u{7f}\\"},
                {"name": "ASTRAL", "value": "\u{1f6a2}"},
                {"name": "EMPTY", "value": ""},
                {"name": "NUMBER", "value": "1e400"},
                {"name": "FROM", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ]),
        )
        .build();
    set["metadata"]["annotations"] =
        json!({"example.com/why": "<&>\u{2028}", "kubernetes.io/change-cause": "first"});
    set["metadata"]["labels"] = json!({"tier": "test"});
    set["spec"]["template"]["metadata"]["annotations"] =
        json!({"example.com/of-pods": "a<b && c>d", "empty": ""});
    set
}

/// Quantities that are not written as Kubernetes writes them.
fn resources() -> Value {
    native("resources", 1)
        .container_field(
            "resources",
            json!({
                "requests": {"cpu": "0.010", "memory": "1024Ki"},
                "limits": {"cpu": 1, "memory": "0.5Gi"},
            }),
        )
        .build()
}

fn volumes() -> Value {
    native("volumes", 1)
        .pod_field("volumes", json!([
            {"name": "room", "emptyDir": {"sizeLimit": "1.5Gi"}},
            {"name": "said", "downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            ]}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "absent", "optional": true}},
                {"serviceAccountToken": {"path": "token"}},
            ]}},
            {"name": "map", "configMap": {"name": "absent", "optional": true, "defaultMode": 256}},
            {"name": "host", "hostPath": {"path": "/etc"}},
        ]))
        .pod_field("securityContext", json!({"fsGroup": 1000, "sysctls": []}))
        .pod_field("tolerations", json!([{"key": "a", "operator": "Exists"}]))
        .pod_field("topologySpreadConstraints", json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "volumes"}},
        }]))
        .pod_field("nodeSelector", json!({"kubernetes.io/os": "linux"}))
        .container_field("ports", json!([{"containerPort": 8080}, {"name": "udp", "containerPort": 53, "protocol": "UDP"}]))
        .container_field("volumeMounts", json!([
            {"name": "room", "mountPath": "/room", "subPathExpr": "$(HOSTNAME)"},
            {"name": "host", "mountPath": "/host", "readOnly": true, "recursiveReadOnly": "Disabled"},
        ]))
        .container_field("env", json!([{"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]))
        .build()
}
