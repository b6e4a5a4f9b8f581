//! Which claims are placed together, and the request for them.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::Backend;
use jiff::Timestamp;

use super::view::{Claim, View};
use crate::{
    place::{Request, Want},
    room::SetKey,
    snapshots::restore::Origin,
    volumes::claim::{self, Pod},
};

/// Claims that go to one node.
#[derive(Clone, Debug)]
pub(super) struct Group<'v, 'a> {
    /// The pod that they are placed for.
    pub(super) pod: Option<&'v Pod>,
    /// The claims; the one that is decided about comes first.
    pub(super) members: Vec<&'v Claim<'a>>,
    /// Node of their data source, if they have one.
    pub(super) home: Option<String>,
    /// When the first pool that is left out is tried again.
    pub(super) again: Option<Timestamp>,
    /// The request for all of them.
    pub(super) request: Request,
}

/// The claims that are placed with the claim in question, for `pod`, on `node` if it is
/// known.
///
/// All open claims of the pod are asked for together, those too whose turn is later: a
/// claim of a class that binds at once must not take a node on which the others have no
/// room.
pub(super) fn group<'v, 'a>(
    view: &'v View<'a>,
    subject: &'v Claim<'a>,
    pod: Option<&'v Pod>,
    node: Option<&str>,
) -> Group<'v, 'a> {
    let mut members = vec![subject];
    let mut home_of_pod = None;
    for (_, other) in pod.into_iter().flat_map(|pod| view.others(pod)) {
        let Some(other) = other else { continue };
        if let Some(placed) = other.placed() {
            // What pods may have seen holds the pod to its node. What they have not goes
            // back, if its class waits for the pod and the pod goes elsewhere.
            if other.is_bound() || other.is_exposed() || !other.waits_for_pod() {
                home_of_pod.get_or_insert(placed);
            }
        } else if is_open(other) {
            members.push(other);
        }
    }
    let pods_node = pod.and_then(|pod| pod.node.as_deref());
    let node = node.or(pods_node).or(home_of_pod).map(str::to_owned);
    request(view, pod, members, node)
}

/// The same group without the claims whose turn is later.
pub(super) fn due<'v, 'a>(view: &View<'a>, group: &Group<'v, 'a>) -> Group<'v, 'a> {
    let due = group.members.iter().copied().filter(|m| m.is_due());
    request(view, group.pod, due.collect(), group.request.node.clone())
}

/// Whether a volume will be made for a claim.
fn is_open(other: &Claim<'_>) -> bool {
    other.ours().is_some()
        && !other.is_bound()
        && other.volume.is_none()
        && other.refusal().is_none()
        && other.source.is_ok()
        && other.object.metadata.deletion_timestamp.is_none()
}

fn request<'v, 'a>(
    view: &View<'a>,
    pod: Option<&'v Pod>,
    members: Vec<&'v Claim<'a>>,
    node: Option<String>,
) -> Group<'v, 'a> {
    let first = members.first().copied();
    let owner = first.and_then(|first| claim::owner(first.object, pod));
    let set: Option<SetKey> = first.zip(owner.as_ref()).map(|(first, owner)| {
        let namespace = first.object.metadata.namespace.clone();
        (
            namespace.unwrap_or_default(),
            owner.kind.clone(),
            owner.name.clone(),
        )
    });
    let mut again: Option<Timestamp> = None;
    let mut wants = Vec::new();
    for member in &members {
        let left_out: BTreeMap<&str, Timestamp> = member
            .tries
            .map(|tries| tries.left_out(view.now))
            .unwrap_or_default();
        again = again.into_iter().chain(left_out.values().copied()).min();
        let backend: Option<Backend> = member.ours().and_then(|class| class.backend);
        wants.push(Want {
            claim: member.object.metadata.name.clone().unwrap_or_default(),
            size: claim::size(member.object).unwrap_or_default(),
            backend,
            mode: claim::mode(member.object),
            source: source(member).map(|origin| origin.pool.clone()),
            avoid: left_out.into_keys().map(str::to_owned).collect(),
        });
    }
    let home = members.iter().find_map(|member| source(member));
    Group {
        pod,
        home: home.map(|origin| origin.node.clone()),
        again,
        request: Request {
            node,
            nodes: allowed(view, &members),
            set,
            ordinal: owner.map(|owner| owner.ordinal),
            wants,
        },
        members,
    }
}

/// The data that a claim starts with.
fn source<'c>(member: &'c Claim<'_>) -> Option<&'c Origin> {
    member.source.as_ref().ok()?.as_ref()
}

/// Nodes that the classes of all members allow; all when absent.
fn allowed(view: &View<'_>, members: &[&Claim<'_>]) -> Option<BTreeSet<String>> {
    members
        .iter()
        .filter_map(|member| member.ours()?.allowed(view.nodes))
        .reduce(|all, more| all.intersection(&more).cloned().collect())
}
