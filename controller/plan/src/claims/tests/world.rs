//! The model. Each actor does one thing at a time, as far as it goes by what it sees then;
//! the agents' reports and the published capacities lag behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use berth_api::{Bytes, DRIVER, Volume, VolumePhase, VolumeState, VolumeStatus, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::json;

use crate::{
    claims::{ClaimKey, ClassOnNode, Tries, tries::after},
    node::Node,
    volumes::{ClaimWait, Class, claim, pv},
};

pub(super) const GI: u64 = 1 << 30;

/// A pool and what its agent's ledger holds.
#[derive(Clone, Debug)]
pub(super) struct PoolModel {
    pub(super) node: String,
    pub(super) capacity: u64,
    /// Bytes that are held by what has no Volume object: trash, snapshots.
    pub(super) rest: u64,
    pub(super) held: BTreeMap<String, u64>,
    /// Every volume fails there.
    pub(super) broken: bool,
    /// What was last reported: all bytes, those of volumes among them, and their number.
    pub(super) told: (u64, u64, i64),
}

impl PoolModel {
    pub(super) fn free(&self) -> u64 {
        let held: u64 = self.held.values().sum();
        self.capacity.saturating_sub(self.rest + held)
    }
}

/// A pod, and where it may run.
#[derive(Clone, Debug, Default)]
pub(super) struct PodModel {
    pub(super) claims: Vec<String>,
    /// Nodes that its affinity allows; all when empty.
    pub(super) allowed: BTreeSet<String>,
    /// The node that the scheduler prefers for it.
    pub(super) prefers: Option<String>,
    /// `spec.nodeName`, by a person or by the scheduler.
    pub(super) node: Option<String>,
    pub(super) runs: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) classes: BTreeMap<String, Class>,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) pools: BTreeMap<String, PoolModel>,
    pub(super) claims: BTreeMap<String, PersistentVolumeClaim>,
    pub(super) volumes: BTreeMap<String, Volume>,
    pub(super) pvs: BTreeMap<String, PersistentVolume>,
    pub(super) pods: BTreeMap<String, PodModel>,
    pub(super) told: BTreeMap<ClassOnNode, u64>,
    pub(super) tries: BTreeMap<ClaimKey, Tries>,
    pub(super) ceilings: BTreeMap<String, u64>,
    pub(super) waits: BTreeMap<String, ClaimWait>,
    pub(super) log: Vec<String>,
    pub(super) serial: u64,
}

