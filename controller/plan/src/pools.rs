//! Which node may use which pool: one at a time.
//!
//! A pool is a disk with an identity, and disks move. What the agents report is
//! turned into a grant: the pool's node, a count of grants, and whether new
//! volumes may go there.
//!
//! Two places may report one pool: two copies of a disk, a disk that moved while its
//! old node cannot say so, or a node that tells lies. The place that holds the grant
//! keeps it, with all that comes of it, for as long as its own report stands: one
//! node's word takes no other node's disks out of service. The newcomer is refused, and
//! people are told. Only where no place holds the grant is the pool a *conflict*, and
//! nobody's.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::{
    Backend, Bytes, NodePool, NodeStorageStatus, Pool, PoolHealth, PoolStatus,
    condition::{self, Said},
    names::{self, reason},
    pace::Hurry,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::room::Room;

/// What is known of pools: objects, reports and nodes.
#[derive(Debug, Default)]
pub struct View {
    /// Pool objects by id.
    pub pools: BTreeMap<String, Pool>,
    /// What each node's agent reports, by node.
    pub reports: BTreeMap<String, NodeStorageStatus>,
    /// Labels of every Node object, by node.
    pub nodes: BTreeMap<String, BTreeMap<String, String>>,
}

/// Why a pool is as it is; the reason of its Ready condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Usable, and takes new volumes.
    Granted,
    /// Usable; a person wants no new volumes there.
    Cordoned,
    /// Read-only, damaged or unsupported.
    Unhealthy,
    /// The directory is not the mount that it was.
    LostMount,
    /// No node reports it.
    Missing,
    /// Two places report it, and neither holds the grant.
    Conflict,
    /// A person declared the disk gone for ever.
    DeclaredLost,
}

impl Standing {
    /// The reason of the Ready condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Granted => reason::GRANTED,
            Self::Cordoned => reason::CORDONED,
            Self::Unhealthy => reason::UNHEALTHY,
            Self::LostMount => reason::LOST_MOUNT,
            Self::Missing => reason::MISSING,
            Self::Conflict => reason::CONFLICT,
            Self::DeclaredLost => reason::DECLARED_LOST,
        }
    }

    /// Volumes that are there can be used.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Granted | Self::Cordoned)
    }

    /// Pods may be steered to the node for this pool. A read-only pool keeps its
    /// label: its pods may well want to read, and the agent has the last word.
    fn is_labelled(self) -> bool {
        matches!(self, Self::Granted | Self::Cordoned | Self::Unhealthy)
    }
}

/// What became of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// The one node that may use it.
    pub node: Option<String>,
    /// Counts the grants.
    pub epoch: i64,
    /// Why it is as it is.
    pub standing: Standing,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// What the granted node's agent reports of it.
    pub report: Option<NodePool>,
    /// Where else it is reported (`node:path`), to no effect.
    pub refused: Vec<String>,
}

impl Grant {
    /// The one node that is known to have the pool's disk; nothing while no node, or more
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
        // The word of a node that was removed from the cluster no longer counts.
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
            (id.to_owned(), grant_one(view.pools.get(id), places))
        })
        .collect()
}

fn grant_one(pool: Option<&Pool>, places: &[(&str, &NodePool)]) -> Grant {
    let spec = pool.map(|p| p.spec.clone()).unwrap_or_default();
    let status = pool.and_then(|p| p.status.clone()).unwrap_or_default();
    // A directory that lost its disk still tells which pool it expects.
    let (lost, present): (Vec<_>, Vec<_>) = places
        .iter()
        .partition(|(_, pool)| pool.health == PoolHealth::LostMount);
    let holder = status.node.as_deref();
    // One node may report a pool twice; the path tells which of the two was granted.
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
        let text = "declared lost for ever: claims on it can be deleted without erasing".to_owned();
        (Standing::DeclaredLost, text)
    } else if present.len() > 1 {
        let all: Vec<_> = present.iter().map(place).collect();
        let text = format!(
            "reported by {}; unmount the copy, or, where the disk moved and its old node is gone, delete the old Node object",
            all.join(" and ")
        );
        (Standing::Conflict, text)
    } else if let Some((_, report)) = present.first() {
        let says = report.message.clone().unwrap_or_default();
        match report.health {
            PoolHealth::Healthy if spec.cordoned => (
                Standing::Cordoned,
                format!("on {here}; cordoned: no new volumes are placed here"),
            ),
            PoolHealth::Healthy => (Standing::Granted, format!("on {here}")),
            health if says.is_empty() => (Standing::Unhealthy, format!("{health:?} on {here}")),
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

/// Something for people to read, on the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// It needs attention.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub text: String,
}

/// One write that brings Pool objects and node labels in line with the grants.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A pool is reported that has no object yet.
    Create {
        /// The pool's id, which is the object's name.
        id: String,
    },
    /// The object's status is not what it should be.
    Status {
        /// The pool's id.
        id: String,
        /// The whole status.
        status: Box<PoolStatus>,
        /// How soon it must be known.
        hurry: Hurry,
    },
    /// Pool labels of a node: those to set, and those to take away.
    Labels {
        /// The node.
        node: String,
        /// Label keys to set to [`names::POOL_LABEL_VALUE`].
        set: BTreeSet<String>,
        /// Label keys to remove.
        remove: BTreeSet<String>,
    },
}

