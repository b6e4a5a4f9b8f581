//! Mounts volumes for pods, and unmounts them. What is mounted is read from the mount
//! table each time, so calls may be repeated, overlap a restart, or follow a crash.

use std::path::Path;

use berth_linux::mountinfo::{self, MountEntry};
use nix::errno::Errno;

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind};
use crate::layout::{DATA, TRASH, VOLUMES};
use crate::locks::lock;
use crate::mount::target::MountTarget;
use crate::mount::users::VolumeMount;
use crate::mount::{loop_image, publishers, target, users};
use crate::pool::record::VolumeRecord;
use crate::pool::{Access, Pool};
use crate::store::lookup::Data;
use crate::store::{Publisher, Store, lookup};
use crate::sys::MountAs;
use crate::types::{Backend, Publish, Stage, VolumeMode};

/// What is mounted.
enum MountSource<'a> {
    /// The volume itself: its tree, the filesystem in its image, its device.
    Itself(&'a Data),
    /// The filesystem in its image, which is mounted elsewhere already.
    Mounted(&'a Dir),
}

/// See [`stage`](crate::Provisioner::stage).
pub(crate) fn stage(store: &Store, request: &Stage) -> Result<(), Error> {
    let (id, staging) = (request.id.as_str(), request.staging.as_path());
    store.require_writer()?;
    let _one = store.volume_locks.hold(id);
    let (pool, record) = match lookup::open_healthy(store, id, Access::Write) {
        // A tree can still be read, by who asks for no more: a pod that wants to write is
        // refused when its volume is published. To mount an image is to write to it.
        Err(read_only @ Error::ReadOnly { .. }) => {
            let (pool, record) = lookup::open_healthy(store, id, Access::Read)?;
            match record.backend {
                Backend::Image => return Err(read_only),
                _ => (pool, record),
            }
        }
        found => found?,
    };
    let data = lookup::open_data(store, &pool, &record)?;
    check_mode(&record, request.mode)?;
    let target = target::resolve(&store.config, staging)?;
    if let (Data::Image(image), VolumeMode::Block) = (&data, record.mode) {
        let (number, _handle) = loop_image::attach(store, &pool, &record, image, false)?;
        tracing::info!(volume = id, number, "loop device attached");
        return Ok(());
    }
    if matches!(data, Data::Image(_)) {
        // Also where nobody may resize a mounted one. Too small is better than none.
        if let Err(e) = loop_image::grow_unmounted(store, &pool, id) {
            tracing::warn!(volume = id, error = %e, "its filesystem cannot grow before it is mounted");
        }
    }
    lock(&store.state).staging.insert(target.real.clone());
    mount_at(
        store,
        &pool,
        &record,
        &MountSource::Itself(&data),
        &target,
        MountAs::default(),
    )?;
    // A filesystem smaller than the volume is better than none.
    if let Err(e) = loop_image::grow_filesystem(store, &pool, id) {
        tracing::warn!(volume = id, error = %e, "its filesystem cannot grow");
    }
    Ok(())
}

/// See [`unstage`](crate::Provisioner::unstage).
pub(crate) fn unstage(store: &Store, id: &str, staging: &Path) -> Result<(), Error> {
    store.require_writer()?;
    let _one = store.volume_locks.hold(id);
    // A raw block device is mounted nowhere, and attached also where the path is gone.
    if let Some(target) = target::find(&store.config, staging)? {
        unmount_all(store, id, &target)?;
        lock(&store.state).staging.remove(&target.real);
    }
    release_device(store, id)
}

/// See [`publish`](crate::Provisioner::publish).
pub(crate) fn publish(store: &Store, request: &Publish) -> Result<(), Error> {
    let id = &request.id;
    store.require_writer()?;
    let _one = store.volume_locks.hold(id);
    let access = if request.readonly {
        Access::Read
    } else {
        Access::Write
    };
    let (pool, record) = lookup::open_healthy(store, id, access)?;
    let data = lookup::open_data(store, &pool, &record)?;
    check_mode(&record, request.mode)?;
    let target = target::resolve(&store.config, &request.target)?;
    let table = store
        .sys
        .mounts()
        .context("reading the mounts for", &request.target)?;
    let mounts = users::mounts_of(store, Some(&pool), id, &table);
    if let Some(staging) = &request.staging
        && record.mode == VolumeMode::Filesystem
    {
        let staged = target::find(&store.config, staging)?.is_some_and(|staged| {
            mounts
                .iter()
                .any(|mount| mount.whole && mount.target == staged.real)
        });
        if !staged {
            return Err(Error::NotStaged {
                id: id.clone(),
                staging: staging.clone(),
            });
        }
    }
    if request.single_writer
        && let Some(other) = mounts.iter().find(|mount| {
            mount.kubelets && !mount.staging && is_other(mount, request, &target.real)
        })
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
        VolumeMode::Filesystem => loop_image::mounted(store, &pool, id)?,
        VolumeMode::Block => None,
    };
    let source = match &mounted {
        Some(root) => MountSource::Mounted(root),
        None => MountSource::Itself(&data),
    };
    if !request.pod_uid.is_empty() {
        let publisher = Publisher {
            target: target.real.clone(),
            pod_uid: request.pod_uid.clone(),
            pod: request.pod.clone(),
        };
        publishers::remember(store, publisher)
            .context("remembering the pod below", &store.config.root)?;
    }
    mount_at(store, &pool, &record, &source, &target, how)
}

