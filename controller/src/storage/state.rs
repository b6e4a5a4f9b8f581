//! Everything that the loop knows, and what a change touches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_api::{NodeStorage, Pool, Volume, names};
use berth_kube::cache::{Key, WholeCache};
use berth_plan::{
    claims::{ClaimKey, ClassOnNode, Tries},
    grants::{self, Grant},
    room::Room,
    volumes::{Class, claim, class, pv},
};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSIStorageCapacity, StorageClass},
};
use kube::ResourceExt;

use super::{
    node::{self, Node},
    pod::{self, Pod},
    queue::Item,
    snapshots::state::SnapshotState,
    sourced::Sourced,
    update::Update,
};

/// The loop's knowledge.
#[derive(Default)]
pub(super) struct ClusterState {
    pub(super) claims: WholeCache<PersistentVolumeClaim>,
    pub(super) pvs: WholeCache<PersistentVolume>,
    pub(super) classes: WholeCache<StorageClass>,
    pub(super) nodes: WholeCache<Node>,
    pub(super) pools: WholeCache<Pool>,
    pub(super) volumes: WholeCache<Volume>,
    pub(super) reports: WholeCache<NodeStorage>,
    pub(super) pods: WholeCache<Pod>,
    pub(super) capacities: WholeCache<CSIStorageCapacity>,
    pub(super) snapshots: SnapshotState,
    pub(super) sourced: Sourced,

    claims_by_uid: BTreeMap<String, Key>,
    pvs_by_handle: BTreeMap<String, BTreeSet<String>>,
    pub(super) pods_by_claim: BTreeMap<Key, BTreeSet<String>>,

    /// Items that the next round looks at.
    pub(super) dirty: BTreeSet<Item>,
    /// Claims that are gone: what was published about them is withdrawn.
    pub(super) gone: Vec<Key>,
    /// Grants must be recomputed.
    pub(super) grants_dirty: bool,
    /// Pools whose room must be recomputed.
    pub(super) rooms_dirty: BTreeSet<String>,
    /// Room was taken since it was last computed; recomputing it finds no difference, and
    /// yet it changed.
    pub(super) rooms_taken: bool,
    /// Names of the Volume objects of each pool.
    pub(super) volumes_by_pool: BTreeMap<String, BTreeSet<String>>,
    /// A capacity object changed that we did not write.
    pub(super) capacities_dirty: bool,

    pub(super) grants: BTreeMap<String, Grant>,
    pub(super) rooms: BTreeMap<String, Room>,
    pub(super) node_facts: BTreeMap<String, berth_plan::node::Node>,
    pub(super) parsed: BTreeMap<String, Result<Class, String>>,

    /// Volumes whose creation is under way, so that their room is not given twice.
    pub(super) assumed: BTreeMap<String, Volume>,
    /// Sizes that an agent refused since it last reported, by pool.
    pub(super) ceilings: BTreeMap<String, u64>,
    /// What was tried for claims that have no volume yet.
    pub(super) tries: BTreeMap<ClaimKey, Tries>,
    /// What the scheduler must not be told, for the sake of those claims.
    pub(super) withheld: BTreeMap<ClassOnNode, u64>,
    /// Bytes free in the largest pool, as the scheduler is told.
    pub(super) told: BTreeMap<ClassOnNode, u64>,
}

/// What [`ClusterState::refresh`] recomputed.
#[derive(Default)]
pub(super) struct Refreshed {
    /// Pool objects and node labels must be compared with the grants.
    pub(super) pools: bool,
    /// Free space changed.
    pub(super) rooms: bool,
}

