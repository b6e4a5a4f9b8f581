//! What the cluster is told: Pool objects, the nodes' pool labels, and room for
//! the scheduler.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use berth_api::{Pool, PoolSpec, PoolStatus, names, pace::Hurry};
use berth_plan::{
    capacity::{self, Capacity},
    pools,
    target::Target,
    volumes::claim,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Node, PersistentVolumeClaim},
        storage::v1::CSIStorageCapacity,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, OwnerReference},
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ObjectMeta, Patch},
};
use serde_json::{Value, json};

use super::{
    Loop,
    apply::{Done, Failure, Put, Work, conditional, patch, post},
    queue::Item,
    watch::DRIVER_LABEL,
};
use crate::{
    context::{Ctx, bounded},
    events::Kind,
};

impl Loop {
    /// The capacity object that must be lowered before the scheduler is asked for
    /// another node, or it would choose the node again.
    pub(super) fn untold(&self, claim: &PersistentVolumeClaim, node: &str) -> Option<String> {
        let class = self.world.class_of(claim)?;
        let wanted = capacity::capacities([class], &self.world.rooms);
        let key = (class.name.clone(), node.to_owned());
        let largest = wanted.get(&key).map_or(0, |c| c.largest);
        let name = capacity::object_name(&class.name, node);
        let object = self.world.capacities.get(&self.ctx.namespace, &name)?;
        let told = bytes(object.maximum_volume_size.as_ref());
        told.is_none_or(|told| told > largest).then_some(name)
    }

