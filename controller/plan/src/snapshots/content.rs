//! A VolumeSnapshotContent, as upstream's contract reads it.

use super::action::Action;
use crate::target::Target;
use berth_api::{
    DRIVER, Snapshot, SnapshotStatus, VolumeSnapshotContent, names,
    volume_snapshot::VolumeSnapshotContentStatus,
};

/// The snapshot that a content of our driver names: the one that is taken for it, or
/// the one that was there before. Nothing for other drivers' contents.
pub fn handle(content: &VolumeSnapshotContent) -> Option<String> {
    let spec = &content.spec;
    if spec.driver != DRIVER {
        return None;
    }
    match (&spec.source.volume_handle, &spec.source.snapshot_handle) {
        (Some(_), _) => content.metadata.uid.as_deref().map(names::snapshot_name),
        (None, handle) => handle.clone(),
    }
}

/// A content of our driver.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a>(pub &'a VolumeSnapshotContent);

impl<'a> Content<'a> {
    pub(super) fn name(&self) -> String {
        self.0.metadata.name.clone().unwrap_or_default()
    }

    pub(super) fn uid(&self) -> String {
        self.0.metadata.uid.clone().unwrap_or_default()
    }

    pub(super) fn volume_handle(&self) -> Option<&'a str> {
        self.0.spec.source.volume_handle.as_deref()
    }

    pub(super) fn noted(&self, key: &str) -> Option<&'a str> {
        let all = self.0.metadata.annotations.as_ref()?;
        all.get(key).map(String::as_str)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.noted(key).is_some()
    }

    /// Whether our finalizer holds it.
    pub fn is_held(&self) -> bool {
        let all = self.0.metadata.finalizers.as_deref().unwrap_or_default();
        all.iter().any(|f| f == names::content::FINALIZER)
    }

    /// Whether its status names a snapshot, which is or was there.
    pub(super) fn is_known(&self) -> bool {
        let status = self.0.status.as_ref();
        status.is_some_and(|s| s.snapshot_handle.is_some())
    }

    /// Whether the driver's side may deal with the snapshot and release the content
    /// (`shouldDelete` upstream): it is being deleted, and either it was never bound,
    /// or the snapshot-controller says that its VolumeSnapshot goes too, and no sidecar
    /// was in the middle of taking it.
    pub fn is_released(&self) -> bool {
        let spec = &self.0.spec;
        if self.0.metadata.deletion_timestamp.is_none() {
            return false;
        }
        if spec.source.snapshot_handle.is_some() && spec.volume_snapshot_ref.uid.is_empty() {
            return true;
        }
        !self.has(names::content::BEING_CREATED) && self.has(names::content::BEING_DELETED)
    }

    /// Whether the content and the Snapshot are as they must be before it is published.
    pub(super) fn is_noted(&self, snapshot: &Snapshot) -> bool {
        snapshot.is_exposed()
            && self.noted(names::content::POOL) == Some(&snapshot.spec.pool)
            && self.noted(names::content::VOLUME) == Some(&snapshot.spec.volume)
    }

    /// The content as the target of a write.
    pub(super) fn target(&self) -> Target {
        Target::of(&self.0.metadata)
    }

    /// Removes our finalizer.
    pub(super) fn release(&self) -> Action {
        let all = self.0.metadata.finalizers.iter().flatten();
        Action::Release {
            content: self.target(),
            others: all
                .filter(|f| *f != names::content::FINALIZER)
                .cloned()
                .collect(),
        }
    }
}

/// The content's status for a snapshot that is ready; nothing before the agent has said
/// when it was taken and how large it is.
pub(super) fn ready(name: &str, status: &SnapshotStatus) -> Option<VolumeSnapshotContentStatus> {
    let created = status.created.as_ref()?.0.as_nanosecond();
    Some(VolumeSnapshotContentStatus {
        snapshot_handle: Some(name.to_owned()),
        creation_time: i64::try_from(created).ok(),
        ready_to_use: Some(true),
        restore_size: Some(i64::try_from(status.size?.0).unwrap_or(i64::MAX)),
        error: None,
    })
}
