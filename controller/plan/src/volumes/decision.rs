//! What the decision about a volume sees and answers.

use std::collections::BTreeMap;

use berth_api::Volume;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{action::Action, claim, class::Class, wait::ClaimWait};
use crate::{grants::Grant, node::Node, room::Room};

/// Everything that the next write of one volume depends on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The claim: the one that the PV is bound to, else the one that the volume
    /// was made for; only if its UID is that one's.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// A pod that uses the claim.
    pub pod: Option<&'a claim::Pod>,
    /// The PV with this volume's handle.
    pub pv: Option<&'a PersistentVolume>,
    /// The Volume object.
    pub volume: Option<&'a Volume>,
    /// The claim's class, where it is a valid one of ours.
    pub class: Option<&'a Class>,
    /// Grants of all pools.
    pub grants: &'a BTreeMap<String, Grant>,
    /// Room of all pools.
    pub rooms: &'a BTreeMap<String, Room>,
    /// Every Node object, by name.
    pub nodes: &'a BTreeMap<String, Node>,
    /// The pod's other claims.
    pub peers: &'a Peers,
    /// The time of the decision.
    pub now: Timestamp,
}

/// The other claims of the pod that uses a claim: none of them gets a PV before
/// all of them have a volume on the node, since a PV pins the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Bound already, or their volumes are ready; or there are none.
    Ready,
    /// One of them is not ready yet; the wait names it.
    Waiting(ClaimWait),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per decision, and it is moved into the write at once"
)]
pub enum Step {
    /// Nothing is due: the volume is as it should be, or something is awaited.
    Nothing,
    /// Place the claim, together with the other open claims of its pod.
    Place,
    /// Carry out one write.
    Act(Action),
}

/// An event on the claim, or on the Volume where there is no claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `true` makes the event a Warning: a person should look.
    pub warning: bool,
    /// The event's reason, one CamelCase word.
    pub reason: &'static str,
    /// The event's message: what happened, what is wrong, what to do.
    pub text: String,
}

/// What to do next, and what people can read about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do next.
    pub step: Step,
    /// An event to publish with it.
    pub notice: Option<Notice>,
    /// Why the claim waits, short; for the WAITING column of its set.
    pub wait: Option<ClaimWait>,
    /// When to look again, if nothing changes before.
    pub again: Option<Timestamp>,
}

impl From<Step> for Decision {
    fn from(step: Step) -> Self {
        Self {
            step,
            notice: None,
            wait: None,
            again: None,
        }
    }
}

impl From<Action> for Decision {
    fn from(action: Action) -> Self {
        Step::Act(action).into()
    }
}

impl Decision {
    pub(super) fn wait(why: impl Into<ClaimWait>) -> Self {
        Self {
            step: Step::Nothing,
            notice: None,
            wait: Some(why.into()),
            again: None,
        }
    }

    pub(super) fn warn(mut self, reason: &'static str, text: impl Into<String>) -> Self {
        self.notice = Some(Notice {
            warning: true,
            reason,
            text: text.into(),
        });
        self
    }

    pub(super) fn tell(mut self, reason: &'static str, text: impl Into<String>) -> Self {
        self.notice = Some(Notice {
            warning: false,
            reason,
            text: text.into(),
        });
        self
    }
}
