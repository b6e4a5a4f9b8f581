//! The controller of the model: the real decisions, carried out at once.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::{Backend, Bytes, NodePool, PoolHealth, Volume, VolumeState, names};

use super::world::{GI, PoolModel, World};
use crate::{
    capacity,
    claims::{self, Claim, ClaimKey, ClassOf, Plan, Step, View},
    grants::{Grant, Standing},
    room::{self, Room},
    target::Target,
    volumes::{self, Action, claim},
};

impl World {
    fn grants(&self) -> BTreeMap<String, Grant> {
        let grant = |(id, pool): (&String, &PoolModel)| {
            let there = self.nodes.contains_key(&pool.node);
            let (reserved, by_volumes, volumes) = pool.told;
            let report = NodePool {
                id: Some(id.clone()),
                path: format!("/pools/{id}"),
                health: PoolHealth::Healthy,
                message: None,
                troubles: Vec::new(),
                filesystem: "btrfs".to_owned(),
                filesystem_uuid: None,
                backends: vec![Backend::Btrfs],
                capacity: Bytes(pool.capacity),
                reserved: Bytes(reserved),
                reserved_by_volumes: Some(Bytes(by_volumes)),
                room: Some(Bytes(pool.capacity.saturating_sub(reserved))),
                free: Bytes(pool.capacity),
                orphans: Vec::new(),
                volumes,
            };
            let grant = Grant {
                node: Some(pool.node.clone()),
                epoch: 1,
                standing: if there {
                    Standing::Granted
                } else {
                    Standing::Missing
                },
                message: String::new(),
                report: there.then_some(report),
                refused: Vec::new(),
            };
            (id.clone(), grant)
        };
        self.pools.iter().map(grant).collect()
    }

    pub(super) fn rooms(&self) -> BTreeMap<String, Room> {
        room::rooms(&self.grants(), self.volumes.values(), &self.ceilings)
    }

    pub(super) fn publish(&mut self) {
        let withheld = claims::withheld(&self.tries, self.now);
        let all = capacity::capacities(self.classes.values(), &[], &self.rooms(), &withheld);
        self.told = all
            .into_iter()
            .map(|(of, figures)| (of, figures.largest))
            .collect();
    }

