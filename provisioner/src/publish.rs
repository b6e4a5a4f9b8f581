//! Mounts volumes for pods, and takes the mounts off again. What is mounted is
//! read from the mount table each time, so calls may be repeated, overlap a
//! restart, or follow a crash.

use std::path::Path;

use nix::errno::Errno;

use crate::dir::{Dir, Kind};
use crate::error::{Doing, Error};
use crate::images;
use crate::locks::lock;
use crate::mountinfo::{self, MountEntry};
use crate::place::Place;
use crate::pool::{Need, Pool};
use crate::provisioner::{Inner, Provisioner};
use crate::record::{DATA, TRASH, VOLUMES, VolumeRecord};
use crate::report::Data;
use crate::sys::MountAs;
use crate::types::{Publish, Stage, VolumeMode};
use crate::uses::Use;

impl Provisioner {
    /// Mounts a volume at a staging path, once per node; repeated calls change
    /// nothing. A raw block device is attached and shown nowhere yet.
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
        agree(&record, request.mode)?;
        let place = inner.place(staging)?;
        if let (Data::Image(image), VolumeMode::Block) = (&data, record.mode) {
            let (number, _handle) = inner.loop_for(&pool, &record, image, false)?;
            tracing::info!(volume = id, number, "loop device attached");
            return Ok(());
        }
        lock(&inner.state).staging.insert(place.real.clone());
        inner.mount_at(
            &pool,
            &record,
            &Shown::Itself(&data),
            &place,
            MountAs::default(),
        )?;
        // A volume that is smaller than it should be is better than none.
        if let Err(e) = inner.fill(&pool, id) {
            tracing::warn!(volume = id, error = %e, "its filesystem cannot grow");
        }
        Ok(())
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
        inner.release_device(id)
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
        agree(&record, request.mode)?;
        let place = inner.place(&request.target)?;
        let table = inner
            .sys
            .mounts()
            .doing("reading the mounts for", &request.target)?;
        let uses = inner.uses(Some(&pool), id, &table);
        if let Some(staging) = &request.staging
            && record.mode == VolumeMode::Filesystem
        {
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
        let how = MountAs {
            read_only: request.readonly,
            flags: &request.flags,
        };
        let mounted = match record.mode {
            VolumeMode::Filesystem => inner.mounted_image(&pool, id)?,
            VolumeMode::Block => None,
        };
        let shown = match &mounted {
            Some(root) => Shown::Mounted(root),
            None => Shown::Itself(&data),
        };
        inner.mount_at(&pool, &record, &shown, &place, how)?;
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
            Some(Kind::File) if place.parent.is_empty_file(&place.name).unwrap_or(false) => place
                .parent
                .remove_file(&place.name)
                .doing("removing", target),
            Some(_) => Err(place.conflict("neither a directory nor a device; it is left alone")),
        }
    }
}

