//! Free space of each pool, as far as the controller can know it.
//!
//! The agent's ledger is the arbiter; this sum keeps bursts from colliding. Of the bytes
//! that the agent reports as taken, some are volumes'. The Volume objects placed there
//! count instead where they are more: they are there before the agent reports them. Trash,
//! snapshots and foreign volumes are only in its report, and come on top. The agent also
//! reports what it would really give, which is less where the filesystem has less; what was
//! placed since then is taken off.
//! Volumes are counted in the same way: one whose data was retained and whose
//! objects are gone is only in the report.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::{Backend, Volume, VolumePhase, VolumeSpec};

use crate::grants::{Grant, Standing};

/// A set, as the owner of volumes: namespace, kind and name.
pub type SetKey = (String, String, String);

/// The set that a volume's spec names.
pub fn set_of(spec: &VolumeSpec) -> Option<SetKey> {
    let owner = spec.owner.as_ref()?;
    Some((
        spec.claim.namespace.clone(),
        owner.kind.clone(),
        owner.name.clone(),
    ))
}

/// One pool with its room.
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    /// The node that the pool is granted to.
    pub node: String,
    /// Whether new volumes may go there, and if not, why.
    pub standing: Standing,
    /// Backends that the pool can carry.
    pub backends: Vec<Backend>,
    /// Bytes that volumes may take in all.
    pub capacity: u64,
    /// Bytes that are taken.
    pub taken: u64,
    /// Bytes that the agent would give, less what was placed since it said so; `None`
    /// where it does not say.
    pub given: Option<u64>,
    /// Volumes there: placed, or reported, whichever is more.
    pub volumes: i64,
    /// Ordinals of each set with a volume there.
    pub ordinals: BTreeMap<SetKey, BTreeSet<i32>>,
    /// Upper bound of what is believed to be free, in bytes, after the agent refused
    /// more.
    pub ceiling: Option<u64>,
}

impl Room {
    /// Free bytes; zero where no new volume may go.
    pub fn free(&self) -> u64 {
        if self.standing != Standing::Granted {
            return 0;
        }
        self.left().min(self.ceiling.unwrap_or(u64::MAX))
    }

    /// Bytes that are left, for what is there already and may grow too.
    pub fn left(&self) -> u64 {
        let left = self.capacity.saturating_sub(self.taken);
        left.min(self.given.unwrap_or(u64::MAX))
    }

    /// Counts a volume that is about to be placed here.
    pub fn take(&mut self, size: u64, set: Option<&SetKey>, ordinal: Option<i32>) {
        self.taken = self.taken.saturating_add(size);
        self.volumes += 1;
        self.ceiling = self.ceiling.map(|c| c.saturating_sub(size));
        self.given = self.given.map(|given| given.saturating_sub(size));
        if let (Some(set), Some(ordinal)) = (set, ordinal) {
            let ordinals = self.ordinals.entry(set.clone()).or_default();
            ordinals.insert(ordinal);
        }
    }

    /// How many other ordinals of the set have a volume here.
    pub fn others(&self, set: Option<&SetKey>, ordinal: Option<i32>) -> usize {
        let Some(ordinals) = set.and_then(|s| self.ordinals.get(s)) else {
            return 0;
        };
        ordinals.iter().filter(|o| Some(**o) != ordinal).count()
    }

    /// Whether the same ordinal of the set has a volume here.
    pub fn has(&self, set: Option<&SetKey>, ordinal: Option<i32>) -> bool {
        let ordinals = set.and_then(|s| self.ordinals.get(s));
        matches!((ordinals, ordinal), (Some(all), Some(one)) if all.contains(&one))
    }
}

/// Bytes that a volume takes: what its backend enforces, or what is asked for where that
/// is more and may still be had (not answered yet, or growing).
pub fn size_of(volume: &Volume) -> u64 {
    let status = volume.status.as_ref();
    let enforced = status.and_then(|s| s.size).unwrap_or_default().0;
    let refused = status.is_some_and(|s| {
        s.phase == VolumePhase::Ready
            && s.message.is_some()
            && s.observed_generation == volume.metadata.generation
    });
    match refused {
        // The agent tries again later, and its ledger has the last word.
        true => enforced,
        false => enforced.max(volume.spec.size.0),
    }
}

/// What a volume takes, and where; `None` where it takes nothing. Volumes that are equal in
/// this are equal to [`rooms`].
pub fn taken_by(volume: &Volume) -> Option<(&str, u64, Option<SetKey>, Option<i32>)> {
    let spec = &volume.spec;
    let ordinal = spec.owner.as_ref().map(|owner| owner.ordinal);
    (!takes_nothing(volume)).then(|| (&*spec.pool, size_of(volume), set_of(spec), ordinal))
}

/// Whether a volume takes no room: it was erased, or was never made.
fn takes_nothing(volume: &Volume) -> bool {
    let phase = volume.status.as_ref().map(|s| s.phase);
    matches!(phase, Some(VolumePhase::Deleted | VolumePhase::NoRoom))
}

