//! What is published to the cluster: Pool objects, the nodes' pool labels, and free space
//! for the scheduler.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use berth_api::{Pool, PoolStatus, names};
use berth_kube::Urgency;
use berth_model::VolumeName;
use berth_plan::{capacity, pools, target::Target, volumes::claim};
use jiff::Timestamp;
use k8s_openapi::{
    api::storage::v1::CSIStorageCapacity, apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{Resource, ResourceExt};

use super::{capacity as writes, figures, queue::Item, reconciler::Reconciler, write::Write};
use crate::events::Kind;

impl Reconciler {
    pub(super) fn pools(&mut self) {
        let (state, now) = (&self.state, Instant::now());
        let view = state.pools_view();
        let writes = pools::writes(&view, &state.grants, &state.rooms, Timestamp::now());
        self.ctx.metrics.pools(state.grants.values());
        let mut held: Option<Instant> = None;
        let mut changed = BTreeSet::new();
        for write in writes {
            let (item, there) = match &write {
                pools::Write::Create { id } | pools::Write::Status { id, .. } => {
                    let there = self.state.pools.get("", id).cloned();
                    (Item::Pool(id.clone()), there)
                }
                pools::Write::Labels { node, .. } => (Item::NodeLabels(node.clone()), None),
            };
            changed.insert(item.clone());
            if self.queue.is_busy(&item) || self.queue.is_pausing(&item) {
                continue;
            }
            if let pools::Write::Status {
                id,
                status,
                urgency,
            } = &write
            {
                if let Err(due) = self.throttle(&item, *urgency, now) {
                    held = held.into_iter().chain([due]).min();
                    continue;
                }
                if *urgency == Urgency::Now {
                    let node = status.node.as_deref().unwrap_or("-");
                    let reason = status.conditions.first().map(|c| c.reason.clone());
                    tracing::info!(pool = %id, node, epoch = status.epoch, ?reason, "pool");
                    self.tell_of_pool(there.as_deref(), status);
                }
            }
            let there = there.map(|pool| Target::of(pool.meta()));
            self.start(item, Write::Pool { write, there });
        }
        let pools = &self.state.pools;
        self.throttles.retain(|item, throttle| {
            let Item::Pool(id) = item else { return true };
            if !changed.contains(item) {
                throttle.settled();
            }
            pools.get("", id).is_some()
        });
        self.look_again_at_held(Item::Pools, held, now);
    }

    /// Events on a pool whose status is about to change.
    fn tell_of_pool(&self, there: Option<&Pool>, new: &PoolStatus) {
        let Some(pool) = there else { return };
        let old = pool.status.clone().unwrap_or_default();
        for notice in pools::notices(&old, new) {
            let kind = Kind::of(notice.warning);
            let about = pool.object_ref(&());
            let events = &self.ctx.events;
            events.publish(about, kind, &notice.reason, &notice.text);
        }
    }

    pub(super) fn capacities(&mut self) {
        let now = Instant::now();
        let classes = self.state.parsed.values().filter_map(|c| c.as_ref().ok());
        // A report outlives its node.
        let reports = self.state.reports.values();
        let nodes: Vec<&str> = reports
            .filter_map(|report| report.metadata.name.as_deref())
            .filter(|node| self.state.node_facts.contains_key(*node))
            .collect();
        let (rooms, withheld) = (&self.state.rooms, &self.state.withheld);
        let wanted = capacity::capacities(classes, &nodes, rooms, withheld);
        let mut unneeded: BTreeMap<String, _> = self
            .state
            .capacities
            .values()
            .map(|o| (o.name_any(), o.clone()))
            .collect();
        let waiting = self.waiting_sizes();
        let mut held: Option<Instant> = None;
        for ((class, node), free) in wanted {
            let name = capacity::object_name(&class, &node);
            let there = unneeded.remove(&name);
            let told = there.as_deref().and_then(figures::told);
            let item = Item::Capacity(name.clone());
            if told == Some(free) {
                self.pending.remove(&name);
                if let Some(throttle) = self.throttles.get_mut(&item) {
                    throttle.settled();
                }
                continue;
            }
            if self.queue.is_busy(&item) || self.queue.is_pausing(&item) {
                continue;
            }
            let urgency = match self.pending.contains(&name) {
                true => Urgency::Now,
                false => {
                    let sizes = waiting.get(&class).into_iter().flatten().copied();
                    capacity::urgency(told, free, sizes)
                }
            };
            if let Err(due) = self.throttle(&item, urgency, now) {
                held = held.into_iter().chain([due]).min();
                continue;
            }
            let wanted = CSIStorageCapacity {
                metadata: writes::metadata(&self.ctx, name, self.owner.as_ref()),
                storage_class_name: class,
                node_topology: Some(LabelSelector {
                    match_labels: Some([(names::TOPOLOGY_NODE.to_owned(), node)].into()),
                    match_expressions: None,
                }),
                capacity: Some(figures::quantity(free.total)),
                maximum_volume_size: Some(figures::quantity(free.largest)),
            };
            let work = Write::Capacity {
                wanted: Box::new(wanted),
                there: there.is_some(),
            };
            self.start(item, work);
        }
        self.look_again_at_held(Item::Capacities, held, now);
        for (name, object) in unneeded {
            let item = Item::Capacity(name.clone());
            self.pending.remove(&name);
            self.throttles.remove(&item);
            if !self.queue.is_busy(&item) && !self.queue.is_pausing(&item) {
                let target = Target::of(object.meta());
                self.start(item, Write::DropCapacity(target));
            }
        }
    }

    /// Sizes of the claims that wait for a node or for room, by class.
    fn waiting_sizes(&self) -> BTreeMap<String, Vec<u64>> {
        let mut sizes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for name in &self.waiting {
            let Ok(name) = name.parse::<VolumeName>() else {
                continue;
            };
            if let Some(claim) = self.state.claim_of_uid(name.claim_uid())
                && let (Some(class), Some(size)) = (claim::class_name(claim), claim::size(claim))
            {
                sizes.entry(class.to_owned()).or_default().push(size);
            }
        }
        sizes
    }
}
