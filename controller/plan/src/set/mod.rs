//! What to do next for one set: `plan(&View) -> Plan`.
//!
//! The planner knows nothing of the API. It gets a [`View`] of one set and what
//! belongs to it, and answers with conditional actions, the status to publish,
//! and the reason of every wait. It is total: there is no view that it cannot
//! answer, and no plan that does harm when the view was stale:
//!
//! * objects are created under deterministic names, so a second creation fails;
//! * deletions and updates carry the UID and resourceVersion that the decision
//!   was made from, so they miss an object that changed since;
//! * no action can express a forced deletion;
//! * a set gets at most one mutating action per ordinal and plan;
//! * an available pod is deleted by a rollout only after the set's status names
//!   it as a victim, and that status is written with the resourceVersion of the
//!   set that was seen: two planners cannot spend one budget twice.
//!
//! Semantics are those of Kubernetes' StatefulSet controller. It differs on
//! purpose in these points, each of which only removes a dead end:
//!
//! * a pod of an old revision that is not ready, and of which none is available, is
//!   replaced at once during a rolling update, so a bad template can be reverted or
//!   fixed by editing it (where others of the revision are available, the pod may
//!   recover: a native set waits for it, as upstream does, an OrdinalSet for a minute);
//! * a rollout finishes when its pods are available, not merely ready, and
//!   OnDelete rollouts finish too;
//! * `maxUnavailable` is honoured under both pod management policies;
//! * pods that ended do not halt an ordered scale-down, and are replaced after pauses
//!   that grow where they end again and again;
//! * while the API server is known to refuse a template, lost pods return at the
//!   revision before;
//! * claims of ordinals without a pod are freed from the set when whenDeleted becomes
//!   Retain, and a claim that the garbage collector is about to take is never mounted;
//! * a claim that is being kept by scaling up again loses its owner reference
//!   even while the old pod still terminates, so its data survives;
//! * what a rollout waits for is a condition and an event, on native sets too.
//!
//! Deleting the set itself is left to Kubernetes' garbage collector, as upstream
//! does, and so unordered; who wants order scales to 0 first. A finalizer of our
//! own could order it, but would leave sets undeletable where Berth was removed.

mod claims;
mod conditions;
mod convert;
mod draft;
mod explain;
mod go_json;
mod manifest;
mod members;
mod memory;
mod native;
mod plan;
mod planner;
mod revisions;
mod rollout;
mod selector;
mod status;
mod verdict;
mod view;
mod waits;

#[cfg(test)]
mod tests;

pub use explain::explain;
pub use memory::{Attempt, Class, Memory, Outcome, Setback};
pub use native::{CompetingController, competing_controller, native_status, stands_down};
pub use plan::{Action, ClaimOwners, Group, Notice, Object, Plan, Step, groups};
pub use planner::plan;
pub use revisions::{encode_template, hash as revision_hash};
pub use view::{
    Candidate, Claim, Controller, Kind, NormalForm, Pod, PodPhase, Refusal, RefusalKind, Revision,
    Set, TemplateCheck, Verdict, View,
};
pub use waits::{Wait, WaitReason, announcements};
