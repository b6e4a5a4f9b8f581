//! Free space of every pool, kept up pool by pool: a change concerns one of very many.

use std::collections::BTreeMap;

use berth_api::Volume;
use berth_plan::room;
use kube::ResourceExt;

use super::state::ClusterState;

impl ClusterState {
    /// A Volume changed: in which pool it is, and what it takes there.
    pub(super) fn volume_takes_room(&mut self, old: Option<&Volume>, new: Option<&Volume>) {
        let Some(name) = new.or(old).map(ResourceExt::name_any) else {
            return;
        };
        let assumed = self.assumed.remove(&name);
        for (volume, there) in [(old, false), (new, true)] {
            let Some(volume) = volume else { continue };
            let pool = &volume.spec.pool;
            let names = self.volumes_by_pool.entry(pool.clone()).or_default();
            match there {
                true => names.insert(name.clone()),
                false => names.remove(&name),
            };
            if names.is_empty() {
                self.volumes_by_pool.remove(pool);
            }
        }
        // What else a status says, bytes in use first of all, changes most often.
        if assumed.is_some() || old.map(room::taken_by) != new.map(room::taken_by) {
            let all = [old, new, assumed.as_ref()].into_iter().flatten();
            let pools = all.map(|volume| volume.spec.pool.clone());
            self.rooms_dirty.extend(pools);
        }
    }

    /// Takes room for a volume that is about to be made or to grow, so that the next
    /// claim does not get it too.
    pub(super) fn assume(&mut self, volume: Volume) {
        let spec = &volume.spec;
        let before = self.volumes.get("", &volume.name_any());
        let before = before.map_or(0, |before| room::size_of(before));
        if let Some(room) = self.rooms.get_mut(&spec.pool) {
            let ordinal = spec.owner.as_ref().map(|o| o.ordinal);
            let more = spec.size.0.saturating_sub(before);
            room.take(more, room::set_of(spec).as_ref(), ordinal);
        }
        self.rooms_dirty.insert(spec.pool.clone());
        self.rooms_taken = true;
        self.assumed.insert(volume.name_any(), volume);
    }

    /// Recomputes the room of the pools where something changed; answers whether it is
    /// another than before.
    pub(super) fn refresh_rooms(&mut self) -> bool {
        let dirty = std::mem::take(&mut self.rooms_dirty);
        let mut changed = !dirty.is_empty() && std::mem::take(&mut self.rooms_taken);
        for pool in dirty {
            let names = self.volumes_by_pool.get(&pool).into_iter().flatten();
            let known = names.filter(|name| !self.assumed.contains_key(*name));
            let known = known.filter_map(|name| self.volumes.get("", name));
            let assumed = self.assumed.values().filter(|it| it.spec.pool == pool);
            let volumes = known.map(|volume| &**volume).chain(assumed);
            let grant = self.grants.get(&pool);
            let grant: BTreeMap<_, _> = grant
                .map(|grant| (pool.clone(), grant.clone()))
                .into_iter()
                .collect();
            let mut room = room::rooms(&grant, volumes, &self.ceilings);
            let room = room.remove(&pool);
            changed |= room.as_ref() != self.rooms.get(&pool);
            match room {
                Some(room) => self.rooms.insert(pool, room),
                None => self.rooms.remove(&pool),
            };
        }
        changed
    }
}
