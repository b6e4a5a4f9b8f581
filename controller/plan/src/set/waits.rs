//! Why a set is not done: each wait names the object, what it waits for, and what
//! a person can do.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};

use super::view::{Pod, Refusal, RefusalKind, View};
use crate::volumes::ClaimWaitKind;

/// Kinds of wait; the name is the reason of the Waiting condition and of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitReason {
    /// The API server refuses the template.
    TemplateRefused,
    /// The API server refuses the pod or claim for now (quota, policy, namespace).
    CreateRefused,
    /// The API server could not create the pod or claim, or gave no answer.
    CreateFailed,
    /// Other calls to the API server fail.
    CallFailed,
    /// `updateStrategy.type` is none that Berth knows.
    StrategyUnknown,
    /// `rollbackTo` names no revision of the set.
    RevisionUnknown,
    /// A foreign object has the name that an ordinal needs.
    NameConflict,
    /// The pod mounts another claim than its identity demands.
    WrongClaim,
    /// A claim has no volume, and the storage part says why.
    ClaimPending,
    /// No node fits the pod.
    Unschedulable,
    /// More than one of the pods to remove is unavailable.
    ScaleDownHalted,
    /// A claim of that name is being deleted.
    ClaimDeleting,
    /// A claim has no volume yet, and somebody is at work on it.
    ClaimProvisioning,
    /// The old pod is still going.
    Terminating,
    /// The pod ended and is being replaced.
    PodEnded,
    /// The pod is not ready.
    NotReady,
    /// The pod is ready, but not yet for minReadySeconds.
    MinReadySeconds,
    /// A person has to delete the pod to update it.
    OnDelete,
}

impl WaitReason {
    /// The reason as conditions and events carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            WaitReason::TemplateRefused => "TemplateRefused",
            WaitReason::CreateRefused => "CreateRefused",
            WaitReason::CreateFailed => "CreateFailed",
            WaitReason::CallFailed => "CallFailed",
            WaitReason::StrategyUnknown => "StrategyUnknown",
            WaitReason::RevisionUnknown => "RevisionUnknown",
            WaitReason::NameConflict => berth_api::names::reason::NAME_CONFLICT,
            WaitReason::WrongClaim => "WrongClaim",
            WaitReason::ClaimPending => "ClaimPending",
            WaitReason::Unschedulable => "Unschedulable",
            WaitReason::ScaleDownHalted => "ScaleDownHalted",
            WaitReason::ClaimDeleting => "ClaimDeleting",
            WaitReason::ClaimProvisioning => "ClaimProvisioning",
            WaitReason::Terminating => "Terminating",
            WaitReason::PodEnded => "PodEnded",
            WaitReason::NotReady => "NotReady",
            WaitReason::MinReadySeconds => "MinReadySeconds",
            WaitReason::OnDelete => "OnDelete",
        }
    }

    /// It will not end without a person, or without something changing elsewhere.
    pub fn blocks(self) -> bool {
        self < WaitReason::ClaimDeleting || self == WaitReason::OnDelete
    }

    /// Nothing but a change of the set or of the object in the way ends it.
    pub(super) fn is_dead_end(self) -> bool {
        matches!(
            self,
            WaitReason::TemplateRefused
                | WaitReason::RevisionUnknown
                | WaitReason::NameConflict
                | WaitReason::WrongClaim
        )
    }

    /// Warnings are for waits that somebody should look at.
    pub fn is_warning(self) -> bool {
        self < WaitReason::ClaimDeleting
    }

    /// What blocks comes before what merely takes time; what waits for a
    /// person's own decision comes last.
    pub(super) fn rank(self) -> u8 {
        match self {
            WaitReason::OnDelete => 2,
            reason => u8::from(!reason.blocks()),
        }
    }
}

/// One thing that the set waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The ordinal that waits, where it is one.
    pub ordinal: Option<i32>,
    /// The kind of wait.
    pub reason: WaitReason,
    /// Short text for the WAITING column: the object and what it waits for.
    pub short: String,
    /// The same, and what to do.
    pub message: String,
}

