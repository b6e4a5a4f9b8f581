//! Which of a claim's pods counts. A claim may be used by several pods, and some of them
//! may never run: one fits no node, another has a claim that is refused. A pod that can
//! run must not wait for them.

use super::view::{Claim, ClassOf, View};
use crate::volumes::{ClaimWait, Peers, claim::Pod};

/// How far a pod's other claims are, as seen from a claim on a node. The least is the best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// All of them are on the node, or go there.
    Chosen,
    /// One of them has to wait for something else first; it goes to the node then.
    Waits(ClaimWait),
    /// The named one is not on the node: the node was not chosen for this pod.
    Elsewhere(String),
    /// The pod cannot run before a person has changed something.
    Impossible(ClaimWait),
}

impl Outlook {
    fn rank(&self) -> u8 {
        match self {
            Outlook::Chosen => 0,
            Outlook::Waits(_) => 1,
            Outlook::Elsewhere(_) => 2,
            Outlook::Impossible(_) => 3,
        }
    }
}

/// The pod's other claim is awaited.
pub(super) fn other_claim(name: &str) -> ClaimWait {
    ClaimWait::in_progress(format!("waiting for the pod's other claim {name}"))
}

/// Why the pod cannot run before a person has changed something: its node does not exist,
/// or one of its other claims is refused.
pub(super) fn impossible(view: &View<'_>, pod: &Pod) -> Option<ClaimWait> {
    if let Some(node) = &pod.node
        && !view.nodes.contains_key(node)
    {
        let text = format!(
            "pod {} names node {node} in spec.nodeName, and there is no such node; correct it, \
             or remove it, so that the scheduler chooses one",
            pod.name
        );
        return Some(text.into());
    }
    view.others(pod).find_map(|(name, other)| {
        let other = other.filter(|other| !other.is_bound())?;
        let text = other.refusal()?;
        Some(format!("the pod's other claim {name} is refused: {text}").into())
    })
}

/// The pods of a claim, the likeliest to run first: those that can, and of these the ones
/// that have a node already.
pub(super) fn likeliest<'v>(view: &'v View<'_>) -> Vec<&'v Pod> {
    let mut pods: Vec<_> = view.pods.iter().collect();
    pods.sort_by_key(|pod| {
        let cannot = impossible(view, pod).is_some();
        (cannot, pod.node.is_none(), &pod.name)
    });
    pods
}

/// The pods for which `node` was chosen; if there are none, how far the pod is that comes
/// the closest. Nobody at all uses a claim for which no pod is named.
pub(super) fn chosen<'v>(view: &'v View<'_>, node: &str) -> Result<Vec<&'v Pod>, Outlook> {
    let looks: Vec<_> = likeliest(view)
        .into_iter()
        .map(|pod| (pod, outlook(view, pod, node)))
        .collect();
    let chosen = |(_, outlook): &&(&Pod, Outlook)| *outlook == Outlook::Chosen;
    let pods: Vec<_> = looks.iter().filter(chosen).map(|(pod, _)| *pod).collect();
    if !pods.is_empty() {
        return Ok(pods);
    }
    let closest = looks.into_iter().map(|(_, outlook)| outlook);
    match closest.min_by_key(Outlook::rank) {
        Some(outlook) => Err(outlook),
        None => Ok(pods),
    }
}

fn outlook(view: &View<'_>, pod: &Pod, node: &str) -> Outlook {
    if let Some(why) = impossible(view, pod) {
        return Outlook::Impossible(why);
    }
    if pod.node.as_deref().is_some_and(|its| its != node) {
        return Outlook::Elsewhere(view.claim.to_owned());
    }
    let mut waits = None;
    for (name, other) in view.others(pod) {
        let there = other.filter(|other| other.object.metadata.deletion_timestamp.is_none());
        let other = match (there, &pod.node) {
            (Some(other), _) => other,
            (None, None) => return Outlook::Elsewhere(name.to_owned()),
            (None, Some(_)) => return Outlook::Waits(other_claim(name)),
        };
        if other.is_bound() || !other.waits_for_pod() {
            continue;
        }
        // A pod that has its node gets its claims there, one after the other.
        let here = pod.node.is_some() || other.is_exposed() || other.selected() == Some(node);
        if !here {
            return Outlook::Elsewhere(name.to_owned());
        }
        waits = waits.or_else(|| holds_up(name, other, node));
    }
    waits.map_or(Outlook::Chosen, Outlook::Waits)
}

/// Why a claim that goes to the node cannot be placed yet, if so.
fn holds_up(name: &str, other: &Claim<'_>, node: &str) -> Option<ClaimWait> {
    if other.is_exposed() {
        return None;
    }
    if other.volume.is_some() && other.placed() != Some(node) {
        let text = format!("waiting for the old volume of {name} to be removed");
        return Some(ClaimWait::in_progress(text));
    }
    let wait = other.source.as_ref().err()?;
    Some(ClaimWait {
        kind: wait.kind,
        text: format!("the pod's other claim {name}: {wait}"),
    })
}

/// Whether the claim's volume may get its PersistentVolume, which pins every pod that uses
/// the claim to the node: all other claims of a pod for which the node was chosen must have
/// their volumes there. One such pod is enough, since another may wait for ever.
pub fn peers(view: &View<'_>) -> Peers {
    let Some(claim) = view.subject().filter(|claim| claim.waits_for_pod()) else {
        return Peers::Ready;
    };
    let Some(node) = claim.placed() else {
        return Peers::Ready;
    };
    let pods = match chosen(view, node) {
        Ok(pods) => pods,
        Err(Outlook::Elsewhere(name)) => return Peers::Waiting(other_claim(&name)),
        Err(Outlook::Waits(why) | Outlook::Impossible(why)) => return Peers::Waiting(why),
        Err(Outlook::Chosen) => return Peers::Ready,
    };
    let unready = |pod: &&Pod| {
        let mut others = view.others(pod);
        let unready = others.find(|(_, other)| !other.is_some_and(|other| is_ready(other, node)));
        unready.map(|(name, _)| name.to_owned())
    };
    let unready: Vec<_> = pods.iter().map(unready).collect();
    match unready.first() {
        Some(Some(name)) if unready.iter().all(Option::is_some) => {
            Peers::Waiting(other_claim(name))
        }
        _ => Peers::Ready,
    }
}

/// Whether nothing of a claim is awaited any more on the node.
fn is_ready(other: &Claim<'_>, node: &str) -> bool {
    let made = |claim: &Claim<'_>| {
        let status = claim.volume.and_then(|v| v.status.as_ref());
        status.is_some_and(|s| s.phase == berth_api::VolumePhase::Ready)
    };
    match other.class {
        ClassOf::Ours(_) if !other.is_bound() && other.waits_for_pod() => {
            made(other) && (other.is_exposed() || other.placed() == Some(node))
        }
        _ => true,
    }
}