impl ClusterState {
    /// Kinds that no watch has listed yet.
    pub(super) fn unlisted(&self) -> Vec<&'static str> {
        [
            ("claims", self.claims.is_ready()),
            ("PersistentVolumes", self.pvs.is_ready()),
            ("StorageClasses", self.classes.is_ready()),
            ("Nodes", self.nodes.is_ready()),
            ("Pools", self.pools.is_ready()),
            ("Volumes", self.volumes.is_ready()),
            ("NodeStorages", self.reports.is_ready()),
            ("Pods", self.pods.is_ready()),
            ("capacity objects", self.capacities.is_ready()),
        ]
        .into_iter()
        .filter(|(_, ready)| !ready)
        .map(|(kind, _)| kind)
        .collect()
    }

    /// Takes in what a watch said.
    pub(super) fn take(&mut self, update: Update) {
        match update {
            Update::Claim(event) => {
                for (old, new) in self.claims.take(event) {
                    self.claim_changed(old.as_deref(), new.as_deref());
                }
            }
            Update::Pv(event) => {
                for (old, new) in self.pvs.take(event) {
                    self.pv_changed(old.as_deref(), new.as_deref());
                }
            }
            Update::Volume(event) => {
                for (old, new) in self.volumes.take(event) {
                    self.volume_changed(old.as_deref(), new.as_deref());
                }
            }
            Update::Pod(event) => {
                for (old, new) in self.pods.take(event) {
                    self.pod_changed(old.as_deref(), new.as_deref());
                }
            }
            Update::Class(event) => {
                for (old, new) in self.classes.take(event) {
                    self.class_changed(old.as_deref(), new.as_deref());
                }
            }
            Update::Node(event) => {
                for (old, new) in self.nodes.take(event) {
                    self.node_changed(old.as_deref(), new.as_deref());
                }
            }
            Update::Pool(event) => self.grants_dirty |= !self.pools.take(event).is_empty(),
            Update::Report(event) => {
                for (old, new) in self.reports.take(event) {
                    self.grants_dirty = true;
                    // A node that came has capacities of its own, also without a pool.
                    self.capacities_dirty |= old.is_none() != new.is_none();
                    let status = new.as_ref().and_then(|r| r.status.as_ref());
                    for pool in status.into_iter().flat_map(|s| &s.pools) {
                        // The agent's own figure replaces what it refused earlier.
                        let id = pool.id.as_deref().unwrap_or_default();
                        if self.ceilings.remove(id).is_some() {
                            self.rooms_dirty.insert(id.to_owned());
                        }
                    }
                }
            }
            Update::Capacity(event) => {
                for (old, new) in self.capacities.take(event) {
                    self.capacity_changed(old.as_deref(), new.as_deref());
                }
            }
            Update::Snapshot(event) => self.take_snapshot(event),
            Update::Content(event) => self.take_content(event),
            Update::Request(event) => self.take_request(event),
            Update::SnapshotClass(event) => self.take_snapshot_class(event),
        }
    }

    /// Takes in the answer to our own write of a Volume.
    pub(super) fn observe_volume(&mut self, volume: Volume) {
        if let Some((old, new)) = self.volumes.put(volume) {
            self.volume_changed(old.as_deref(), new.as_deref());
        }
    }

    /// Takes in the answer to our own write of a PV.
    pub(super) fn observe_pv(&mut self, pv: PersistentVolume) {
        if let Some((old, new)) = self.pvs.put(pv) {
            self.pv_changed(old.as_deref(), new.as_deref());
        }
    }

    /// Takes in the answer to our own write of a Pool.
    pub(super) fn observe_pool(&mut self, pool: Pool) {
        self.grants_dirty |= self.pools.put(pool).is_some();
    }

    /// Takes in the answer to our own write of a Node's labels.
    pub(super) fn observe_node(&mut self, node: Node) {
        if let Some((old, new)) = self.nodes.put(node) {
            self.node_changed(old.as_deref(), new.as_deref());
        }
    }

    /// Takes in the answer to our own write of a capacity object.
    pub(super) fn observe_capacity(&mut self, object: CSIStorageCapacity) {
        if let Some((old, new)) = self.capacities.put(object) {
            self.capacity_changed(old.as_deref(), new.as_deref());
        }
    }

    /// Takes in the answer to our own write of a claim.
    pub(super) fn observe_claim(&mut self, claim: PersistentVolumeClaim) {
        if let Some((old, new)) = self.claims.put(claim) {
            self.claim_changed(old.as_deref(), new.as_deref());
        }
    }

    fn claim_changed(
        &mut self,
        old: Option<&PersistentVolumeClaim>,
        new: Option<&PersistentVolumeClaim>,
    ) {
        if let Some(old) = old
            && new.is_none_or(|new| new.metadata.uid != old.metadata.uid)
        {
            self.claims_by_uid.remove(claim::uid(old));
            self.forget_tries(&ClaimKey::of(old));
            let key = (old.namespace().unwrap_or_default(), old.name_any());
            self.gone.push(key);
        }
        if let Some(new) = new {
            let key = (new.namespace().unwrap_or_default(), new.name_any());
            self.claims_by_uid.insert(claim::uid(new).to_owned(), key);
        }
        for (claim, there) in [(old, false), (new, true)] {
            if let Some(claim) = claim {
                self.sourced.note(claim, there && claim::is_open(claim));
            }
        }
        for claim in [old, new].into_iter().flatten() {
            self.touch_volume(names::volume_name(claim::uid(claim)));
            if let Some(pv) = claim::volume_name(claim)
                && let Some(handle) = self.pvs.get("", pv).and_then(|pv| pv::handle(pv))
            {
                self.touch_volume(handle.to_owned());
            }
            let namespace = claim.namespace().unwrap_or_default();
            self.touch_peers(&namespace, &claim.name_any());
            self.touch_copies_of(&namespace, &claim.name_any());
        }
    }

    fn pv_changed(&mut self, old: Option<&PersistentVolume>, new: Option<&PersistentVolume>) {
        if let Some(claim) = new.or(old).and_then(pv::claim_ref) {
            self.touch_copies_of(&claim.namespace, &claim.name);
        }
        if let Some(old) = old
            && let Some(handle) = pv::handle(old)
        {
            self.touch_volume(handle.to_owned());
            if let Some(names) = self.pvs_by_handle.get_mut(handle) {
                names.remove(&old.name_any());
                if names.is_empty() {
                    self.pvs_by_handle.remove(handle);
                }
            }
        }
        if let Some(new) = new
            && let Some(handle) = pv::handle(new)
        {
            self.touch_volume(handle.to_owned());
            let names = self.pvs_by_handle.entry(handle.to_owned()).or_default();
            names.insert(new.name_any());
        }
    }

    fn volume_changed(&mut self, old: Option<&Volume>, new: Option<&Volume>) {
        self.volume_takes_room(old, new);
        if let Some(volume) = new.or(old) {
            let name = volume.name_any();
            self.touch_snapshots_of(&name);
            self.touch_volume(name);
            let claim = &volume.spec.claim;
            self.touch_peers(&claim.namespace, &claim.name);
            self.touch_copies_of(&claim.namespace, &claim.name);
        }
    }

    fn pod_changed(&mut self, old: Option<&Pod>, new: Option<&Pod>) {
        for (pod, there) in [(old, false), (new, true)] {
            let Some(pod) = pod else { continue };
            let namespace = pod.namespace().unwrap_or_default();
            for name in pod::claims(pod) {
                let key = (namespace.clone(), name);
                let pods = self.pods_by_claim.entry(key.clone()).or_default();
                if there {
                    pods.insert(pod.name_any());
                } else {
                    pods.remove(&pod.name_any());
                }
                if pods.is_empty() {
                    self.pods_by_claim.remove(&key);
                }
                self.touch_claim(&key.0, &key.1);
            }
        }
    }

    fn class_changed(&mut self, old: Option<&StorageClass>, new: Option<&StorageClass>) {
        self.capacities_dirty = true;
        let Some(name) = new.or(old).map(ResourceExt::name_any) else {
            return;
        };
        match new.and_then(class::class) {
            Some(parsed) => self.parsed.insert(name.clone(), parsed),
            None => self.parsed.remove(&name),
        };
        let touched: Vec<_> = self
            .claims
            .values()
            .filter(|c| claim::class_name(c) == Some(&name) && claim::volume_name(c).is_none())
            .map(|c| names::volume_name(claim::uid(c)))
            .collect();
        self.touch_volumes(touched);
    }

    fn node_changed(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let Some(name) = new.or(old).map(ResourceExt::name_any) else {
            return;
        };
        let facts = new.map(node::facts);
        let changed = self.node_facts.get(&name) != facts.as_ref();
        match facts {
            Some(facts) => self.node_facts.insert(name.clone(), facts),
            None => self.node_facts.remove(&name),
        };
        if changed {
            self.grants_dirty = true;
            let touched: Vec<_> = self
                .volumes
                .values()
                .filter(|v| v.spec.node == name)
                .map(|v| v.name_any())
                .collect();
            self.touch_volumes(touched);
        }
    }

    /// Marks a volume to be looked at.
    fn touch_volume(&mut self, name: String) {
        self.dirty.insert(Item::Volume(name));
    }

    fn touch_volumes(&mut self, names: Vec<String>) {
        self.dirty.extend(names.into_iter().map(Item::Volume));
    }

    /// Marks a claim to be looked at, if it has no volume yet.
    pub(super) fn touch_claim(&mut self, namespace: &str, name: &str) {
        if let Some(claim) = self.claims.get(namespace, name)
            && claim::volume_name(claim).is_none()
        {
            let name = names::volume_name(claim::uid(claim));
            self.touch_volume(name);
        }
    }

    /// Marks the claims that wait for a snapshot.
    pub(super) fn touch_restores(&mut self) {
        for (namespace, name) in self.sourced.restores() {
            self.touch_claim(&namespace, &name);
        }
    }

    /// Marks the claims that wait to be copies of a claim, because that claim, its
    /// PersistentVolume or its Volume changed.
    fn touch_copies_of(&mut self, namespace: &str, name: &str) {
        let source = (namespace.to_owned(), name.to_owned());
        for (namespace, name) in self.sourced.copies_of(&source) {
            self.touch_claim(&namespace, &name);
        }
    }

    /// The claim with a UID.
    pub(super) fn claim_of_uid(&self, uid: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        let (namespace, name) = self.claims_by_uid.get(uid)?;
        self.claims.get(namespace, name)
    }

    /// PVs with this volume handle; more than one is a person's mistake.
    pub(super) fn pvs_of(&self, handle: &str) -> Vec<Arc<PersistentVolume>> {
        let names = self.pvs_by_handle.get(handle).into_iter().flatten();
        names
            .filter_map(|name| self.pvs.get("", name).cloned())
            .collect()
    }

    /// The claim's class, where it is a valid one of ours.
    pub(super) fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<&Class> {
        let parsed = self.parsed.get(claim::class_name(claim)?)?;
        parsed.as_ref().ok()
    }

    /// Recomputes grants and room where something changed.
    pub(super) fn refresh(&mut self) -> Refreshed {
        let mut refreshed = Refreshed::default();
        if std::mem::take(&mut self.grants_dirty) {
            let grants = grants::grant(&self.pools_view());
            let ids: BTreeSet<_> = grants.keys().chain(self.grants.keys()).collect();
            let (mut moved, mut changed) = (BTreeSet::new(), Vec::new());
            for id in ids {
                let (old, new) = (self.grants.get(id), grants.get(id));
                let place = |grant: &Grant| (grant.node.clone(), grant.standing);
                if old.map(place) != new.map(place) {
                    moved.insert(id.clone());
                }
                if old != new {
                    changed.push(id.clone());
                }
            }
            self.rooms_dirty.extend(changed);
            self.grants = grants;
            refreshed.pools = true;
            self.pools_moved(&moved);
        }
        refreshed.rooms = self.refresh_rooms();
        refreshed.pools |= refreshed.rooms;
        refreshed
    }

    /// Pools have another node or standing: their volumes are looked at, those of them that
    /// have no object yet, and all snapshots.
    fn pools_moved(&mut self, pools: &BTreeSet<String>) {
        if pools.is_empty() {
            return;
        }
        let there = pools.iter().filter_map(|id| self.volumes_by_pool.get(id));
        let there: Vec<_> = there.flatten().cloned().collect();
        let unadopted: Vec<_> = (self.pvs.values())
            .filter(|pv| pv::pool(pv).is_some_and(|pool| pools.contains(pool)))
            .filter_map(|pv| pv::handle(pv))
            .filter(|handle| self.volumes.get("", handle).is_none())
            .map(str::to_owned)
            .collect();
        self.touch_volumes(there);
        self.touch_volumes(unadopted);
        self.touch_snapshots();
    }

    /// What the decision about grants sees.
    pub(super) fn pools_view(&self) -> grants::View {
        grants::View {
            pools: self
                .pools
                .values()
                .map(|p| (p.name_any(), Pool::clone(p)))
                .collect(),
            reports: self
                .reports
                .values()
                .map(|r| (r.name_any(), r.status.clone().unwrap_or_default()))
                .collect(),
            nodes: self.node_facts.clone(),
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
