//! The life of one volume: from its objects as they are to the next write.
//!
//! Each write is one that may land late or twice. The order is what keeps data:
//! intent (Volume) before anything on a disk; the mark `spec.exposed` before
//! the PV, so that "lost its PV and claim" differs from "never had a PV"; the data is
//! erased before the PV's finalizer goes; the Volume object goes last.

mod action;
pub mod claim;
pub mod class;
pub mod clone;
mod decision;
pub mod follow;
mod grow;
mod health;
pub mod pv;
mod wait;

pub use action::{Action, Proof, Refused, Resizing};
pub use class::Class;
pub use decision::{Decision, Notice, Peers, Step, View};
pub use wait::{ClaimWait, ClaimWaitKind};

use berth_api::{
    Bytes, Volume, VolumePhase, VolumeSpec, VolumeState, VolumeStatus,
    names::{self, reason},
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use jiff::{SignedDuration, Timestamp};

use crate::{grants::Standing, target::Target};

/// How long an agent tries to make a volume before it is tried elsewhere. Its pauses
/// between two tries grow, so that this is some five of them.
const TRIES: SignedDuration = SignedDuration::from_mins(2);

/// How long a node may be silent before a volume there that no pod has seen is taken back.
const SILENCE: SignedDuration = SignedDuration::from_mins(1);

/// How long it may be silent before nobody waits for it to answer that.
const GIVEN_UP: SignedDuration = SignedDuration::from_mins(2);

/// The next write for one volume.
pub fn decide(view: &View) -> Decision {
    match (view.pv, view.volume) {
        (Some(pv), volume) => with_pv(view, pv, volume),
        (None, Some(volume)) if volume.spec.state == VolumeState::Deleted => {
            taken_back(view, volume)
        }
        (None, Some(volume)) => match view.claim {
            Some(claim) => with_claim(view, volume, claim),
            None => orphaned(volume),
        },
        (None, None) => without_volume(view),
    }
}

/// A claim that has neither Volume nor PV.
fn without_volume(view: &View) -> Decision {
    let (Some(claim), Some(class)) = (view.claim, view.class) else {
        return Step::Nothing.into();
    };
    if let Some(text) = claim::populator(claim) {
        return Decision::wait(ClaimWait::in_progress(text));
    }
    if !claim::is_open(claim) {
        return Step::Nothing.into();
    }
    if let Some(text) = claim::refusal(claim, class) {
        return Decision::wait(text.clone()).warn(reason::PROVISIONING_FAILED, text);
    }
    if claim::is_due(claim, class) {
        return Step::Place.into();
    }
    Step::Nothing.into()
}

/// A volume without PV and without claim.
fn orphaned(volume: &Volume) -> Decision {
    if volume.is_exposed() {
        // Retained: its PV was deleted by a person and the data is to stay.
        return Step::Nothing.into();
    }
    if phase(volume) == VolumePhase::NoRoom {
        return drop_volume(volume).into();
    }
    let volume = Target::of(&volume.metadata);
    let proof = Proof::NeverExposed;
    Action::Erase { volume, proof }.into()
}

/// A volume without PV that is to be erased.
fn taken_back(view: &View, volume: &Volume) -> Decision {
    if is_erased(view, volume) {
        return drop_volume(volume).into();
    }
    if volume.is_exposed() {
        return Decision::wait(erasing(view, volume));
    }
    // The claim must not wait for what no pod has seen. What is left there, if anything, is
    // reported by the node when it is back.
    let until = silence(view, volume, GIVEN_UP);
    if is_hopeless(view, volume) || until.is_some_and(|until| until <= view.now) {
        return drop_volume(volume).into();
    }
    let mut decision = Decision::wait(erasing(view, volume));
    decision.again = until;
    decision
}

fn drop_volume(volume: &Volume) -> Action {
    Action::DropVolume {
        volume: Target::of(&volume.metadata),
        refused: None,
    }
}

/// A volume with its claim, on the way to its PV.
fn with_claim(view: &View, volume: &Volume, claim: &PersistentVolumeClaim) -> Decision {
    let exposed = volume.is_exposed();
    if claim::volume_name(claim).is_some_and(|n| Some(n) != volume.metadata.name.as_deref()) {
        return match exposed {
            true => Step::Nothing.into(),
            false => orphaned(volume),
        };
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Step::Nothing.into();
    }
    let target = Target::of(&volume.metadata);
    if let Some(node) = moved(view, volume) {
        let volume = target;
        return Action::MoveTo { volume, node }.into();
    }
    let reschedule = || Action::Reschedule {
        volume: target.clone(),
        erase: !is_hopeless(view, volume),
        claim: claim::selected_node(claim).map(|_| Target::of(&claim.metadata)),
        pool: volume.spec.pool.clone(),
    };
    let status = volume.status.clone().unwrap_or_default();
    let says = status.message.clone().unwrap_or_default();
    let node = &volume.spec.node;
    let waits_for_pod = view.class.is_some_and(|c| !c.immediate);
    if !exposed && waits_for_pod && claim::selected_node(claim) != Some(node) {
        // The scheduler was asked again, since the pod cannot run there.
        return orphaned(volume);
    }
    if !exposed && status.phase != VolumePhase::NoRoom && is_hopeless(view, volume) {
        let pool = &volume.spec.pool;
        let text = match is_lost(view, pool) {
            true => format!("pool {pool} was declared lost before the volume was used"),
            false => format!("node {node} went away before the volume was used"),
        };
        return Decision::from(reschedule()).warn(reason::PROVISIONING_FAILED, text);
    }
    let silent =
        silence(view, volume, SILENCE).filter(|_| !exposed && status.phase != VolumePhase::NoRoom);
    if silent.is_some_and(|until| until <= view.now) {
        let text = format!("node {node} is not ready, and no pod has used the volume there yet");
        return Decision::from(reschedule()).warn(reason::PROVISIONING_FAILED, text);
    }
    let mut decision = match status.phase {
        VolumePhase::Ready => expose(view, volume, claim, exposed),
        VolumePhase::NoRoom if !exposed => {
            let (pool, size) = (volume.spec.pool.clone(), volume.spec.size.0);
            let text = format!("pool {pool} on {node} has no room: {says}");
            Decision::from(Action::DropVolume {
                volume: target,
                refused: Some(Refused { pool, size }),
            })
            .tell(reason::NO_ROOM, text)
        }
        // A tombstone of an earlier attempt; there never was any data.
        VolumePhase::Lost if !exposed => Decision::from(reschedule()).warn(
            reason::PROVISIONING_FAILED,
            format!("pool {} on {node}: {says}", volume.spec.pool),
        ),
        VolumePhase::NoRoom | VolumePhase::Lost | VolumePhase::Deleted => {
            lost(&status, &volume.spec)
        }
        VolumePhase::Failed => {
            let text = format!("{node}: {says}");
            let until = given_up(view, volume, &status).filter(|_| !exposed);
            let mut decision = match until {
                Some(until) if until <= view.now => reschedule().into(),
                _ => Decision::wait(text.clone()),
            };
            decision.again = until.filter(|until| *until > view.now);
            decision.warn(reason::PROVISIONING_FAILED, text)
        }
        VolumePhase::Pending => Decision::wait(ClaimWait::in_progress(format!(
            "waiting for the agent on {node}"
        ))),
    };
    decision.again = decision.again.into_iter().chain(silent).min();
    decision
}

fn expose(view: &View, volume: &Volume, claim: &PersistentVolumeClaim, exposed: bool) -> Decision {
    let Some(class) = view.class else {
        return Decision::wait("its StorageClass is gone; create it again");
    };
    if let Peers::Waiting(why) = view.peers {
        return Decision::wait(why.clone());
    }
    let label = names::pool_label(&volume.spec.pool);
    let node = &volume.spec.node;
    let labels = view.nodes.get(node).map(|node| &node.labels);
    if labels.and_then(|l| l.get(&label)).map(String::as_str) != Some(names::POOL_LABEL_VALUE) {
        return Decision::wait(ClaimWait::in_progress(format!(
            "waiting for the label {label} on node {node}"
        )));
    }
    let action = Action::Expose {
        volume: Target::of(&volume.metadata),
        mark: !exposed,
        pv: Box::new(pv::manifest(volume, claim, class)),
    };
    Decision::from(action).tell(
        reason::PROVISIONING_SUCCEEDED,
        format!(
            "volume {} of {} is ready in pool {} on {node}",
            volume.metadata.name.as_deref().unwrap_or_default(),
            Bytes(crate::room::size_of(volume)).human(),
            volume.spec.pool,
        ),
    )
}

fn with_pv(view: &View, pv: &PersistentVolume, volume: Option<&Volume>) -> Decision {
    let terminating = pv.metadata.deletion_timestamp.is_some();
    let finalizers = pv.metadata.finalizers.as_deref().unwrap_or_default();
    let held = finalizers.iter().any(|f| f == names::PV_FINALIZER);
    let spec = pv.spec.as_ref();
    let policy = spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    let phase_of_pv = pv.status.as_ref().and_then(|s| s.phase.as_deref());
    let had_claim = pv::claim_ref(pv).is_some();
    let released = view.claim.is_none() && (phase_of_pv == Some("Released") || terminating);

    if policy == Some("Delete") && had_claim && released {
        return reclaim(view, pv, volume, terminating, held);
    }
    if terminating && !(policy == Some("Delete") && had_claim) {
        // Retain, or a volume that a person made available again: the data stays.
        return if held {
            drop_finalizer(pv).into()
        } else {
            Step::Nothing.into()
        };
    }
    let Some(volume) = volume else {
        return adopt(view, pv);
    };
    if volume.spec.state == VolumeState::Deleted {
        return Decision::wait("the volume is being erased and cannot come back");
    }
    if let Some(node) = moved(view, volume) {
        let text = format!("pool {} is on {node} now", volume.spec.pool);
        let volume = Target::of(&volume.metadata);
        return Decision::from(Action::MoveTo { volume, node }).tell("PoolMoved", text);
    }
    let followed = view
        .claim
        .and_then(|claim| follow::decide(claim, view.pod, pv, volume));
    if let Some(action) = followed {
        return action.into();
    }
    let status = volume.status.clone().unwrap_or_default();
    match status.phase {
        VolumePhase::Lost | VolumePhase::NoRoom | VolumePhase::Deleted => {
            lost(&status, &volume.spec)
        }
        VolumePhase::Failed => {
            let text = status.message.unwrap_or_default();
            Decision::wait(text.clone()).warn("VolumeFailed", text)
        }
        VolumePhase::Pending => Step::Nothing.into(),
        VolumePhase::Ready => match view.claim {
            Some(claim) => {
                let decision = grow::decide(view, claim, pv, volume, &status);
                health::told(decision, &status)
            }
            None => Step::Nothing.into(),
        },
    }
}

/// A PV with policy Delete whose claim is gone: erase the data, then delete the objects.
fn reclaim(
    view: &View,
    pv: &PersistentVolume,
    volume: Option<&Volume>,
    terminating: bool,
    held: bool,
) -> Decision {
    let done = match volume {
        Some(volume) if came_back(volume) => {
            if terminating && held {
                return drop_finalizer(pv).into();
            }
            let text = "not erased: the volume came back with its PersistentVolume, and has not been \
                        bound to a claim of this cluster since; bind it to a claim and delete that, \
                        or delete the PersistentVolume and keep the data";
            return Decision::wait(text).warn("VolumeKept", text);
        }
        Some(volume) if volume.spec.state == VolumeState::Present => {
            let proof = Proof::ReleasedPv {
                pv: pv.metadata.name.clone().unwrap_or_default(),
                uid: pv.metadata.uid.clone().unwrap_or_default(),
            };
            let volume = Target::of(&volume.metadata);
            return Action::Erase { volume, proof }.into();
        }
        Some(volume) if is_erased(view, volume) => true,
        Some(volume) => return Decision::wait(erasing(view, volume)),
        None => pv::pool(pv).is_some_and(|pool| is_lost(view, pool)),
    };
    if !done {
        return adopt(view, pv);
    }
    match (terminating, held) {
        (false, _) => {
            let pv = Target::of(&pv.metadata);
            Action::DeletePv { pv }.into()
        }
        (true, true) => drop_finalizer(pv).into(),
        (true, false) => Step::Nothing.into(),
    }
}

/// Whether this object has not been seen with a living claim yet. What a dump or a backup
/// brought back names a claim that is gone, and must not be erased for that.
fn came_back(volume: &Volume) -> bool {
    volume.spec.state == VolumeState::Present && !follow::is_marked(volume)
}

fn drop_finalizer(pv: &PersistentVolume) -> Action {
    let all = pv.metadata.finalizers.iter().flatten();
    Action::DropFinalizer {
        pv: Target::of(&pv.metadata),
        others: all.filter(|f| *f != names::PV_FINALIZER).cloned().collect(),
    }
}

/// The Volume object is missing: recreate it, so that the agent knows the volume.
fn adopt(view: &View, pv: &PersistentVolume) -> Decision {
    let Some(pool) = pv::pool(pv) else {
        let text = format!("the PV has no volume attribute {}", names::ATTRIBUTE_POOL);
        return Decision::wait(text.clone()).warn("VolumeFailed", text);
    };
    let node = view.grants.get(pool).and_then(|g| g.node.as_deref());
    let adopted = node.and_then(|node| pv::adopted(pv, node));
    match adopted.zip(pv::handle(pv)) {
        Some((spec, handle)) => Action::Adopt {
            volume: Box::new(pv::volume(handle, spec)),
            pv: Target::of(&pv.metadata),
        }
        .into(),
        None => {
            let text = format!("no node reports pool {pool}; bring the disk or its node back");
            Decision::wait(text.clone()).warn("PoolMissing", text)
        }
    }
}

fn lost(status: &VolumeStatus, spec: &VolumeSpec) -> Decision {
    let says = status.message.clone().unwrap_or_default();
    let text = format!(
        "the data is not in pool {} on {}: {says}",
        spec.pool, spec.node
    );
    Decision::wait(text.clone()).warn(reason::DATA_LOST, text)
}

fn phase(volume: &Volume) -> VolumePhase {
    volume.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

fn is_lost(view: &View, pool: &str) -> bool {
    let grant = view.grants.get(pool);
    grant.is_some_and(|g| g.standing == Standing::DeclaredLost)
}

/// Whether the data is erased, or a person declared its disk lost.
fn is_erased(view: &View, volume: &Volume) -> bool {
    phase(volume) == VolumePhase::Deleted || is_lost(view, &volume.spec.pool)
}

/// Whether the agent will never answer: its node was removed, or the disk is lost.
fn is_hopeless(view: &View, volume: &Volume) -> bool {
    !view.nodes.contains_key(&volume.spec.node) || is_lost(view, &volume.spec.pool)
}

/// Until when a node that is not ready is waited for; `None` where it is ready.
fn silence(view: &View, volume: &Volume, patience: SignedDuration) -> Option<Timestamp> {
    let since = view.nodes.get(&volume.spec.node)?.silent?;
    since.checked_add(patience).ok()
}

/// When a volume that its agent fails to make, and that no pod has seen, is tried
/// elsewhere: at once where its pool cannot be used, else after the agent has tried for a
/// while. `None` where it is not known since when it fails.
fn given_up(view: &View, volume: &Volume, status: &VolumeStatus) -> Option<Timestamp> {
    let grant = view.grants.get(&volume.spec.pool);
    if !grant.is_some_and(|grant| grant.standing.is_ready()) {
        return Some(view.now);
    }
    let ready = (status.conditions.iter()).find(|it| it.type_ == names::condition::READY)?;
    let since = ready.last_transition_time.0;
    since.checked_add(TRIES).ok()
}

/// The node that the pool was granted to since the volume was placed.
fn moved(view: &View, volume: &Volume) -> Option<String> {
    let node = view.grants.get(&volume.spec.pool)?.found_on()?;
    (node != volume.spec.node).then(|| node.to_owned())
}

/// Why a volume is not erased yet.
fn erasing(view: &View, volume: &Volume) -> ClaimWait {
    let (pool, node) = (&volume.spec.pool, &volume.spec.node);
    let says = volume.status.as_ref().and_then(|s| s.message.clone());
    match view.grants.get(pool).map(|g| g.standing) {
        Some(Standing::Granted | Standing::Cordoned | Standing::Unhealthy) => {
            let waiting = || format!("waiting for the agent on {node} to erase the data");
            ClaimWait::in_progress(says.unwrap_or_else(waiting))
        }
        Some(standing) => format!(
            "the data cannot be erased: pool {pool} is {}; bring it back, or set spec.lost on the Pool",
            standing.reason()
        )
        .into(),
        None => {
            format!("the data cannot be erased: pool {pool} is not known; bring it back").into()
        }
    }
}

#[cfg(test)]
mod tests;
