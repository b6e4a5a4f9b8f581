//! The state of a directory under `pools/`: observed for every operation, judged by a
//! pure function.

pub(crate) mod init;
pub(crate) mod lease;
pub(crate) mod ledger;
pub(crate) mod record;
pub(crate) mod shared;
pub(crate) mod tombstone;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_linux::mountinfo::MountEntry;

use crate::backend;
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts, is_symlink_or_mount_escape};
use crate::fs::envelope::{self, Document};
use crate::layout::{IDENTITY, META, POOLS, SNAPSHOTS, TOMBSTONES, TRASH, VOLUMES};
use crate::pool::lease::Lease;
use crate::pool::record::Identity;
use crate::sys::{Filesystem, Sys};
use crate::types::{Health, KnownPool, PoolId};

/// What was seen of a directory.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Its identity: `None` if it has none, or why it cannot be trusted.
    pub(crate) identity: Result<Option<Identity>, String>,
    /// What it lies on.
    pub(crate) filesystem: Filesystem,
    /// The mount that it was opened on.
    pub(crate) mount: MountEntry,
    /// Whether something is mounted on it.
    pub(crate) mount_point: bool,
}

/// Whether the directory can be used, and the message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) health: Health,
    pub(crate) message: String,
    /// The pool that is, or should be, there.
    pub(crate) id: Option<PoolId>,
    /// UUID of the filesystem that it is, or should be, on: what is there in the place
    /// of a lost disk must not be remembered as the disk's.
    pub(crate) fs_uuid: Option<String>,
}

/// Judges what was seen, given what is remembered of that directory.
pub(crate) fn judge(seen: &Observed, known: Option<&KnownPool>) -> Verdict {
    let remembered = known.and_then(|known| known.fs_uuid.as_ref());
    let verdict = |health, message: String, id: Option<&PoolId>, uuid: Option<&String>| Verdict {
        health,
        message,
        id: id.cloned(),
        fs_uuid: uuid.cloned(),
    };
    let identity = match &seen.identity {
        Err(why) => {
            return verdict(
                Health::Damaged(why.clone()),
                format!("{META}/{IDENTITY}: {why}; nothing is written until it is repaired"),
                known.map(|k| &k.id),
                remembered,
            );
        }
        Ok(None) => {
            return match known {
                Some(known) => verdict(
                    Health::LostMount,
                    format!(
                        "pool {} was here and is not: mount its disk again; nothing is written",
                        known.id
                    ),
                    Some(&known.id),
                    remembered,
                ),
                None => no_identity(seen),
            };
        }
        Ok(Some(identity)) => identity,
    };
    let id = Some(&identity.id);
    let uuid = seen.filesystem.uuid.as_ref();
    let moved = |was: Option<&String>| was.is_some() && was != uuid;
    let remembered = remembered.filter(|_| known.is_some_and(|known| known.id == identity.id));
    if moved(identity.fs_uuid.as_ref()) || moved(remembered) {
        return verdict(
            Health::LostMount,
            format!(
                "pool {} lies on another filesystem than it was made on: its files were copied, \
                 or its disk is not mounted; nothing is written",
                identity.id
            ),
            id,
            identity.fs_uuid.as_ref().or(remembered),
        );
    }
    if let Err(why) = backend::supported(&seen.filesystem.fstype) {
        return verdict(Health::Unsupported(why.clone()), why, id, uuid);
    }
    if seen.filesystem.read_only {
        return verdict(
            Health::ReadOnly,
            "mounted read-only: look for I/O errors in the kernel's log, then mount it writable"
                .into(),
            id,
            uuid,
        );
    }
    verdict(Health::Healthy, String::new(), id, uuid)
}

fn no_identity(seen: &Observed) -> Verdict {
    let (health, message) = match backend::supported(&seen.filesystem.fstype) {
        Err(why) if seen.mount_point => (Health::Unsupported(why.clone()), why),
        _ if seen.mount_point => (
            Health::Uninitialized,
            "not a pool yet: run `berth-agent pools init` on it".to_owned(),
        ),
        _ => (
            Health::Uninitialized,
            "not a pool, and nothing is mounted here: mount a disk and run `berth-agent pools \
             init` on it, or have it share the node's own filesystem: add --allow-root-fs and \
             --capacity SIZE"
                .to_owned(),
        ),
    };
    Verdict {
        health,
        message,
        id: None,
        fs_uuid: seen.filesystem.uuid.clone(),
    }
}

