//! Mounts volumes for pods, and takes the mounts off again. What is mounted is
//! read from the mount table each time, so calls may be repeated, overlap a
//! restart, or follow a crash.

use std::path::Path;

use nix::errno::Errno;

use crate::dir::{Dir, Kind};
use crate::error::{Doing, Error};
use crate::locks::lock;
use crate::mountinfo;
use crate::place::Place;
use crate::pool::{Need, Pool};
use crate::provisioner::{Inner, Provisioner};
use crate::record::{DATA, TRASH, VOLUMES};
use crate::sys::MountAs;
use crate::types::{Publish, Stage};
use crate::uses::Use;

impl Provisioner {
    /// Mounts a volume at a staging path, once per node; repeated calls change
    /// nothing.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), without its refusals.
    pub fn stage(&self, request: &Stage) -> Result<(), Error> {
        let inner = &self.inner;
        let (id, staging) = (request.id.as_str(), request.staging.as_path());
        inner.manage()?;
        let _one = inner.volume_locks.hold(id);
        let (pool, record) = inner.sound(id, Need::Write)?;
        let data = inner.open_data(&pool, &record)?;
        let place = inner.place(staging)?;
        lock(&inner.state).staging.insert(place.real.clone());
        inner.mount_at(&pool, id, &data, &place, false)
    }

    /// Takes the mount off a staging path; whose directory stays, being the
    /// caller's. None there is fine.
    ///
    /// # Errors
    /// [`Error::Busy`] while a process uses it, [`Error::TargetConflict`] when
    /// something else is mounted there.
    pub fn unstage(&self, id: &str, staging: &Path) -> Result<(), Error> {
        let inner = &self.inner;
        inner.manage()?;
        let _one = inner.volume_locks.hold(id);
        let Some(place) = inner.place_if_there(staging)? else {
            return Ok(());
        };
        inner.unmount_all(id, &place)?;
        lock(&inner.state).staging.remove(&place.real);
        Ok(())
    }

