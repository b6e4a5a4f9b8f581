//! What a claim asks for, and whether Berth can give it.

use berth_api::{Bytes, DRIVER, SetRef, VolumeMode, names, volume_snapshot};
use berth_model::claim::{ordinal_of, parse_ordinal};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::{class::Class, wait::ClaimWait};

/// What is known of a pod that uses claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Name of the pod.
    pub name: String,
    /// Kind and name of its controller.
    pub controller: Option<(String, String)>,
    /// Its label with the ordinal.
    pub index: Option<String>,
    /// The node that it is on, or is held to by its own `spec.nodeName`; nothing once it is
    /// being deleted.
    pub node: Option<String>,
    /// Names of the claims that it uses, generic ephemeral ones included.
    pub claims: Vec<String>,
}

/// The claim's UID; empty only for what never came from an API server.
pub fn uid(claim: &PersistentVolumeClaim) -> &str {
    claim.metadata.uid.as_deref().unwrap_or_default()
}

/// The class that the claim names: in the old annotation, which Kubernetes still honours
/// before the field, or in the field. Nothing else may read either of them.
pub fn class_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let field = || claim.spec.as_ref()?.storage_class_name.as_deref();
    annotation(claim, names::BETA_STORAGE_CLASS).or_else(field)
}

/// Why nobody will provision a claim that has no volume yet: the class that it names does
/// not `exist`, or it names none. (An empty name is a wish for a volume that people make.)
pub fn missing_class(
    claim: &PersistentVolumeClaim,
    exists: impl Fn(&str) -> bool,
) -> Option<ClaimWait> {
    match class_name(claim) {
        Some(name) if name.is_empty() || exists(name) => None,
        Some(name) => Some(format!("StorageClass {name} does not exist; make it").into()),
        None => Some("no StorageClass, and the cluster has no default; make a default one".into()),
    }
}

/// The PV that the claim is bound to, or will be.
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

/// The node that the scheduler chose.
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(claim, names::SELECTED_NODE).filter(|n| !n.is_empty())
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    let all = claim.metadata.annotations.as_ref()?;
    all.get(key).map(String::as_str)
}

/// Requested bytes; `None` where the request is missing or is not a quantity.
pub fn size(claim: &PersistentVolumeClaim) -> Option<u64> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    let bytes: Bytes = requests.get("storage")?.0.parse().ok()?;
    Some(bytes.0)
}

/// Directory tree or block device.
pub fn mode(claim: &PersistentVolumeClaim) -> VolumeMode {
    match claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref()) {
        Some("Block") => VolumeMode::Block,
        _ => VolumeMode::Filesystem,
    }
}

/// Whether the claim still wants a volume made: it is bound to nothing, stays, is not
/// a populator's, and kube-controller-manager handed it to us.
pub fn is_open(claim: &PersistentVolumeClaim) -> bool {
    volume_name(claim).is_none()
        && populator(claim).is_none()
        && claim.metadata.deletion_timestamp.is_none()
        && [names::STORAGE_PROVISIONER, names::BETA_STORAGE_PROVISIONER]
            .iter()
            .any(|key| annotation(claim, key) == Some(DRIVER))
}

/// Whether it is time to place the claim: it is open, and where its class waits
/// for a pod, the scheduler has chosen a node.
pub fn is_due(claim: &PersistentVolumeClaim, class: &Class) -> bool {
    is_open(claim) && (class.immediate || selected_node(claim).is_some())
}

