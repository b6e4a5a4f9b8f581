//! The life of one snapshot: from VolumeSnapshotContents and its Snapshot as they are
//! to the next write.
//!
//! Berth's controller has the part that upstream gives to a sidecar beside each driver
//! (`pkg/sidecar-controller` of external-snapshotter): it answers in the status of the
//! contents of its driver, and removes their finalizer once the snapshot is dealt
//! with. Upstream's snapshot-controller, which the cluster's administrator installs,
//! does everything else.
//!
//! The order is what keeps data, as for volumes: intent (Snapshot) before anything on
//! a disk; the mark `spec.exposed` before it is published; erased on the
//! disk before the Snapshot goes; the content's finalizer last. Since a content's
//! annotations say where its snapshot lies, a Snapshot that vanished is recreated.

mod action;
mod content;
pub mod restore;

pub use action::{Action, Proof};
pub use content::{Content, handle};

use std::collections::BTreeMap;

use berth_api::{
    ContentRef, Snapshot, SnapshotPhase, SnapshotSpec, Volume, VolumePhase, VolumeSnapshotContent,
    VolumeState, names, volume_snapshot::VolumeSnapshotContentStatus,
};

use crate::{
    grants::{Grant, Standing},
    target::Target,
};

/// Everything that the next write for one snapshot depends on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Name of the Snapshot, which is the snapshot's handle.
    pub name: &'a str,
    /// The Snapshot object.
    pub snapshot: Option<&'a Snapshot>,
    /// Contents of our driver that name it.
    pub contents: &'a [&'a VolumeSnapshotContent],
    /// The Volume that it is, or is to be, a snapshot of.
    pub volume: Option<&'a Volume>,
    /// Parameters of the VolumeSnapshotClasses.
    pub classes: &'a BTreeMap<String, BTreeMap<String, String>>,
    /// Grants of all pools.
    pub grants: &'a BTreeMap<String, Grant>,
}

/// The next write for one snapshot, if one is due.
pub fn decide(view: &View) -> Option<Action> {
    if let Some(snapshot) = view.snapshot
        && !is_erased(view, snapshot)
        && let Some(node) = moved(view, snapshot)
    {
        let snapshot = Target::of(&snapshot.metadata);
        return Some(Action::MoveTo { snapshot, node });
    }
    let mut contents = view.contents.iter().map(|c| Content(c));
    let action = contents.find_map(|content| of_content(view, content));
    if action.is_some() || !view.contents.is_empty() {
        return action;
    }
    abandoned(view, view.snapshot?)
}

/// A Snapshot that no content names.
fn abandoned(view: &View, snapshot: &Snapshot) -> Option<Action> {
    let target = Target::of(&snapshot.metadata);
    match snapshot.spec.state {
        VolumeState::Deleted if is_erased(view, snapshot) => {
            Some(Action::Drop { snapshot: target })
        }
        VolumeState::Deleted => None,
        // Retained: the content was deleted by a person, and the data is to stay.
        VolumeState::Present if snapshot.is_exposed() => None,
        VolumeState::Present => {
            let content = &snapshot.spec.content;
            let (name, uid) = (content.name.clone(), content.uid.clone());
            Some(Action::Erase {
                snapshot: target,
                proof: Proof::NeverPublished(name, uid),
            })
        }
    }
}

fn of_content(view: &View, content: Content) -> Option<Action> {
    if content.is_released() {
        return content.is_held().then(|| released(view, content)).flatten();
    }
    match found(view, content) {
        Found::Ready(snapshot, status) => {
            if content.0.status.as_ref() == Some(&*status) && content.is_noted(snapshot) {
                return settle(content);
            }
            Some(Action::Publish {
                mark: !snapshot.is_exposed(),
                pool: snapshot.spec.pool.clone(),
                volume: snapshot.spec.volume.clone(),
                snapshot: Target::of(&snapshot.metadata),
                content: content.target(),
                status,
            })
        }
        Found::Waits => None,
        Found::Makes(spec) => Some(create(view, *spec)),
        Found::Wrong(message) => {
            let status = content.0.status.as_ref();
            let published = status.and_then(|s| s.error.as_ref()?.message.as_deref());
            let ready = status.and_then(|s| s.ready_to_use);
            if published == Some(&message) && ready == Some(false) {
                return settle(content);
            }
            let content = content.target();
            Some(Action::Fail { content, message })
        }
    }
}

