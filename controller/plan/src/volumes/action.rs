//! The writes of a volume's life. Each says which object it is for, so that nobody who
//! carries it out has to look for the object again.

use berth_api::Volume;
use k8s_openapi::api::core::v1::PersistentVolume;

use crate::target::Target;

/// What proves that data may be erased. The shell checks it against the API
/// server itself, not a cache, before it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A PV with policy Delete whose claim is gone.
    ReleasedPv {
        /// Name of the PV.
        pv: String,
        /// UID of the PV.
        uid: String,
    },
    /// No pod can ever have used it: there was no PV, and the claim is gone or
    /// bound to another volume.
    NeverExposed,
}

/// A size for which an agent had no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Id of the pool.
    pub pool: String,
    /// Bytes.
    pub size: u64,
}

/// A pool that can never hold a claim's volume: it remembers that one of the same name
/// was erased there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// UID of the claim.
    pub claim_uid: String,
    /// Id of the pool.
    pub pool: String,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The intent: a volume for a claim that was placed.
    CreateVolume(Box<Volume>),
    /// Name a node for a claim, or take its node away so that the scheduler chooses
    /// again.
    Select {
        /// The claim.
        claim: Target,
        /// The node.
        node: Option<String>,
    },
    /// Mark the Volume as exposed, then make its PV.
    Expose {
        /// The Volume.
        volume: Target,
        /// The mark is not there yet.
        mark: bool,
        /// The PV.
        pv: Box<PersistentVolume>,
    },
    /// Make the Volume object again, from its PV.
    Adopt {
        /// The Volume, with `adopt` set.
        volume: Box<Volume>,
        /// The PV, which must still be there.
        pv: Target,
    },
    /// The pool is on another node now.
    MoveTo {
        /// The Volume.
        volume: Target,
        /// The node.
        node: String,
    },
    /// Let the agent erase the data.
    Erase {
        /// The Volume.
        volume: Target,
        /// Why that is right.
        proof: Proof,
    },
    /// Remove the Volume object.
    DropVolume {
        /// The Volume.
        volume: Target,
        /// What the agent had no room for, where that is why.
        refused: Option<Refused>,
    },
    /// The node cannot do it: remove the Volume object and let the scheduler
    /// choose again.
    Reschedule {
        /// The Volume.
        volume: Target,
        /// The claim, where a node was chosen for it.
        claim: Option<Target>,
        /// Where it is not to be tried again.
        excluded: Excluded,
    },
    /// Delete the PV; our finalizer holds it until the next action.
    DeletePv {
        /// The PV.
        pv: Target,
    },
    /// Remove our finalizer from a PV.
    DropFinalizer {
        /// The PV.
        pv: Target,
        /// The finalizers that stay.
        others: Vec<String>,
    },
    /// Ask the agent for a larger volume.
    Grow {
        /// The Volume.
        volume: Target,
        /// Bytes.
        size: u64,
    },
    /// Write the new capacity into the PV.
    PvCapacity {
        /// The PV.
        pv: Target,
        /// Bytes.
        size: u64,
    },
    /// Write the new capacity into the claim's status.
    ClaimCapacity {
        /// The claim.
        claim: Target,
        /// Bytes.
        size: u64,
    },
}