impl Wait {
    /// An ordinal waits.
    pub(super) fn of_ordinal(
        ordinal: i32,
        reason: WaitReason,
        short: String,
        what_to_do: &str,
    ) -> Wait {
        Wait {
            ordinal: Some(ordinal),
            ..Wait::of_set(reason, short, what_to_do)
        }
    }

    /// The set as a whole waits.
    pub(super) fn of_set(reason: WaitReason, short: String, what_to_do: &str) -> Wait {
        let message = if what_to_do.is_empty() {
            short.clone()
        } else {
            format!("{short}; {what_to_do}")
        };
        Wait {
            ordinal: None,
            reason,
            short: clip(short, 100),
            message: clip(message, 1000),
        }
    }
}

/// Waits of one reason from which on they share one event.
const ONE_EACH: usize = 3;

/// The events that new waits are worth. A replica that merely starts or goes is everyday
/// and gets none; where many replicas wait for the same reason, one event speaks for all,
/// since an event each would be many times the work itself.
pub fn announcements<'a>(news: impl Iterator<Item = &'a Wait>) -> Vec<(WaitReason, String)> {
    let mut all: BTreeMap<WaitReason, Vec<&Wait>> = BTreeMap::new();
    for wait in news {
        if wait.reason.is_warning() || wait.reason == WaitReason::OnDelete {
            all.entry(wait.reason).or_default().push(wait);
        }
    }
    let mut events = Vec::new();
    for (reason, waits) in all {
        if waits.len() <= ONE_EACH {
            events.extend(waits.iter().map(|w| (reason, w.message.clone())));
        } else {
            let first = &waits[0].message;
            let message = format!("{first} (and {} more replicas)", waits.len() - 1);
            events.push((reason, message));
        }
    }
    events
}

/// What the API server objects to, without the object's name, which stands
/// before it already: `Pod "web-0" is invalid: spec…` is `spec…`.
pub(super) fn essence(message: &str) -> &str {
    let cut = [" is invalid: ", " is forbidden: "].into_iter();
    let rest = cut.filter_map(|c| message.split_once(c)).map(|(_, r)| r);
    rest.min_by_key(|r| std::cmp::Reverse(r.len()))
        .unwrap_or(message)
}

