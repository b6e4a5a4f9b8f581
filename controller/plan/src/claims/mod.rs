//! From an open claim to the intent of its volume: the whole protocol between scheduler,
//! kube-controller-manager and this controller.
//!
//! A class that binds at once leaves the node to us. A class that waits for the first
//! consumer (WaitForFirstConsumer) leaves it to the scheduler, which writes the node into
//! the claim (`volume.kubernetes.io/selected-node`) and holds the pod back until all its
//! claims are bound; kube-controller-manager hands a claim to us only then. The scheduler
//! looks at each claim alone, and gives a node up only when it is taken from the claim.
//! So:
//!
//! - **All open claims of a pod are placed together or not at all**, and a claim that
//!   binds at once never waits for one that does not: the scheduler does not look at the
//!   pod before the first is bound.
//! - **A claim of several pods goes with the pod for which the node was chosen**
//!   ([`pods`]); pods that cannot run are not waited for.
//! - **No room is an answer**: capacity is published lower first, then the node is taken
//!   away ([`refuse`]). Where each claim fits alone and only together they do not, the
//!   scheduler is told less than there is, for a while: only it knows where the pod may run.
//! - **A pod with `spec.nodeName` has no scheduler.** Its node is written into the claims
//!   here, once they fit there; kube-controller-manager asks for no more than that.
//! - **A claim is bound, or somebody is told what to do.**

mod group;
mod key;
mod plan;
mod pods;
mod refuse;
mod tries;
mod view;

use std::time::Duration;

use berth_api::names::reason;

use self::{group::Group, pods::Outlook, refuse::refuse};
use crate::{
    place::{self, Placement},
    target::Target,
    volumes::{ClaimWait, Notice, claim, claim::Pod, pv},
};

pub use key::{ClaimKey, ClassOnNode};
pub use plan::{Plan, Step};
pub use pods::peers;
pub use tries::{Asked, Failed, Tries, Withheld, withheld};
pub use view::{Claim, ClassOf, View};

/// How long the claims of one pod may name different nodes before their nodes are taken
/// away: the scheduler writes them one after the other.
const APART: Duration = Duration::from_secs(2);

/// What to do next about a claim that has no PersistentVolume.
pub fn decide(view: &View<'_>) -> Plan {
    let Some(claim) = view.subject() else {
        return Plan::default();
    };
    if claim.is_bound() || claim.object.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let key = ClaimKey::of(claim.object);
    match &claim.class {
        ClassOf::Refused(text) => {
            let mut plan = Plan::default().wait(&key, (*text).to_owned());
            plan.warn(&key, reason::PROVISIONING_FAILED, (*text).to_owned());
            return plan;
        }
        ClassOf::Missing(wait) => return Plan::default().wait(&key, wait.clone()),
        ClassOf::Other => return Plan::default(),
        ClassOf::Ours(_) => {}
    }
    if claim.is_exposed() {
        return Plan::default();
    }
    match claim.selected() {
        Some(node) => with_node(view, claim, &key, node),
        None if claim.volume.is_some() => Plan::default(),
        None if claim.waits_for_pod() => without_node(view, claim, &key),
        None => at_once(view, claim, &key),
    }
}

/// A claim of a class that binds at once.
fn at_once(view: &View<'_>, claim: &Claim<'_>, key: &ClaimKey) -> Plan {
    if !claim.is_due() {
        return Plan::default();
    }
    if let Err(wait) = &claim.source {
        return sourceless(key, wait);
    }
    let pods = pods::likeliest(view);
    let mut refused: Option<Box<Unfit<'_, '_>>> = None;
    for pod in some_or_none(pods) {
        match fitting(view, group::group(view, claim, pod, None)) {
            Ok(plan) => return plan,
            Err(why) => refused = refused.or(Some(why)),
        }
    }
    let Some(Unfit { group, text }) = refused.map(|unfit| *unfit) else {
        return Plan::default();
    };
    let text = bound_to_node(&group, text);
    let mut plan = Plan {
        again: group.again,
        together: Some(group.request.clone()),
        ..Plan::default()
    };
    for member in group.members.iter().filter(|m| !m.waits_for_pod()) {
        let key = ClaimKey::of(member.object);
        plan.warn(&key, reason::NO_ROOM, format!("no node has room: {text}"));
        plan.for_room.push(key.clone());
        plan = plan.wait(&key, ClaimWait::no_room(&*text));
    }
    plan
}

/// Each of the pods for which a claim may be placed; none of them where nobody uses it.
fn some_or_none(pods: Vec<&Pod>) -> Vec<Option<&Pod>> {
    match pods.is_empty() {
        true => vec![None],
        false => pods.into_iter().map(Some).collect(),
    }
}

/// A group that does not fit, and why.
struct Unfit<'v, 'a> {
    group: Group<'v, 'a>,
    text: String,
}

