//! Which node may use which pool: one at a time.
//!
//! A pool is a disk with an identity, and disks move. From what the agents report, each
//! pool gets a grant: its node, a count of grants, and whether new volumes may go there.
//!
//! Two places may report one pool: two copies of a disk, a disk that moved while its
//! old node cannot report that, or a node that reports falsely. The place that holds the
//! grant keeps it for as long as its own report stands, so no node can take another
//! node's disks out of service. The second place is refused, and the Pool's condition
//! `Unique` names it. Only where neither place holds the grant is the pool in *conflict*,
//! and granted to nobody.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::{Backend, NodePool, NodeStorageStatus, Pool, PoolHealth, names::reason};

use crate::node::Node;

/// What is known of pools: objects, reports and nodes.
#[derive(Debug, Default)]
pub struct View {
    /// Pool objects by id.
    pub pools: BTreeMap<String, Pool>,
    /// What each node's agent reports, by node.
    pub reports: BTreeMap<String, NodeStorageStatus>,
    /// Every Node object, by name.
    pub nodes: BTreeMap<String, Node>,
}

/// Whether a pool can be used, and if not, why: the reason of its Ready condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Usable, and takes new volumes.
    Granted,
    /// Usable, but cordoned by a person: takes no new volumes.
    Cordoned,
    /// Usable, as far as anybody knows, on a node that is not ready: takes no new volumes.
    Silent,
    /// Read-only, damaged or unsupported.
    Unhealthy,
    /// The pool's directory is there, but its disk is not mounted on it.
    LostMount,
    /// No node reports it.
    Missing,
    /// Two places report it, and neither holds the grant.
    Conflict,
    /// A person declared the disk permanently lost (`spec.lost`).
    DeclaredLost,
}

impl Standing {
    /// The reason of the Ready condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Granted => reason::GRANTED,
            Self::Cordoned => reason::CORDONED,
            Self::Silent => reason::NODE_NOT_READY,
            Self::Unhealthy => reason::UNHEALTHY,
            Self::LostMount => reason::LOST_MOUNT,
            Self::Missing => reason::MISSING,
            Self::Conflict => reason::CONFLICT,
            Self::DeclaredLost => reason::DECLARED_LOST,
        }
    }

    /// Whether the volumes in the pool can be used.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Granted | Self::Cordoned)
    }

    /// Whether pods may be steered to the node for this pool. A read-only pool keeps its
    /// label: its pods may well want to read, and the agent has the last word. So does that
    /// of a node that is not ready, which the scheduler passes over anyway.
    pub(crate) fn is_labelled(self) -> bool {
        matches!(
            self,
            Self::Granted | Self::Cordoned | Self::Silent | Self::Unhealthy
        )
    }
}

/// The grant of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// The one node that may use it.
    pub node: Option<String>,
    /// Grows by one each time the pool is granted to another node.
    pub epoch: i64,
    /// Whether the pool can be used, and if not, why.
    pub standing: Standing,
    /// Message of the Ready condition: what is wrong and what to do.
    pub message: String,
    /// What the agent of the granted node reports about the pool.
    pub report: Option<NodePool>,
    /// Other places that report the pool (`node:path`) and are refused.
    pub refused: Vec<String>,
}

impl Grant {
    /// The one node that is known to have the pool's disk; `None` while no node, or more
    /// than one, reports it.
    pub fn found_on(&self) -> Option<&str> {
        let lost = matches!(
            self.standing,
            Standing::Conflict | Standing::Missing | Standing::DeclaredLost
        );
        self.node.as_deref().filter(|_| !lost)
    }

    /// Backends that the pool can carry.
    pub fn backends(&self) -> &[Backend] {
        self.report.as_ref().map_or(&[], |r| &r.backends)
    }
}