/// What an operation needs to do with the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Look.
    Read,
    /// Change.
    Write,
}

/// A pool that was opened for one operation. While it lives the filesystem
/// cannot be unmounted.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The pool's directory.
    pub(crate) dir: Dir,
    /// Its name under `pools/`.
    pub(crate) name: String,
    pub(crate) identity: Identity,
    pub(crate) filesystem: Filesystem,
    pub(crate) mount: MountEntry,
    /// Keeps other processes from the pool while the operation runs; `None` for
    /// inspection.
    pub(crate) lease: Option<Arc<Lease>>,
}

impl Pool {
    /// `volumes/`.
    pub(crate) fn volumes(&self) -> Result<Dir, Error> {
        self.part(VOLUMES)
    }

    /// `snapshots/`, which pools of earlier versions do not have yet.
    pub(crate) fn snapshots(&self) -> Result<Dir, Error> {
        self.dir
            .ensure(SNAPSHOTS, 0o700, Mounts::Stay)
            .map_err(|e| self.unexpected_entry(&self.dir.path().join(SNAPSHOTS), e))
    }

    /// Whether copies on this filesystem may share blocks with their source.
    pub(crate) fn shares_blocks(&self) -> bool {
        self.filesystem.fstype != "ext4"
    }

    /// `trash/`.
    pub(crate) fn trash(&self) -> Result<Dir, Error> {
        self.part(TRASH)
    }

    /// `tombstones/`.
    pub(crate) fn tombstones(&self) -> Result<Dir, Error> {
        self.part(TOMBSTONES)
    }

    fn part(&self, name: &str) -> Result<Dir, Error> {
        self.dir
            .open(name, Mounts::Stay)
            .map_err(|e| self.unexpected_entry(&self.dir.path().join(name), e))
    }

    /// The error for a path in the pool that is not as Berth made it.
    pub(crate) fn unexpected_entry(&self, path: &Path, error: io::Error) -> Error {
        if is_symlink_or_mount_escape(&error) || error.kind() == io::ErrorKind::NotFound {
            Error::DamagedPool {
                path: path.to_owned(),
                why: format!("not the directory that Berth made ({error}); it is left alone"),
            }
        } else {
            Error::Io {
                action: "opening",
                path: path.to_owned(),
                cause: error,
            }
        }
    }

    /// The path of a volume's data inside the filesystem, as mount tables show it.
    pub(crate) fn inside(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.mount
            .path_inside(self.dir.path())
            .unwrap_or_else(|| self.mount.root.clone())
            .join(relative)
    }
}

/// The directory of the pools.
pub(crate) fn open_pools(root: &Path) -> Result<Dir, Error> {
    let root_dir = Dir::open_root(root).context("opening", root)?;
    root_dir
        .open(POOLS, Mounts::Cross)
        .context("opening", root.join(POOLS))
}

/// Looks at one directory under `pools/`.
pub(crate) fn observe(sys: &dyn Sys, pools: &Dir, dir: &Dir) -> Result<Observed, Error> {
    let path = dir.path();
    let mount = sys.mount_of(dir).context("looking at", path)?;
    let above = sys.mount_id(pools).context("looking at", pools.path())?;
    let filesystem = sys.filesystem(dir, &mount).context("looking at", path)?;
    Ok(Observed {
        identity: identity(dir),
        filesystem,
        mount_point: mount.id != above,
        mount,
    })
}

fn identity(dir: &Dir) -> Result<Option<Identity>, String> {
    let meta = match dir.open(META, Mounts::Stay) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{META} cannot be opened: {e}")),
    };
    read(&meta, IDENTITY)
}