/// Places a group, if need be without the claims whose turn is later. The error is the
/// smallest group that does not fit, and why.
fn fitting<'v, 'a>(view: &View<'a>, whole: Group<'v, 'a>) -> Result<Plan, Box<Unfit<'v, 'a>>> {
    let held = whole.pod.is_some_and(|pod| pod.node.is_some());
    let due = group::due(view, &whole);
    let smaller = !held && due.members.len() < whole.members.len();
    match place::place(&whole.request, view.rooms) {
        Placement::Placed { node, pools } => Ok(create(&whole, &node, &pools)),
        Placement::NoRoom { text, .. } if !smaller => Err(Box::new(Unfit { group: whole, text })),
        Placement::NoRoom { .. } => match place::place(&due.request, view.rooms) {
            Placement::Placed { node, pools } => Ok(create(&due, &node, &pools)),
            Placement::NoRoom { text, .. } => Err(Box::new(Unfit { group: due, text })),
        },
    }
}

/// The intents of the members that are due.
fn create(group: &Group<'_, '_>, node: &str, pools: &[String]) -> Plan {
    let mut plan = Plan {
        together: Some(group.request.clone()),
        ..Plan::default()
    };
    let due = group.members.iter().zip(pools).filter(|(m, _)| m.is_due());
    let due: Vec<_> = due.collect();
    if due.iter().any(|(member, _)| member.busy) {
        plan.after_write = true;
        return plan;
    }
    for (member, pool) in due {
        let (Some(class), Ok(origin)) = (member.ours(), &member.source) else {
            continue;
        };
        let key = ClaimKey::of(member.object);
        let owner = claim::owner(member.object, group.pod);
        let source = origin.as_ref().map(|origin| origin.source.clone());
        let spec = pv::placed(member.object, owner, class, node, pool, source);
        let name = key.volume();
        plan.notices.push((
            key.clone(),
            Notice {
                warning: false,
                reason: reason::PROVISIONING,
                text: format!("volume {name} goes to pool {pool} on {node}"),
            },
        ));
        if let Some(tries) = member.tries {
            let tries = Tries {
                apart: None,
                withheld: Default::default(),
                ..tries.clone()
            };
            plan.tries.insert(key.clone(), tries);
        }
        plan.steps.push(Step::Create {
            claim: key.clone(),
            volume: Box::new(pv::volume(&name, spec)),
        });
        let text = format!("waiting for the agent on {node}");
        plan = plan.wait(&key, ClaimWait::in_progress(text));
    }
    plan
}

/// A claim for which a node was chosen. It may have a volume there that no pod has seen.
fn with_node(view: &View<'_>, claim: &Claim<'_>, key: &ClaimKey, node: &str) -> Plan {
    let pods = match pods::chosen(view, node) {
        Ok(pods) => pods,
        // One of them can run elsewhere, so the claim must not hold it here.
        Err(Outlook::Elsewhere(_)) => return follow(view, claim, key, node),
        Err(Outlook::Waits(why) | Outlook::Impossible(why)) => {
            let plan = remembered(claim, key, |tries| tries.apart = None);
            return match claim.volume {
                Some(_) => plan,
                None => plan.wait(key, why),
            };
        }
        Err(Outlook::Chosen) => Vec::new(),
    };
    let plan = remembered(claim, key, |tries| tries.apart = None);
    if claim.volume.is_some() || !claim.is_due() {
        return plan;
    }
    if let Err(wait) = &claim.source {
        return sourceless(key, wait);
    }
    // Where the claims of one pod do not fit together, those of another may.
    let mut refused: Option<Plan> = None;
    let subject = claim;
    for pod in some_or_none(pods) {
        let group = group::group(view, subject, pod, Some(node));
        match place::place(&group.request, view.rooms) {
            Placement::Placed { node, pools } => {
                let mut made = create(&group, &node, &pools);
                for (key, tries) in plan.tries {
                    made.tries.entry(key).or_insert(tries);
                }
                return made;
            }
            Placement::NoRoom { claim, text } => {
                let instead = || group.home.clone().or_else(|| named(view, subject));
                refused.get_or_insert_with(|| refuse(view, &group, node, instead(), &claim, &text));
            }
        }
    }
    refused.unwrap_or(plan)
}

/// No pod can use the claim on the node that was chosen for it: another claim of its pod
/// was taken back from there, or the pod is gone and the next one goes elsewhere. The
/// claim follows, or the scheduler could choose no other node. It is given a moment,
/// since a scheduler that chooses writes one claim after the other.
fn follow(view: &View<'_>, claim: &Claim<'_>, key: &ClaimKey, node: &str) -> Plan {
    let before = claim.tries.cloned().unwrap_or_default();
    let since = before.apart.unwrap_or(view.now);
    let due = tries::after(since, APART).max(before.may_ask());
    let mut impossible = (view.pods.iter()).filter_map(|pod| pods::impossible(view, pod));
    let wait = match impossible.next() {
        Some(why) => why,
        None => ClaimWait::in_progress("waiting for the pod's other claims"),
    };
    let mut plan = Plan::default().wait(key, wait);
    let mut tries = before;
    if view.now < due {
        tries.apart = Some(since);
        plan.look_again(due);
    } else if claim.busy {
        plan.after_write = true;
        return plan;
    } else {
        tries.apart = None;
        let why = format!("no pod of the claim can run on {node}");
        tries.ask(node, &why, view.now);
        plan.steps.push(select(claim, key, named(view, claim)));
    }
    plan.tries.insert(key.clone(), tries);
    plan
}

