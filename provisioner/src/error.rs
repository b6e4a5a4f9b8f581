//! Everything that can go wrong, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use berth_model::{Backend, PoolId};

/// Why an operation was refused or failed. Messages name the thing, what is
/// wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's request cannot be carried out as it is written.
    #[error("{what} {value:?}: {why}")]
    InvalidArgument {
        /// Which argument.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The ledger has no room; nothing was made.
    #[error("pool {pool} has room for {room} bytes, {needed} are needed")]
    NoRoom {
        /// The pool.
        pool: PoolId,
        /// Bytes that the volume, or its growth, would take.
        needed: u64,
        /// Bytes that are left.
        room: u64,
    },
    /// A volume with this id exists, with other parameters than requested.
    #[error("volume {id} exists already: {difference}")]
    AlreadyExists {
        /// The volume.
        id: String,
        /// How it differs.
        difference: String,
    },
    /// The volume was erased on purpose and is not made again.
    #[error("volume {id} was erased on purpose at {erased}; it is not made again under this id")]
    Tombstoned {
        /// The volume.
        id: String,
        /// When (RFC 3339, UTC).
        erased: String,
    },
    /// No pool that is here has a volume of this id. It may lie in a pool that
    /// is not here now.
    #[error("no pool on this node holds a volume {id}")]
    UnknownVolume {
        /// The volume.
        id: String,
    },
    /// No pool that is here has a snapshot of this id.
    #[error("no pool on this node holds a snapshot {id}")]
    UnknownSnapshot {
        /// The snapshot.
        id: String,
    },
    /// The requested size is too small for the volume's source.
    #[error("{size} bytes are asked for, and its source {source_id} needs {needed}: ask for more")]
    TooSmall {
        /// Id of the source: a snapshot or a volume.
        source_id: String,
        /// Bytes requested.
        size: u64,
        /// Bytes that the source needs.
        needed: u64,
    },
    /// The volume that a copy is asked of belongs to a claim of another namespace.
    #[error("volume {id} was made for a claim of another namespace: its data is not copied")]
    ForeignSource {
        /// The volume that the copy is asked of.
        id: String,
    },
    /// A pod of another namespace than the claim's asks for the volume.
    #[error(
        "volume {id} is of a claim of another namespace than pod {pod}: it is not mounted; is \
         there a second PersistentVolume of it?"
    )]
    ForeignPod {
        /// The volume.
        id: String,
        /// `<namespace>/<name>` of the pod.
        pod: String,
    },
    /// The volume should exist and does not. Nothing is made in its place.
    #[error("the data of volume {id} is lost: {why}; nothing is made in its place")]
    Lost {
        /// The volume.
        id: String,
        /// What is missing.
        why: String,
    },
    /// The volume's record cannot be trusted.
    #[error(
        "volume {id} is damaged: {why}; it is left as it is, run `berth-agent check` on the node"
    )]
    Damaged {
        /// The volume.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// The pool is not on this node.
    #[error("pool {pool} is not on this node: mount its disk under the pools directory")]
    PoolMissing {
        /// The pool.
        pool: PoolId,
    },
    /// The directory is not a pool.
    #[error("{} is not a pool: mount a disk there and run `berth-agent pools init`", path.display())]
    Uninitialized {
        /// The directory.
        path: PathBuf,
    },
    /// The pool's directory is not the mount that it was.
    #[error("{}: the pool's disk is not mounted ({why}); mount it again, nothing was written", path.display())]
    LostMount {
        /// The directory.
        path: PathBuf,
        /// What shows it.
        why: String,
    },
    /// The pool's filesystem is read-only.
    #[error("{}: mounted read-only; look for I/O errors in the kernel's log, then mount it writable", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// The pool's disk does not answer, or has not yet been opened. Nothing was done.
    #[error("{}: {why}", path.display())]
    Unresponsive {
        /// The directory, or the file that shows it.
        path: PathBuf,
        /// What is waited for.
        why: String,
    },
    /// Pools that have not been opened yet may hold what was asked for.
    #[error("the pools {dirs} are not open yet, and may hold {id}: try again")]
    NotOpenYet {
        /// What was looked for.
        id: String,
        /// Names of their directories.
        dirs: String,
    },
    /// The data is being copied: it stays until that is done.
    #[error("{id} is being copied: try again when the copy is done")]
    Copied {
        /// The volume.
        id: String,
    },
    /// A copy of the data is not made while it is used as it is now.
    #[error("volume {id} is not copied: {why}")]
    NotCopied {
        /// The volume.
        id: String,
        /// Why not, and what to do.
        why: String,
    },
    /// This process is about to end.
    #[error("the agent is stopping: try again")]
    Stopping,
    /// The pool cannot be trusted.
    #[error("{}: {why}", path.display())]
    DamagedPool {
        /// The directory.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The backend is not available there.
    #[error("backend {backend} is not available: {why}")]
    Unsupported {
        /// The backend.
        backend: Backend,
        /// Why not.
        why: String,
    },
    /// A directory was not made a pool.
    #[error("{} is not made a pool: {why}", path.display())]
    InitRefused {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// Another process works on the same root.
    #[error("{} is in use by another agent: stop it first", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The provisioner was opened for looking only.
    #[error("opened for inspection: nothing is changed")]
    InspectOnly,
    /// The volume is mounted, so it is neither deleted nor given to another pod.
    #[error("volume {id} is mounted by {by}")]
    Published {
        /// The volume.
        id: String,
        /// The pod's UID and the path.
        by: String,
    },
    /// The caller claims to have staged the volume; the mount table shows otherwise.
    #[error("volume {id} is not staged at {}", staging.display())]
    NotStaged {
        /// The volume.
        id: String,
        /// The path.
        staging: PathBuf,
    },
    /// Something else is at the target.
    #[error("{}: {why}", target.display())]
    TargetConflict {
        /// The path.
        target: PathBuf,
        /// What is there.
        why: String,
    },
    /// A process still uses the mount.
    #[error("{} is busy: a process still uses it", target.display())]
    Busy {
        /// The path.
        target: PathBuf,
    },
    /// A system call failed.
    #[error("{action} {}: {cause}", path.display())]
    Io {
        /// The action that failed.
        action: &'static str,
        /// What it was performed on.
        path: PathBuf,
        /// The error of the system call. The message has it, so it is no `source`:
        /// whoever prints a chain would print it twice.
        cause: io::Error,
    },
}

impl Error {
    pub(crate) fn invalid(
        what: &'static str,
        value: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self::InvalidArgument {
            what,
            value: value.into(),
            why: why.into(),
        }
    }
}

/// Adds the action and its path to an [`io::Error`].
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|cause| Error::Io {
            action,
            path: path.as_ref().to_owned(),
            cause,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_is_in_the_message_once() {
        let failed = Err::<(), _>(io::Error::other("no luck")).context("opening", "/x");
        let error = failed.unwrap_err();
        assert_eq!(error.to_string(), "opening /x: no luck");
        assert!(std::error::Error::source(&error).is_none());
    }
}
