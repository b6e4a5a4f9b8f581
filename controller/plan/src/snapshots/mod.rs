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
//! a disk; the mark [`names::EXPOSED`] before people are told of it; erased on the
//! disk before the Snapshot goes; the content's finalizer last. Since a content's
//! annotations say where its snapshot lies, a Snapshot that vanished is made again.

mod content;
pub mod restore;

pub use content::{Content, handle};

use std::collections::BTreeMap;

use berth_api::{
    ContentRef, Snapshot, SnapshotPhase, SnapshotSpec, Volume, VolumePhase, VolumeSnapshotContent,
    VolumeState, names, volume_snapshot::VolumeSnapshotContentStatus,
};

use crate::pools::{Grant, Standing};

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

/// What proves that a snapshot may be erased. The shell checks it against the API
/// server itself, not a cache, before it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A content with policy Delete that is let go: name and UID.
    DeletedContent(String, String),
    /// Nobody was ever told of it, and the content that it was for is gone.
    NeverTold(String, String),
}

/// The next write. Contents are given by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing is due.
    Nothing,
    /// The intent, or the Snapshot of what is there already (`spec.adopt`).
    Create(Box<SnapshotSpec>),
    /// Mark the Snapshot, note on the content where it lies, and tell that it is ready.
    Tell {
        /// The content.
        content: String,
        /// Its new status.
        status: Box<VolumeSnapshotContentStatus>,
    },
    /// Tell on the content what is wrong.
    Fail {
        /// The content.
        content: String,
        /// A sentence.
        message: String,
    },
    /// It is known whether a snapshot was taken: remove a sidecar's annotation.
    Settle {
        /// The content.
        content: String,
    },
    /// The pool is on another node now.
    MoveTo {
        /// The node.
        node: String,
    },
    /// Let the agent erase the data.
    Erase(Proof),
    /// The data is erased: the content names no snapshot any more.
    Forget {
        /// The content.
        content: String,
    },
    /// Remove the Snapshot object.
    Drop,
    /// Let the content go.
    Release {
        /// The content.
        content: String,
    },
}

/// The next write for one snapshot.
pub fn decide(view: &View) -> Step {
    if let Some(snapshot) = view.snapshot
        && !is_erased(view, snapshot)
        && let Some(node) = moved(view, snapshot)
    {
        return Step::MoveTo { node };
    }
    let contents = view.contents.iter().map(|c| Content(c));
    if let Some(step) = contents.filter_map(|c| of_content(view, c)).next() {
        return step;
    }
    match view.snapshot {
        Some(snapshot) if view.contents.is_empty() => abandoned(view, snapshot),
        _ => Step::Nothing,
    }
}

/// A Snapshot that no content names.
fn abandoned(view: &View, snapshot: &Snapshot) -> Step {
    match snapshot.spec.state {
        VolumeState::Deleted if is_erased(view, snapshot) => Step::Drop,
        VolumeState::Deleted => Step::Nothing,
        // Retained: the content was deleted by a person, and the data is to stay.
        VolumeState::Present if is_told(snapshot) => Step::Nothing,
        VolumeState::Present => {
            let content = &snapshot.spec.content;
            let (name, uid) = (content.name.clone(), content.uid.clone());
            Step::Erase(Proof::NeverTold(name, uid))
        }
    }
}

fn of_content(view: &View, content: Content) -> Option<Step> {
    if content.is_let_go() {
        return content
            .is_held()
            .then(|| let_go(view, content))
            .filter(|step| *step != Step::Nothing);
    }
    match found(view, content) {
        Found::Ready(status) => {
            if content.0.status.as_ref() != Some(&*status) || !content.is_noted(view.snapshot) {
                let content = content.name();
                return Some(Step::Tell { content, status });
            }
            settle(content)
        }
        Found::Waits => None,
        Found::Makes(spec) => Some(Step::Create(spec)),
        Found::Wrong(message) => {
            let status = content.0.status.as_ref();
            let told = status.and_then(|s| s.error.as_ref()?.message.as_deref());
            let ready = status.and_then(|s| s.ready_to_use);
            if told == Some(&message) && ready == Some(false) {
                return settle(content);
            }
            let content = content.name();
            Some(Step::Fail { content, message })
        }
    }
}