/// What is to be seen at a mount.
enum Shown<'a> {
    /// The volume itself: its tree, the filesystem in its image, its device.
    Itself(&'a Data),
    /// The filesystem in its image, which is mounted elsewhere already.
    Mounted(&'a Dir),
}

/// Refuses a caller that takes the volume to be what it is not.
fn agree(record: &VolumeRecord, mode: VolumeMode) -> Result<(), Error> {
    if record.mode == mode {
        return Ok(());
    }
    Err(Error::invalid(
        "volume mode",
        format!("{mode:?}"),
        format!("volume {} was made as {:?}", record.id, record.mode),
    ))
}

/// Whether a use stands against a single writer's request: another target, or a
/// directory inside the volume, or the device, that another pod has mounted.
fn is_other(using: &Use, request: &Publish, target: &Path) -> bool {
    if using.whole && !using.device {
        using.target != target
    } else {
        using.target != target && (request.pod_uid.is_empty() || using.pod_uid != request.pod_uid)
    }
}

impl Inner {
    fn mount_at(
        &self,
        pool: &Pool,
        record: &VolumeRecord,
        shown: &Shown<'_>,
        place: &Place,
        how: MountAs<'_>,
    ) -> Result<(), Error> {
        let id = record.id.as_str();
        let table = self
            .sys
            .mounts()
            .doing("reading the mounts for", &place.said)?;
        if let Some(there) = mountinfo::at(&table, &place.real) {
            return self.agrees(pool, record, there, place, how.read_only);
        }
        if record.mode == VolumeMode::Block {
            return self.show_device(pool, record, shown, place, how.read_only);
        }
        let made = match place.parent.make(&place.name, 0o750) {
            Ok(made) => made,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(place.conflict("not a directory; it is left alone"));
            }
            Err(e) => return Err(e).doing("making", &place.said),
        };
        let bind = |from: &Dir| {
            self.sys
                .bind(from, &place.parent, &place.name, how)
                .doing("mounting the volume at", &place.said)
        };
        let mounted = match shown {
            Shown::Itself(Data::Tree(tree)) => bind(tree),
            Shown::Mounted(root) => bind(root),
            Shown::Itself(Data::Image(image)) => self.mount_image(pool, record, image, place, how),
        };
        if mounted.is_err()
            && made
            && let Err(e) = place.parent.remove_empty(&place.name)
        {
            tracing::warn!(target = %place.said.display(), error = %e, "directory stays");
        }
        mounted?;
        let readonly = how.read_only;
        tracing::info!(volume = id, target = %place.said.display(), readonly, "volume mounted");
        Ok(())
    }

    /// Whether what is mounted at a place is what was asked for.
    fn agrees(
        &self,
        pool: &Pool,
        record: &VolumeRecord,
        there: &MountEntry,
        place: &Place,
        readonly: bool,
    ) -> Result<(), Error> {
        let loops = self.loops_of(pool, &record.id);
        let device = loops.iter().find(|it| images::shows_node(there, it.number));
        let inside = loops
            .iter()
            .any(|it| images::shows_inside(there, it.number))
            && there.root == Path::new("/");
        let root = pool.inside(format!("{VOLUMES}/{}/{DATA}", record.id));
        let tree = there.device == pool.mount.device && there.root == root;
        let is_read_only = match device {
            Some(device) => device.read_only,
            None if inside || tree => there.read_only,
            None => return Err(place.conflict("something else is mounted there")),
        };
        // A pool that is mounted read-only makes every mount of a tree so.
        if is_read_only != readonly && !(tree && pool.mount.read_only) {
            return Err(place.conflict(if readonly {
                "the volume is mounted there already, and writable"
            } else {
                "the volume is mounted there already, and read-only"
            }));
        }
        Ok(())
    }

    /// Shows a raw block device at a file.
    fn show_device(
        &self,
        pool: &Pool,
        record: &VolumeRecord,
        shown: &Shown<'_>,
        place: &Place,
        readonly: bool,
    ) -> Result<(), Error> {
        let Shown::Itself(Data::Image(image)) = shown else {
            return Err(place.conflict("the volume has no device"));
        };
        // A file system that is read-only does not make a device so: it gets a
        // device of its own that refuses writes.
        let (number, _handle) = self.loop_for(pool, record, image, readonly)?;
        let bound = self
            .sys
            .bind_loop(number, &place.parent, &place.name)
            .doing("showing the device at", &place.said);
        if bound.is_err()
            && let Err(e) = place.parent.remove_file(&place.name)
        {
            tracing::warn!(target = %place.said.display(), error = %e, "file stays");
        }
        bound?;
        tracing::info!(volume = record.id, target = %place.said.display(), readonly, "device shown");
        Ok(())
    }

    /// Detaches the devices of a raw block volume that nobody uses any more. A volume
    /// or pool that is not known has none.
    fn release_device(&self, id: &str) -> Result<(), Error> {
        let Ok((pool, record)) = self.sound(id, Need::Read) else {
            return Ok(());
        };
        if record.mode != VolumeMode::Block {
            return Ok(());
        }
        let table = self
            .sys
            .mounts()
            .doing("reading the mounts of", pool.dir.path())?;
        match self.uses(Some(&pool), id, &table).first() {
            None => self.detach(&pool, id),
            Some(using) => Err(Error::Busy {
                target: using.target.clone(),
            }),
        }
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
            if !is_volume(&there.root, id) && !self.may_be_image_of(id, there) {
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
