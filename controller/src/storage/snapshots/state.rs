//! What is known of snapshots, and how it is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_api::{Snapshot, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use berth_plan::snapshots as plan;
use kube::ResourceExt;

use berth_kube::WholeCache;

/// What is known of snapshots.
#[derive(Default)]
pub(in crate::storage) struct SnapshotState {
    pub(in crate::storage) snapshots: WholeCache<Snapshot>,
    pub(in crate::storage) contents: WholeCache<VolumeSnapshotContent>,
    pub(in crate::storage) requests: WholeCache<VolumeSnapshot>,
    /// VolumeSnapshotClasses, of any driver.
    pub(in crate::storage) classes: WholeCache<VolumeSnapshotClass>,
    pub(in crate::storage) parameters: BTreeMap<String, BTreeMap<String, String>>,
    /// Names of contents, by the snapshot that they name.
    pub(in crate::storage) by_handle: BTreeMap<String, BTreeSet<String>>,
    /// Snapshots that contents name, by the volume that they are of.
    pub(in crate::storage) by_volume: BTreeMap<String, BTreeSet<String>>,
}

impl SnapshotState {
    /// Whether the first lists are complete. Only what concerns snapshots waits for it.
    pub(in crate::storage) fn is_ready(&self) -> bool {
        self.snapshots.is_ready()
            && self.contents.is_ready()
            && self.requests.is_ready()
            && self.classes.is_ready()
    }

    /// The contents that name a snapshot.
    pub(in crate::storage) fn contents_of(&self, handle: &str) -> Vec<Arc<VolumeSnapshotContent>> {
        let names = self.by_handle.get(handle).into_iter().flatten();
        names
            .filter_map(|name| self.contents.get("", name).cloned())
            .collect()
    }

    /// Takes a content into the indexes, or out of them; returns the snapshot that it
    /// names.
    pub(in crate::storage) fn index(
        &mut self,
        content: &VolumeSnapshotContent,
        there: bool,
    ) -> Option<String> {
        let handle = plan::handle(content)?;
        change(&mut self.by_handle, &handle, content.name_any(), there);
        if let Some(volume) = &content.spec.source.volume_handle {
            change(&mut self.by_volume, volume, handle.clone(), there);
        }
        Some(handle)
    }
}

/// Adds a value under a key, or takes it away.
fn change(map: &mut BTreeMap<String, BTreeSet<String>>, key: &str, value: String, there: bool) {
    if there {
        map.entry(key.to_owned()).or_default().insert(value);
    } else if let Some(values) = map.get_mut(key) {
        values.remove(&value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}