/// The node that a pod of the claim names itself, if its claims fit there.
fn named(view: &View<'_>, claim: &Claim<'_>) -> Option<String> {
    let pods = pods::likeliest(view).into_iter();
    let mut possible = pods.filter(|pod| pods::impossible(view, pod).is_none());
    possible.find_map(|pod| {
        let node = pod.node.as_ref()?;
        let group = group::group(view, claim, Some(pod), Some(node));
        let placement = place::place(&group.request, view.rooms);
        matches!(placement, Placement::Placed { .. }).then(|| node.clone())
    })
}

/// A claim that waits for the first consumer, and for which no node was chosen: why the
/// scheduler finds none, or the node that the pod has without a scheduler.
fn without_node(view: &View<'_>, claim: &Claim<'_>, key: &ClaimKey) -> Plan {
    let Some(pod) = pods::likeliest(view).into_iter().next() else {
        return Plan::default();
    };
    let mut plan = Plan {
        for_room: vec![key.clone()],
        ..Plan::default()
    };
    if let Some(text) = claim.refusal() {
        // Otherwise it is told once the scheduler has chosen a node.
        if view.pods.iter().any(|pod| pod.node.is_some()) {
            plan.warn(key, reason::PROVISIONING_FAILED, text.clone());
            plan = plan.wait(key, text);
        }
        return plan;
    }
    if let Some(why) = pods::impossible(view, pod) {
        if pod.node.is_some() {
            plan.warn(key, reason::PROVISIONING_FAILED, why.text.clone());
        }
        return plan.wait(key, why);
    }
    if claim.source.is_err() {
        return plan;
    }
    let group = group::group(view, claim, Some(pod), None);
    plan.again = group.again;
    plan.together = Some(group.request.clone());
    if let Some(node) = named(view, claim) {
        return follow_pod(plan, claim, key, &node);
    }
    match place::place(&group.request, view.rooms) {
        Placement::Placed { node, .. } => match asked(claim) {
            Some(asked) => {
                let text = format!(
                    "{}; node {node} has room, if the pod may run there",
                    asked.why
                );
                plan.wait(key, ClaimWait::no_room(text))
            }
            // The scheduler will choose a node, if not for a pod that has none to choose.
            None => {
                let named = view.pods.iter().filter(|pod| pod.node.is_some());
                let why = named.filter_map(|pod| pods::impossible(view, pod)).next();
                plan.waits.insert(key.clone(), why);
                plan
            }
        },
        Placement::NoRoom { text, .. } => {
            let text = bound_to_node(&group, text);
            plan.warn(key, reason::NO_ROOM, format!("no node has room: {text}"));
            plan.wait(key, ClaimWait::no_room(text))
        }
    }
}

/// The scheduler was asked for another node than the named one, and has not answered.
fn asked<'v>(claim: &'v Claim<'_>) -> Option<&'v Asked> {
    claim.tries?.asked.as_ref()
}

/// Writes the node of a pod that has it without a scheduler (`spec.nodeName`) into its
/// claim, as the scheduler would.
fn follow_pod(mut plan: Plan, claim: &Claim<'_>, key: &ClaimKey, node: &str) -> Plan {
    if claim.busy {
        plan.after_write = true;
        return plan;
    }
    plan.steps.push(select(claim, key, Some(node.to_owned())));
    let text = format!("node {node} is chosen for it: the pod names it in spec.nodeName");
    plan.wait(key, ClaimWait::in_progress(text))
}

/// The text for claims that have no room on the only node that is possible.
fn bound_to_node(group: &Group<'_, '_>, text: String) -> String {
    match group.pod.and_then(|pod| Some((pod, pod.node.as_ref()?))) {
        None => text,
        Some((pod, node)) => format!(
            "{text}; pod {} names node {node} in spec.nodeName: free some room there, or remove \
             spec.nodeName, so that the scheduler chooses a node",
            pod.name
        ),
    }
}

/// The data that the claim is to start with is not there yet, or it may not have it.
fn sourceless(key: &ClaimKey, wait: &ClaimWait) -> Plan {
    let mut plan = Plan::default().wait(key, wait.clone());
    plan.warn(key, reason::PROVISIONING_FAILED, wait.text.clone());
    plan
}

/// A plan that changes nothing but what is remembered, where that is a change.
fn remembered(claim: &Claim<'_>, key: &ClaimKey, change: impl FnOnce(&mut Tries)) -> Plan {
    let mut plan = Plan::default();
    if let Some(before) = claim.tries {
        let mut tries = before.clone();
        change(&mut tries);
        if tries != *before {
            plan.tries.insert(key.clone(), tries);
        }
    }
    plan
}

fn select(claim: &Claim<'_>, key: &ClaimKey, node: Option<String>) -> Step {
    Step::Select {
        key: key.clone(),
        claim: Target::of(&claim.object.metadata),
        node,
    }
}

#[cfg(test)]
mod tests;
