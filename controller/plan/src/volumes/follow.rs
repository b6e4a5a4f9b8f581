//! A PersistentVolume may be handed on: its `claimRef` is rewritten, as people do to rename
//! a claim or to move data into a set, and as volume populators do. The Volume follows it,
//! so that the volume is known by its new name everywhere.
//!
//! What is followed is a binding that both sides name by UID; a claim's wish
//! (`volumeName`) is none. The same look tells that the volume of an object that came back
//! (from its PersistentVolume, a dump, a backup) has a living claim here: before that, nothing
//! erases it.

use berth_api::Volume;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{action::Action, claim, pv};
use crate::target::Target;

/// Whether this very object is known to have been bound to a living claim.
pub fn is_marked(volume: &Volume) -> bool {
    volume.spec.bound.is_some() && volume.spec.bound == volume.metadata.uid
}

/// The write that makes the Volume tell whose it is; nothing where it tells that already,
/// or where claim and PersistentVolume are not bound to each other.
pub fn decide(
    claim: &PersistentVolumeClaim,
    pod: Option<&claim::Pod>,
    pv: &PersistentVolume,
    volume: &Volume,
) -> Option<Action> {
    if !pv::is_bound(pv, claim) {
        return None;
    }
    let reference = pv::claim_ref(pv)?;
    let is_other = reference != volume.spec.claim;
    if !is_other && is_marked(volume) {
        return None;
    }
    let owner = match is_other {
        true => claim::owner(claim, pod),
        false => volume.spec.owner.clone(),
    };
    Some(Action::Follow {
        volume: Target::of(&volume.metadata),
        claim: reference,
        owner,
        pv: Target::of(&pv.metadata),
    })
}