/// The room in each granted pool. `ceilings` are pools whose agent refused a
/// volume since it last reported, with the size that was one too many.
pub fn rooms<'a>(
    grants: &BTreeMap<String, Grant>,
    volumes: impl IntoIterator<Item = &'a Volume>,
    ceilings: &BTreeMap<String, u64>,
) -> BTreeMap<String, Room> {
    let mut rooms: BTreeMap<String, Room> = BTreeMap::new();
    let mut reported = BTreeMap::new();
    for (id, grant) in grants {
        let (Some(node), Some(report)) = (&grant.node, &grant.report) else {
            continue;
        };
        reported.insert(id.as_str(), report);
        rooms.insert(
            id.clone(),
            Room {
                node: node.clone(),
                standing: grant.standing,
                backends: report.backends.clone(),
                capacity: report.capacity.0,
                taken: 0,
                given: None,
                volumes: 0,
                ordinals: BTreeMap::new(),
                ceiling: ceilings.get(id).map(|size| size.saturating_sub(1)),
            },
        );
    }
    for volume in volumes {
        let Some(room) = rooms.get_mut(&volume.spec.pool) else {
            continue;
        };
        if takes_nothing(volume) {
            continue;
        }
        let ceiling = room.ceiling.take();
        let ordinal = volume.spec.owner.as_ref().map(|o| o.ordinal);
        room.take(size_of(volume), set_of(&volume.spec).as_ref(), ordinal);
        room.ceiling = ceiling;
    }
    for (id, room) in &mut rooms {
        let Some(report) = reported.get(id.as_str()) else {
            continue;
        };
        let reserved = report.reserved.0;
        let by_volumes = report.reserved_by_volumes.map_or(reserved, |bytes| bytes.0);
        let since = room.taken.saturating_sub(by_volumes);
        room.given = report.room.map(|given| given.0.saturating_sub(since));
        let rest = reserved.saturating_sub(by_volumes);
        room.taken = room.taken.max(by_volumes).saturating_add(rest);
        room.volumes = room.volumes.max(report.volumes);
    }
    rooms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::pv;
    use berth_api::{Bytes, ClaimRef, NodePool, PoolHealth, VolumeMode, VolumeState, VolumeStatus};

    fn volume(pool: &str, size: u64, status: Option<(VolumePhase, u64)>) -> Volume {
        let spec = VolumeSpec {
            pool: pool.to_owned(),
            node: "n1".to_owned(),
            size: Bytes(size),
            mode: VolumeMode::Filesystem,
            claim: ClaimRef {
                namespace: "ns".to_owned(),
                name: "a".to_owned(),
                uid: "u".to_owned(),
            },
            owner: None,
            source: None,
            backend: None,
            sparse: false,
            adopt: false,
            exposed: false,
            bound: None,
            state: VolumeState::Present,
        };
        let mut volume = pv::volume("pvc-u", spec);
        volume.status = status.map(|(phase, size)| VolumeStatus {
            phase,
            size: Some(Bytes(size)),
            ..VolumeStatus::default()
        });
        volume
    }

    #[test]
    fn taken_is_what_is_reported_or_placed_whichever_is_more() {
        let report = |(reserved, volumes): (u64, i64)| NodePool {
            id: Some("p1".to_owned()),
            path: "/pools/a".to_owned(),
            health: PoolHealth::Healthy,
            message: None,
            troubles: Vec::new(),
            filesystem: "btrfs".to_owned(),
            filesystem_uuid: None,
            backends: vec![Backend::Btrfs],
            capacity: Bytes(100),
            reserved: Bytes(reserved),
            reserved_by_volumes: None,
            room: None,
            free: Bytes(100),
            orphans: Vec::new(),
            volumes,
        };
        let grants = |reported| {
            let grant = Grant {
                node: Some("n1".to_owned()),
                epoch: 1,
                standing: Standing::Granted,
                message: String::new(),
                report: Some(report(reported)),
                refused: Vec::new(),
            };
            BTreeMap::from([("p1".to_owned(), grant)])
        };
        let volumes = [
            volume("p1", 10, None),
            volume("p1", 1, Some((VolumePhase::Ready, 16))),
            volume("p1", 50, Some((VolumePhase::NoRoom, 0))),
            volume("p1", 50, Some((VolumePhase::Deleted, 50))),
            volume("p2", 50, None),
        ];
        let none = BTreeMap::new();
        let room = |reported, ceilings| rooms(&grants(reported), &volumes, ceilings)["p1"].clone();
        assert_eq!(room((0, 0), &none).free(), 74);
        assert_eq!(room((0, 0), &none).volumes, 2);
        assert_eq!(room((90, 1), &none).free(), 10);
        assert_eq!(room((190, 1), &none).free(), 0);
        // Retained data of volumes that have no objects any more.
        assert_eq!(room((90, 5), &none).volumes, 5);
        let refused = BTreeMap::from([("p1".to_owned(), 30)]);
        assert_eq!(room((0, 0), &refused).free(), 29);
        // What is not a volume's comes on top of them, and the agent's own figure counts.
        let told = |reserved, by_volumes, given| {
            let mut grants = grants((reserved, 1));
            let report = grants.get_mut("p1").and_then(|grant| grant.report.as_mut());
            let report = report.expect("a report");
            report.reserved_by_volumes = Some(Bytes(by_volumes));
            report.room = Some(Bytes(given));
            rooms(&grants, &volumes, &none)["p1"].free()
        };
        assert_eq!(told(50, 0, 50), 24, "26 are placed, and not reported");
        assert_eq!(told(76, 26, 24), 24, "they are reported");
        assert_eq!(told(16, 16, 20), 10, "10 were placed since it had 20 left");
        assert_eq!(told(0, 0, 10), 0);
    }
}