    /// Mounts a volume for a pod; repeated calls with the same parameters change
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Published`]: `single_writer` was asked for and another publish
    /// stands. [`Error::NotStaged`]. [`Error::TargetConflict`]: something else is
    /// at the target, or the volume in the other mode. [`Error::UnknownVolume`],
    /// [`Error::Lost`], [`Error::Damaged`], or what is wrong with the pool.
    pub fn publish(&self, request: &Publish) -> Result<(), Error> {
        let inner = &self.inner;
        let id = &request.id;
        inner.manage()?;
        let _one = inner.volume_locks.hold(id);
        let need = if request.readonly {
            Need::Read
        } else {
            Need::Write
        };
        let (pool, record) = inner.sound(id, need)?;
        let data = inner.open_data(&pool, &record)?;
        let place = inner.place(&request.target)?;
        let table = inner
            .sys
            .mounts()
            .doing("reading the mounts for", &request.target)?;
        let uses = inner.uses(Some(&pool), id, &table);
        if let Some(staging) = &request.staging {
            let staged = inner
                .place_if_there(staging)?
                .is_some_and(|staged| uses.iter().any(|u| u.whole && u.target == staged.real));
            if !staged {
                return Err(Error::NotStaged {
                    id: id.clone(),
                    staging: staging.clone(),
                });
            }
        }
        if request.single_writer
            && let Some(other) = uses
                .iter()
                .find(|u| u.kubelets && !u.staging && is_other(u, request, &place.real))
        {
            return Err(Error::Published {
                id: id.clone(),
                by: other.to_string(),
            });
        }
        inner.mount_at(&pool, id, &data, &place, request.readonly)?;
        if !request.pod_uid.is_empty() {
            lock(&inner.state)
                .pods
                .insert(place.real, request.pod_uid.clone());
        }
        Ok(())
    }

    /// Takes a pod's mount off and removes its directory. None there is fine, and
    /// so is a volume or a pool that is not known any more.
    ///
    /// # Errors
    /// [`Error::Busy`] while a process uses it, [`Error::TargetConflict`] when
    /// something else is mounted there, or the directory is not empty.
    pub fn unpublish(&self, id: &str, target: &Path) -> Result<(), Error> {
        let inner = &self.inner;
        inner.manage()?;
        let _one = inner.volume_locks.hold(id);
        let Some(place) = inner.place_if_there(target)? else {
            return Ok(());
        };
        inner.unmount_all(id, &place)?;
        lock(&inner.state).pods.remove(&place.real);
        match place.parent.kind(&place.name).doing("looking at", target)? {
            None => Ok(()),
            Some(Kind::Directory) => match place.parent.remove_empty(&place.name) {
                Err(e) if e.raw_os_error() == Some(Errno::ENOTEMPTY as i32) => {
                    Err(place.conflict("not empty after unmounting; it is left alone"))
                }
                answer => answer.doing("removing", target),
            },
            Some(_) => Err(place.conflict("not a directory; it is left alone")),
        }
    }
}

/// Whether a use stands against a single writer's request: another target, or a
/// directory inside the volume that another pod has mounted.
fn is_other(using: &Use, request: &Publish, target: &Path) -> bool {
    if using.whole {
        using.target != target
    } else {
        request.pod_uid.is_empty() || using.pod_uid != request.pod_uid
    }
}

impl Inner {
    fn mount_at(
        &self,
        pool: &Pool,
        id: &str,
        data: &Dir,
        place: &Place,
        readonly: bool,
    ) -> Result<(), Error> {
        let table = self
            .sys
            .mounts()
            .doing("reading the mounts for", &place.said)?;
        if let Some(there) = mountinfo::at(&table, &place.real) {
            let root = pool.inside(format!("{VOLUMES}/{id}/{DATA}"));
            if there.device != pool.mount.device || there.root != root {
                return Err(place.conflict("something else is mounted there"));
            }
            // A pool that is mounted read-only makes every mount of it so.
            if there.read_only != readonly && !pool.mount.read_only {
                return Err(place.conflict(if readonly {
                    "the volume is mounted there already, and writable"
                } else {
                    "the volume is mounted there already, and read-only"
                }));
            }
            return Ok(());
        }
        let made = match place.parent.make(&place.name, 0o750) {
            Ok(made) => made,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(place.conflict("not a directory; it is left alone"));
            }
            Err(e) => return Err(e).doing("making", &place.said),
        };
        let bound = self
            .sys
            .bind(
                data,
                &place.parent,
                &place.name,
                MountAs {
                    read_only: readonly,
                    flags: &[],
                },
            )
            .doing("mounting the volume at", &place.said);
        if bound.is_err()
            && made
            && let Err(e) = place.parent.remove_empty(&place.name)
        {
            tracing::warn!(target = %place.said.display(), error = %e, "directory stays");
        }
        bound?;
        tracing::info!(volume = id, target = %place.said.display(), readonly, "volume mounted");
        Ok(())
    }

    /// Takes every mount of the volume off the place.
    fn unmount_all(&self, id: &str, place: &Place) -> Result<(), Error> {
        loop {
            let table = self
                .sys
                .mounts()
                .doing("reading the mounts for", &place.said)?;
            let Some(there) = mountinfo::at(&table, &place.real) else {
                return Ok(());
            };
            if !is_volume(&there.root, id) {
                return Err(place.conflict("something else is mounted there; it is left alone"));
            }
            match self.sys.unmount(&place.parent, &place.name) {
                Ok(()) => {
                    tracing::info!(volume = id, target = %place.said.display(), "volume unmounted");
                }
                Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => {
                    return Err(Error::Busy {
                        target: place.said.clone(),
                    });
                }
                Err(e) => return Err(e).doing("unmounting", &place.said),
            }
        }
    }
}

/// Whether a path inside a filesystem is that of a volume's data, where it was
/// made or in the trash. The pool is not asked: its disk may be gone while the
/// mount still stands.
fn is_volume(root: &Path, id: &str) -> bool {
    if root.ends_with(format!("{VOLUMES}/{id}/{DATA}")) {
        return true;
    }
    let mut parts = root.components().rev().map(|part| part.as_os_str());
    parts.next().is_some_and(|part| part == DATA)
        && parts
            .next()
            .and_then(|part| part.to_str())
            .is_some_and(|name| crate::load::id_in_trash(name) == id)
        && parts.next().is_some_and(|part| part == TRASH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_volumes_own_mounts_are_taken_off() {
        for root in [
            "/volumes/v/data",
            "/sub/volumes/v/data",
            "/trash/v/data",
            "/trash/v~2/data",
        ] {
            assert!(is_volume(Path::new(root), "v"), "{root}");
        }
        for root in [
            "/",
            "/volumes/w/data",
            "/volumes/v",
            "/trash/w/data",
            "/v/data",
        ] {
            assert!(!is_volume(Path::new(root), "v"), "{root}");
        }
    }
}