    fn with_view<T>(&self, name: &str, look: impl FnOnce(&View<'_>) -> T) -> T {
        let pods: Vec<_> = (self.pods.iter())
            .filter(|(_, pod)| pod.claims.iter().any(|claim| claim == name))
            .map(|(pod_name, pod)| claim::Pod {
                name: pod_name.clone(),
                node: pod.node.clone(),
                claims: pod.claims.clone(),
                ..claim::Pod::default()
            })
            .collect();
        let wanted = pods
            .iter()
            .flat_map(|pod| pod.claims.iter().map(String::as_str));
        let names: BTreeSet<&str> = wanted.chain([name]).collect();
        let subject = name;
        let facts = |name: &str| {
            let object = self.claims.get(name)?;
            let key = ClaimKey::of(object);
            let class = match self.class_of(object) {
                Some(class) => ClassOf::Ours(class),
                None => ClassOf::Missing(format!("class of {name} is missing; make it").into()),
            };
            let claim = Claim {
                object,
                class,
                volume: self.volumes.get(&key.volume()),
                source: Ok(None),
                shared: self.pods.values().any(|pod| {
                    let uses = |name: &str| pod.claims.iter().any(|claim| claim == name);
                    uses(&key.name) && !uses(subject)
                }),
                busy: false,
                tries: self.tries.get(&key),
            };
            Some((name.to_owned(), claim))
        };
        look(&View {
            now: self.now,
            claim: name,
            claims: names.into_iter().filter_map(facts).collect(),
            pods,
            rooms: &self.rooms(),
            nodes: &self.nodes,
            told: &self.told,
            withheld: &claims::withheld(&self.tries, self.now),
        })
    }

    /// Decides about one claim, and carries it out at once.
    pub(super) fn controller(&mut self, name: &str) {
        let Some(object) = self.claims.get(name).cloned() else {
            return;
        };
        let (key, volume_name) = (
            ClaimKey::of(&object),
            names::volume_name(claim::uid(&object)),
        );
        let peers = self.with_view(name, claims::peers);
        let (grants, rooms) = (self.grants(), self.rooms());
        let decision = volumes::decide(&volumes::View {
            claim: Some(&object),
            pod: None,
            pv: self.pvs.get(&volume_name),
            volume: self.volumes.get(&volume_name),
            class: self.class_of(&object),
            grants: &grants,
            rooms: &rooms,
            nodes: &self.nodes,
            peers: &peers,
            now: self.now,
        });
        let has_volume = self.volumes.contains_key(&volume_name);
        if let Some(wait) = decision.wait.clone() {
            self.waits.insert(name.to_owned(), wait);
        }
        if let volumes::Step::Act(action) = decision.step {
            return self.act(name, &key, action);
        }
        if self.pvs.contains_key(&volume_name) || (decision.wait.is_some() && !has_volume) {
            return;
        }
        let mut plan = self.with_view(name, claims::decide);
        if !has_volume {
            plan.waits.entry(key).or_default();
        }
        self.carry_out(plan);
    }

    fn act(&mut self, name: &str, key: &ClaimKey, action: Action) {
        self.say(match &action {
            Action::Expose { .. } => format!("controller: {name} gets its PV"),
            Action::Erase { .. } => format!("controller: {name} is taken back"),
            Action::DropVolume { .. } => format!("controller: {name} has no volume"),
            Action::Reschedule { pool, .. } => format!("controller: {name} leaves {pool}"),
            other => format!("controller: {other:?}"),
        });
        match action {
            Action::Expose { volume, pv, .. } => {
                let there = self.volumes.get_mut(&volume.name).expect("there");
                there.spec.exposed = true;
                there.spec.bound = there.metadata.uid.clone();
                self.pvs.insert(volume.name, *pv);
                self.tries.remove(key);
            }
            Action::Erase { volume, .. } => {
                let there = self.volumes.get_mut(&volume.name).expect("there");
                there.spec.state = VolumeState::Deleted;
            }
            Action::DropVolume { volume, refused } => {
                self.volumes.remove(&volume.name);
                if let Some(refused) = refused {
                    self.ceilings.insert(refused.pool, refused.size);
                }
            }
            Action::Reschedule {
                volume,
                erase,
                claim,
                pool,
            } => {
                let incarnation = volume.uid.clone().unwrap_or_default();
                let tries = self.tries.entry(key.clone()).or_default();
                tries.fail(&pool, &incarnation, self.now);
                match self.volumes.get_mut(&volume.name).filter(|_| erase) {
                    Some(there) => there.spec.state = VolumeState::Deleted,
                    None => drop(self.volumes.remove(&volume.name)),
                }
                if let Some(claim) = claim {
                    self.annotate(&claim.name, names::SELECTED_NODE, None);
                }
            }
            other => panic!("{other:?} for a claim"),
        }
    }

    fn carry_out(&mut self, plan: Plan) {
        for (key, why) in plan.waits {
            match why {
                Some(why) => self.waits.insert(key.name, why),
                None => self.waits.remove(&key.name),
            };
        }
        self.tries.extend(plan.tries);
        for step in plan.steps {
            match step {
                Step::Create { claim, volume } => self.create(&claim, *volume),
                Step::Select { key, claim, node } => {
                    assert_eq!(claim, Target::of(&self.claims[&key.name].metadata));
                    let to = node.as_deref().unwrap_or("any other node");
                    self.say(format!("controller: {} to {to}", key.name));
                    self.annotate(&key.name, names::SELECTED_NODE, node.as_deref());
                }
                Step::Publish((class, node)) => {
                    self.publish();
                    let told = self.told[&(class.clone(), node.clone())] as f64 / GI as f64;
                    self.say(format!("controller: {class} on {node} has {told:.0}Gi"));
                }
            }
        }
    }

    fn create(&mut self, claim: &ClaimKey, mut volume: Volume) {
        self.serial += 1;
        volume.metadata.uid = Some(format!("v{}", self.serial));
        let (pool, size) = (volume.spec.pool.clone(), volume.spec.size.0);
        let free = self.rooms()[&pool].free();
        assert!(
            size <= free,
            "{} of {size} goes to {pool} with {free}: {:#?}",
            claim.name,
            self.log
        );
        self.say(format!("controller: {} in {pool}", claim.name));
        assert!(
            self.volumes.insert(claim.volume(), volume).is_none(),
            "made twice"
        );
    }
}