    pub(super) fn pools(&mut self) {
        let (world, now) = (&self.world, Instant::now());
        let view = world.pools_view();
        let writes = pools::writes(&view, &world.grants, &world.rooms, Timestamp::now());
        self.ctx.metrics.pools(world.grants.values());
        let mut held: Option<Instant> = None;
        let mut changed = BTreeSet::new();
        for write in writes {
            let (item, there) = match &write {
                pools::Write::Create { id } | pools::Write::Status { id, .. } => {
                    let there = self.world.pools.get("", id).cloned();
                    (Item::Pool(id.clone()), there)
                }
                pools::Write::Labels { node, .. } => (Item::NodeLabels(node.clone()), None),
            };
            changed.insert(item.clone());
            if self.queue.is_busy(&item) || self.queue.is_pausing(&item) {
                continue;
            }
            if let pools::Write::Status { id, status, hurry } = &write {
                if let Err(due) = self.pace(&item, *hurry, now) {
                    held = held.into_iter().chain([due]).min();
                    continue;
                }
                if *hurry == Hurry::Now {
                    let node = status.node.as_deref().unwrap_or("-");
                    let reason = status.conditions.first().map(|c| c.reason.clone());
                    tracing::info!(pool = %id, node, epoch = status.epoch, ?reason, "pool");
                    self.tell_of_pool(there.as_deref(), status);
                }
            }
            let there = there.map(|pool| Target::of(pool.meta()));
            self.start(item, Work::Pool { write, there });
        }
        let pools = &self.world.pools;
        self.paces.retain(|item, pace| {
            let Item::Pool(id) = item else { return true };
            if !changed.contains(item) {
                pace.settled();
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
        let classes = self.world.parsed.values().filter_map(|c| c.as_ref().ok());
        let wanted = capacity::capacities(classes, &self.world.rooms);
        let mut unneeded: BTreeMap<String, _> = self
            .world
            .capacities
            .values()
            .map(|o| (o.name_any(), o.clone()))
            .collect();
        let waiting = self.waiting_sizes();
        let mut held: Option<Instant> = None;
        for ((class, node), figures) in wanted {
            let name = capacity::object_name(&class, &node);
            let there = unneeded.remove(&name);
            let told = there.as_deref().and_then(told);
            let item = Item::Capacity(name.clone());
            if told == Some(figures) {
                self.awaited.remove(&name);
                if let Some(pace) = self.paces.get_mut(&item) {
                    pace.settled();
                }
                continue;
            }
            if self.queue.is_busy(&item) || self.queue.is_pausing(&item) {
                continue;
            }
            let hurry = match self.awaited.contains(&name) {
                true => Hurry::Now,
                false => {
                    let sizes = waiting.get(&class).into_iter().flatten().copied();
                    capacity::hurry(told, figures, sizes)
                }
            };
            if let Err(due) = self.pace(&item, hurry, now) {
                held = held.into_iter().chain([due]).min();
                continue;
            }
            let wanted = CSIStorageCapacity {
                metadata: capacity_meta(&self.ctx, name, self.owner.as_ref()),
                storage_class_name: class,
                node_topology: Some(LabelSelector {
                    match_labels: Some([(names::TOPOLOGY_NODE.to_owned(), node)].into()),
                    match_expressions: None,
                }),
                capacity: Some(quantity(figures.total)),
                maximum_volume_size: Some(quantity(figures.largest)),
            };
            let work = Work::Capacity {
                wanted: Box::new(wanted),
                there: there.is_some(),
            };
            self.start(item, work);
        }
        self.look_again_at_held(Item::Capacities, held, now);
        for (name, object) in unneeded {
            let item = Item::Capacity(name.clone());
            self.awaited.remove(&name);
            self.paces.remove(&item);
            if !self.queue.is_busy(&item) && !self.queue.is_pausing(&item) {
                let target = Target::of(object.meta());
                self.start(item, Work::DropCapacity(target));
            }
        }
    }

    /// Sizes of the claims that wait for a node or for room, by class.
    fn waiting_sizes(&self) -> BTreeMap<String, Vec<u64>> {
        let mut sizes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for name in &self.waiting {
            let uid = name.strip_prefix("pvc-");
            if let Some(claim) = uid.and_then(|uid| self.world.claim_of_uid(uid))
                && let (Some(class), Some(size)) = (claim::class_name(claim), claim::size(claim))
            {
                sizes.entry(class.to_owned()).or_default().push(size);
            }
        }
        sizes
    }
}

fn bytes(quantity: Option<&Quantity>) -> Option<u64> {
    let bytes: berth_api::Bytes = quantity?.0.parse().ok()?;
    Some(bytes.0)
}

/// What a capacity object says, where it says figures.
fn told(object: &CSIStorageCapacity) -> Option<Capacity> {
    Some(Capacity {
        total: bytes(object.capacity.as_ref())?,
        largest: bytes(object.maximum_volume_size.as_ref())?,
    })
}

pub(super) async fn pool(ctx: &Ctx, write: pools::Write, there: Option<Target>) -> Done {
    let pools: Api<Pool> = Api::all(ctx.client.clone());
    match write {
        pools::Write::Create { id } => {
            let pool = Pool::new(&id, PoolSpec::default());
            match bounded(format!("create Pool {id}"), pools.create(&post(), &pool)).await {
                Ok(pool) => Ok(vec![Put::Pool(Box::new(pool))]),
                Err(error) if error.is_already_exists() => Ok(Vec::new()),
                Err(error) => Err(error.into()),
            }
        }
        pools::Write::Status { id, status, .. } => {
            // Conditional: a grant must follow from the grant before it.
            let Some(there) = there else {
                return Err(Failure::Stale(format!("Pool {id} is gone")));
            };
            let mut change = json!({"status": status});
            // What is absent is to be removed: a merge patch needs the key for that, with
            // null, and to ask for a key that is not there puts it in.
            for key in ["node", "path", "filesystem", "capacity", "reserved"] {
                let _ = &mut change["status"][key];
            }
            let (params, body) = (patch(), conditional(&there, change));
            let call = pools.patch_status(&id, &params, &body);
            let pool = bounded(format!("patch status of Pool {id}"), call).await?;
            Ok(vec![Put::Pool(Box::new(pool))])
        }
        pools::Write::Labels { node, set, remove } => {
            let nodes: Api<Node> = Api::all(ctx.client.clone());
            let set = set.into_iter().map(|k| (k, json!(names::POOL_LABEL_VALUE)));
            let remove = remove.into_iter().map(|k| (k, Value::Null));
            let labels: serde_json::Map<_, _> = set.chain(remove).collect();
            let body = Patch::Merge(json!({"metadata": {"labels": labels}}));
            let params = patch();
            let call = nodes.patch_metadata(&node, &params, &body);
            match bounded(format!("label Node {node}"), call).await {
                Ok(node) => Ok(vec![Put::Node(Box::new(node))]),
                Err(error) if error.is_not_found() => Ok(Vec::new()),
                Err(error) => Err(error.into()),
            }
        }
    }
}

pub(super) async fn capacity(ctx: &Ctx, wanted: CSIStorageCapacity, there: bool) -> Done {
    let api: Api<CSIStorageCapacity> =
        Api::namespaced(ctx.client.clone(), &wanted.namespace().unwrap_or_default());
    let name = wanted.name_any();
    let text = format!("write CSIStorageCapacity {name}");
    let object = if there {
        let body = json!({
            "metadata": {"labels": wanted.metadata.labels, "ownerReferences": wanted.metadata.owner_references},
            "capacity": wanted.capacity,
            "maximumVolumeSize": wanted.maximum_volume_size,
        });
        let params = patch();
        bounded(text, api.patch(&name, &params, &Patch::Merge(body))).await?
    } else {
        bounded(text, api.create(&post(), &wanted)).await?
    };
    Ok(vec![Put::Capacity(Box::new(object))])
}

/// A size as Kubernetes writes it.
fn quantity(size: u64) -> Quantity {
    Quantity(berth_api::Bytes(size).to_string())
}

/// The owner of what must go with the controller's Deployment.
pub(super) async fn deployment_owner(ctx: &Ctx) -> Option<OwnerReference> {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let name = &ctx.deployment;
    match bounded(format!("get Deployment {name}"), api.get_opt(name)).await {
        Ok(found) => found.and_then(|d| d.controller_owner_ref(&())),
        Err(error) => {
            tracing::warn!(
                error = error.chain(),
                "capacity objects will not go with the Deployment"
            );
            None
        }
    }
}

/// Metadata of a capacity object.
fn capacity_meta(ctx: &Ctx, name: String, owner: Option<&OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(ctx.namespace.clone()),
        labels: Some(
            [
                (DRIVER_LABEL, berth_api::DRIVER),
                ("csi.storage.k8s.io/managed-by", "berth-controller"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ),
        owner_references: owner.map(|o| {
            vec![OwnerReference {
                controller: None,
                block_owner_deletion: None,
                ..o.clone()
            }]
        }),
        ..ObjectMeta::default()
    }
}