/// See [`unpublish`](crate::Provisioner::unpublish).
pub(crate) fn unpublish(store: &Store, id: &str, target: &Path) -> Result<(), Error> {
    store.require_writer()?;
    let _one = store.volume_locks.hold(id);
    let Some(at) = target::find(&store.config, target)? else {
        return Ok(());
    };
    unmount_all(store, id, &at)?;
    publishers::forget(store, &at.real);
    match at.parent.kind(&at.name).context("looking at", target)? {
        None => Ok(()),
        Some(Kind::Directory) => match at.parent.remove_empty(&at.name) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOTEMPTY as i32) => {
                Err(at.conflict("not empty after unmounting; it is left alone"))
            }
            answer => answer.context("removing", target),
        },
        Some(Kind::File) if at.parent.is_empty_file(&at.name).unwrap_or(false) => {
            at.parent.remove_file(&at.name).context("removing", target)
        }
        Some(_) => Err(at.conflict("neither a directory nor a device; it is left alone")),
    }
}

/// Refuses a request for the other mode than the volume's.
fn check_mode(record: &VolumeRecord, mode: VolumeMode) -> Result<(), Error> {
    if record.mode == mode {
        return Ok(());
    }
    Err(Error::invalid(
        "volume mode",
        format!("{mode:?}"),
        format!("volume {} was made as {:?}", record.id, record.mode),
    ))
}

/// Whether a mount conflicts with a single writer's request: one at another target,
/// or of a directory inside the volume or its device by another pod.
fn is_other(using: &VolumeMount, request: &Publish, target: &Path) -> bool {
    if using.whole && !using.device {
        using.target != target
    } else {
        using.target != target && (request.pod_uid.is_empty() || using.pod_uid != request.pod_uid)
    }
}

/// Whether a path inside a filesystem is that of a volume's data, where it was
/// made or in the trash. The pool is not consulted: its disk may be gone while the
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
            .is_some_and(|name| crate::layout::id_in_trash(name) == id)
        && parts.next().is_some_and(|part| part == TRASH)
}

fn mount_at(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    source: &MountSource<'_>,
    target: &MountTarget,
    how: MountAs<'_>,
) -> Result<(), Error> {
    let id = record.id.as_str();
    let table = store
        .sys
        .mounts()
        .context("reading the mounts for", &target.requested)?;
    if let Some(there) = mountinfo::at(&table, &target.real) {
        return check_mounted(store, pool, record, there, target, how.read_only);
    }
    if record.mode == VolumeMode::Block {
        return bind_device(store, pool, record, source, target, how.read_only);
    }
    let made = match target.parent.make(&target.name, 0o750) {
        Ok(made) => made,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(target.conflict("not a directory; it is left alone"));
        }
        Err(e) => return Err(e).context("making", &target.requested),
    };
    let bind = |from: &Dir| {
        store
            .sys
            .bind(from, &target.parent, &target.name, how)
            .context("mounting the volume at", &target.requested)
    };
    let mounted = match source {
        MountSource::Itself(Data::Tree(tree)) => bind(tree),
        MountSource::Mounted(root) => bind(root),
        MountSource::Itself(Data::Image(image)) => {
            loop_image::mount(store, pool, record, image, target, how)
        }
    };
    if mounted.is_err()
        && made
        && let Err(e) = target.parent.remove_empty(&target.name)
    {
        tracing::warn!(target = %target.requested.display(), error = %e, "directory stays");
    }
    mounted?;
    let readonly = how.read_only;
    tracing::info!(volume = id, target = %target.requested.display(), readonly, "volume mounted");
    Ok(())
}

/// Checks that what is mounted at a target is what was requested.
fn check_mounted(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    there: &MountEntry,
    target: &MountTarget,
    readonly: bool,
) -> Result<(), Error> {
    let loops = loop_image::loops_of(store, pool, &record.id);
    let device = loops
        .iter()
        .find(|it| loop_image::shows_node(there, it.number));
    let inside = loops
        .iter()
        .any(|it| loop_image::shows_inside(there, it.number))
        && there.root == Path::new("/");
    let root = pool.inside(format!("{VOLUMES}/{}/{DATA}", record.id));
    let tree = there.device == pool.mount.device && there.root == root;
    let is_read_only = match device {
        Some(device) => device.read_only,
        None if inside || tree => there.read_only,
        None => return Err(target.conflict("something else is mounted there")),
    };
    // A pool that is mounted read-only makes every mount of a tree so.
    if is_read_only != readonly && !(tree && pool.mount.read_only) {
        return Err(target.conflict(if readonly {
            "the volume is mounted there already, and writable"
        } else {
            "the volume is mounted there already, and read-only"
        }));
    }
    Ok(())
}

