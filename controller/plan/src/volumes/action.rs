//! The writes of a volume's life. Each carries the object that it is for, so that the
//! code that executes it need not look the object up again.

use berth_api::{ClaimRef, SetRef, Volume};
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaimCondition},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::target::Target;

/// What proves that data may be erased. The shell checks it against the API
/// server itself, not a cache, before it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A PV with policy Delete whose claim is gone.
    ReleasedPv {
        /// Name of the released PV.
        pv: String,
        /// UID that the PV must still have.
        uid: String,
    },
    /// No pod can ever have used it: there was no PV, and the claim is gone or
    /// bound to another volume.
    NeverExposed,
}

/// A size for which an agent had no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Id of the pool that had no room.
    pub pool: String,
    /// Size that was refused, in bytes.
    pub size: u64,
}

/// One write, and the object that it is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The intent: a volume for a claim that was placed.
    CreateVolume(Box<Volume>),
    /// Name a node for a claim, or take its node away so that the scheduler chooses
    /// again.
    Select {
        /// The claim whose annotation is written.
        claim: Target,
        /// The node to name; `None` removes the annotation.
        node: Option<String>,
    },
    /// Mark the Volume as exposed, and as bound to its claim, then create its PV.
    Expose {
        /// The Volume that gets the mark.
        volume: Target,
        /// Whether the mark is still to be written.
        mark: bool,
        /// The PV to create.
        pv: Box<PersistentVolume>,
    },
    /// Recreate the Volume object from its PV.
    Adopt {
        /// The Volume to create, with `adopt` set.
        volume: Box<Volume>,
        /// The PV, which must still be there.
        pv: Target,
    },
    /// The PersistentVolume is bound to this claim: the Volume says so too.
    Follow {
        /// The Volume whose `spec.claim`, `spec.owner` and `spec.bound` change.
        volume: Target,
        /// The claim.
        claim: ClaimRef,
        /// The set and ordinal behind the claim.
        owner: Option<SetRef>,
        /// The PersistentVolume, which must still be bound to the claim.
        pv: Target,
    },
    /// The pool is on another node now.
    MoveTo {
        /// The Volume whose `spec.node` changes.
        volume: Target,
        /// The node that has the pool now.
        node: String,
    },
    /// Order the agent to erase the data.
    Erase {
        /// The Volume whose `spec.state` becomes `Deleted`.
        volume: Target,
        /// What proves that erasing is right.
        proof: Proof,
    },
    /// Remove the Volume object.
    DropVolume {
        /// The Volume object to delete.
        volume: Target,
        /// What the agent had no room for, if that is the reason.
        refused: Option<Refused>,
    },
    /// The node cannot do it: take the volume back, and let the scheduler choose again.
    Reschedule {
        /// The Volume that is taken back.
        volume: Target,
        /// Whether its agent may have made something: then `spec.state` becomes `Deleted`,
        /// and the object stays until the agent has answered. Otherwise it is deleted.
        erase: bool,
        /// The claim to take the node from, if one was chosen for it.
        claim: Option<Target>,
        /// The pool that failed it: others are tried first.
        pool: String,
    },
    /// Delete the PV; our finalizer holds it until the next action.
    DeletePv {
        /// The PV to delete.
        pv: Target,
    },
    /// Remove our finalizer from a PV.
    DropFinalizer {
        /// The PV that our finalizer holds.
        pv: Target,
        /// The finalizers that stay.
        others: Vec<String>,
    },
    /// Ask the agent for another size: a larger one, or the one before, where the larger
    /// one was refused and is no longer wanted.
    Resize {
        /// The Volume whose `spec.size` changes.
        volume: Target,
        /// New size in bytes, never less than the backend enforces.
        size: u64,
    },
    /// Say in the claim's status how far its growth is.
    ClaimResizing {
        /// The claim whose status changes.
        claim: Target,
        /// The size that it asks for, for `status.allocatedResources`.
        size: Quantity,
        /// How far it is, for `status.allocatedResourceStatuses`.
        how: Resizing,
        /// All conditions of the claim; a new one has no time yet.
        conditions: Vec<PersistentVolumeClaimCondition>,
    },
    /// Write the new capacity into the PV.
    PvCapacity {
        /// The PV whose `spec.capacity` changes.
        pv: Target,
        /// New capacity in bytes.
        size: u64,
    },
    /// Write the new capacity into the claim's status, and end the resize there.
    ClaimCapacity {
        /// The claim whose `status.capacity` changes.
        claim: Target,
        /// New capacity in bytes.
        size: u64,
        /// The conditions that stay.
        conditions: Vec<PersistentVolumeClaimCondition>,
    },
}

/// How far a claim's growth is (`ClaimResourceStatus` in k8s.io/api/core/v1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resizing {
    /// The agent is to make the volume larger.
    InProgress,
    /// The size cannot be had; a person may ask for less.
    Infeasible,
}

impl Resizing {
    /// Its name in `status.allocatedResourceStatuses`.
    pub fn name(self) -> &'static str {
        match self {
            Self::InProgress => "ControllerResizeInProgress",
            Self::Infeasible => "ControllerResizeInfeasible",
        }
    }
}
