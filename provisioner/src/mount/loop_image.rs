//! Volume images behind loop devices: which device has a volume's image, where it is
//! mounted, and whether the filesystem inside fills it. A device is matched by device
//! and inode of its file, never by name.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::path::Path;

use berth_linux::loops::MAJOR;
use berth_linux::mountinfo::MountEntry;
use berth_linux::{DeviceNumber, FileId};

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts};
use crate::layout::{DATA, VOLUMES};
use crate::locks::lock;
use crate::mount::target;
use crate::pool::Pool;
use crate::pool::record::VolumeRecord;
use crate::store::{Entry, PoolState, Store};
use crate::sys::{Loop, LoopOptions, MountAs};
use crate::types::{Backend, VolumeMode};
use crate::{backend, sys};

/// Whether a mount is of the node of a loop device, and so of the device itself.
pub(crate) fn shows_node(mount: &MountEntry, number: u32) -> bool {
    mount.device.major != MAJOR
        && ["devtmpfs", "tmpfs"].contains(&mount.fstype.as_str())
        && mount
            .root
            .file_name()
            .is_some_and(|name| *name == *format!("loop{number}"))
}

/// Whether a mount is of the filesystem inside a loop device.
pub(crate) fn shows_inside(mount: &MountEntry, number: u32) -> bool {
    mount.device
        == DeviceNumber {
            major: MAJOR,
            minor: number,
        }
}

/// The number of the loop device whose node, or whose filesystem, a mount shows.
pub(crate) fn loop_behind(mount: &MountEntry) -> Option<u32> {
    if mount.device.major == MAJOR {
        return Some(mount.device.minor);
    }
    let name = mount.root.file_name()?.to_str()?;
    let number = name.strip_prefix("loop")?.parse().ok()?;
    shows_node(mount, number).then_some(number)
}

/// Whether a volume may have an image. One with a damaged record may, and pods may
/// have it mounted.
pub(crate) fn may_be_image(entry: &Entry) -> bool {
    match entry {
        Entry::Intact(record) => record.backend == Backend::Image,
        Entry::Damaged(_) => true,
    }
}

/// The loop devices that show a volume's image; none for other volumes.
pub(crate) fn loops_of(store: &Store, pool: &Pool, id: &str) -> Vec<Loop> {
    image_of(store, pool, id)
        .and_then(|image| sys::loops_of(store.sys.as_ref(), &image).ok())
        .unwrap_or_default()
}

/// Loop devices by what they show.
#[derive(Debug, Default)]
pub(crate) struct LoopIndex(HashMap<FileId, Vec<Loop>>);

impl LoopIndex {
    /// Of all loop devices.
    pub(crate) fn new(loops: Vec<Loop>) -> Self {
        let mut index: HashMap<FileId, Vec<Loop>> = HashMap::new();
        for it in loops {
            index.entry(it.file).or_default().push(it);
        }
        Self(index)
    }

    /// Those that show a volume's image.
    pub(crate) fn of(&self, store: &Store, pool: &Pool, id: &str) -> Vec<Loop> {
        let found = image_of(store, pool, id).map(|image| FileId::from(&image));
        found
            .and_then(|file| self.0.get(&file).cloned())
            .unwrap_or_default()
    }
}

/// Whether a loop device shows the image of a volume.
pub(crate) fn is_attached(store: &Store, pool: &Pool, id: &str) -> Result<bool, Error> {
    let Some(image) = image_of(store, pool, id) else {
        return Ok(false);
    };
    let loops = sys::loops_of(store.sys.as_ref(), &image);
    Ok(!loops
        .context("looking at the loop devices of", id)?
        .is_empty())
}

/// The root of an image's filesystem, where it is mounted below kubelet's
/// directory.
pub(crate) fn mounted(store: &Store, pool: &Pool, id: &str) -> Result<Option<Dir>, Error> {
    let loops = loops_of(store, pool, id);
    if loops.is_empty() {
        return Ok(None);
    }
    let table = store
        .sys
        .mounts()
        .context("reading the mounts of", pool.dir.path())?;
    Ok(mounted_among(store, &loops, &table))
}

