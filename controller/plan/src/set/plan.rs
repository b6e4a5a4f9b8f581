//! What the planner answers with: actions that are safe when they land late or
//! twice, the status, and the waits.

use std::{collections::BTreeMap, num::NonZeroU32};

use berth_api::OrdinalSetStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use super::{
    memory::{Attempt, Class},
    view::Candidate,
    waits::Wait,
};

/// An object to create under a deterministic name.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// The whole object, for a POST.
    pub manifest: Value,
}

/// The owners that a claim should have.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimOwners {
    /// Name of the claim.
    pub name: String,
    /// UID that the claim must have.
    pub uid: String,
    /// Version that the claim must have.
    pub resource_version: String,
    /// All its owners from now on.
    pub owners: Vec<OwnerReference>,
}

/// One thing to do. Deletions are conditional, and none can be forced: the grace
/// is the pod's own or at least one second.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// POST the claims, then, when all of them exist and none is being deleted,
    /// the pod.
    CreatePod {
        /// The ordinal's claims that do not exist yet.
        claims: Vec<Object>,
        /// The pod.
        pod: Object,
    },
    /// POST claims that a pending pod misses.
    CreateClaims {
        /// Name of the pod.
        pod: String,
        /// The claims.
        claims: Vec<Object>,
    },
    /// DELETE a pod with its own grace.
    DeletePod {
        /// Name of the pod.
        name: String,
        /// UID that it must have.
        uid: String,
        /// Version that it must have.
        resource_version: String,
        /// Grace to use instead of the pod's own, where that is 0.
        grace_seconds: Option<NonZeroU32>,
    },
    /// Set labels that the pod's identity needs.
    RepairPod {
        /// Name of the pod.
        name: String,
        /// UID that it must have.
        uid: String,
        /// Version that it must have.
        resource_version: String,
        /// The labels to set.
        labels: BTreeMap<String, String>,
    },
    /// Change a pod that a rollout was permitted to take down and that is to stay, so that
    /// a deletion that another controller decided on before finds another version.
    KeepPod {
        /// Name of the pod.
        name: String,
        /// UID that it must have.
        uid: String,
        /// Version that it must have.
        resource_version: String,
    },
    /// Become the controlling owner of an orphan.
    AdoptPod {
        /// Name of the pod.
        name: String,
        /// UID that it must have.
        uid: String,
        /// The reference to add.
        owner: OwnerReference,
    },
    /// Stop owning a pod that the selector no longer matches.
    ReleasePod {
        /// Name of the pod.
        name: String,
        /// UID that it must have.
        uid: String,
        /// UID of the set whose reference goes.
        owner_uid: String,
    },
    /// Set the owners of an ordinal's claims (retention policy).
    UpdateClaimOwners {
        /// The claims.
        claims: Vec<ClaimOwners>,
    },
    /// POST a ControllerRevision.
    CreateRevision {
        /// Its name.
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// Its annotations.
        annotations: BTreeMap<String, String>,
        /// Its owner.
        owner: OwnerReference,
        /// Its number.
        revision: i64,
        /// Its data, byte for byte.
        data: String,
    },
    /// Give an older revision the highest number: a rollback.
    RenumberRevision {
        /// Its name.
        name: String,
        /// Version that it must have.
        resource_version: String,
        /// The new number.
        revision: i64,
    },
    /// Become the controlling owner of an orphaned revision.
    AdoptRevision {
        /// Its name.
        name: String,
        /// UID that it must have.
        uid: String,
        /// The reference to add.
        owner: OwnerReference,
    },
    /// DELETE a revision that is over the history limit.
    DeleteRevision {
        /// Its name.
        name: String,
        /// UID that it must have.
        uid: String,
        /// Version that it must have.
        resource_version: String,
    },
    /// Ask the API server, by a dry run, for a revision's template with the
    /// defaults of today.
    NormalizeRevision {
        /// Name of the revision.
        revision: String,
        /// Version of the revision.
        resource_version: String,
        /// Its template.
        template: Value,
        /// The template to compare with, where the API server has not completed it yet.
        candidate: Option<Candidate>,
    },
    /// Ask the API server, by a dry run, whether it would take pods of a
    /// revision, before any pod goes down for it.
    CheckTemplate {
        /// Name of the revision.
        revision: String,
        /// A pod of it.
        pod: Object,
    },
}

