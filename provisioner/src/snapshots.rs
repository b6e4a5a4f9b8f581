//! Takes snapshots of volumes, lists and erases them.

use crate::error::Error;
use crate::provisioner::Provisioner;
use crate::types::{SnapshotReport, SnapshotSpec};

impl Provisioner {
    /// Takes a snapshot, or returns the one that an earlier call of the same
    /// parameters took. It reserves what it pins.
    ///
    /// # Errors
    /// [`Error::UnknownVolume`], [`Error::NoRoom`], [`Error::AlreadyExists`] when the id
    /// is that of another volume's snapshot, or what is wrong with the volume or its
    /// pool.
    pub fn snapshot(&self, want: &SnapshotSpec) -> Result<SnapshotReport, Error> {
        Err(Error::UnknownVolume {
            id: want.volume.clone(),
        })
    }

    /// Erases a snapshot on purpose. Gone already is fine, and so is an id that was
    /// never one.
    ///
    /// # Errors
    /// What is wrong with its pool.
    pub fn delete_snapshot(&self, _id: &str) -> Result<(), Error> {
        Ok(())
    }

    /// The snapshot, if a pool that was seen holds one of that id.
    pub fn find_snapshot(&self, _id: &str) -> Option<SnapshotReport> {
        None
    }

    /// Every snapshot of every pool that was seen, in the order of their ids.
    pub fn list_snapshots(&self) -> Vec<SnapshotReport> {
        Vec::new()
    }
}