fn settle(content: Content) -> Option<Step> {
    let content = content
        .has(names::content::BEING_CREATED)
        .then_some(content)?;
    let content = content.name();
    Some(Step::Settle { content })
}

/// What there is to say to a content that stays.
enum Found {
    /// The snapshot is there, and this is its status.
    Ready(Box<VolumeSnapshotContentStatus>),
    /// The agent has not answered yet, or nothing is to be done.
    Waits,
    /// There is no Snapshot yet.
    Makes(Box<SnapshotSpec>),
    /// It cannot be, for now or for ever.
    Wrong(String),
}

fn found(view: &View, content: Content) -> Found {
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
            Some(status) => Found::Ready(Box::new(status)),
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
fn missing(view: &View, content: Content) -> Found {
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
    // a content; what the volume was made for, only its object tells.
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
        state: VolumeState::Present,
    }))
}

/// What is wrong with the class of a snapshot that is to be taken.
fn class_refusal(view: &View, content: Content) -> Option<String> {
    let Some(name) = &content.0.spec.volume_snapshot_class_name else {
        return Some("it has no VolumeSnapshotClass; make it anew with one".to_owned());
    };
    let Some(parameters) = view.classes.get(name) else {
        return Some(format!("there is no VolumeSnapshotClass {name}; make it"));
    };
    let foreign = |key: &&String| !key.starts_with(names::content::SIDECAR_PARAMETERS);
    let unknown = parameters.keys().find(foreign)?;
    Some(format!(
        "parameter {unknown:?} of VolumeSnapshotClass {name} is not known; snapshots have no parameters"
    ))
}

/// The Snapshot of a content that was told of one, made again.
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
        state: VolumeState::Present,
    })
}

/// A content that goes, and is held by our finalizer.
fn let_go(view: &View, content: Content) -> Step {
    let name = content.name();
    let others = view.contents.iter().map(|c| Content(c));
    let wanted = others.filter(|c| c.name() != name).any(|c| !c.is_let_go());
    if content.0.spec.deletion_policy != "Delete" || wanted {
        return Step::Release { content: name };
    }
    // A snapshot that a content of ours never told of was never its to erase, unless
    // it is the one that was made for it.
    let own = content.volume_handle().is_some();
    let Some(snapshot) = view.snapshot else {
        return match content.is_known() {
            true if pool_is_lost(view, content.noted(names::content::POOL)) => {
                Step::Release { content: name }
            }
            // It vanished, and its data did not.
            true => adopted(view, content).map_or(Step::Nothing, |s| Step::Create(Box::new(s))),
            false => Step::Release { content: name },
        };
    };
    match snapshot.spec.state {
        _ if !own && !content.is_known() => Step::Release { content: name },
        VolumeState::Present => Step::Erase(Proof::DeletedContent(name, content.uid())),
        VolumeState::Deleted if !is_erased(view, snapshot) => Step::Nothing,
        VolumeState::Deleted if content.is_known() => Step::Forget { content: name },
        VolumeState::Deleted => Step::Drop,
    }
}

/// Whether people were told of the snapshot.
pub fn is_told(snapshot: &Snapshot) -> bool {
    let marks = snapshot.metadata.annotations.as_ref();
    snapshot.spec.adopt || marks.is_some_and(|all| all.contains_key(names::EXPOSED))
}

fn pool_is_lost(view: &View, pool: Option<&str>) -> bool {
    let grant = pool.and_then(|pool| view.grants.get(pool));
    grant.is_some_and(|grant| grant.standing == Standing::DeclaredLost)
}

/// The data is gone, or a person said that its disk is.
fn is_erased(view: &View, snapshot: &Snapshot) -> bool {
    let phase = snapshot.status.as_ref().map(|s| s.phase);
    phase == Some(SnapshotPhase::Deleted) || pool_is_lost(view, Some(&snapshot.spec.pool))
}

/// The one node that has the pool.
fn node_of(view: &View, pool: &str) -> Option<String> {
    let grant = view.grants.get(pool)?;
    let usable = !matches!(
        grant.standing,
        Standing::Conflict | Standing::Missing | Standing::DeclaredLost
    );
    grant.node.clone().filter(|_| usable)
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