impl World {
    /// One thing a line: `pool p1 n1 10`, sizes in Gi, a second number is held already;
    /// `claim a 6 [class] [many]`; `pod x a,b [on=n1] [prefers=n1] [node=n1]`.
    pub(super) fn new(text: &str) -> Self {
        let mut world = Self::default();
        for (name, immediate) in [("berth", false), ("now", true)] {
            let class = Class {
                name: name.to_owned(),
                immediate,
                reclaim: "Delete".to_owned(),
                mount_options: None,
                backend: None,
                sparse: false,
                topologies: Vec::new(),
            };
            world.classes.insert(name.to_owned(), class);
        }
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let gi = |at: usize| {
                words
                    .get(at)
                    .and_then(|w| w.parse::<u64>().ok())
                    .map(|n| n * GI)
            };
            match words[0] {
                "pool" => world.pool(
                    words[1],
                    words[2],
                    gi(3).expect("a size"),
                    gi(4).unwrap_or(0),
                ),
                "claim" => {
                    let class = words.get(3).copied().unwrap_or("berth");
                    world.claim(
                        words[1],
                        gi(2).expect("a size"),
                        class,
                        words.contains(&"many"),
                    );
                }
                "pod" => {
                    let mut pod = PodModel {
                        claims: words[2].split(',').map(str::to_owned).collect(),
                        ..PodModel::default()
                    };
                    for word in &words[3..] {
                        match word.split_once('=').expect("a key and a value") {
                            ("on", nodes) => {
                                pod.allowed = nodes.split(',').map(str::to_owned).collect()
                            }
                            ("prefers", node) => pod.prefers = Some(node.to_owned()),
                            ("node", node) => pod.node = Some(node.to_owned()),
                            other => panic!("{other:?}"),
                        }
                    }
                    world.pods.insert(words[1].to_owned(), pod);
                }
                other => panic!("{other}"),
            }
        }
        world.publish();
        world
    }

    fn pool(&mut self, id: &str, node: &str, capacity: u64, rest: u64) {
        let labels = &mut self.nodes.entry(node.to_owned()).or_default().labels;
        labels.insert(names::pool_label(id), names::POOL_LABEL_VALUE.to_owned());
        let pool = PoolModel {
            node: node.to_owned(),
            capacity,
            rest,
            held: BTreeMap::new(),
            broken: false,
            told: (rest, 0, 0),
        };
        self.pools.insert(id.to_owned(), pool);
    }

    pub(super) fn claim(&mut self, name: &str, size: u64, class: &str, shared: bool) {
        self.serial += 1;
        let mode = if shared {
            "ReadWriteMany"
        } else {
            "ReadWriteOnce"
        };
        let claim = json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": format!("u{}", self.serial),
                "resourceVersion": "1", "annotations": {},
            },
            "spec": {
                "accessModes": [mode], "storageClassName": class,
                "resources": {"requests": {"storage": size.to_string()}},
            },
        });
        let claim = serde_json::from_value(claim).expect("a claim");
        self.claims.insert(name.to_owned(), claim);
    }

    pub(super) fn say(&mut self, text: String) {
        self.log.push(text);
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now = after(self.now, Duration::from_secs(seconds));
    }

    pub(super) fn is_bound(&self, name: &str) -> bool {
        self.claims
            .get(name)
            .is_some_and(|c| claim::volume_name(c).is_some())
    }

    /// Where the claim's data is, once it is bound.
    pub(super) fn node_of(&self, name: &str) -> Option<&str> {
        let claim = self.claims.get(name).filter(|_| self.is_bound(name))?;
        let volume = self.volumes.get(&names::volume_name(claim::uid(claim)))?;
        Some(&volume.spec.node)
    }

    pub(super) fn annotate(&mut self, name: &str, key: &str, value: Option<&str>) {
        let Some(claim) = self.claims.get_mut(name) else {
            return;
        };
        let all = claim.metadata.annotations.get_or_insert_default();
        match value {
            Some(value) => all.insert(key.to_owned(), value.to_owned()),
            None => all.remove(key),
        };
    }

    /// Writes a node into a claim, as the scheduler does.
    pub(super) fn select(&mut self, claim: &str, node: &str) {
        self.say(format!("scheduler: {claim} to {node}"));
        self.annotate(claim, names::SELECTED_NODE, Some(node));
    }

    pub(super) fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<&Class> {
        self.classes.get(claim::class_name(claim)?)
    }

    // The scheduler.

    /// Nodes on which the pod could run, by what the scheduler knows; `told` is what it
    /// believes to be free.
    pub(super) fn feasible(&self, pod: &PodModel) -> Vec<String> {
        let fits = |node: &String| {
            pod.claims.iter().all(|name| {
                let Some(claim) = self.claims.get(name) else {
                    return false;
                };
                if let Some(home) = self.node_of(name) {
                    return home == node;
                }
                let Some(class) = self.class_of(claim).filter(|c| !c.immediate) else {
                    return false;
                };
                let told = self.told.get(&(class.name.clone(), node.clone()));
                claim::selected_node(claim).is_none_or(|its| its == node)
                    && told.copied() >= claim::size(claim)
            })
        };
        let allowed = |node: &&String| pod.allowed.is_empty() || pod.allowed.contains(*node);
        let mut nodes: Vec<_> = self
            .nodes
            .keys()
            .filter(allowed)
            .filter(|n| fits(n))
            .cloned()
            .collect();
        nodes.sort_by_key(|node| (pod.prefers.as_ref() != Some(node), node.clone()));
        nodes
    }

    /// Tries one pod; `crash` ends it after the first claim was written.
    pub(super) fn scheduler(&mut self, name: &str, crash: bool) {
        let Some(pod) = self
            .pods
            .get(name)
            .filter(|pod| pod.node.is_none())
            .cloned()
        else {
            return;
        };
        let Some(node) = self.feasible(&pod).into_iter().next() else {
            return;
        };
        let open: Vec<_> = pod
            .claims
            .iter()
            .filter(|c| !self.is_bound(c))
            .cloned()
            .collect();
        if open.is_empty() {
            self.say(format!("scheduler: pod {name} runs on {node}"));
            self.pods.get_mut(name).expect("there").node = Some(node);
            return;
        }
        for claim in open {
            if claim::selected_node(&self.claims[&claim]).is_some() {
                continue;
            }
            self.select(&claim, &node);
            if crash {
                return;
            }
        }
    }

    pub(super) fn kubelet(&mut self, name: &str) {
        let Some(pod) = self.pods.get(name).cloned() else {
            return;
        };
        let here = |claim: &String| {
            self.node_of(claim).is_some() && self.node_of(claim) == pod.node.as_deref()
        };
        if pod.node.is_some() && pod.claims.iter().all(here) {
            self.pods.get_mut(name).expect("there").runs = true;
        }
    }

    /// kube-controller-manager: hands a claim over, and binds it.
    pub(super) fn manager(&mut self, name: &str) {
        let Some(claim) = self.claims.get(name).cloned() else {
            return;
        };
        let Some(class) = self.class_of(&claim) else {
            return;
        };
        if class.immediate || claim::selected_node(&claim).is_some() {
            self.annotate(name, names::STORAGE_PROVISIONER, Some(DRIVER));
        }
        let volume = names::volume_name(claim::uid(&claim));
        if !self.is_bound(name) && self.pvs.contains_key(&volume) {
            let spec = self.claims.get_mut(name).and_then(|c| c.spec.as_mut());
            spec.expect("has one").volume_name = Some(volume);
            self.waits.remove(name);
        }
    }

    // The agents.

    pub(super) fn agent(&mut self, name: &str) {
        let Some(volume) = self.volumes.get_mut(name) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(&volume.spec.pool) else {
            return;
        };
        if !self.nodes.contains_key(&volume.spec.node) {
            return;
        }
        let mut status = volume.status.clone().unwrap_or_default();
        let size = volume.spec.size.0;
        if volume.spec.state == VolumeState::Deleted {
            pool.held.remove(name);
            status.phase = VolumePhase::Deleted;
        } else if pool.held.contains_key(name)
            || status.phase == VolumePhase::NoRoom
            || (pool.broken && status.phase == VolumePhase::Failed)
        {
            return;
        } else if pool.broken {
            let failed = json!([{
                "type": names::condition::READY, "status": "False", "reason": "Failed",
                "message": "", "lastTransitionTime": self.now,
            }]);
            status.conditions = serde_json::from_value(failed).expect("conditions");
            status.phase = VolumePhase::Failed;
            status.message = Some("the disk answers with errors".to_owned());
        } else if pool.free() < size {
            status.phase = VolumePhase::NoRoom;
            status.message = Some("no room".to_owned());
        } else {
            pool.held.insert(name.to_owned(), size);
            status.phase = VolumePhase::Ready;
            status.size = Some(Bytes(size));
        }
        let phase = status.phase;
        volume.status = Some(VolumeStatus { ..status });
        let claim = volume.spec.claim.name.clone();
        self.say(format!("agent: {claim} is {phase:?}"));
    }

    pub(super) fn report(&mut self, id: &str) {
        let pool = self.pools.get_mut(id).expect("a pool");
        let held: u64 = pool.held.values().sum();
        pool.told = (pool.rest + held, held, pool.held.len() as i64);
        self.ceilings.remove(id);
    }

    pub(super) fn volume_names(&self) -> Vec<String> {
        self.volumes.keys().cloned().collect()
    }

    /// Everybody acts once, then some time passes.
    pub(super) fn round(&mut self, turn: usize) {
        let mut pods: Vec<_> = self.pods.keys().cloned().collect();
        if !pods.is_empty() {
            let first = turn % pods.len();
            pods.rotate_left(first);
        }
        for pod in &pods {
            self.scheduler(pod, false);
            self.kubelet(pod);
        }
        let claims: Vec<_> = self.claims.keys().cloned().collect();
        for claim in &claims {
            self.manager(claim);
            self.controller(claim);
        }
        for volume in self.volume_names() {
            self.agent(&volume);
        }
        for pool in self.pools.keys().cloned().collect::<Vec<_>>() {
            self.report(&pool);
        }
        self.publish();
        self.pass(3);
    }

    /// The PV of a claim says where its data is.
    pub(super) fn check(&self) {
        for (name, pv) in &self.pvs {
            assert_eq!(pv::pool(pv), self.volumes.get(name).map(|v| &*v.spec.pool));
        }
        for (id, pool) in &self.pools {
            let placed = self.volumes.values().filter(|v| v.spec.pool == *id);
            let live = placed.filter(|v| v.spec.state == VolumeState::Present);
            let ready = live.filter(|v| {
                v.status
                    .as_ref()
                    .is_some_and(|s| s.phase == VolumePhase::Ready)
            });
            let sum: u64 = ready.map(|v| v.spec.size.0).sum();
            assert!(sum + pool.rest <= pool.capacity, "pool {id} holds too much");
        }
    }
}
