//! Which pool a claim's volume goes to.
//!
//! The node is the scheduler's choice (or, for a class that binds at once, the
//! node with the best answer here). On the node, all claims of one pod that have
//! no volume yet are placed together or not at all. The pool of a claim is, in
//! this order:
//!
//! 1. one that is granted to the node, takes new volumes, can carry the class's
//!    backend and has room;
//! 2. with the fewest *other* ordinals of the same set, so that one disk's
//!    failure meets as few replicas as possible;
//! 3. with a volume of the same pod: a replica needs all of its claims, so
//!    spreading them over disks would only make it fail with either disk;
//! 4. with the most room;
//! 5. the smallest id, so that the answer is always the same.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::{Backend, Bytes, VolumeMode};

use crate::{
    grants::Standing,
    room::{Room, SetKey},
};

/// Assignments that are tried for one pod before giving up. Backtracking only
/// matters for several claims on nearly full disks.
const TRIES: u32 = 10_000;

/// One claim that needs a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Name of the claim.
    pub claim: String,
    /// Size in bytes.
    pub size: u64,
    /// Backend that the class demands.
    pub backend: Option<Backend>,
    /// Directory tree or block device.
    pub mode: VolumeMode,
    /// Pool of the data source, if there is one: the copy is made there.
    pub source: Option<String>,
    /// Pools that failed the claim a short while ago.
    pub avoid: BTreeSet<String>,
}

/// The claims of one pod that are placed together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The node that the scheduler chose, if it did.
    pub node: Option<String>,
    /// Nodes to choose from otherwise; all when absent.
    pub nodes: Option<BTreeSet<String>>,
    /// The set that the pod belongs to.
    pub set: Option<SetKey>,
    /// The pod's ordinal in the set.
    pub ordinal: Option<i32>,
    /// The claims to place, all on one node.
    pub wants: Vec<Want>,
}

/// Where the claims go, or why they cannot go anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Pool of each claim, in the order of the request; all on one node.
    Placed {
        /// The node that holds all the pools.
        node: String,
        /// Id of each claim's pool.
        pools: Vec<String>,
    },
    /// There is no room for all of them.
    NoRoom {
        /// The first claim (by size) that finds none.
        claim: String,
        /// Short, for people: `largest free pool 7.2Gi < 10Gi`.
        text: String,
    },
}

/// Places the claims of one pod.
pub fn place(request: &Request, rooms: &BTreeMap<String, Room>) -> Placement {
    let possible = |node: &String| match &request.node {
        Some(only) => node == only,
        None => (request.nodes.as_ref()).is_none_or(|all| all.contains(node)),
    };
    let mut nodes: BTreeMap<&str, BTreeMap<&str, &Room>> = BTreeMap::new();
    for (id, room) in rooms.iter().filter(|(_, room)| possible(&room.node)) {
        nodes.entry(&room.node).or_default().insert(id, room);
    }
    let mut order: Vec<usize> = (0..request.wants.len()).collect();
    order.sort_by_key(|i| {
        let want = &request.wants[*i];
        (std::cmp::Reverse(want.size), &want.claim)
    });
    let best = nodes
        .into_iter()
        .filter_map(|(node, pools)| {
            let others: usize = pools
                .values()
                .map(|r| r.others(request.set.as_ref(), request.ordinal))
                .sum();
            let free: u64 = pools
                .values()
                .map(|r| r.free())
                .fold(0, u64::saturating_add);
            let mut search = Search {
                request,
                order: &order,
                pools: &pools,
                chosen: vec![""; request.wants.len()],
                tries: TRIES,
            };
            let key = (others, std::cmp::Reverse(free), node);
            search.from(0).then(|| (key, owned(&search.chosen)))
        })
        .min();
    match best {
        Some(((_, _, node), pools)) => Placement::Placed {
            node: node.to_owned(),
            pools,
        },
        None => no_room(request, &order, rooms),
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// Whether the pool has a backend for the claim.
///
/// Where the class demands none, it must be one that limits sizes.
pub fn carries(room: &Room, backend: Option<Backend>, mode: VolumeMode) -> bool {
    let backend = match mode {
        VolumeMode::Block => Some(Backend::Image),
        VolumeMode::Filesystem => backend,
    };
    match backend {
        Some(kind) => room.backends.contains(&kind),
        None => room.backends.iter().any(|kind| *kind != Backend::Directory),
    }
}

struct Search<'a> {
    request: &'a Request,
    order: &'a [usize],
    pools: &'a BTreeMap<&'a str, &'a Room>,
    chosen: Vec<&'a str>,
    tries: u32,
}

impl Search<'_> {
    /// Places the claims of `order` from the `depth`-th on; depth first in the
    /// order of preference.
    fn from(&mut self, depth: usize) -> bool {
        let Some(&index) = self.order.get(depth) else {
            return true;
        };
        let want = &self.request.wants[index];
        let (set, ordinal) = (self.request.set.as_ref(), self.request.ordinal);
        let mut candidates: Vec<_> = self
            .pools
            .iter()
            .filter(|(id, room)| {
                carries(room, want.backend, want.mode)
                    && !want.avoid.contains(**id)
                    && want.source.as_ref().is_none_or(|home| home == *id)
            })
            .filter_map(|(id, room)| {
                let placed = &self.order[..depth];
                let here = placed.iter().filter(|i| self.chosen[**i] == *id);
                let used: u64 = here.clone().map(|i| self.request.wants[*i].size).sum();
                let rest = room.free().checked_sub(used)?;
                let together = here.count() > 0 || room.has(set, ordinal);
                let key = (
                    room.others(set, ordinal),
                    !together,
                    std::cmp::Reverse(rest),
                    *id,
                );
                (rest >= want.size).then_some(key)
            })
            .collect();
        candidates.sort_unstable();
        for (.., id) in candidates {
            if self.tries == 0 {
                return false;
            }
            self.tries -= 1;
            self.chosen[index] = id;
            if self.from(depth + 1) {
                return true;
            }
        }
        self.chosen[index] = "";
        false
    }
}

