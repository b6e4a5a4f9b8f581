//! One look at one snapshot: from what is known to the next write.

use berth_api::{VolumeSnapshotContent, names::reason};
use berth_plan::snapshots::{self as plan, Action};
use kube::{Resource, ResourceExt};

use crate::{
    events::Kind,
    storage::{queue::Item, reconciler::Reconciler, write::Write},
};

impl Reconciler {
    /// Decides about one snapshot and starts the write.
    pub(in crate::storage) fn decide_snapshot(&mut self, name: &str) {
        let item = Item::Snapshot(name.to_owned());
        let state = &self.state;
        if !state.snapshots.is_ready() {
            return;
        }
        let contents = state.snapshots.contents_of(name);
        let snapshot = state.snapshots.snapshots.get("", name).cloned();
        let seen: Vec<&VolumeSnapshotContent> = contents.iter().map(|c| &**c).collect();
        let of = |c: &&VolumeSnapshotContent| c.spec.source.volume_handle.clone();
        let volume = seen.iter().find_map(of);
        let action = plan::decide(&plan::View {
            name,
            snapshot: snapshot.as_deref(),
            contents: &seen,
            volume: volume
                .and_then(|name| state.volumes.get("", &name))
                .map(|v| &**v),
            classes: &state.snapshots.parameters,
            grants: &state.grants,
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
            self.start(item, Write::Snapshot(action));
        }
    }
}