impl Action {
    /// What it is an attempt at.
    pub fn class(&self) -> Class {
        match self {
            Action::AdoptPod { .. } | Action::ReleasePod { .. } | Action::AdoptRevision { .. } => {
                Class::Membership
            }
            Action::CreateRevision { .. }
            | Action::RenumberRevision { .. }
            | Action::NormalizeRevision { .. } => Class::Revision,
            Action::RepairPod { .. }
            | Action::KeepPod { .. }
            | Action::UpdateClaimOwners { .. } => Class::Update,
            Action::DeletePod { .. } => Class::Deletion,
            Action::CreatePod { .. } | Action::CreateClaims { .. } => Class::Creation,
            Action::CheckTemplate { .. } => Class::Check,
            Action::DeleteRevision { .. } => Class::History,
        }
    }

    /// Name and version of the object that it must meet, where it demands a version.
    pub(super) fn target(&self) -> Option<(&str, &str)> {
        match self {
            Action::DeletePod {
                name,
                resource_version,
                ..
            }
            | Action::RepairPod {
                name,
                resource_version,
                ..
            }
            | Action::KeepPod {
                name,
                resource_version,
                ..
            }
            | Action::RenumberRevision {
                name,
                resource_version,
                ..
            }
            | Action::DeleteRevision {
                name,
                resource_version,
                ..
            } => Some((name, resource_version)),
            Action::UpdateClaimOwners { claims } => {
                let first = claims.first()?;
                Some((&first.name, &first.resource_version))
            }
            _ => None,
        }
    }
}

/// Most calls of one class at once.
const MAX_CONCURRENT: usize = 32;

/// Steps of one class in batches: those of a batch run side by side, and a batch with a
/// failure is the last one. They begin with one step and double, so that what the API
/// server refuses costs one call and not a hundred.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The class.
    pub class: Class,
    /// Its steps.
    pub batches: Vec<Vec<Step>>,
}

/// `steps` in the order of their execution.
pub fn groups(steps: Vec<Step>) -> Vec<Group> {
    let mut classes: BTreeMap<Class, Vec<Step>> = BTreeMap::new();
    for step in steps {
        classes.entry(step.action.class()).or_default().push(step);
    }
    let group = |(class, steps): (Class, Vec<Step>)| {
        let mut rest = steps.into_iter().peekable();
        let mut batches = Vec::new();
        let mut size = 1;
        while rest.peek().is_some() {
            batches.push(rest.by_ref().take(size).collect());
            size = (size * 2).min(MAX_CONCURRENT);
        }
        Group { class, batches }
    };
    classes.into_iter().map(group).collect()
}

/// One action, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The ordinal that it concerns, where it concerns one.
    pub ordinal: Option<i32>,
    /// What to do.
    pub action: Action,
    /// Why, for people.
    pub reason: String,
    /// It replaces a pod that ended by itself; such ends are counted.
    pub replaces_ended: bool,
}

impl Step {
    /// What is remembered of it once it was executed.
    pub fn attempt(&self) -> Attempt {
        let target = self.action.target();
        Attempt {
            ordinal: self.ordinal.filter(|_| self.replaces_ended),
            target: target.map(|(name, version)| (name.to_owned(), version.to_owned())),
        }
    }
}

/// Something that people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Reason of the event.
    pub reason: &'static str,
    /// Text of the event.
    pub message: String,
}

/// What to do next for a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Actions that do not depend on one another, nor on the status of this plan.
    /// [`groups`] says in which order they are executed.
    pub steps: Vec<Step>,
    /// The status to publish, if it differs.
    pub status: OrdinalSetStatus,
    /// The status must be written before anything else, with the set's resourceVersion:
    /// it claims victims, or later plans depend on it. Where that conflicts, the view was
    /// old, and no step of this plan is executed.
    pub status_first: bool,
    /// What the set waits for, the most telling first.
    pub waits: Vec<Wait>,
    /// What people should know although nothing waits for it; a Warning event each.
    pub notices: Vec<Notice>,
    /// Look again after so many milliseconds, although nothing changes.
    pub requeue_after_ms: Option<u64>,
}