/// `text`, cut to `limit` characters.
pub(super) fn clip(text: String, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A pod that is going. The time is absolute: a text that changes with each look
/// would be a status write each time.
pub(super) fn terminating(ordinal: i32, pod: &Pod) -> Wait {
    let since = pod
        .deleted
        .map_or_else(String::new, |t| format!(" since {}", clock(t)));
    let place = match &pod.node {
        Some(node) => format!(" on node {node}"),
        None => String::new(),
    };
    let what_to_do = match &pod.node {
        Some(node) => format!(
            "its successor is made when it is gone; if node {node} is gone for good, delete the Node, or taint it node.kubernetes.io/out-of-service"
        ),
        None => "its successor is made when it is gone; a finalizer may hold it".to_owned(),
    };
    let short = format!("{}: terminating{since}{place}", pod.name);
    Wait::of_ordinal(ordinal, WaitReason::Terminating, short, &what_to_do)
}

fn clock(time: Timestamp) -> String {
    let time = time.to_zoned(TimeZone::UTC);
    time.strftime("%H:%M:%SZ").to_string()
}

/// A pod that is not created, with the API server's words.
pub(super) fn refused(ordinal: i32, name: &str, refusal: &Refusal) -> Wait {
    let why = essence(&refusal.message);
    let (reason, short, what_to_do) = match refusal.kind {
        RefusalKind::Template => (
            WaitReason::TemplateRefused,
            format!("{name}: refused (API server: {why})"),
            "correct spec.template or volumeClaimTemplates",
        ),
        RefusalKind::Circumstances => (
            WaitReason::CreateRefused,
            format!("{name}: refused (API server: {why})"),
            "it is tried again",
        ),
        RefusalKind::Unavailable => (
            WaitReason::CreateFailed,
            format!("{name}: not created ({why})"),
            "it is tried again",
        ),
    };
    Wait::of_ordinal(ordinal, reason, short, what_to_do)
}

/// A pod that ended by itself, `until` when it stays if it is not the first in a row.
pub(super) fn ended(ordinal: i32, pod: &Pod, how: &str, until: Option<Timestamp>) -> Wait {
    let why = pod.trouble.as_deref();
    let why = why.map_or(String::new(), |why| format!(" ({why})"));
    let name = &pod.name;
    let short = match until {
        None => format!("{name}: {how}{why}, it is being replaced"),
        Some(until) => format!("{name}: {how} again{why}, replaced at {}", clock(until)),
    };
    Wait::of_ordinal(ordinal, WaitReason::PodEnded, short, "")
}

/// A pod that somebody holds back from the scheduler.
fn gated(ordinal: i32, pod: &Pod) -> Option<Wait> {
    if pod.scheduling_gates.is_empty() {
        return None;
    }
    let gates = pod.scheduling_gates.join(", ");
    let short = format!("{}: held by scheduling gate {gates}", pod.name);
    let what_to_do = "whoever owns the gate removes it from the pod";
    Some(Wait::of_ordinal(
        ordinal,
        WaitReason::Unschedulable,
        short,
        what_to_do,
    ))
}

/// A pod that is there and not available.
pub(super) fn unavailable(view: &View, ordinal: i32, pod: &Pod) -> Wait {
    for (_, claim) in view.set.claim_names(ordinal) {
        let bound = view.claims.get(&claim).is_some_and(|c| c.bound);
        if let Some(why) = view.claim_waits.get(&claim).filter(|_| !bound) {
            let short = format!("{claim}: {why}");
            let (reason, what_to_do) = match why.kind {
                ClaimWaitKind::InProgress => (
                    WaitReason::ClaimProvisioning,
                    "the pod starts when the claim has a volume",
                ),
                ClaimWaitKind::NoRoom => (
                    WaitReason::ClaimPending,
                    "the pod starts when the claim has a volume: free some room, add a pool, or ask for less",
                ),
                ClaimWaitKind::NeedsAction => (
                    WaitReason::ClaimPending,
                    "the pod starts when the claim has a volume",
                ),
            };
            return Wait::of_ordinal(ordinal, reason, short, what_to_do);
        }
    }
    let name = &pod.name;
    if let Some(wait) = gated(ordinal, pod) {
        return wait;
    }
    if pod.unschedulable {
        let why = pod.trouble.as_deref().unwrap_or("no reason given");
        return Wait::of_ordinal(
            ordinal,
            WaitReason::Unschedulable,
            format!("{name}: no node fits ({why})"),
            "look at the pod's affinity, its requests and the nodes",
        );
    }
    if pod.is_ready() {
        let until = pod
            .available_at(&view.set)
            .map_or_else(String::new, |at| format!(" until {}", clock(at)));
        let short = format!("{name}: ready, minReadySeconds runs{until}");
        return Wait::of_ordinal(ordinal, WaitReason::MinReadySeconds, short, "");
    }
    if pod.node_silent {
        let node = pod.node.as_deref().unwrap_or_default();
        let short = format!("{name}: node {node} does not answer");
        let what_to_do = "the pod may well run there; it is left alone until the node answers";
        return Wait::of_ordinal(ordinal, WaitReason::NotReady, short, what_to_do);
    }
    let phase = match pod.phase {
        None => "not seen by a node yet".to_owned(),
        Some(phase) => format!("{phase:?}"),
    };
    let why = pod.trouble.clone().unwrap_or(phase);
    let short = format!("{name}: not ready ({why})");
    let namespace = &view.set.namespace;
    let what_to_do = format!("see kubectl -n {namespace} describe pod {name}");
    Wait::of_ordinal(ordinal, WaitReason::NotReady, short, &what_to_do)
}