/// Mounts a raw block device on a file.
fn bind_device(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    source: &MountSource<'_>,
    target: &MountTarget,
    readonly: bool,
) -> Result<(), Error> {
    let MountSource::Itself(Data::Image(image)) = source else {
        return Err(target.conflict("the volume has no device"));
    };
    // A read-only mount does not make a device read-only: the volume gets a device
    // of its own that refuses writes.
    let (number, _handle) = loop_image::attach(store, pool, record, image, readonly)?;
    let bound = store
        .sys
        .bind_loop(number, &target.parent, &target.name)
        .context("mounting the device at", &target.requested);
    if bound.is_err()
        && let Err(e) = target.parent.remove_file(&target.name)
    {
        tracing::warn!(target = %target.requested.display(), error = %e, "file stays");
    }
    bound?;
    tracing::info!(volume = record.id, target = %target.requested.display(), readonly, "device mounted");
    Ok(())
}

/// Detaches the unused devices of a raw block volume. A volume or pool that is not
/// known has none.
fn release_device(store: &Store, id: &str) -> Result<(), Error> {
    let Ok((pool, record)) = lookup::open_healthy(store, id, Access::Read) else {
        return Ok(());
    };
    if record.mode != VolumeMode::Block {
        return Ok(());
    }
    let table = store
        .sys
        .mounts()
        .context("reading the mounts of", pool.dir.path())?;
    match users::mounts_of(store, Some(&pool), id, &table).first() {
        None => loop_image::detach(store, &pool, id),
        Some(using) => Err(Error::Busy {
            target: using.target.clone(),
        }),
    }
}

/// Unmounts the volume from the target, however often it is mounted there.
fn unmount_all(store: &Store, id: &str, target: &MountTarget) -> Result<(), Error> {
    loop {
        let table = store
            .sys
            .mounts()
            .context("reading the mounts for", &target.requested)?;
        let Some(there) = mountinfo::at(&table, &target.real) else {
            return Ok(());
        };
        if !is_volume(&there.root, id) && !loop_image::may_be_image_of(store, id, there) {
            return Err(target.conflict("something else is mounted there; it is left alone"));
        }
        unmount_inside(store, id, target, &table)?;
        match store.sys.unmount(&target.parent, &target.name) {
            Ok(()) => {
                tracing::info!(volume = id, target = %target.requested.display(), "volume unmounted");
            }
            Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => {
                return Err(Error::Busy {
                    target: target.requested.clone(),
                });
            }
            Err(e) => return Err(e).context("unmounting", &target.requested),
        }
    }
}

/// Unmounts what a pod mounted inside the volume and left there (a privileged one, with
/// Bidirectional propagation): the pod is gone, and would stay Terminating for it.
///
/// Such a mount is seen wherever the volume is mounted, and to unmount one is to unmount
/// all. So while another pod has the volume, whose mount it may be, it is left, and told.
fn unmount_inside(
    store: &Store,
    id: &str,
    target: &MountTarget,
    table: &[MountEntry],
) -> Result<(), Error> {
    let mut inside: Vec<&Path> = table
        .iter()
        .map(|mount| mount.point.as_path())
        .filter(|point| *point != target.real && point.starts_with(&target.real))
        .collect();
    // The table has the outer before the inner, and the lower before the upper.
    inside.reverse();
    for point in inside {
        let busy = || Error::Busy {
            target: point.to_owned(),
        };
        if is_shared(store, target, table) {
            return Err(busy());
        }
        // By handle and without links: what is in the volume is anybody's.
        let below = point.strip_prefix(target.parent.path()).ok();
        let (parent, name) = below
            .and_then(|below| Some((below.parent()?, below.file_name()?.to_str()?)))
            .ok_or_else(busy)?;
        let parent = target.parent.open_place(parent);
        let parent = parent.context("opening the directory of", point)?;
        match store.sys.unmount(&parent, name) {
            Ok(()) => {
                tracing::warn!(volume = id, at = %point.display(), "a pod left a mount inside its volume; unmounted")
            }
            Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => return Err(busy()),
            Err(e) => return Err(e).context("unmounting", point),
        }
    }
    Ok(())
}

/// Whether what is mounted at the target is mounted for another pod too.
fn is_shared(store: &Store, target: &MountTarget, table: &[MountEntry]) -> bool {
    let pods = store.config.kubelet_dir.canonicalize().unwrap_or_default();
    let pods = pods.join("pods");
    let here = mountinfo::at(table, &target.real);
    here.is_some_and(|here| {
        table.iter().any(|other| {
            (other.device, &other.root) == (here.device, &here.root)
                && other.point != target.real
                && other.point.starts_with(&pods)
        })
    })
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
