//! What a CSIStorageCapacity says: which class and node it is about, and its figures.

use berth_api::{Bytes, names};
use berth_plan::{capacity::Capacity, claims::ClassOnNode};
use k8s_openapi::{
    api::storage::v1::CSIStorageCapacity, apimachinery::pkg::api::resource::Quantity,
};

/// The class and node that the object is about; `None` for one that is not ours.
pub(super) fn subject(object: &CSIStorageCapacity) -> Option<ClassOnNode> {
    let labels = object.node_topology.as_ref()?.match_labels.as_ref()?;
    let node = labels.get(names::TOPOLOGY_NODE)?;
    Some((object.storage_class_name.clone(), node.clone()))
}

/// The figures in the object; `None` where it has none.
pub(super) fn told(object: &CSIStorageCapacity) -> Option<Capacity> {
    Some(Capacity {
        total: bytes(object.capacity.as_ref())?,
        largest: bytes(object.maximum_volume_size.as_ref())?,
    })
}

/// A size as Kubernetes writes it.
pub(super) fn quantity(size: u64) -> Quantity {
    Quantity(Bytes(size).to_string())
}

fn bytes(quantity: Option<&Quantity>) -> Option<u64> {
    let bytes: Bytes = quantity?.0.parse().ok()?;
    Some(bytes.0)
}
