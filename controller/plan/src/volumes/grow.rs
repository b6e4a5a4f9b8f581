//! Growing a bound volume: the agent enforces the new size, then the PV shows it, then
//! the claim. Kubelet has nothing to do: the agent also grows the filesystem inside.
//!
//! A claim may ask for less again while the larger size is not reached (KEP-1790), so what
//! the Volume asks for follows the claim in both directions, but never below what the
//! backend enforces. The claim's resize status, `allocatedResources` and conditions are
//! those that upstream's external-resizer writes.

use berth_api::{Bytes, Volume, VolumeStatus};
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    action::{Action, Resizing},
    claim,
    decision::{Decision, Step, View},
    pv,
    wait::ClaimWait,
};
use crate::target::Target;

/// Conditions of a claim that are about a resize under way (`PersistentVolumeClaimResizing`
/// and its siblings in k8s.io/api/core/v1).
const RESIZE_CONDITIONS: [&str; 4] = [
    RESIZING,
    RESIZE_ERROR,
    "NodeResizeError",
    "FileSystemResizePending",
];
const RESIZING: &str = "Resizing";
const RESIZE_ERROR: &str = "ControllerResizeError";

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
    let enforced = status.size.unwrap_or_default().0;
    let asked = volume.spec.size.0;
    // Before anything else, because what the Volume asks for counts as taken, and the agent
    // would still grow it.
    let target = wanted.max(enforced).max(shown);
    if asked > target {
        return resize(volume, target).into();
    }
    if wanted <= shown {
        return finish(claim, shown);
    }
    if enforced >= wanted {
        let (pv, size) = (Target::of(&pv.metadata), enforced);
        return Action::PvCapacity { pv, size }.into();
    }
    if asked >= wanted {
        return asked_already(claim, volume, status, wanted);
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
        return infeasible(claim, wanted, &text, ClaimWait::no_room(text.clone()));
    }
    if let Some(action) = told(claim, wanted, Resizing::InProgress, None) {
        return Decision::from(action).tell(
            "Resizing",
            format!("from {} to {}", Bytes(shown).human(), Bytes(wanted).human()),
        );
    }
    resize(volume, wanted).into()
}

fn resize(volume: &Volume, size: u64) -> Action {
    let volume = Target::of(&volume.metadata);
    Action::Resize { volume, size }
}

/// The agent was asked for this size.
fn asked_already(
    claim: &PersistentVolumeClaim,
    volume: &Volume,
    status: &VolumeStatus,
    wanted: u64,
) -> Decision {
    let answered = status.observed_generation == volume.metadata.generation;
    match status.message.clone().filter(|_| answered) {
        Some(text) => {
            let wait = ClaimWait::from(format!("{text}; ask for less, or free some space"));
            infeasible(claim, wanted, &text, wait)
        }
        None => Decision::wait(ClaimWait::in_progress(format!(
            "growing on {}",
            volume.spec.node
        ))),
    }
}

/// The size cannot be had now. The claim says so, once for each size that is asked for:
/// the reasons change with every volume of the pool.
fn infeasible(claim: &PersistentVolumeClaim, wanted: u64, text: &str, wait: ClaimWait) -> Decision {
    let decision = match told(claim, wanted, Resizing::Infeasible, Some(text)) {
        Some(action) => Decision {
            wait: Some(wait.clone()),
            ..action.into()
        },
        None => Decision::wait(wait.clone()),
    };
    decision.warn("VolumeResizeFailed", wait.text)
}

/// The claim's status where it does not tell yet how far the growth is.
fn told(
    claim: &PersistentVolumeClaim,
    wanted: u64,
    how: Resizing,
    error: Option<&str>,
) -> Option<Action> {
    let status = claim.status.as_ref()?;
    let storage = "storage".to_owned();
    let allocated = status.allocated_resources.as_ref();
    let allocated = allocated.and_then(|all| all.get(&storage)?.0.parse::<Bytes>().ok());
    let statuses = status.allocated_resource_statuses.as_ref();
    let status_now = statuses
        .and_then(|all| all.get(&storage))
        .map(String::as_str);
    if allocated == Some(Bytes(wanted)) && status_now == Some(how.name()) {
        return None;
    }
    let mut conditions = others(claim);
    let (type_, message) = match how {
        Resizing::InProgress => (RESIZING, None),
        Resizing::Infeasible => (RESIZE_ERROR, error),
    };
    conditions.push(PersistentVolumeClaimCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        message: message.map(str::to_owned),
        ..PersistentVolumeClaimCondition::default()
    });
    Some(Action::ClaimResizing {
        claim: Target::of(&claim.metadata),
        // Word for word, as external-resizer does: quota counts it.
        size: requested(claim)?,
        how,
        conditions,
    })
}

/// The PV shows the size: so does the claim, and nothing of the resize is left.
fn finish(claim: &PersistentVolumeClaim, shown: u64) -> Decision {
    let status = claim.status.as_ref();
    let behind = capacity(claim).is_some_and(|told| told < shown);
    let statuses = status.and_then(|s| s.allocated_resource_statuses.as_ref());
    let resizing = statuses.is_some_and(|all| all.contains_key("storage"))
        || conditions(claim).any(|c| RESIZE_CONDITIONS.contains(&c.type_.as_str()));
    if !behind && !resizing {
        return Step::Nothing.into();
    }
    let decision = Decision::from(Action::ClaimCapacity {
        claim: Target::of(&claim.metadata),
        size: shown,
        conditions: others(claim),
    });
    match behind {
        true => decision.tell(
            "VolumeResizeSuccessful",
            format!("the volume has {} now", Bytes(shown).human()),
        ),
        false => decision,
    }
}

fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").cloned()
}

fn conditions(
    claim: &PersistentVolumeClaim,
) -> impl Iterator<Item = &PersistentVolumeClaimCondition> {
    let status = claim.status.as_ref();
    status
        .into_iter()
        .flat_map(|s| s.conditions.iter().flatten())
}

/// The claim's conditions that are not about a resize.
fn others(claim: &PersistentVolumeClaim) -> Vec<PersistentVolumeClaimCondition> {
    conditions(claim)
        .filter(|c| !RESIZE_CONDITIONS.contains(&c.type_.as_str()))
        .cloned()
        .collect()
}

/// Capacity in the claim's status, in bytes.
fn capacity(claim: &PersistentVolumeClaim) -> Option<u64> {
    let all = claim.status.as_ref()?.capacity.as_ref()?;
    let bytes: Bytes = all.get("storage")?.0.parse().ok()?;
    Some(bytes.0)
}