/// What the claim, or its class for it, asks for that Berth does not give, as a sentence
/// for its event. Nothing is accepted and ignored.
pub fn refusal(claim: &PersistentVolumeClaim, class: &Class) -> Option<String> {
    if let Some(text) = class.refusal(mode(claim)) {
        return Some(text);
    }
    let spec = claim.spec.as_ref()?;
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let shared = modes
        .iter()
        .find(|m| !matches!(m.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"));
    if let Some(mode) = shared {
        return Some(format!(
            "access mode {mode} is not possible: the volume is a disk of one node; use ReadWriteOnce or ReadWriteOncePod"
        ));
    }
    if let Err(text) = source(claim) {
        return Some(text);
    }
    if spec.selector.is_some() {
        return Some(
            "spec.selector selects existing volumes, and Berth makes new ones; remove it"
                .to_owned(),
        );
    }
    if spec
        .volume_attributes_class_name
        .as_ref()
        .is_some_and(|n| !n.is_empty())
    {
        return Some("volumeAttributesClassName is not supported; remove it".to_owned());
    }
    match size(claim) {
        Some(0) => Some("spec.resources.requests.storage is zero; ask for more".to_owned()),
        None => Some(
            "spec.resources.requests.storage is missing, or is not a number of bytes".to_owned(),
        ),
        Some(_) => None,
    }
}

/// Whose data a claim asks for, by name, in its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// Another claim's, as it is.
    Claim(&'a str),
    /// A VolumeSnapshot's.
    Snapshot(&'a str),
}

/// What the claim waits for, where its `dataSourceRef` is of a kind that a volume populator
/// serves: that makes a claim of its own, fills its volume, and hands the PersistentVolume
/// over (KEP-1495). Berth has nothing to do for the first claim, and nothing to warn of.
pub fn populator(claim: &PersistentVolumeClaim) -> Option<String> {
    if volume_name(claim).is_some() {
        return None;
    }
    let source = claim.spec.as_ref()?.data_source_ref.as_ref()?;
    let group = source
        .api_group
        .as_deref()
        .filter(|group| !group.is_empty())?;
    (group != volume_snapshot::GROUP).then(|| {
        let (kind, name) = (&source.kind, &source.name);
        format!("waiting for the volume populator of {kind}.{group} to fill it from {name}")
    })
}

/// What a claim asks to start with (`dataSource`, which the API server keeps equal to
/// `dataSourceRef`).
///
/// # Errors
/// A sentence for the claim's event, for any other kind of source: an empty volume in
/// its place would be wrong.
pub fn source(claim: &PersistentVolumeClaim) -> Result<Option<Source<'_>>, String> {
    let Some(spec) = &claim.spec else {
        return Ok(None);
    };
    let (group, kind, name, namespace) = match (&spec.data_source_ref, &spec.data_source) {
        (Some(s), _) => (&s.api_group, &s.kind, &s.name, s.namespace.as_deref()),
        (None, Some(s)) => (&s.api_group, &s.kind, &s.name, None),
        (None, None) => return Ok(None),
    };
    let own = claim.metadata.namespace.as_deref();
    if namespace.is_some_and(|other| Some(other) != own) {
        return Err(format!(
            "its data source {name} is in another namespace; copy within one"
        ));
    }
    match (group.as_deref().unwrap_or_default(), kind.as_str()) {
        ("", "PersistentVolumeClaim") => Ok(Some(Source::Claim(name))),
        (volume_snapshot::GROUP, "VolumeSnapshot") => Ok(Some(Source::Snapshot(name))),
        (group, kind) => Err(format!(
            "a data source of kind {kind} (group {group:?}) is not supported, and an empty volume in its place \
             would be wrong; use a VolumeSnapshot, or a PersistentVolumeClaim of the same class"
        )),
    }
}

/// Why a claim cannot be a copy of `what`, which has that mode and size; `None` if it
/// can.
pub fn unlike(
    claim: &PersistentVolumeClaim,
    what: &str,
    of: VolumeMode,
    size: Bytes,
) -> Option<String> {
    if mode(claim) != of {
        return Some(format!("its data source {what} is of volumeMode {of:?}"));
    }
    if self::size(claim).unwrap_or_default() < size.0 {
        return Some(format!(
            "its data source {what} has {}: ask for as much, or more",
            size.human()
        ));
    }
    None
}

/// Kinds whose replicas have numbers.
const SETS: [&str; 2] = ["OrdinalSet", "StatefulSet"];

/// The set and ordinal behind a claim: from the pod that uses it, or from the
/// claim's own owner (a set that keeps its claims to itself).
pub fn owner(claim: &PersistentVolumeClaim, pod: Option<&Pod>) -> Option<SetRef> {
    let name = claim.metadata.name.as_deref()?;
    if let Some(pod) = pod
        && let Some((kind, set)) = &pod.controller
        && SETS.contains(&kind.as_str())
    {
        // A claim that all replicas share belongs to none of them.
        let own = name.ends_with(&format!("-{}", pod.name))
            || name.starts_with(&format!("{}-", pod.name));
        let label = pod.index.as_deref().and_then(parse_ordinal);
        let ordinal = label.or_else(|| ordinal_of(set, &pod.name))?;
        return own.then(|| SetRef {
            kind: kind.clone(),
            name: set.clone(),
            ordinal,
        });
    }
    let owners = claim.metadata.owner_references.as_deref()?;
    owners
        .iter()
        .filter(|o| SETS.contains(&o.kind.as_str()))
        .find_map(|o| {
            let at = name.rfind(&format!("-{}-", o.name))?;
            Some(SetRef {
                kind: o.kind.clone(),
                name: o.name.clone(),
                ordinal: ordinal_of(&o.name, &name[at + 1..])?,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    fn claim(value: Value) -> PersistentVolumeClaim {
        serde_json::from_value(value).expect("a claim")
    }

    fn check_owner(name: &str, owners: Value, pod: Option<Pod>, expected: Expect) {
        let claim = claim(json!({"metadata": {"name": name, "ownerReferences": owners}}));
        let shown = match owner(&claim, pod.as_ref()) {
            Some(o) => format!("{} {} {}", o.kind, o.name, o.ordinal),
            None => "none".to_owned(),
        };
        expected.assert_eq(&shown);
    }

    fn pod(name: &str, kind: &str, set: &str, index: Option<&str>) -> Option<Pod> {
        Some(Pod {
            name: name.to_owned(),
            controller: Some((kind.to_owned(), set.to_owned())),
            index: index.map(str::to_owned),
            node: None,
            claims: Vec::new(),
        })
    }

    #[test]
    fn owners_are_found() {
        let by = |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u"}]);
        let none = json!([]);
        check_owner(
            "data-web-2",
            none.clone(),
            pod("web-2", "OrdinalSet", "web", Some("2")),
            expect!["OrdinalSet web 2"],
        );
        check_owner(
            "data-web-2",
            none.clone(),
            pod("web-2", "StatefulSet", "web", None),
            expect!["StatefulSet web 2"],
        );
        check_owner(
            "web-2-scratch",
            none.clone(),
            pod("web-2", "StatefulSet", "web", None),
            expect!["StatefulSet web 2"],
        );
        check_owner(
            "shared",
            none.clone(),
            pod("web-2", "StatefulSet", "web", Some("2")),
            expect!["none"],
        );
        check_owner(
            "data-web-2",
            none.clone(),
            pod("web-6d4f-x", "ReplicaSet", "web-6d4f", None),
            expect!["none"],
        );
        check_owner(
            "data-my-web-11",
            by("OrdinalSet", "my-web"),
            None,
            expect!["OrdinalSet my-web 11"],
        );
        check_owner(
            "data-web-x",
            by("StatefulSet", "web"),
            None,
            expect!["none"],
        );
        check_owner("data-web-1", by("Pod", "web-1"), None, expect!["none"]);
        check_owner("data", none, None, expect!["none"]);
    }

    #[test]
    fn only_what_can_be_given_is_accepted() {
        let base = json!({
            "metadata": {"name": "a"},
            "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Mi"}}},
        });
        let check = |path: &str, value: Value, expected: Expect| {
            let mut object = base.clone();
            if !path.is_empty() {
                object["spec"][path] = value;
            }
            let class = Class::default();
            let told = refusal(&claim(object), &class);
            expected.assert_eq(&told.unwrap_or_else(|| "accepted".to_owned()));
        };
        check("", Value::Null, expect!["accepted"]);
        check(
            "accessModes",
            json!(["ReadWriteOnce", "ReadWriteMany"]),
            expect![
                "access mode ReadWriteMany is not possible: the volume is a disk of one node; use ReadWriteOnce or ReadWriteOncePod"
            ],
        );
        check(
            "dataSource",
            json!({"kind": "PersistentVolumeClaim", "name": "b"}),
            expect!["accepted"],
        );
        check(
            "dataSource",
            json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "b"}),
            expect!["accepted"],
        );
        check(
            "dataSource",
            json!({"apiGroup": "example.com", "kind": "VolumeSnapshot", "name": "b"}),
            expect![
                r#"a data source of kind VolumeSnapshot (group "example.com") is not supported, and an empty volume in its place would be wrong; use a VolumeSnapshot, or a PersistentVolumeClaim of the same class"#
            ],
        );
        check(
            "selector",
            json!({}),
            expect!["spec.selector selects existing volumes, and Berth makes new ones; remove it"],
        );
        check(
            "resources",
            json!({"requests": {"storage": "0"}}),
            expect!["spec.resources.requests.storage is zero; ask for more"],
        );
        check(
            "resources",
            json!({}),
            expect!["spec.resources.requests.storage is missing, or is not a number of bytes"],
        );
        check(
            "volumeAttributesClassName",
            json!("gold"),
            expect!["volumeAttributesClassName is not supported; remove it"],
        );
    }

    #[test]
    fn the_annotation_names_the_class_before_the_field() {
        let named = |annotations: Value, spec: Value| {
            let claim = claim(json!({"metadata": {"annotations": annotations}, "spec": spec}));
            class_name(&claim).map(str::to_owned)
        };
        let old = json!({names::BETA_STORAGE_CLASS: "old"});
        let field = json!({"storageClassName": "new"});
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(named(json!({}), json!({})), None);
        assert_eq!(named(json!({}), field.clone()), some("new"));
        assert_eq!(named(old.clone(), json!({})), some("old"));
        assert_eq!(named(old, field.clone()), some("old"));
        // An empty name is one, as in the field: no class is wanted.
        let none = json!({names::BETA_STORAGE_CLASS: ""});
        assert_eq!(named(none, field), some(""));
    }

    #[test]
    fn mount_options_that_no_mount_can_have_are_refused_for_directories() {
        let class = |options: &[&str]| Class {
            name: "fast".to_owned(),
            mount_options: Some(options.iter().map(|o| (*o).to_owned()).collect()),
            ..Class::default()
        };
        let check = |mode: &str, options: &[&str]| {
            let claim = claim(json!({"spec": {
                "volumeMode": mode, "resources": {"requests": {"storage": "1Mi"}},
            }}));
            refusal(&claim, &class(options))
        };
        assert_eq!(check("Filesystem", &["noatime", "nodev", "ro"]), None);
        assert_eq!(check("Block", &["nouuid"]), None, "nothing is mounted");
        expect![[r#"StorageClass fast: mount option "discard" is not supported; use some of ro, rw, nodev, nosuid, noexec, noatime, nodiratime, relatime, strictatime (options of the filesystem itself belong to the mount of the pool)"#]]
        .assert_eq(&check("Filesystem", &["noatime", "discard"]).unwrap_or_default());
    }

    #[test]
    fn a_class_that_is_not_there_is_named() {
        let wait = |spec: serde_json::Value| {
            let claim = serde_json::from_value(serde_json::json!({"spec": spec})).unwrap();
            missing_class(&claim, |name| name == "berth").map(|w| (w.kind, w.text))
        };
        let named = |name: &str| wait(serde_json::json!({"storageClassName": name}));
        assert_eq!(named("berth"), None);
        assert_eq!(named(""), None);
        let (kind, text) = named("berht").unwrap();
        assert_eq!(kind, crate::volumes::ClaimWaitKind::NeedsAction);
        assert_eq!(text, "StorageClass berht does not exist; make it");
        assert!(
            wait(serde_json::json!({}))
                .unwrap()
                .1
                .contains("no default")
        );
    }
}
