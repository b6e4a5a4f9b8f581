//! The sets that the tests run, as manifests.

use serde_json::{Value, json};

/// A small userland with a shell, dd and an HTTP server; upstream's own test image.
pub const SHELL_IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";

/// Builds a set's manifest step by step.
#[derive(Clone, Debug)]
pub struct SetBuilder {
    value: Value,
}

impl SetBuilder {
    /// An `OrdinalSet` of pods that do nothing but wait, without claims.
    pub fn new(name: &str, replicas: i32) -> Self {
        let labels = json!({"app": name});
        Self {
            value: json!({
                "apiVersion": "berth.dev/v1alpha1",
                "kind": "OrdinalSet",
                "metadata": {"name": name},
                "spec": {
                    "serviceName": name,
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "terminationGracePeriodSeconds": 1,
                            "containers": [{
                                "name": "main",
                                "image": SHELL_IMAGE,
                                "imagePullPolicy": "IfNotPresent",
                                "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"],
                                "volumeMounts": [],
                            }],
                        },
                    },
                },
            }),
        }
    }

    /// The same set as a native StatefulSet: only the first two lines change.
    pub fn native(mut self) -> Self {
        self.value["apiVersion"] = json!("apps/v1");
        self.value["kind"] = json!("StatefulSet");
        self
    }

    /// Adds a claim that is mounted at `/<claim>`.
    pub fn claim(self, claim: &str, size: &str) -> Self {
        self.claim_of_class(claim, size, "berth")
    }

    /// As [`claim`](Self::claim), of another class.
    pub fn claim_of_class(mut self, claim: &str, size: &str, class: &str) -> Self {
        let template = json!({
            "metadata": {"name": claim},
            "spec": {
                "accessModes": ["ReadWriteOncePod"],
                "storageClassName": class,
                "resources": {"requests": {"storage": size}},
            },
        });
        match self.value["spec"]["volumeClaimTemplates"].as_array_mut() {
            Some(list) => list.push(template),
            None => self.value["spec"]["volumeClaimTemplates"] = json!([template]),
        }
        let mounts = &mut self.container()["volumeMounts"];
        let mounts = mounts.as_array_mut().expect("the builder made the list");
        mounts.push(json!({"name": claim, "mountPath": format!("/{claim}")}));
        self
    }

    /// Lets other pods of the node mount the claims as well (ReadWriteOnce).
    pub fn read_write_once(mut self) -> Self {
        if let Some(list) = self.value["spec"]["volumeClaimTemplates"].as_array_mut() {
            for template in list {
                template["spec"]["accessModes"] = json!(["ReadWriteOnce"]);
            }
        }
        self
    }

    /// No two pods on one node.
    pub fn anti_affinity(mut self) -> Self {
        let selector = self.value["spec"]["selector"].clone();
        self.pod()["affinity"] = json!({"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"},
            ],
        }});
        self
    }

    /// All pods on this node.
    pub fn on_node(mut self, node: &str) -> Self {
        self.pod()["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        self
    }

    /// All at once.
    pub fn parallel(mut self) -> Self {
        self.value["spec"]["podManagementPolicy"] = json!("Parallel");
        self
    }

    /// Replaces the container's command.
    pub fn command(mut self, line: &str) -> Self {
        self.container()["command"] = json!(["sh", "-c", line]);
        self
    }

    /// Sets any field of the pod's spec.
    pub fn pod_field(mut self, field: &str, value: Value) -> Self {
        self.pod()[field] = value;
        self
    }

    /// Sets any field of the only container.
    pub fn container_field(mut self, field: &str, value: Value) -> Self {
        self.container()[field] = value;
        self
    }

    /// Sets any field of the set's spec.
    pub fn field(mut self, field: &str, value: Value) -> Self {
        self.value["spec"][field] = value;
        self
    }

    /// The manifest.
    pub fn build(self) -> Value {
        self.value
    }

    fn pod(&mut self) -> &mut Value {
        &mut self.value["spec"]["template"]["spec"]
    }

    fn container(&mut self) -> &mut Value {
        &mut self.pod()["containers"][0]
    }
}

/// The headless Service that gives a set's pods their DNS names.
pub fn headless_service(set: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": set},
        "spec": {
            "clusterIP": "None",
            "selector": {"app": set},
            "ports": [{"name": "main", "port": port}],
        },
    })
}
