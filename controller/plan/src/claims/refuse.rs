//! A node was chosen, and it has no room for the claims of the pod. The scheduler is
//! asked again, once it can know why.

use std::collections::BTreeMap;

use berth_api::names::reason;

use super::{
    group::Group,
    key::{ClaimKey, ClassOnNode},
    plan::{Plan, Step},
    tries::Tries,
    view::{Claim, View},
};
use crate::{
    capacity,
    place::{self, Placement, Request},
    target::Target,
    volumes::{ClaimWait, claim},
};

/// What to do about a group for which `node` was chosen, where the claim `lacks` is the
/// first that finds no room; `text` says why. `instead` is a node that need not be asked
/// for: the one that has the data source, or that a pod names.
pub(super) fn refuse(
    view: &View<'_>,
    group: &Group<'_, '_>,
    node: &str,
    instead: Option<String>,
    lacks: &str,
    text: &str,
) -> Plan {
    let mut plan = Plan {
        again: group.again,
        together: Some(group.request.clone()),
        ..Plan::default()
    };
    let home = instead.as_deref().filter(|home| *home != node);
    // No scheduler would answer for pods that name their node.
    let fixed = group
        .pod
        .filter(|_| view.pods.iter().all(|pod| pod.node.is_some()));
    let fixed = fixed.filter(|_| home.is_none());
    let advice = match (fixed, home) {
        (Some(pod), _) => format!(
            "pod {} names the node in spec.nodeName: free some room there, or remove \
             spec.nodeName, so that the scheduler chooses a node",
            pod.name
        ),
        (None, Some(home)) if group.home.is_some() => {
            format!("node {home} has its source, and is chosen instead")
        }
        (None, Some(home)) => format!("a pod names node {home}, which is chosen instead"),
        (None, None) => elsewhere(view, &group.request, node),
    };
    let due: Vec<(ClaimKey, &Claim<'_>)> = (group.members.iter())
        .filter(|member| member.is_due() || member.selected() == Some(node))
        // One of another pod too may be right where it is.
        .filter(|member| !member.shared)
        .map(|member| (ClaimKey::of(member.object), *member))
        .collect();
    for (key, _) in &due {
        let note = format!("node {node}: {text}; {advice}");
        plan.warn(key, reason::NO_ROOM, note);
        plan.for_room.push(key.clone());
        plan = plan.wait(key, ClaimWait::no_room(text));
    }
    let asked: Vec<_> = due
        .into_iter()
        .filter(|(_, member)| fixed.is_none() && member.selected() == Some(node))
        .collect();
    if home.is_none() {
        let mut bounds = view.withheld.clone();
        for (key, member) in &asked {
            if key.name == lacks {
                withhold(view, &mut plan, &mut bounds, (key, member), node);
            }
        }
        publish(view, &mut plan, &bounds, &asked, node);
    }
    if plan.steps.is_empty() {
        let why = format!("node {node}: {text}");
        for (key, member) in &asked {
            ask(view, &mut plan, (key, member), node, home, &why);
        }
    }
    plan
}

/// Where the pod could go instead, for people: only the scheduler knows where it may run.
fn elsewhere(view: &View<'_>, request: &Request, node: &str) -> String {
    let anywhere = Request {
        node: None,
        ..request.clone()
    };
    match place::place(&anywhere, view.rooms) {
        Placement::Placed { node: other, .. } if other != node => {
            format!("the scheduler is asked for another node ({other} has room)")
        }
        _ => "the scheduler is asked for another node, and none has room: free some room, add a \
              pool, or ask for less"
            .to_owned(),
    }
}

/// Where the true figures would have the scheduler choose the node again, as it did
/// before, it is told less, for a while.
fn withhold(
    view: &View<'_>,
    plan: &mut Plan,
    bounds: &mut BTreeMap<ClassOnNode, u64>,
    (key, member): (&ClaimKey, &Claim<'_>),
    node: &str,
) {
    let (Some(class), Some(size)) = (member.ours(), claim::size(member.object)) else {
        return;
    };
    let mut tries = member.tries.cloned().unwrap_or_default();
    let again = tries.asked.as_ref().is_some_and(|asked| asked.node == node);
    let of = (class.name.clone(), node.to_owned());
    let again = again || tries.withheld.contains_key(&of);
    let told = bounds.get(&of).copied().unwrap_or(u64::MAX);
    let figure = capacity::largest(class, node, view.rooms).min(told);
    if !again || figure < size {
        return;
    }
    let until = tries.withhold(of, size, view.now);
    for (of, withheld) in &tries.withheld {
        let most = withheld.below.saturating_sub(1);
        let bound = bounds.entry(of.clone()).or_insert(most);
        *bound = most.min(*bound);
    }
    plan.tries.insert(key.clone(), tries);
    plan.look_again(until);
}

/// The figures that the scheduler must know before it is asked.
fn publish(
    view: &View<'_>,
    plan: &mut Plan,
    bounds: &BTreeMap<ClassOnNode, u64>,
    asked: &[(ClaimKey, &Claim<'_>)],
    node: &str,
) {
    for (_, member) in asked {
        let Some(class) = member.ours() else { continue };
        let of = (class.name.clone(), node.to_owned());
        let bound = bounds.get(&of).copied().unwrap_or(u64::MAX);
        let figure = capacity::largest(class, node, view.rooms).min(bound);
        let step = Step::Publish(of.clone());
        if view.told.get(&of).is_some_and(|told| *told > figure) && !plan.steps.contains(&step) {
            plan.steps.push(step);
        }
    }
}

/// Takes the node from one claim, or names the node of its source; not too often.
fn ask(
    view: &View<'_>,
    plan: &mut Plan,
    (key, member): (&ClaimKey, &Claim<'_>),
    node: &str,
    home: Option<&str>,
    why: &str,
) {
    let before = member.tries.cloned().unwrap_or_default();
    let mut tries: Tries = plan.tries.remove(key).unwrap_or(before);
    let due = tries.may_ask();
    if due > view.now {
        plan.look_again(due);
    } else if member.busy {
        plan.after_write = true;
    } else {
        tries.ask(node, why, view.now);
        plan.steps.push(Step::Select {
            key: key.clone(),
            claim: Target::of(&member.object.metadata),
            node: home.map(str::to_owned),
        });
    }
    plan.tries.insert(key.clone(), tries);
}
