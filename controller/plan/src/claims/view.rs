//! What the decision about a claim without a volume sees: the claim, the pods that use
//! it, their other claims, and free space.

use std::collections::BTreeMap;

use berth_api::{Volume, VolumeState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::{key::ClassOnNode, tries::Tries};
use crate::{
    node::Node,
    room::Room,
    snapshots::restore::Origin,
    volumes::{
        ClaimWait, Class,
        claim::{self, Pod},
    },
};

/// The class that a claim names.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassOf<'a> {
    /// One of Berth's.
    Ours(&'a Class),
    /// One of Berth's that asks for what Berth does not give; the sentence says what.
    Refused(&'a str),
    /// Another driver's, or the claim wants none: nothing of it is decided here.
    Other,
    /// There is no such class; the wait says what to do.
    Missing(ClaimWait),
}

/// One claim, with what belongs to it.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The claim as it is.
    pub object: &'a PersistentVolumeClaim,
    /// Its class.
    pub class: ClassOf<'a>,
    /// Its Volume, or the one whose creation is under way.
    pub volume: Option<&'a Volume>,
    /// The data that it is to start with, if it names any. The error says what is
    /// awaited, or what is wrong.
    pub source: Result<Option<Origin>, ClaimWait>,
    /// A pod uses it that does not use the claim that is decided about.
    pub shared: bool,
    /// A write about it is under way.
    pub busy: bool,
    /// What was tried for it before.
    pub tries: Option<&'a Tries>,
}

impl<'a> Claim<'a> {
    /// Its class, where it is a valid one of Berth's.
    pub(super) fn ours(&self) -> Option<&'a Class> {
        match self.class {
            ClassOf::Ours(class) => Some(class),
            _ => None,
        }
    }

    /// Whether its class waits for a pod's node.
    pub(super) fn waits_for_pod(&self) -> bool {
        self.ours().is_some_and(|class| !class.immediate)
    }

    /// Whether it is bound, or asks for a certain PersistentVolume: nothing is made for it.
    pub(super) fn is_bound(&self) -> bool {
        claim::volume_name(self.object).is_some()
    }

    /// The node that was chosen for it; nothing where its class does not wait for one.
    pub(super) fn selected(&self) -> Option<&'a str> {
        claim::selected_node(self.object).filter(|_| self.waits_for_pod())
    }

    /// Whether its volume may be made now.
    pub(super) fn is_due(&self) -> bool {
        self.ours()
            .is_some_and(|class| claim::is_due(self.object, class))
    }

    /// The node that its volume is on, or is being made on.
    pub(super) fn placed(&self) -> Option<&'a str> {
        let volume = self
            .volume
            .filter(|v| v.spec.state == VolumeState::Present)?;
        Some(&volume.spec.node)
    }

    /// Whether pods may have seen its volume, so that it stays where it is.
    pub(super) fn is_exposed(&self) -> bool {
        self.volume.is_some_and(Volume::is_exposed)
    }

    /// Why it will get no volume until a person has changed something; `None` if nothing
    /// is wrong with it.
    pub(super) fn refusal(&self) -> Option<String> {
        match &self.class {
            ClassOf::Ours(class) => claim::refusal(self.object, class),
            ClassOf::Refused(text) => Some((*text).to_owned()),
            ClassOf::Missing(wait) => Some(wait.text.clone()),
            ClassOf::Other => None,
        }
    }
}

/// Everything that the decision about one claim depends on.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The time of the decision.
    pub now: Timestamp,
    /// Name of the claim that is decided about.
    pub claim: &'a str,
    /// That claim, and the other claims of its pods, by name; all of one namespace.
    pub claims: BTreeMap<String, Claim<'a>>,
    /// The pods that use the claim and have not ended, by name.
    pub pods: Vec<Pod>,
    /// Free space of every pool.
    pub rooms: &'a BTreeMap<String, Room>,
    /// Every Node object, by name.
    pub nodes: &'a BTreeMap<String, Node>,
    /// Bytes that the scheduler is told are free in the largest pool.
    pub told: &'a BTreeMap<ClassOnNode, u64>,
    /// Upper bounds of what it is to be told for the sake of other claims
    /// ([`Withheld`](super::Withheld)).
    pub withheld: &'a BTreeMap<ClassOnNode, u64>,
}

impl<'a> View<'a> {
    /// The claim that is decided about.
    pub(super) fn subject(&self) -> Option<&Claim<'a>> {
        self.claims.get(self.claim)
    }

    /// The other claims of a pod, as the pod names them; `None` for one that does not
    /// exist.
    pub(super) fn others<'v>(
        &'v self,
        pod: &'v Pod,
    ) -> impl Iterator<Item = (&'v str, Option<&'v Claim<'a>>)> {
        pod.claims
            .iter()
            .filter(|name| *name != self.claim)
            .map(|name| (name.as_str(), self.claims.get(name)))
    }
}