/// Grants every pool that an object or a report names.
pub fn grant(view: &View) -> BTreeMap<String, Grant> {
    let mut places: BTreeMap<&str, Vec<(&str, &NodePool)>> = BTreeMap::new();
    for (node, report) in &view.reports {
        // The report of a node that was removed from the cluster no longer counts.
        if !view.nodes.contains_key(node) {
            continue;
        }
        for pool in &report.pools {
            if let Some(id) = &pool.id {
                places.entry(id).or_default().push((node, pool));
            }
        }
    }
    let ids: BTreeSet<&str> = view
        .pools
        .keys()
        .map(String::as_str)
        .chain(places.keys().copied())
        .collect();
    ids.into_iter()
        .map(|id| {
            let places = places.get(id).map_or(&[][..], Vec::as_slice);
            (
                id.to_owned(),
                grant_one(view.pools.get(id), places, &view.nodes),
            )
        })
        .collect()
}

fn grant_one(
    pool: Option<&Pool>,
    places: &[(&str, &NodePool)],
    nodes: &BTreeMap<String, Node>,
) -> Grant {
    let spec = pool.map(|p| p.spec.clone()).unwrap_or_default();
    let status = pool.and_then(|p| p.status.clone()).unwrap_or_default();
    // A directory that lost its disk still names the pool that it expects.
    let (lost, present): (Vec<_>, Vec<_>) = places
        .iter()
        .partition(|(_, pool)| pool.health == PoolHealth::LostMount);
    let holder = status.node.as_deref();
    // One node may report a pool twice; the path shows which of the two was granted.
    let mut granted: Vec<_> = present
        .iter()
        .copied()
        .filter(|(n, _)| holder == Some(n))
        .collect();
    if granted.len() > 1 {
        granted.retain(|(_, pool)| status.path.as_ref() == Some(&pool.path));
    }
    let (present, refused) = match granted.as_slice() {
        [one] => {
            let others = present.iter().filter(|it| *it != one).copied().collect();
            (granted, others)
        }
        _ => (present, Vec::new()),
    };
    let place = |(n, pool): &(&str, &NodePool)| format!("{n}:{}", pool.path);
    let refused = refused.iter().map(place).collect();
    let (node, epoch) = match (holder, present.as_slice()) {
        (_, [(node, _)]) if holder != Some(node) => (Some(*node), status.epoch + 1),
        _ => (holder, status.epoch),
    };
    let at_home = |(n, _): &&(&str, &NodePool)| Some(*n) == node;
    let report = present
        .iter()
        .find(at_home)
        .or_else(|| lost.iter().find(at_home));
    let here = node.unwrap_or("no node");
    let (standing, message) = if spec.lost {
        let text =
            "declared lost: claims on it can be deleted without erasing their data".to_owned();
        (Standing::DeclaredLost, text)
    } else if present.len() > 1 {
        let all: Vec<_> = present.iter().map(place).collect();
        let text = format!(
            "reported by {}; unmount the copy, or, if the disk moved and its old node is gone, delete the old Node object",
            all.join(" and ")
        );
        (Standing::Conflict, text)
    } else if let Some((_, report)) = present.first() {
        let says = report.message.clone().unwrap_or_default();
        let silent = nodes.get(here).and_then(|node| node.silent);
        match (report.health, silent) {
            (PoolHealth::Healthy, Some(since)) => (
                Standing::Silent,
                format!(
                    "node {here} is not ready since {since}: look at the node; its volumes stay, and no new ones are placed here"
                ),
            ),
            (PoolHealth::Healthy, None) if spec.cordoned => (
                Standing::Cordoned,
                format!("on {here}; cordoned: no new volumes are placed here"),
            ),
            (PoolHealth::Healthy, None) => (Standing::Granted, format!("on {here}")),
            (health, _) if says.is_empty() => {
                (Standing::Unhealthy, format!("{health:?} on {here}"))
            }
            _ => (Standing::Unhealthy, says),
        }
    } else if let Some((_, report)) = report {
        let text = report.message.clone().unwrap_or_else(|| {
            format!(
                "{} on {here} is not the disk that it was; mount it again",
                report.path
            )
        });
        (Standing::LostMount, text)
    } else {
        let text = format!(
            "no node reports it (last on {here}); bring the disk or its node back, or set spec.lost"
        );
        (Standing::Missing, text)
    };
    Grant {
        node: node.map(str::to_owned),
        epoch,
        standing,
        message,
        report: report.map(|(_, pool)| (*pool).clone()),
        refused,
    }
}
