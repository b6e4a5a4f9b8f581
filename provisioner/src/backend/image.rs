//! A file behind a loop device, on any filesystem: with an ext4 inside for
//! directory trees, as it is for raw block devices.
//!
//! The file is allocated in full when it is made, so that a full disk cannot take
//! bytes away that were promised; `sparse` leaves that to the ledger alone. The
//! ext4 is made once, in a file that was made a moment before; never at mount.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::{Body, Driver, Erasing, Made, Making};
use crate::copy;
use crate::dir::{Dir, Kind};
use crate::record::DATA;
use crate::sys::{self, Filesystem, Space, Sys};
use crate::types::VolumeMode;

/// Major number of loop devices (Documentation/admin-guide/devices.txt).
pub(crate) const MAJOR: &str = "7:";

/// Logical blocks of a raw device: what every program can use.
pub(crate) const DEVICE_BLOCK: u32 = 512;

/// Smallest image with an ext4 in it, journal included.
const MINIMUM: u64 = 16 << 20;

/// Sizes are whole pages, so that a device holds whole blocks of any size.
const GRAIN: u64 = 4096;

/// Where an ext4 keeps its superblock.
const SUPERBLOCK: u64 = 1024;

pub(crate) struct Image;

/// Bytes of the ext4 in an image, by its superblock (fs/ext4/ext4.h: block counts
/// at 0x04 and 0x150, block size at 0x18, magic at 0x38); `None` when there is none.
pub(crate) fn ext4_size(image: &File) -> io::Result<Option<u64>> {
    let mut block = [0; 1024];
    match image.read_exact_at(&mut block, SUPERBLOCK) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let number = |at: usize| {
        let bytes = block[at..at + 4].try_into().expect("four bytes are four");
        u64::from(u32::from_le_bytes(bytes))
    };
    if block[0x38..0x3a] != [0x53, 0xef] {
        return Ok(None);
    }
    let blocks = number(0x150) << 32 | number(0x04);
    let shift = u32::try_from(number(0x18)).unwrap_or(u32::MAX);
    Ok(1024u64
        .checked_shl(shift)
        .and_then(|block| block.checked_mul(blocks)))
}

impl Driver for Image {
    fn why_not(&self, sys: &dyn Sys, _pool: &Dir, _filesystem: &Filesystem) -> Option<String> {
        match sys.loops() {
            Ok(_) => None,
            Err(e) => Some(format!(
                "loop devices cannot be had ({e}); load the kernel's module `loop`"
            )),
        }
    }

    fn round_up(&self, size: u64, mode: VolumeMode) -> u64 {
        let least = match mode {
            VolumeMode::Filesystem => MINIMUM,
            VolumeMode::Block => GRAIN,
        };
        size.max(least).next_multiple_of(GRAIN)
    }

    fn create(&self, making: &Making<'_>) -> io::Result<Option<u64>> {
        let file = making.parent.create_file(DATA, 0o600)?;
        let body = making.body;
        making.sys.allocate(&file, body.enforced, body.sparse)?;
        if body.mode == VolumeMode::Filesystem {
            making.sys.format(making.parent, DATA)?;
        }
        file.sync_all()?;
        Ok(None)
    }

    fn copy(
        &self,
        making: &Making<'_>,
        source: &Made<'_>,
        _snapshot: bool,
    ) -> io::Result<Option<u64>> {
        let from = source.home.open_file(DATA)?;
        let to = making.parent.create_file(DATA, 0o600)?;
        // What the loop device wrote and the filesystem still holds back.
        from.sync_all()?;
        let body = making.body;
        // Shared blocks cannot be taken beforehand; the ledger keeps their room.
        let shared = making.sys.reflink(&from, &to)?;
        making
            .sys
            .allocate(&to, body.enforced, body.sparse || shared)?;
        if !shared {
            copy::copy_file(&from, &to)?;
        }
        to.sync_all()?;
        Ok(None)
    }

    fn limit(&self, made: &Made<'_>) -> io::Result<()> {
        let file = made.home.open_file(DATA)?;
        if file.metadata()?.len() < made.body.enforced {
            let sparse = made.body.sparse || made.body.shares;
            made.sys.allocate(&file, made.body.enforced, sparse)?;
            file.sync_all()?;
        }
        for it in sys::loops_of(made.sys, &file.metadata()?)? {
            made.sys.resize_loop(it.number)?;
        }
        Ok(())
    }

    fn is_it(&self, made: &Made<'_>) -> io::Result<bool> {
        if made.home.kind(DATA)? != Some(Kind::File) {
            return Ok(false);
        }
        let file = made.home.open_file(DATA)?;
        let length = file.metadata()?.len();
        // What was cut off is lost: nothing is put in its place.
        Ok(length >= made.body.least
            && match made.body.mode {
                VolumeMode::Filesystem => {
                    ext4_size(&file)?.is_some_and(|inside| inside > 0 && inside <= length)
                }
                VolumeMode::Block => true,
            })
    }

    fn pinned(&self, made: &Made<'_>) -> io::Result<u64> {
        let meta = made.home.open_file(DATA)?.metadata()?;
        Ok(meta.blocks().saturating_mul(512).max(GRAIN))
    }

    /// What the image takes of the pool: how full it is inside, only its mount tells.
    fn space(&self, made: &Made<'_>) -> io::Result<Option<Space>> {
        Ok((made.body.mode == VolumeMode::Block).then(|| Space {
            total: made.body.enforced,
            ..Space::default()
        }))
    }

    fn erase(
        &self,
        _sys: &dyn Sys,
        parent: &Dir,
        _body: Option<Body>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Erasing> {
        if parent.kind(DATA)? == Some(Kind::File) {
            // Bit by bit: freeing a large file at once holds up the disk.
            let file = parent.open_file(DATA)?;
            let mut length = file.metadata()?.len();
            while length > STEP {
                length -= STEP;
                file.set_len(length)?;
            }
        }
        // Whatever is in its place goes as well.
        Ok(match parent.remove_tree(DATA.as_ref(), go_on)? {
            true => Erasing::Freed,
            false => Erasing::Stopped,
        })
    }
}

/// Bytes of an image that are freed at once.
const STEP: u64 = 1 << 30;

/// Holds the writers of a mounted image back for as long as it lives.
pub(crate) struct Frozen<'a> {
    sys: &'a dyn Sys,
    mounted: Dir,
}

impl<'a> Frozen<'a> {
    /// Freezes what is mounted at `mounted`.
    pub(crate) fn new(sys: &'a dyn Sys, mounted: Dir) -> io::Result<Self> {
        sys.freeze(&mounted)?;
        Ok(Self { sys, mounted })
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.sys.thaw(&self.mounted) {
            tracing::error!(path = %self.mounted.path().display(), error = %e, "cannot be thawed");
        }
    }
}
