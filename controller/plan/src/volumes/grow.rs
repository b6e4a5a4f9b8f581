//! Growing a bound volume: the agent enforces the new size, then the PV shows it, then
//! the claim. Kubelet has nothing to do: the agent also grows the filesystem inside.

use berth_api::{Bytes, Volume, VolumeStatus};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{
    action::Action,
    claim,
    decision::{Decision, Step, View},
    pv,
    wait::ClaimWait,
};
use crate::target::Target;

/// The next write of a claim that is bound to a ready volume.
pub(super) fn decide(
    view: &View,
    claim: &PersistentVolumeClaim,
    pv: &PersistentVolume,
    volume: &Volume,
    status: &VolumeStatus,
) -> Decision {
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
        && claim::volume_name(claim) == pv.metadata.name.as_deref();
    let Some(wanted) = claim::size(claim).filter(|_| bound) else {
        return Step::Nothing.into();
    };
    let shown = pv::capacity(pv).0;
    if wanted <= shown {
        return match capacity(claim) {
            Some(told) if told < shown => {
                let text = format!("the volume has {} now", Bytes(shown).human());
                let (claim, size) = (Target::of(&claim.metadata), shown);
                Decision::from(Action::ClaimCapacity { claim, size })
                    .tell("VolumeResizeSuccessful", text)
            }
            _ => Step::Nothing.into(),
        };
    }
    let enforced = status.size.unwrap_or_default().0;
    if enforced >= wanted {
        let (pv, size) = (Target::of(&pv.metadata), enforced);
        return Action::PvCapacity { pv, size }.into();
    }
    let asked = volume.spec.size.0;
    if asked >= wanted {
        let answered = status.observed_generation == volume.metadata.generation;
        return match status.message.clone().filter(|_| answered) {
            Some(text) => Decision::wait(text.clone()).warn("VolumeResizeFailed", text),
            None => Decision::wait(ClaimWait::in_progress(format!(
                "growing on {}",
                volume.spec.node
            ))),
        };
    }
    let free = view.rooms.get(&volume.spec.pool).map_or(0, |room| {
        // A cordon keeps new volumes out; one that is there may grow.
        room.left()
    });
    let more = wanted.saturating_sub(asked.max(enforced));
    if free < more {
        let text = format!(
            "pool {} has {} free, {} more are needed; ask for less, or free some space",
            volume.spec.pool,
            Bytes(free).human(),
            Bytes(more).human()
        );
        return Decision::wait(text.clone()).warn("VolumeResizeFailed", text);
    }
    let action = Action::Grow {
        volume: Target::of(&volume.metadata),
        size: wanted,
    };
    Decision::from(action).tell(
        "Resizing",
        format!("from {} to {}", Bytes(shown).human(), Bytes(wanted).human()),
    )
}

/// Capacity in the claim's status, in bytes.
fn capacity(claim: &PersistentVolumeClaim) -> Option<u64> {
    let all = claim.status.as_ref()?.capacity.as_ref()?;
    let bytes: Bytes = all.get("storage")?.0.parse().ok()?;
    Some(bytes.0)
}