/// The root of the filesystem in one of these devices, where it is mounted below
/// kubelet's directory.
pub(crate) fn mounted_among(store: &Store, loops: &[Loop], table: &[MountEntry]) -> Option<Dir> {
    table
        .iter()
        .filter(|mount| loops.iter().any(|it| shows_inside(mount, it.number)))
        .filter(|mount| mount.root == Path::new("/"))
        .find_map(|mount| {
            let target = target::find(&store.config, &mount.point).ok()??;
            target.parent.open(&target.name, Mounts::Cross).ok()
        })
}

/// A loop device of an image that can be written: the one that it has, or a new
/// one, which stays for as long as the handle is open.
///
/// # Errors
/// [`Error::Copied`] while the image is being copied, or that of a system call.
pub(crate) fn attach(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    image: &std::fs::File,
    read_only: bool,
) -> Result<(u32, Option<std::fs::File>), Error> {
    store.refuse_copied(&record.id)?;
    let is = image
        .metadata()
        .context("looking at the image of", &record.id)?;
    if let Some(state) = lock(&store.state).pools.get_mut(&pool.identity.id) {
        state.images.insert(record.id.clone(), FileId::from(&is));
    }
    let there = loops_of(store, pool, &record.id)
        .into_iter()
        .find(|it| it.read_only == read_only);
    if let Some(there) = there {
        let held = store.sys.hold_loop(there.number, &is);
        let held = held.context("holding the loop device of", &record.id)?;
        // Not one that is about to detach itself: a mount of that meets I/O errors.
        if held.is_some() {
            return Ok((there.number, held));
        }
    }
    let filesystem = record.mode == VolumeMode::Filesystem;
    let options = LoopOptions {
        read_only,
        autoclear: filesystem,
        block_size: match filesystem {
            // As the blocks of the ext4 inside.
            true => 4096,
            false => backend::DEVICE_BLOCK,
        },
    };
    let (number, handle) = store
        .sys
        .attach_loop(image, options)
        .context("attaching a loop device to the image of", &record.id)?;
    Ok((number, Some(handle)))
}

/// Grows the filesystem in an image that grew, where it is mounted. Where it is
/// not, the next staging does.
pub(crate) fn grow_filesystem(store: &Store, pool: &Pool, id: &str) -> Result<(), Error> {
    let Some(mounted) = mounted(store, pool, id)? else {
        return Ok(());
    };
    let path = pool.dir.path().join(VOLUMES).join(id);
    if behind(pool, id).context("reading", &path)? {
        store
            .sys
            .grow_ext4(&mounted)
            .context("growing the filesystem of", mounted.path())?;
        tracing::info!(volume = id, "filesystem grown");
    }
    Ok(())
}

/// Grows the filesystem in an image that grew, if no device shows the image.
pub(crate) fn grow_unmounted(store: &Store, pool: &Pool, id: &str) -> Result<(), Error> {
    let path = pool.dir.path().join(VOLUMES).join(id);
    if !loops_of(store, pool, id).is_empty() || !behind(pool, id).context("reading", &path)? {
        return Ok(());
    }
    let dir = pool.dir.open(format!("{VOLUMES}/{id}"), Mounts::Stay);
    let dir = dir.context("opening", &path)?;
    let grown = store.sys.grow_unmounted(&dir, DATA);
    grown.context("growing the filesystem in", &path)?;
    tracing::info!(volume = id, "filesystem grown");
    Ok(())
}

/// Whether the filesystem in an image is smaller than the image; `false` where that cannot
/// be read. Each report asks it of each image, so that one that fills its image is not opened
/// again until it grows.
pub(crate) fn is_behind(store: &Store, pool: &Pool, record: &VolumeRecord) -> bool {
    let id = &record.id;
    let known = |state: &PoolState| state.filled.get(id) == Some(&record.enforced);
    if (lock(&store.state).pools.get(&pool.identity.id)).is_some_and(known) {
        return false;
    }
    let behind = behind(pool, id);
    if let Ok(false) = behind
        && let Some(state) = lock(&store.state).pools.get_mut(&pool.identity.id)
    {
        state.filled.insert(id.clone(), record.enforced);
    }
    behind.unwrap_or(false)
}