fn no_room(request: &Request, order: &[usize], rooms: &BTreeMap<String, Room>) -> Placement {
    let near: Vec<(&String, &Room)> = rooms
        .iter()
        .filter(|(_, room)| match (&request.node, &request.nodes) {
            (Some(node), _) => room.node == *node,
            (None, Some(nodes)) => nodes.contains(&room.node),
            (None, None) => true,
        })
        .collect();
    for index in order {
        let want = &request.wants[*index];
        let text = why_not(want, &near);
        if let Some(text) = text {
            return Placement::NoRoom {
                claim: want.claim.clone(),
                text,
            };
        }
    }
    // Each alone would fit somewhere.
    let all = request.wants.iter().map(|w| w.size).sum();
    let first = order.first().map(|i| request.wants[*i].claim.clone());
    Placement::NoRoom {
        claim: first.unwrap_or_default(),
        text: format!(
            "no node has pools for all {} claims of the pod together ({})",
            request.wants.len(),
            Bytes(all).human()
        ),
    }
}

/// Why no pool can take this claim by itself; `None` where one can.
fn why_not(want: &Want, near: &[(&String, &Room)]) -> Option<String> {
    if near.is_empty() {
        return Some("no pool here; make one with `berth-agent pools init`".to_owned());
    }
    if let Some(home) = &want.source
        && !near.iter().any(|(id, _)| *id == home)
    {
        return Some(format!("its source is in pool {home}, on another node"));
    }
    let able: Vec<_> = near
        .iter()
        .filter(|(id, _)| want.source.as_ref().is_none_or(|home| home == *id))
        .filter(|(id, room)| carries(room, want.backend, want.mode) && !want.avoid.contains(*id))
        .collect();
    if able.is_empty() && !want.avoid.is_empty() {
        return Some(
            "every pool here failed to make it, and is tried again after a pause: see the \
             claim's events; if it stays so, delete the claim and create it again"
                .to_owned(),
        );
    }
    if able.is_empty() {
        return Some(match (want.mode, want.backend) {
            (VolumeMode::Block, _) => "no pool can carry a block device".to_owned(),
            (_, Some(kind)) => format!("no pool can carry backend {}", kind.as_str()),
            (_, None) => "no pool has a usable backend".to_owned(),
        });
    }
    let open: Vec<_> = able
        .iter()
        .filter(|(_, room)| room.standing == Standing::Granted)
        .collect();
    let Some(most) = open.iter().map(|(_, room)| room.free()).max() else {
        let (id, room) = able.first()?;
        return Some(match able.len() {
            1 => format!("pool {id} is not available: {}", room.standing.reason()),
            n => format!(
                "none of {n} pools is available: {id} {}, ...",
                room.standing.reason()
            ),
        });
    };
    (most < want.size).then(|| {
        format!(
            "largest free pool {} < {}",
            Bytes(most).human(),
            Bytes(want.size).human()
        )
    })
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
