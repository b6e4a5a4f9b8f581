//! Mounts volumes for pods, and takes the mounts off again. What is mounted is
//! read from the mount table each time, so calls may be repeated, overlap a
//! restart, or follow a crash.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::dir::{Dir, Kind};
use crate::error::{Doing, Error};
use crate::locks::lock;
use crate::mountinfo::{self, MountEntry};
use crate::pool::{Need, Pool};
use crate::provisioner::{Inner, Provisioner, below_kubelet};
use crate::record::{DATA, TRASH, VOLUMES};
use crate::types::{Publication, Publish};

/// One mount of a volume, or of something inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) target: PathBuf,
    pub(crate) pod_uid: String,
    pub(crate) readonly: bool,
    /// Of the whole volume, not of a directory inside.
    pub(crate) whole: bool,
    /// A staging mount, not a pod's.
    pub(crate) staging: bool,
    /// Below kubelet's directory.
    pub(crate) kubelets: bool,
}

impl Use {
    pub(crate) fn publication(self) -> Publication {
        Publication {
            pod_uid: self.pod_uid,
            target: self.target,
            readonly: self.readonly,
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pod_uid.is_empty() {
            write!(f, "{}", self.target.display())
        } else {
            write!(f, "pod {} at {}", self.pod_uid, self.target.display())
        }
    }
}

/// Where a mount is to be, or is.
struct Place {
    parent: Dir,
    name: String,
    /// As the mount table shows it.
    real: PathBuf,
    /// As the caller says it.
    said: PathBuf,
}

impl Provisioner {
    /// Mounts a volume at a staging path, once per node; repeated calls change
    /// nothing.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), without its refusals.
    pub fn stage(&self, id: &str, staging: &Path) -> Result<(), Error> {
        let inner = &self.inner;
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

impl Place {
    fn conflict(&self, why: impl Into<String>) -> Error {
        Error::TargetConflict {
            target: self.said.clone(),
            why: why.into(),
        }
    }
}

impl Inner {
    /// Every mount of a volume, or of a directory inside it. Without its pool they
    /// are told by the path inside the filesystem, and only below kubelet's
    /// directory.
    pub(crate) fn uses(&self, pool: Option<&Pool>, id: &str, table: &[MountEntry]) -> Vec<Use> {
        let kubelet = self.config.kubelet_dir.canonicalize().unwrap_or_default();
        let (pods, staging) = {
            let state = lock(&self.state);
            (state.pods.clone(), state.staging.clone())
        };
        let relative = format!("{VOLUMES}/{id}/{DATA}");
        let root = pool.map(|pool| pool.inside(&relative));
        table
            .iter()
            .filter_map(|mount| {
                let kubelets = mount.point.starts_with(&kubelet);
                let whole = match (pool, &root) {
                    (Some(pool), Some(root)) => {
                        if mount.device != pool.mount.device || !mount.root.starts_with(root) {
                            return None;
                        }
                        mount.root == *root
                    }
                    _ => {
                        if !kubelets || !mount.root.ends_with(&relative) {
                            return None;
                        }
                        true
                    }
                };
                let pod_uid = pod_in(&kubelet, &mount.point)
                    .or_else(|| pods.get(&mount.point).cloned())
                    .unwrap_or_default();
                Some(Use {
                    staging: mount.point.starts_with(kubelet.join("plugins"))
                        || staging.contains(&mount.point),
                    target: mount.point.clone(),
                    pod_uid,
                    readonly: mount.read_only,
                    whole,
                    kubelets,
                })
            })
            .collect()
    }

    fn place(&self, path: &Path) -> Result<Place, Error> {
        let (base, relative) = below_kubelet(&self.config, path)?;
        place_in(&base, &relative, path)?.ok_or_else(|| Error::TargetConflict {
            target: path.to_owned(),
            why: "the directory that it should be made in does not exist".into(),
        })
    }

    /// `None` when the directory that it would be in is gone.
    fn place_if_there(&self, path: &Path) -> Result<Option<Place>, Error> {
        let (base, relative) = below_kubelet(&self.config, path)?;
        place_in(&base, &relative, path)
    }

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
            .bind(data, &place.parent, &place.name, readonly)
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

/// The UID in `<kubelet>/pods/<uid>/…`.
fn pod_in(kubelet: &Path, point: &Path) -> Option<String> {
    let mut parts = point.strip_prefix(kubelet).ok()?.components();
    if parts.next()?.as_os_str() != "pods" {
        return None;
    }
    Some(parts.next()?.as_os_str().to_str()?.to_owned())
}

fn place_in(base: &Dir, relative: &Path, said: &Path) -> Result<Option<Place>, Error> {
    let name = relative
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| {
            Error::invalid(
                "target",
                said.display().to_string(),
                "its last part must be valid text",
            )
        })?;
    let parent = relative.parent().filter(|p| !p.as_os_str().is_empty());
    let opened = base.open_place(parent.unwrap_or(Path::new(".")));
    let parent = match opened {
        Ok(parent) => parent,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).doing("opening the directory of", said),
    };
    Ok(Some(Place {
        parent,
        name: name.to_owned(),
        real: base.path().join(relative),
        said: said.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_told_from_their_paths() {
        let kubelet = Path::new("/var/lib/kubelet");
        let uid = |point: &str| pod_in(kubelet, Path::new(point));
        assert_eq!(
            uid("/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/pv/mount"),
            Some("u-1".into())
        );
        assert_eq!(uid("/var/lib/kubelet/plugins/kubernetes.io/csi/x"), None);
        assert_eq!(uid("/elsewhere/pods/u-1"), None);
        assert_eq!(uid("/var/lib/kubelet/pods"), None);
    }

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