fn behind(pool: &Pool, id: &str) -> std::io::Result<bool> {
    let dir = pool.dir.open(format!("{VOLUMES}/{id}"), Mounts::Stay)?;
    let image = dir.open_file(DATA)?;
    let size = image.metadata()?.len();
    let inside = backend::ext4_size(&image)?;
    // It ends with a whole block; less than one of the largest is no growth.
    Ok(inside.is_some_and(|inside| size.saturating_sub(inside) >= 64 << 10))
}

/// Mounts the filesystem of an image.
pub(crate) fn mount(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    image: &std::fs::File,
    target: &crate::mount::target::MountTarget,
    how: MountAs<'_>,
) -> Result<(), Error> {
    let (number, handle) = attach(store, pool, record, image, false)?;
    store
        .sys
        .mount_loop(number, &target.parent, &target.name, how)
        .map_err(|e| {
            let image = pool.dir.path().join(VOLUMES).join(&record.id).join(DATA);
            let kind = e.kind();
            let advice = format!(
                "{e}; it is left as it is: if its filesystem is damaged, copy the image, then \
                 run `e2fsck -f {}` on the node",
                image.display()
            );
            std::io::Error::new(kind, advice)
        })
        .context("mounting the image at", &target.requested)?;
    drop(handle);
    Ok(())
}

/// Detaches the loop devices of an image that is mounted nowhere.
///
/// # Errors
/// [`Error::Published`] when a process holds one open.
pub(crate) fn detach(store: &Store, pool: &Pool, id: &str) -> Result<(), Error> {
    for it in loops_of(store, pool, id) {
        store
            .sys
            .detach_loop(it.number)
            .context("detaching", format!("/dev/loop{}", it.number))?;
    }
    match loops_of(store, pool, id).first() {
        None => Ok(()),
        Some(held) => Err(Error::Published {
            id: id.to_owned(),
            by: format!("a process that holds /dev/loop{} open", held.number),
        }),
    }
}

/// Whether a loop device may be unmounted from a target of volume `id`: it has that
/// volume's image, or that of no volume. Decided by what is remembered of images, so that
/// no disk is asked, least of all another pool's.
pub(crate) fn may_be_image_of(store: &Store, id: &str, mount: &MountEntry) -> bool {
    let Some(number) = loop_behind(mount) else {
        return false;
    };
    let Ok(Some(it)) = store.sys.loop_at(number) else {
        return false;
    };
    let state = lock(&store.state);
    let mut others = state.pools.values().flat_map(|pool| {
        let images = pool.images.iter();
        images.filter(|(other, image)| *other != id && **image == it.file)
    });
    let own = |pool: &PoolState| pool.images.get(id) == Some(&it.file);
    state.pools.values().any(own) || others.next().is_none()
}

/// What the images of these volumes are.
pub(crate) fn identities(
    pool: &Pool,
    volumes: &BTreeMap<String, Entry>,
) -> BTreeMap<String, FileId> {
    let images = volumes.iter().filter(|(_, entry)| may_be_image(entry));
    images
        .filter_map(|(id, _)| Some((id.clone(), FileId::from(&stat(pool, id)?))))
        .collect()
}

/// What a volume's image is; `None` for other volumes.
fn image_of(store: &Store, pool: &Pool, id: &str) -> Option<Metadata> {
    let may_be_image = lock(&store.state)
        .pools
        .get(&pool.identity.id)
        .and_then(|state| state.volumes.get(id))
        .is_some_and(may_be_image);
    if !may_be_image {
        return None;
    }
    stat(pool, id)
}

/// The image's file.
fn stat(pool: &Pool, id: &str) -> Option<Metadata> {
    pool.dir
        .open(format!("{VOLUMES}/{id}"), Mounts::Stay)
        .and_then(|dir| dir.open_file(DATA))
        .and_then(|file| file.metadata())
        .ok()
}