fn settle(content: Content) -> Option<Action> {
    let marked = content.has(names::content::BEING_CREATED);
    let content = content.target();
    marked.then_some(Action::Settle { content })
}

fn create(view: &View, spec: SnapshotSpec) -> Action {
    Action::Create(Box::new(Snapshot::new(view.name, spec)))
}

/// The answer to a content that stays.
enum Found<'a> {
    /// The snapshot is there, and this is the status that its content gets.
    Ready(&'a Snapshot, Box<VolumeSnapshotContentStatus>),
    /// The agent has not answered yet, or there is nothing to do.
    Waits,
    /// There is no Snapshot yet: create it with this spec.
    Makes(Box<SnapshotSpec>),
    /// It is not possible, now or ever; why, as a sentence.
    Wrong(String),
}

fn found<'a>(view: &View<'a>, content: Content) -> Found<'a> {
    if content.has(names::content::GROUP_MEMBER) {
        return Found::Wrong(
            "group snapshots are not supported; take a VolumeSnapshot of each claim".to_owned(),
        );
    }
    let Some(snapshot) = view.snapshot else {
        return missing(view, content);
    };
    if let Some(volume) = content.volume_handle()
        && volume != snapshot.spec.volume
    {
        return Found::Wrong(format!(
            "Snapshot {} is of volume {}, not of {volume}",
            view.name, snapshot.spec.volume
        ));
    }
    if snapshot.spec.state == VolumeState::Deleted {
        return Found::Wrong(format!(
            "snapshot {} is being erased and cannot come back",
            view.name
        ));
    }
    let status = snapshot.status.clone().unwrap_or_default();
    match status.phase {
        SnapshotPhase::Ready => match content::ready(view.name, &status) {
            Some(status) => Found::Ready(snapshot, Box::new(status)),
            None => Found::Waits,
        },
        SnapshotPhase::Pending => Found::Waits,
        SnapshotPhase::Failed | SnapshotPhase::Deleted => Found::Wrong(format!(
            "pool {} on {}: {}",
            snapshot.spec.pool,
            snapshot.spec.node,
            status.message.unwrap_or_default()
        )),
    }
}

/// A content whose Snapshot is not there.
fn missing<'a>(view: &View<'a>, content: Content) -> Found<'a> {
    if content.is_known() {
        return match adopted(view, content) {
            Some(spec) => Found::Makes(Box::new(spec)),
            None => Found::Wrong(format!(
                "no node reports the pool of snapshot {}; bring the disk or its node back",
                view.name
            )),
        };
    }
    let Some(handle) = content.volume_handle() else {
        return Found::Wrong(format!(
            "there is no Snapshot {}: name one that `kubectl get bsnap` shows",
            view.name
        ));
    };
    if content.0.metadata.deletion_timestamp.is_some() {
        return Found::Waits;
    }
    if let Some(wrong) = class_refusal(view, content) {
        return Found::Wrong(wrong);
    }
    let Some(volume) = view.volume else {
        return Found::Wrong(format!("there is no Volume {handle} to take a snapshot of"));
    };
    // Upstream's snapshot-controller looks at claim and PersistentVolume before it makes
    // a content; only the Volume shows for which claim the volume was made.
    if volume.spec.claim.namespace != content.0.spec.volume_snapshot_ref.namespace {
        return Found::Wrong(format!(
            "volume {handle} was made for a claim of another namespace, so no snapshot is taken of it here"
        ));
    }
    let phase = volume.status.as_ref().map(|s| s.phase).unwrap_or_default();
    if volume.spec.state == VolumeState::Deleted || phase != VolumePhase::Ready {
        return Found::Wrong(format!(
            "volume {handle} is not ready, so no snapshot can be taken of it"
        ));
    }
    let pool = &volume.spec.pool;
    let Some(node) = node_of(view, pool) else {
        return Found::Wrong(format!(
            "no node reports pool {pool}, which holds volume {handle}; bring the disk or its node back"
        ));
    };
    Found::Makes(Box::new(SnapshotSpec {
        volume: handle.to_owned(),
        pool: pool.clone(),
        node,
        content: content.reference(),
        adopt: false,
        exposed: false,
        state: VolumeState::Present,
    }))
}