/// Reads a document in its envelope: `None` if there is none, or what is wrong.
pub(crate) fn read<T: Document>(dir: &Dir, name: &str) -> Result<Option<T>, String> {
    match dir.read(name, envelope::MAX_BYTES) {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => envelope::decode(&bytes)
            .map(Some)
            .map_err(|e| e.to_string()),
        Err(e) => Err(format!("cannot be read: {e}")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use berth_linux::DeviceNumber;

    /// A disk's, which no decision looks at.
    pub(crate) fn mount() -> MountEntry {
        MountEntry {
            id: 1,
            device: DeviceNumber { major: 8, minor: 1 },
            root: "/".into(),
            point: "/pools/disk0".into(),
            read_only: false,
            filesystem_read_only: false,
            fstype: "btrfs".into(),
            source: "disk".into(),
        }
    }

    fn filesystem(fstype: &str, uuid: &str) -> Filesystem {
        Filesystem {
            fstype: fstype.into(),
            uuid: Some(uuid.into()),
            size: 1 << 30,
            free: 1 << 30,
            read_only: false,
        }
    }

    fn id() -> PoolId {
        PoolId::new("disk0-0123456789ab").unwrap()
    }

    fn identity() -> Identity {
        Identity {
            id: id(),
            fs_uuid: Some("u1".into()),
            fstype: "btrfs".into(),
            created: String::new(),
            capacity: None,
            enabled_quotas: true,
            shared: false,
        }
    }

    fn known(uuid: &str) -> KnownPool {
        KnownPool {
            dir: "disk0".into(),
            id: id(),
            fs_uuid: Some(uuid.into()),
        }
    }

    fn seen(identity: Result<Option<Identity>, String>, fs: Filesystem) -> Observed {
        Observed {
            identity,
            filesystem: fs,
            mount: mount(),
            mount_point: true,
        }
    }

    #[test]
    fn only_the_pool_that_was_made_here_is_healthy() {
        let healthy = seen(Ok(Some(identity())), filesystem("btrfs", "u1"));
        assert_eq!(judge(&healthy, None).health, Health::Healthy);
        assert_eq!(judge(&healthy, Some(&known("u1"))).health, Health::Healthy);
        assert_eq!(
            judge(&healthy, Some(&known("u2"))).health,
            Health::LostMount
        );
        let copied = seen(Ok(Some(identity())), filesystem("btrfs", "u2"));
        let verdict = judge(&copied, None);
        assert_eq!(verdict.health, Health::LostMount);
        assert_eq!(verdict.fs_uuid.as_deref(), Some("u1"));
    }

    #[test]
    fn a_pool_that_was_known_and_is_gone_is_never_merely_uninitialised() {
        let empty = seen(Ok(None), filesystem("nfs4", "root"));
        let verdict = judge(&empty, Some(&known("u1")));
        assert_eq!(verdict.health, Health::LostMount);
        assert_eq!(verdict.id, Some(id()));
        assert_eq!(verdict.fs_uuid.as_deref(), Some("u1"));
        assert!(matches!(judge(&empty, None).health, Health::Unsupported(_)));
        let unmounted = Observed {
            mount_point: false,
            ..empty
        };
        assert_eq!(judge(&unmounted, None).health, Health::Uninitialized);
    }

    #[test]
    fn another_pool_in_its_place_is_that_other_pool() {
        let other = Identity {
            id: PoolId::new("disk0-ffffffffffff").unwrap(),
            fs_uuid: Some("u9".into()),
            ..identity()
        };
        let verdict = judge(
            &seen(Ok(Some(other.clone())), filesystem("btrfs", "u9")),
            Some(&known("u1")),
        );
        assert_eq!(verdict.health, Health::Healthy);
        assert_eq!(verdict.id, Some(other.id));
    }

    #[test]
    fn damage_and_read_only_are_distinguished() {
        let damaged = seen(Err("torn".into()), filesystem("btrfs", "u1"));
        assert_eq!(
            judge(&damaged, Some(&known("u1"))).health,
            Health::Damaged("torn".into())
        );
        let mut fs = filesystem("btrfs", "u1");
        fs.read_only = true;
        let read_only = seen(Ok(Some(identity())), fs);
        assert_eq!(judge(&read_only, None).health, Health::ReadOnly);
    }
}
