//! The PersistentVolume of a Volume, and the Volume of a PersistentVolume: each can be
//! recreated from the other, so losing one object loses no data.

use std::collections::BTreeMap;

use berth_api::{
    Bytes, ClaimRef, DRIVER, SetRef, Source, Volume, VolumeMode, VolumeSpec, VolumeState, names,
};
use berth_model::claim::parse_ordinal;
use k8s_openapi::{
    api::core::v1::{
        CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
        VolumeNodeAffinity,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::{claim, class::Class};

/// The PV for a volume that is ready, bound to its claim by UID.
///
/// Its node affinity names the **pool**, not the node, so a disk that moves takes its
/// volumes along. It has no fsType, so that kubelet and the scheduler do not check one.
pub fn manifest(volume: &Volume, claim: &PersistentVolumeClaim, class: &Class) -> PersistentVolume {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let spec = claim.spec.clone().unwrap_or_default();
    let status = volume.status.clone().unwrap_or_default();
    let size = volume.spec.size.max(status.size.unwrap_or_default());
    let mut attributes: BTreeMap<String, String> =
        [(names::ATTRIBUTE_POOL.to_owned(), volume.spec.pool.clone())].into();
    if let Some(owner) = &volume.spec.owner {
        attributes.extend([
            (names::ATTRIBUTE_SET_KIND.to_owned(), owner.kind.clone()),
            (names::ATTRIBUTE_SET.to_owned(), owner.name.clone()),
            (
                names::ATTRIBUTE_ORDINAL.to_owned(),
                owner.ordinal.to_string(),
            ),
        ]);
    }
    if let Some(kind) = status.backend.or(volume.spec.backend) {
        let name = kind.to_string();
        attributes.insert(names::ATTRIBUTE_BACKEND.to_owned(), name);
    }
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(
                [
                    (names::PROVISIONED_BY, DRIVER),
                    ("volume.kubernetes.io/provisioner-deletion-secret-name", ""),
                    (
                        "volume.kubernetes.io/provisioner-deletion-secret-namespace",
                        "",
                    ),
                ]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ),
            finalizers: Some(vec![names::PV_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some([("storage".to_owned(), Quantity(size.to_string()))].into()),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: claim.metadata.namespace.clone(),
                name: claim.metadata.name.clone(),
                uid: claim.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
            csi: Some(CSIPersistentVolumeSource {
                driver: DRIVER.to_owned(),
                volume_handle: name,
                volume_attributes: Some(attributes),
                ..CSIPersistentVolumeSource::default()
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(affinity(&volume.spec.pool)),
            persistent_volume_reclaim_policy: Some(class.reclaim.clone()),
            storage_class_name: Some(class.name.clone()),
            volume_mode: Some(match volume.spec.mode {
                VolumeMode::Filesystem => "Filesystem".to_owned(),
                VolumeMode::Block => "Block".to_owned(),
            }),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

fn affinity(pool: &str) -> VolumeNodeAffinity {
    VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_expressions: Some(vec![NodeSelectorRequirement {
                    key: names::pool_label(pool),
                    operator: "In".to_owned(),
                    values: Some(vec![names::POOL_LABEL_VALUE.to_owned()]),
                }]),
                match_fields: None,
            }],
        }),
    }
}

fn csi(pv: &PersistentVolume) -> Option<&CSIPersistentVolumeSource> {
    pv.spec
        .as_ref()?
        .csi
        .as_ref()
        .filter(|c| c.driver == DRIVER)
}

/// The volume behind a PV of our driver; nothing for other drivers' PVs.
pub fn handle(pv: &PersistentVolume) -> Option<&str> {
    Some(csi(pv)?.volume_handle.as_str())
}

/// The pool that a PV of our driver names.
pub fn pool(pv: &PersistentVolume) -> Option<&str> {
    let attributes = csi(pv)?.volume_attributes.as_ref()?;
    attributes.get(names::ATTRIBUTE_POOL).map(String::as_str)
}

/// The claim that a PV is bound to, where its UID is known.
pub fn claim_ref(pv: &PersistentVolume) -> Option<ClaimRef> {
    let reference = pv.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ClaimRef {
        namespace: reference.namespace.clone()?,
        name: reference.name.clone()?,
        uid: reference.uid.clone().filter(|u| !u.is_empty())?,
    })
}

/// Whether claim and PersistentVolume are bound to each other, according to both.
pub fn is_bound(pv: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let phase_of_pv = pv.status.as_ref().and_then(|s| s.phase.as_deref());
    phase == Some("Bound")
        && phase_of_pv == Some("Bound")
        && claim::volume_name(claim).is_some_and(|n| Some(n) == pv.metadata.name.as_deref())
        && claim_ref(pv).is_some_and(|reference| is_of(&reference, claim))
}

/// Whether a reference is to this very claim.
pub fn is_of(reference: &ClaimRef, claim: &PersistentVolumeClaim) -> bool {
    let uid = claim::uid(claim);
    !uid.is_empty()
        && reference.uid == uid
        && claim.metadata.namespace.as_ref() == Some(&reference.namespace)
        && claim.metadata.name.as_ref() == Some(&reference.name)
}

/// Capacity of a PV in bytes.
pub fn capacity(pv: &PersistentVolume) -> Bytes {
    let all = pv.spec.as_ref().and_then(|s| s.capacity.as_ref());
    let text = all.and_then(|c| c.get("storage")).map(|q| q.0.as_str());
    text.and_then(|t| t.parse().ok()).unwrap_or_default()
}

/// The spec of a Volume that is recreated from its PV. `adopt` is set: the
/// agent takes what the pool holds and never makes an empty volume in its place.
pub fn adopted(pv: &PersistentVolume, node: &str) -> Option<VolumeSpec> {
    let attributes = csi(pv)?.volume_attributes.clone().unwrap_or_default();
    let get = |key: &str| attributes.get(key).cloned();
    let owner = match (
        get(names::ATTRIBUTE_SET_KIND),
        get(names::ATTRIBUTE_SET),
        get(names::ATTRIBUTE_ORDINAL).and_then(|ordinal| parse_ordinal(&ordinal)),
    ) {
        (Some(kind), Some(name), Some(ordinal)) => Some(SetRef {
            kind,
            name,
            ordinal,
        }),
        _ => None,
    };
    let reference = pv.spec.as_ref()?.claim_ref.clone().unwrap_or_default();
    let block = pv.spec.as_ref()?.volume_mode.as_deref() == Some("Block");
    Some(VolumeSpec {
        pool: get(names::ATTRIBUTE_POOL)?,
        node: node.to_owned(),
        size: capacity(pv),
        mode: if block {
            VolumeMode::Block
        } else {
            VolumeMode::Filesystem
        },
        claim: ClaimRef {
            namespace: reference.namespace.unwrap_or_default(),
            name: reference.name.unwrap_or_default(),
            uid: reference.uid.unwrap_or_default(),
        },
        owner,
        source: None,
        backend: get(names::ATTRIBUTE_BACKEND).and_then(|name| name.parse().ok()),
        sparse: false,
        adopt: true,
        exposed: true,
        bound: None,
        state: VolumeState::Present,
    })
}

/// The labels that people select volumes by; without a value where there is none.
pub fn labels(claim: &ClaimRef, owner: Option<&SetRef>) -> [(&'static str, Option<String>); 2] {
    let namespace = Some(claim.namespace.clone()).filter(|n| !n.is_empty());
    // Names of sets may be longer than a label's value.
    let set = owner.filter(|o| o.name.len() <= 63).map(|o| o.name.clone());
    [
        (names::LABEL_CLAIM_NAMESPACE, namespace),
        (names::LABEL_SET, set),
    ]
}

/// The Volume object of a spec, with the labels that people select by.
pub fn volume(name: &str, spec: VolumeSpec) -> Volume {
    let labels: BTreeMap<String, String> = labels(&spec.claim, spec.owner.as_ref())
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    let mut volume = Volume::new(name, spec);
    volume.metadata.labels = Some(labels).filter(|l| !l.is_empty());
    volume
}

/// The spec of a new volume for a claim that was placed.
pub fn placed(
    claim: &PersistentVolumeClaim,
    owner: Option<SetRef>,
    class: &Class,
    node: &str,
    pool: &str,
    source: Option<Source>,
) -> VolumeSpec {
    VolumeSpec {
        pool: pool.to_owned(),
        node: node.to_owned(),
        size: Bytes(claim::size(claim).unwrap_or_default()),
        mode: claim::mode(claim),
        claim: ClaimRef {
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            name: claim.metadata.name.clone().unwrap_or_default(),
            uid: claim::uid(claim).to_owned(),
        },
        owner,
        source,
        backend: class.backend,
        sparse: class.sparse,
        adopt: false,
        exposed: false,
        bound: None,
        state: VolumeState::Present,
    }
}