/// What is wrong with the class of a snapshot that is to be taken.
fn class_refusal(view: &View, content: Content) -> Option<String> {
    let Some(name) = &content.0.spec.volume_snapshot_class_name else {
        return Some("it has no VolumeSnapshotClass; create it again with one".to_owned());
    };
    let Some(parameters) = view.classes.get(name) else {
        return Some(format!("there is no VolumeSnapshotClass {name}; create it"));
    };
    let foreign = |key: &&String| !key.starts_with(names::content::SIDECAR_PARAMETERS);
    let unknown = parameters.keys().find(foreign)?;
    Some(format!(
        "parameter {unknown:?} of VolumeSnapshotClass {name} is not known; snapshots have no parameters"
    ))
}

/// The Snapshot of a content whose status names one, recreated.
fn adopted(view: &View, content: Content) -> Option<SnapshotSpec> {
    let pool = content.noted(names::content::POOL)?;
    let volume = content.volume_handle();
    let volume = volume.or_else(|| content.noted(names::content::VOLUME))?;
    Some(SnapshotSpec {
        volume: volume.to_owned(),
        pool: pool.to_owned(),
        node: node_of(view, pool)?,
        content: content.reference(),
        adopt: true,
        exposed: true,
        state: VolumeState::Present,
    })
}

/// A content that is being deleted and that our finalizer holds.
fn released(view: &View, content: Content) -> Option<Action> {
    let name = content.name();
    let release = || Some(content.release());
    let others = view.contents.iter().map(|c| Content(c));
    let wanted = others
        .filter(|c| c.name() != name)
        .any(|c| !c.is_released());
    if content.0.spec.deletion_policy != "Delete" || wanted {
        return release();
    }
    // A content may erase only the snapshot that was made for it, or that its status
    // names.
    let own = content.volume_handle().is_some();
    let Some(snapshot) = view.snapshot else {
        return match content.is_known() {
            true if pool_is_lost(view, content.noted(names::content::POOL)) => release(),
            // The object vanished, and its data did not.
            true => adopted(view, content).map(|spec| create(view, spec)),
            false => release(),
        };
    };
    let target = Target::of(&snapshot.metadata);
    match snapshot.spec.state {
        _ if !own && !content.is_known() => release(),
        VolumeState::Present => Some(Action::Erase {
            snapshot: target,
            proof: Proof::DeletedContent(name, content.uid()),
        }),
        VolumeState::Deleted if !is_erased(view, snapshot) => None,
        VolumeState::Deleted if content.is_known() => {
            let content = content.target();
            Some(Action::Unpublish { content })
        }
        VolumeState::Deleted => Some(Action::Drop { snapshot: target }),
    }
}

fn pool_is_lost(view: &View, pool: Option<&str>) -> bool {
    let grant = pool.and_then(|pool| view.grants.get(pool));
    grant.is_some_and(|grant| grant.standing == Standing::DeclaredLost)
}

/// Whether the data is erased, or a person declared its disk lost.
fn is_erased(view: &View, snapshot: &Snapshot) -> bool {
    let phase = snapshot.status.as_ref().map(|s| s.phase);
    phase == Some(SnapshotPhase::Deleted) || pool_is_lost(view, Some(&snapshot.spec.pool))
}

/// The one node that has the pool.
fn node_of(view: &View, pool: &str) -> Option<String> {
    let node = view.grants.get(pool)?.found_on()?;
    Some(node.to_owned())
}

fn moved(view: &View, snapshot: &Snapshot) -> Option<String> {
    node_of(view, &snapshot.spec.pool).filter(|node| *node != snapshot.spec.node)
}

impl Content<'_> {
    fn reference(&self) -> ContentRef {
        let of = &self.0.spec.volume_snapshot_ref;
        ContentRef {
            name: self.name(),
            uid: self.uid(),
            namespace: of.namespace.clone(),
            snapshot: of.name.clone(),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
