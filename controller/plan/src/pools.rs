//! What is written about pools: their objects' status, the nodes' labels, and events.
//! All of it follows from the grants.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::{
    Bytes, NodePool, PoolHealth, PoolStatus,
    condition::{self, Said},
    names::{self, reason},
};
use berth_model::Urgency;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    grants::{Grant, View},
    node::Node,
    room::Room,
};

/// An event on a Pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `true` makes the event a Warning: a person should look.
    pub warning: bool,
    /// The event's reason, one CamelCase word.
    pub reason: String,
    /// The event's message: what is wrong and what to do.
    pub text: String,
}

/// One write that brings Pool objects and node labels in line with the grants.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Create the object of a pool that an agent reports for the first time.
    Create {
        /// The pool's id, which is the object's name.
        id: String,
    },
    /// Write the object's status.
    Status {
        /// The pool's id.
        id: String,
        /// The whole status.
        status: Box<PoolStatus>,
        /// How soon it must be published.
        urgency: Urgency,
    },
    /// Pool labels of a node: those to set, and those to take away.
    Labels {
        /// Name of the node.
        node: String,
        /// Label keys to set to [`names::POOL_LABEL_VALUE`].
        set: BTreeSet<String>,
        /// Label keys to remove.
        remove: BTreeSet<String>,
    },
}

/// The writes that are due. A label follows the grant in the pool's *written* status,
/// never one that is still to be written: otherwise two leaders could label two nodes.
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
                urgency: urgency(&old, &new),
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
    for (node, Node { labels, .. }) in &view.nodes {
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

/// Grants, conditions and the kind of disk are published at once. Its figures are only
/// for people, and can wait.
fn urgency(old: &PoolStatus, new: &PoolStatus) -> Urgency {
    let told = PoolStatus {
        reserved: new.reserved,
        volumes: new.volumes,
        ..old.clone()
    };
    match told == *new {
        true => Urgency::Later,
        false => Urgency::Now,
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
    // Nothing else is known about a disk that is absent.
    let known = healthy.map(|report| health(report).into_iter().chain([accounted(report)]));
    let known = known.into_iter().flatten();
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

/// What to do about a pool that another place reports too; empty if none does.
fn elsewhere(grant: &Grant) -> String {
    if grant.refused.is_empty() {
        return String::new();
    }
    let node = grant.node.as_deref().unwrap_or_default();
    format!(
        "reported by {} too, which is refused: unmount the copy there, or, if the disk moved and {node} is gone, delete Node {node}",
        grant.refused.join(" and ")
    )
}

/// Whether every volume on the disk has an object.
fn accounted(report: &NodePool) -> Said {
    let orphans = report.orphans.iter().map(|orphan| {
        let claim = orphan.claim.as_ref().map_or_else(
            || "no claim".to_owned(),
            |claim| format!("{}/{}", claim.namespace, claim.name),
        );
        format!("{} ({claim}, {})", orphan.id, orphan.size.human())
    });
    let all: Vec<_> = orphans.collect();
    let holds = all.is_empty();
    Said {
        type_: names::condition::ACCOUNTED,
        holds,
        reason: match holds {
            true => names::condition::ACCOUNTED,
            false => reason::ORPHANS,
        }
        .to_owned(),
        message: match holds {
            true => String::new(),
            false => format!(
                "no Volume object names {}: the data stays and keeps its space; make its PersistentVolume again to use it, or a Volume with state Deleted to erase it",
                all.join(", ")
            ),
        },
    }
}

/// Conditions about the health of a disk that is there, from the agent's report.
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

/// The events that accompany a change of a pool's status.
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
    // A pool that is not ready because of its health would say the same twice.
    notices.dedup_by(|second, first| second.text == first.text);
    notices
}

#[cfg(test)]
#[path = "pools_tests/mod.rs"]
mod tests;
