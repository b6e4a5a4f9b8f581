//! What a change of a snapshot's objects touches.

use berth_api::{Snapshot, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use kube::{ResourceExt, runtime::watcher::Event};

use berth_kube::cache::Change;

use crate::storage::{queue::Item, state::ClusterState};

impl ClusterState {
    pub(in crate::storage) fn take_snapshot(&mut self, event: Event<Snapshot>) {
        self.when_ready(|state| {
            for change in state.snapshots.snapshots.take(event) {
                state.snapshot_changed(change);
            }
        });
    }

    pub(in crate::storage) fn take_content(&mut self, event: Event<VolumeSnapshotContent>) {
        self.when_ready(|state| {
            for change in state.snapshots.contents.take(event) {
                state.content_changed(change);
            }
        });
    }

    pub(in crate::storage) fn take_request(&mut self, event: Event<VolumeSnapshot>) {
        self.when_ready(|state| {
            if !state.snapshots.requests.take(event).is_empty() {
                state.touch_restores();
            }
        });
    }

    pub(in crate::storage) fn take_snapshot_class(&mut self, event: Event<VolumeSnapshotClass>) {
        self.when_ready(|state| {
            for (old, new) in state.snapshots.classes.take(event) {
                state.snapshot_class_changed(old.as_deref(), new.as_deref());
            }
        });
    }

    /// Takes something in, and marks everything once the first lists are complete.
    fn when_ready(&mut self, take: impl FnOnce(&mut Self)) {
        let known = self.snapshots.is_ready();
        take(self);
        if !known && self.snapshots.is_ready() {
            self.touch_snapshots();
        }
    }

    /// Takes in the answer to our own write of a Snapshot.
    pub(in crate::storage) fn observe_snapshot(&mut self, snapshot: Snapshot) {
        if let Some(change) = self.snapshots.snapshots.put(snapshot) {
            self.snapshot_changed(change);
        }
    }

    /// Takes in the answer to our own write of a content.
    pub(in crate::storage) fn observe_content(&mut self, content: VolumeSnapshotContent) {
        if let Some(change) = self.snapshots.contents.put(content) {
            self.content_changed(change);
        }
    }

    fn snapshot_changed(&mut self, (old, new): Change<Snapshot>) {
        if let Some(snapshot) = new.or(old) {
            self.dirty.insert(Item::Snapshot(snapshot.name_any()));
        }
        self.touch_restores();
    }

    fn content_changed(&mut self, (old, new): Change<VolumeSnapshotContent>) {
        for (content, there) in [(old, false), (new, true)] {
            let handle = content.and_then(|content| self.snapshots.index(&content, there));
            self.dirty.extend(handle.map(Item::Snapshot));
        }
        self.touch_restores();
    }

    fn snapshot_class_changed(
        &mut self,
        old: Option<&VolumeSnapshotClass>,
        new: Option<&VolumeSnapshotClass>,
    ) {
        let Some(name) = new.or(old).map(ResourceExt::name_any) else {
            return;
        };
        let parameters = &mut self.snapshots.parameters;
        match new {
            Some(new) => parameters.insert(name, new.parameters.clone().unwrap_or_default()),
            None => parameters.remove(&name),
        };
        self.touch_snapshots();
    }

    /// Marks every snapshot to be looked at: something that all depend on changed.
    pub(in crate::storage) fn touch_snapshots(&mut self) {
        let snapshots = &self.snapshots;
        let known = snapshots.snapshots.values().map(|s| s.name_any());
        let all = known.chain(snapshots.by_handle.keys().cloned());
        self.dirty.extend(all.map(Item::Snapshot));
        self.touch_restores();
    }

    /// Marks the snapshots of a volume.
    pub(in crate::storage) fn touch_snapshots_of(&mut self, volume: &str) {
        let handles = self.snapshots.by_volume.get(volume).into_iter().flatten();
        self.dirty.extend(handles.cloned().map(Item::Snapshot));
    }
}
