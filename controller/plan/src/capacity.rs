//! Free space as the scheduler sees it: one CSIStorageCapacity per class and node.
//!
//! The scheduler tests each claim alone against `maximumVolumeSize`, without a
//! reservation. So the figures are those of the best single pool, and changes that
//! could mislead the scheduler are published before those that could not ([`urgency`]).

use std::collections::BTreeMap;

use berth_api::VolumeMode;
use berth_model::Urgency;

use crate::{place::carries, room::Room, volumes::Class};

/// Room for one class on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes free in all pools that can carry the class.
    pub total: u64,
    /// Bytes free in the best of them.
    pub largest: u64,
}

/// Bytes free on a node in the best pool for a class.
pub fn largest(class: &Class, node: &str, rooms: &BTreeMap<String, Room>) -> u64 {
    let able =
        |room: &&Room| room.node == node && carries(room, class.backend, VolumeMode::Filesystem);
    let free = rooms.values().filter(able).map(Room::free);
    free.max().unwrap_or_default()
}

/// Figures by class and node. Only classes that wait for a pod are published:
/// for the others the controller chooses the node itself. A node without room, or even
/// without a pool, is published with zero: an absent object says "not known yet". `nodes`
/// are those that have an agent. `withheld` are upper bounds of what is told
/// ([`withheld`](crate::claims::withheld)).
pub fn capacities<'a>(
    classes: impl IntoIterator<Item = &'a Class>,
    nodes: &[&str],
    rooms: &BTreeMap<String, Room>,
    withheld: &BTreeMap<(String, String), u64>,
) -> BTreeMap<(String, String), Capacity> {
    let mut all = BTreeMap::new();
    const NONE: Capacity = Capacity {
        total: 0,
        largest: 0,
    };
    for class in classes.into_iter().filter(|c| !c.immediate) {
        for node in nodes {
            all.insert((class.name.clone(), (*node).to_owned()), NONE);
        }
        for room in rooms.values() {
            let key = (class.name.clone(), room.node.clone());
            let entry = all.entry(key).or_insert(NONE);
            if carries(room, class.backend, VolumeMode::Filesystem) {
                entry.total = entry.total.saturating_add(room.free());
                entry.largest = entry.largest.max(room.free());
            }
        }
    }
    for (key, bound) in withheld {
        if let Some(figures) = all.get_mut(key) {
            figures.largest = figures.largest.min(*bound);
        }
    }
    all
}

/// A change of more than 1/64 of the figure is published soon.
const PART: u64 = 64;

/// How soon the scheduler needs to know that the figures are `wanted` and no longer the
/// published ones, `told`. `waiting` are the sizes of the class's claims that have no
/// node yet.
///
/// Only `largest` is compared with claims. A claim whose size lies between the
/// old figure and the new one would be judged wrongly: sent where there is no
/// room, or kept from where there is. Both end well, the first by the agent's
/// answer, but cost the pod time. Small changes of large figures mislead nobody.
pub fn urgency(
    told: Option<Capacity>,
    wanted: Capacity,
    waiting: impl IntoIterator<Item = u64>,
) -> Urgency {
    let Some(told) = told else {
        return Urgency::Now;
    };
    let (low, high) = match told.largest <= wanted.largest {
        true => (told.largest, wanted.largest),
        false => (wanted.largest, told.largest),
    };
    let misled = waiting.into_iter().any(|size| low < size && size <= high);
    match (misled, wanted.largest < told.largest) {
        (true, true) => Urgency::Now,
        (true, false) => Urgency::Soon,
        (false, _) if high - low > high / PART => Urgency::Soon,
        (false, _) => Urgency::Later,
    }
}

/// Name of the object for a class and a node: the same each time, so that a
/// repeated or late write meets the same object.
pub fn object_name(class: &str, node: &str) -> String {
    // FNV-1a with 64 bits; the zero byte keeps `a` + `bc` and `ab` + `c` apart.
    let bytes = class.bytes().chain([0]).chain(node.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("berth-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::Standing;
    use berth_api::Backend;

    fn room(node: &str, free: u64, standing: Standing) -> Room {
        Room {
            node: node.to_owned(),
            standing,
            backends: vec![Backend::Btrfs],
            capacity: free + 5,
            taken: 5,
            given: None,
            volumes: 1,
            ordinals: BTreeMap::new(),
            ceiling: None,
        }
    }

    fn class(name: &str, backend: Option<Backend>, immediate: bool) -> Class {
        Class {
            name: name.to_owned(),
            immediate,
            reclaim: "Delete".to_owned(),
            mount_options: None,
            backend,
            sparse: false,
            topologies: Vec::new(),
        }
    }

    #[test]
    fn the_largest_pool_counts_and_closed_ones_do_not() {
        let rooms: BTreeMap<String, Room> = [
            ("p1".to_owned(), room("n1", 7, Standing::Granted)),
            ("p2".to_owned(), room("n1", 4, Standing::Granted)),
            ("p3".to_owned(), room("n1", 99, Standing::Cordoned)),
            ("p4".to_owned(), room("n2", 99, Standing::Conflict)),
        ]
        .into();
        let classes = [
            class("berth", None, false),
            class("image", Some(Backend::Image), false),
            class("now", None, true),
        ];
        let shown = |withheld: &[(&str, &str, u64)]| -> Vec<String> {
            let withheld = withheld
                .iter()
                .map(|(class, node, bytes)| (((*class).to_owned(), (*node).to_owned()), *bytes));
            capacities(&classes, &["n1", "n3"], &rooms, &withheld.collect())
                .iter()
                .map(|((class, node), c)| format!("{class} {node} {}/{}", c.largest, c.total))
                .collect()
        };
        let withheld = [("berth", "n1", 5), ("berth", "n2", 5), ("gone", "n1", 5)];
        assert_eq!(
            shown(&withheld)[..3],
            ["berth n1 5/11", "berth n2 0/0", "berth n3 0/0"]
        );
        assert_eq!(
            shown(&[]),
            [
                "berth n1 7/11",
                "berth n2 0/0",
                "berth n3 0/0",
                "image n1 0/0",
                "image n2 0/0",
                "image n3 0/0"
            ]
        );
    }

    #[test]
    fn what_misleads_is_told_first() {
        let figure = |largest| Capacity {
            total: 5000,
            largest,
        };
        for (told, wanted, waiting, expected) in [
            (None, 0, &[][..], Urgency::Now),
            (Some(1000), 990, &[], Urgency::Later),
            (Some(1000), 980, &[], Urgency::Soon),
            (Some(1000), 990, &[990, 1001], Urgency::Later),
            (Some(1000), 990, &[991], Urgency::Now),
            (Some(1000), 990, &[1000], Urgency::Now),
            (Some(990), 1000, &[990], Urgency::Later),
            (Some(990), 1000, &[1000], Urgency::Soon),
            (Some(0), 10, &[], Urgency::Soon),
            (Some(10), 0, &[], Urgency::Soon),
            (Some(1000), 1000, &[1000], Urgency::Later),
        ] {
            let got = urgency(told.map(figure), figure(wanted), waiting.iter().copied());
            assert_eq!(got, expected, "{told:?} {wanted} {waiting:?}");
        }
    }

    #[test]
    fn names_tell_class_and_node_apart() {
        assert_eq!(object_name("a", "b"), object_name("a", "b"));
        assert_ne!(object_name("a", "bc"), object_name("ab", "c"));
    }
}
