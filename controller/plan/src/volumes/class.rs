//! StorageClasses of Berth, checked: a parameter that is not known is refused,
//! never ignored.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::Node;
use berth_api::DRIVER;
use berth_model::{Backend, ClassParameters, VolumeMode, class_parameters, mount_options};
use k8s_openapi::api::{core::v1::TopologySelectorTerm, storage::v1::StorageClass};

/// A StorageClass whose provisioner is Berth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Class {
    /// Name of the StorageClass.
    pub name: String,
    /// Binding mode Immediate: claims do not wait for a pod.
    pub immediate: bool,
    /// Policy of the volumes: `Delete` or `Retain`.
    pub reclaim: String,
    /// Mount options of the volumes.
    pub mount_options: Option<Vec<String>>,
    /// Backend that the class demands; the pool's best when absent.
    pub backend: Option<Backend>,
    /// Images take disk space only as they are written.
    pub sparse: bool,
    /// Nodes that the class allows, as label terms; all when empty.
    pub topologies: Vec<TopologySelectorTerm>,
}

/// Reads a class; nothing where it is another driver's.
///
/// The error is a sentence for the claim's event.
pub fn class(object: &StorageClass) -> Option<Result<Class, String>> {
    if object.provisioner != DRIVER {
        return None;
    }
    let name = object.metadata.name.clone().unwrap_or_default();
    let parameters = object.parameters.iter().flatten();
    let parsed = class_parameters::parse(parameters.map(|(key, value)| (&**key, &**value)));
    Some(
        parsed
            .map_err(|what| format!("StorageClass {name}: {what}"))
            .map(|ClassParameters { backend, sparse }| Class {
                immediate: object.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer"),
                reclaim: object
                    .reclaim_policy
                    .clone()
                    .unwrap_or_else(|| "Delete".to_owned()),
                mount_options: object.mount_options.clone().filter(|o| !o.is_empty()),
                backend,
                sparse,
                topologies: object.allowed_topologies.clone().unwrap_or_default(),
                name,
            }),
    )
}

impl Class {
    /// What the class asks for that volumes of a mode cannot have, as a sentence for the
    /// claim's event. A volume whose mount is refused would bind, and its pod would hang.
    pub fn refusal(&self, mode: VolumeMode) -> Option<String> {
        let options = self.mount_options.iter().flatten();
        let mut refused = options.filter_map(|option| mount_options::parse(option).err());
        let what = refused.next().filter(|_| mode == VolumeMode::Filesystem)?;
        Some(format!("StorageClass {}: {what}", self.name))
    }

    /// Nodes of `nodes` that the class allows; nothing where it allows all.
    pub fn allowed(&self, nodes: &BTreeMap<String, Node>) -> Option<BTreeSet<String>> {
        if self.topologies.is_empty() {
            return None;
        }
        let matches = |labels: &BTreeMap<String, String>| {
            self.topologies.iter().any(|term| {
                let terms = term.match_label_expressions.as_deref().unwrap_or_default();
                terms
                    .iter()
                    .all(|t| labels.get(&t.key).is_some_and(|v| t.values.contains(v)))
            })
        };
        Some(
            nodes
                .iter()
                .filter(|(_, node)| matches(&node.labels))
                .map(|(name, _)| name.clone())
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn check(parameters: serde_json::Value, expected: Expect) {
        let object: StorageClass = serde_json::from_value(json!({
            "metadata": {"name": "fast"},
            "provisioner": DRIVER,
            "parameters": parameters,
        }))
        .expect("a class");
        let shown = match class(&object).expect("ours") {
            Ok(class) => format!("{:?}", class.backend),
            Err(error) => error,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn parameters_are_known_or_refused() {
        check(json!({}), expect!["None"]);
        check(
            json!({"backend": "image", "csi.storage.k8s.io/fstype": "ext4"}),
            expect!["Some(Image)"],
        );
        check(json!({"limit": "none"}), expect!["Some(Directory)"]);
        check(
            json!({"backend": "directory"}),
            expect![
                "StorageClass fast: backend directory limits no size; say so with the parameter limit: none"
            ],
        );
        check(
            json!({"backend": "btrfs", "limit": "none"}),
            expect![[
                r#"StorageClass fast: backend btrfs has a size limit, which limit "none" contradicts; leave one of them out"#
            ]],
        );
        check(
            json!({"backend": "zfs"}),
            expect![[
                r#"StorageClass fast: backend "zfs" is not known; use one of btrfs, project-quota, image, directory"#
            ]],
        );
        check(
            json!({"csi.storage.k8s.io/fstype": "xfs"}),
            expect![[
                r#"StorageClass fast: csi.storage.k8s.io/fstype "xfs" is not known; the only one is "ext4""#
            ]],
        );
        check(
            json!({"pathPattern": "../.."}),
            expect![[
                r#"StorageClass fast: parameter "pathPattern" is not known; Berth knows backend, limit, sparse and csi.storage.k8s.io/fstype"#
            ]],
        );
    }

    #[test]
    fn other_drivers_classes_are_not_ours() {
        let object = StorageClass {
            provisioner: "example.com/other".to_owned(),
            ..StorageClass::default()
        };
        assert_eq!(class(&object), None);
    }
}
