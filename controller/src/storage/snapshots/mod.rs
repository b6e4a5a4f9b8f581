//! Snapshots in the storage loop: what is known of them, what a change touches, and
//! from decisions to writes.

pub(super) mod apply;
pub(super) mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_api::{
    Snapshot, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, names::reason,
};
use berth_plan::snapshots::{self as plan, Action};
use kube::{Resource, ResourceExt, runtime::watcher::Event};

use super::{
    Loop,
    apply::Work,
    cache::{Cache, Change},
    queue::Item,
    world::World,
};
use crate::events::Kind;

/// Something that a watch said.
pub(super) enum News {
    Snapshot(Event<Snapshot>),
    Content(Event<VolumeSnapshotContent>),
    Request(Event<VolumeSnapshot>),
    Class(Event<VolumeSnapshotClass>),
}

/// What is known of snapshots.
#[derive(Default)]
pub(super) struct Snaps {
    pub(super) snapshots: Cache<Snapshot>,
    pub(super) contents: Cache<VolumeSnapshotContent>,
    pub(super) requests: Cache<VolumeSnapshot>,
    classes: Cache<VolumeSnapshotClass>,
    parameters: BTreeMap<String, BTreeMap<String, String>>,
    /// Names of contents, by the snapshot that they name.
    by_handle: BTreeMap<String, BTreeSet<String>>,
    /// Snapshots that contents name, by the volume that they are of.
    by_volume: BTreeMap<String, BTreeSet<String>>,
}

impl Snaps {
    /// Whether the first lists are complete. Only what concerns snapshots waits for it.
    pub(super) fn is_ready(&self) -> bool {
        self.snapshots.is_ready()
            && self.contents.is_ready()
            && self.requests.is_ready()
            && self.classes.is_ready()
    }

    fn contents_of(&self, handle: &str) -> Vec<Arc<VolumeSnapshotContent>> {
        let names = self.by_handle.get(handle).into_iter().flatten();
        names
            .filter_map(|name| self.contents.get("", name).cloned())
            .collect()
    }

    fn index(&mut self, content: &VolumeSnapshotContent, there: bool) -> Option<String> {
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

impl World {
    pub(super) fn take_snaps(&mut self, news: News) {
        let known = self.snaps.is_ready();
        match news {
            News::Snapshot(event) => {
                for change in self.snaps.snapshots.take(event) {
                    self.snapshot_changed(change);
                }
            }
            News::Content(event) => {
                for change in self.snaps.contents.take(event) {
                    self.content_changed(change);
                }
            }
            News::Request(event) => {
                if !self.snaps.requests.take(event).is_empty() {
                    self.touch_restores();
                }
            }
            News::Class(event) => {
                for (old, new) in self.snaps.classes.take(event) {
                    self.snapshot_class_changed(old.as_deref(), new.as_deref());
                }
            }
        }
        if !known && self.snaps.is_ready() {
            self.touch_snapshots();
        }
    }

    /// Takes in the answer to our own write of a Snapshot.
    pub(super) fn put_snapshot(&mut self, snapshot: Snapshot) {
        if let Some(change) = self.snaps.snapshots.put(snapshot) {
            self.snapshot_changed(change);
        }
    }

    /// Takes in the answer to our own write of a content.
    pub(super) fn put_content(&mut self, content: VolumeSnapshotContent) {
        if let Some(change) = self.snaps.contents.put(content) {
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
            let handle = content.and_then(|content| self.snaps.index(&content, there));
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
        let parameters = &mut self.snaps.parameters;
        match new {
            Some(new) => parameters.insert(name, new.parameters.clone().unwrap_or_default()),
            None => parameters.remove(&name),
        };
        self.touch_snapshots();
    }

    /// Everything about snapshots is to be looked at: what they all depend on changed.
    pub(super) fn touch_snapshots(&mut self) {
        let snaps = &self.snaps;
        let known = snaps.snapshots.values().map(|s| s.name_any());
        let all = known.chain(snaps.by_handle.keys().cloned());
        self.dirty.extend(all.map(Item::Snapshot));
        self.touch_restores();
    }

    /// The snapshots of a volume.
    pub(super) fn touch_snapshots_of(&mut self, volume: &str) {
        let handles = self.snaps.by_volume.get(volume).into_iter().flatten();
        self.dirty.extend(handles.cloned().map(Item::Snapshot));
    }
}

impl Loop {
    /// Decides about one snapshot and starts the write.
    pub(super) fn decide_snapshot(&mut self, name: &str) {
        let item = Item::Snapshot(name.to_owned());
        let world = &self.world;
        if !world.snaps.is_ready() {
            return;
        }
        let contents = world.snaps.contents_of(name);
        let snapshot = world.snaps.snapshots.get("", name).cloned();
        let seen: Vec<&VolumeSnapshotContent> = contents.iter().map(|c| &**c).collect();
        let of = |c: &&VolumeSnapshotContent| c.spec.source.volume_handle.clone();
        let volume = seen.iter().find_map(of);
        let action = plan::decide(&plan::View {
            name,
            snapshot: snapshot.as_deref(),
            contents: &seen,
            volume: volume
                .and_then(|name| world.volumes.get("", &name))
                .map(|v| &**v),
            classes: &world.snaps.parameters,
            grants: &world.grants,
        });
        match &action {
            None => return self.queue.done(&item),
            Some(Action::Create(snapshot)) => {
                let spec = &snapshot.spec;
                tracing::info!(snapshot = name, volume = %spec.volume, node = %spec.node, adopt = spec.adopt, "snapshot is wanted");
            }
            Some(Action::Fail { content, message }) => {
                let about = contents.iter().find(|c| c.name_any() == content.name);
                if let Some(about) = about.map(|content| content.object_ref(&())) {
                    let events = &self.ctx.events;
                    events.publish(about, Kind::Warning, reason::SNAPSHOT_FAILED, message);
                }
            }
            Some(_) => {}
        }
        if let Some(action) = action {
            self.start(item, Work::Snapshot(action));
        }
    }
}