/// The writes that are due. A label follows the pool's *written* grant, never
/// one that is still to be written: otherwise two leaders could label two nodes.
pub fn writes(
    view: &View,
    grants: &BTreeMap<String, Grant>,
    rooms: &BTreeMap<String, Room>,
    now: Timestamp,
) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut wanted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (id, grant) in grants {
        let Some(pool) = view.pools.get(id) else {
            writes.push(Write::Create { id: id.clone() });
            continue;
        };
        let old = pool.status.clone().unwrap_or_default();
        let new = status(&old, grant, rooms.get(id), pool.metadata.generation, now);
        let granted = old.node == grant.node && old.epoch == grant.epoch;
        if new != old {
            writes.push(Write::Status {
                id: id.clone(),
                hurry: hurry(&old, &new),
                status: Box::new(new),
            });
        }
        if granted
            && grant.standing.is_labelled()
            && let Some(node) = &grant.node
        {
            let labels = wanted.entry(node).or_default();
            labels.insert(names::pool_label(id));
        }
    }
    let none = BTreeSet::new();
    for (node, labels) in &view.nodes {
        let wanted = wanted.get(node.as_str()).unwrap_or(&none);
        let set: BTreeSet<String> = wanted
            .iter()
            .filter(|key| labels.get(*key).map(String::as_str) != Some(names::POOL_LABEL_VALUE))
            .cloned()
            .collect();
        let remove: BTreeSet<String> = labels
            .keys()
            .filter(|key| key.starts_with(names::POOL_LABEL_PREFIX) && !wanted.contains(*key))
            .cloned()
            .collect();
        if !set.is_empty() || !remove.is_empty() {
            writes.push(Write::Labels {
                node: node.clone(),
                set,
                remove,
            });
        }
    }
    writes
}

/// Grants, conditions and what a disk is are told at once; its figures are for
/// people.
fn hurry(old: &PoolStatus, new: &PoolStatus) -> Hurry {
    let told = PoolStatus {
        reserved: new.reserved,
        volumes: new.volumes,
        ..old.clone()
    };
    match told == *new {
        true => Hurry::Later,
        false => Hurry::Now,
    }
}

fn status(
    old: &PoolStatus,
    grant: &Grant,
    room: Option<&Room>,
    generation: Option<i64>,
    now: Timestamp,
) -> PoolStatus {
    let report = grant.report.as_ref();
    let healthy = report.filter(|r| r.health != PoolHealth::LostMount);
    let ready = Said {
        type_: names::condition::READY,
        holds: grant.standing.is_ready(),
        reason: grant.standing.reason().to_owned(),
        message: grant.message.clone(),
    };
    let unique = Said {
        type_: names::condition::UNIQUE,
        holds: grant.refused.is_empty(),
        reason: match grant.refused.is_empty() {
            true => names::condition::UNIQUE,
            false => reason::CONFLICT,
        }
        .to_owned(),
        message: elsewhere(grant),
    };
    // Of a disk that is not there nothing is known but that.
    let known = healthy.map(health).into_iter().flatten();
    PoolStatus {
        node: grant.node.clone(),
        epoch: grant.epoch,
        path: report.map(|r| r.path.clone()).or_else(|| old.path.clone()),
        filesystem: healthy
            .map(|r| r.filesystem.clone())
            .or_else(|| old.filesystem.clone()),
        capacity: healthy.map(|r| r.capacity).or(old.capacity),
        reserved: room
            .map(|r| Bytes(r.taken))
            .or_else(|| healthy.map(|r| r.reserved))
            .or(old.reserved),
        volumes: room
            .map(|r| r.volumes)
            .or_else(|| healthy.map(|r| r.volumes))
            .unwrap_or(old.volumes),
        conditions: [ready, unique]
            .into_iter()
            .chain(known)
            .map(|said| said.since(&old.conditions, generation, Time(now)))
            .collect(),
    }
}

/// What to do about a pool that is reported from elsewhere too, if it is.
fn elsewhere(grant: &Grant) -> String {
    if grant.refused.is_empty() {
        return String::new();
    }
    let node = grant.node.as_deref().unwrap_or_default();
    format!(
        "reported by {} too, which is refused: unmount the copy there, or, where the disk moved and {node} is gone, delete Node {node}",
        grant.refused.join(" and ")
    )
}

/// What the agent says of a disk that is there.
fn health(report: &NodePool) -> Vec<Said> {
    let [healthy, full] = condition::of_problems(&report.troubles);
    match report.health {
        PoolHealth::Healthy => vec![healthy, full],
        health => vec![Said {
            holds: false,
            reason: format!("{health:?}"),
            message: report.message.clone().unwrap_or_default(),
            ..healthy
        }],
    }
}

/// What people are told of a pool when its status changes, beside the status.
pub fn notices(old: &PoolStatus, new: &PoolStatus) -> Vec<Notice> {
    let news = condition::news(&old.conditions, &new.conditions);
    // A full pool is no fault.
    let warns = |it: &Condition| condition::is_bad(it) && it.type_ != names::condition::FULL;
    let mut notices: Vec<Notice> = news
        .into_iter()
        .map(|it| Notice {
            warning: warns(it),
            reason: it.reason.clone(),
            text: condition::note(it),
        })
        .collect();
    // A pool that is not ready for its health says the same twice.
    notices.dedup_by(|second, first| second.text == first.text);
    notices
}

#[cfg(test)]
#[path = "pools_tests.rs"]
mod tests;
