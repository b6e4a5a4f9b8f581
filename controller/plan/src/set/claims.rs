//! Owners of claims: how the retention policy is carried out. The controller
//! never deletes a claim; it says to whom the claim belongs, and the garbage
//! collector does the rest.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{
    manifest,
    plan::ClaimOwners,
    view::{Claim, Pod, Set, View},
};

fn is_set(owner: &OwnerReference, set: &Set) -> bool {
    owner.api_version == set.kind.api_version()
        && owner.kind == set.kind.name()
        && owner.name == set.name
}

fn is_pod(owner: &OwnerReference, pod: &str) -> bool {
    owner.api_version == "v1" && owner.kind == "Pod" && owner.name == pod
}

/// The claim belongs to an earlier pod of the name, so the garbage collector is
/// about to delete it, whatever the policy says by now. A pod that mounted it now would
/// lose it.
pub(super) fn belongs_to_old_pod(set: &Set, claim: &Claim, ordinal: i32) -> bool {
    let name = set.pod_name(ordinal);
    claim.owners.iter().any(|o| is_pod(o, &name))
}

/// The owners that `claim` should have while `pod` exists; `None` when it has
/// them, or when it is better left alone.
pub(super) fn owners(
    set: &Set,
    claim: &Claim,
    pod: &Pod,
    condemned: bool,
) -> Option<Vec<OwnerReference>> {
    let set_refs = || claim.owners.iter().filter(|o| is_set(o, set));
    let pod_refs = || claim.owners.iter().filter(|o| is_pod(o, &pod.name));
    // References to an earlier set or pod of the name: whoever left them decides.
    if set_refs().any(|o| o.uid != set.uid) || pod_refs().any(|o| o.uid != pod.uid) {
        return None;
    }
    let ours = |o: &OwnerReference| is_set(o, set) || is_pod(o, &pod.name);
    let mut wanted: Vec<OwnerReference> =
        claim.owners.iter().filter(|o| !ours(o)).cloned().collect();
    let foreign = wanted.iter().any(|o| o.controller == Some(true));
    // Two controllers would fight: with a foreign one only our traces go.
    if !foreign {
        if condemned && set.delete_when_scaled() {
            wanted.push(OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            });
        } else if set.delete_when_deleted() {
            wanted.push(manifest::owner(set));
        }
    }
    let has = |o: &OwnerReference| {
        (claim.owners.iter()).any(|c| c.uid == o.uid && c.controller == o.controller)
    };
    let same = wanted.len() == claim.owners.len() && wanted.iter().all(has);
    (!same).then_some(wanted)
}

/// The updates that the claims of an ordinal need.
pub(super) fn updates(view: &View, ordinal: i32, pod: &Pod, condemned: bool) -> Vec<ClaimOwners> {
    let claims = view.set.claim_names(ordinal);
    claims
        .filter_map(|(_, name)| {
            let claim = view.claims.get(&name).filter(|c| !c.deleting)?;
            Some(ClaimOwners {
                owners: owners(&view.set, claim, pod, condemned)?,
                name,
                uid: claim.uid.clone(),
                resource_version: claim.resource_version.clone(),
            })
        })
        .collect()
}

/// The claims of ordinals without a pod that have this set as an owner, and the owners
/// that they keep without it.
pub(super) fn without_pod(
    view: &View,
    has_pod: impl Fn(i32) -> bool,
) -> BTreeMap<i32, Vec<ClaimOwners>> {
    let set = &view.set;
    let mut found: BTreeMap<i32, Vec<ClaimOwners>> = BTreeMap::new();
    for (name, claim) in &view.claims {
        let Some(ordinal) = set.ordinal_of_claim(name).filter(|o| !has_pod(*o)) else {
            continue;
        };
        let ours = |o: &&OwnerReference| is_set(o, set) && o.uid == set.uid;
        if claim.deleting || !claim.owners.iter().any(|o| ours(&o)) {
            continue;
        }
        let kept = claim.owners.iter().filter(|o| !ours(o)).cloned();
        found.entry(ordinal).or_default().push(ClaimOwners {
            name: name.clone(),
            uid: claim.uid.clone(),
            resource_version: claim.resource_version.clone(),
            owners: kept.collect(),
        });
    }
    found
}

/// A foreign controller owns a claim, so the retention policy cannot be carried
/// out for it (a Warning event upstream).
pub(super) fn conflicting(set: &Set, claim: &Claim, pod: &Pod) -> bool {
    (set.delete_when_deleted() || set.delete_when_scaled())
        && claim
            .owners
            .iter()
            .any(|o| o.controller == Some(true) && !is_set(o, set) && !is_pod(o, &pod.name))
}
