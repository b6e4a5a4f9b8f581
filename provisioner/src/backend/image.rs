//! A file behind a loop device, on any filesystem: with an ext4 inside for
//! directory trees, as it is for raw block devices.
//!
//! The file is allocated in full when it is made, so that a full disk cannot take
//! promised bytes away; `sparse` leaves that to the ledger alone. The
//! ext4 is made once, in a file that was made a moment before; never at mount.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::copy;
use super::driver::{DataSpec, Driver, EraseProgress, NewData, Stillness, StoredData};
use crate::fs::dir::{Dir, Kind};
use crate::layout::DATA;
use crate::sys::{Filesystem, Space, Sys};
use crate::types::VolumeMode;

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

/// Bytes that a copy of the image in `dir` has to move: what was ever written, as far as
/// the filesystem knows.
pub(crate) fn data_in_image(dir: &Dir) -> io::Result<u64> {
    copy::data_in(&dir.open_file(DATA)?)
}

/// Whether files in `dir` can share their blocks.
pub(crate) fn reflinks(sys: &dyn Sys, dir: &Dir) -> io::Result<bool> {
    const PROBES: [&str; 2] = ["reflink-from", "reflink-to"];
    let from = dir.create_file(PROBES[0], 0o600)?;
    let to = dir.create_file(PROBES[1], 0o600)?;
    let answer = sys.reflink(&from, &to);
    for name in PROBES {
        dir.remove_file(name)?;
    }
    answer
}

impl Driver for Image {
    fn why_not(&self, sys: &dyn Sys, _pool: &Dir, _filesystem: &Filesystem) -> Option<String> {
        match sys.loops() {
            Ok(_) => None,
            Err(e) => Some(format!(
                "loop devices are not available ({e}); load the kernel module `loop`"
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

    fn create(&self, new: &NewData<'_>) -> io::Result<Option<u64>> {
        let file = new.parent.create_file(DATA, 0o600)?;
        let spec = new.spec;
        // What is allocated is only a promise if it is never written elsewhere.
        new.sys.overwrite_in_place(&file)?;
        new.sys.allocate(&file, spec.enforced, spec.sparse)?;
        if spec.mode == VolumeMode::Filesystem {
            new.sys.format(new.parent, DATA)?;
        }
        file.sync_all()?;
        Ok(None)
    }

    fn copy(
        &self,
        new: &NewData<'_>,
        source: &StoredData<'_>,
        _snapshot: bool,
        still: &dyn Stillness,
    ) -> io::Result<Option<u64>> {
        let from = source.dir.open_file(DATA)?;
        let to = new.parent.create_file(DATA, 0o600)?;
        let spec = new.spec;
        still.begin()?;
        // Data that the loop device wrote and the filesystem still caches.
        from.sync_all()?;
        // Shared blocks cannot be allocated in advance; the ledger reserves their room.
        let shared = new.sys.reflink(&from, &to)?;
        if !shared {
            new.sys.allocate(&to, spec.enforced, spec.sparse)?;
            copy::copy_file(&from, &to, &mut || still.lasts())?;
        }
        still.end()?;
        new.sys
            .allocate(&to, spec.enforced, spec.sparse || shared)?;
        to.sync_all()?;
        Ok(None)
    }

    fn limit(&self, stored: &StoredData<'_>) -> io::Result<()> {
        let file = stored.dir.open_file(DATA)?;
        if file.metadata()?.len() < stored.spec.enforced {
            let sparse = stored.spec.sparse || stored.spec.shares;
            stored.sys.allocate(&file, stored.spec.enforced, sparse)?;
            file.sync_all()?;
        }
        let image = file.metadata()?;
        let listed;
        let loops = match stored.loops {
            Some(loops) => loops,
            None => {
                listed = stored.sys.loops()?;
                &listed
            }
        };
        for it in loops.iter().filter(|it| it.shows(&image)) {
            stored.sys.resize_loop(it.number)?;
        }
        Ok(())
    }

    fn matches_record(&self, stored: &StoredData<'_>) -> io::Result<bool> {
        if stored.dir.kind(DATA)? != Some(Kind::File) {
            return Ok(false);
        }
        let file = stored.dir.open_file(DATA)?;
        let length = file.metadata()?.len();
        // A truncated image has lost data: nothing is made in its place.
        Ok(length >= stored.spec.least
            && match stored.spec.mode {
                VolumeMode::Filesystem => {
                    ext4_size(&file)?.is_some_and(|inside| inside > 0 && inside <= length)
                }
                VolumeMode::Block => true,
            })
    }

    fn pinned(&self, stored: &StoredData<'_>) -> io::Result<u64> {
        let meta = stored.dir.open_file(DATA)?.metadata()?;
        Ok(meta.blocks().saturating_mul(512).max(GRAIN))
    }

    fn shares(&self, stored: &StoredData<'_>) -> io::Result<bool> {
        stored.sys.shares_blocks(&stored.dir.open_file(DATA)?)
    }

    /// How full the filesystem inside is, only its mount shows.
    fn space(&self, stored: &StoredData<'_>) -> io::Result<Option<Space>> {
        Ok((stored.spec.mode == VolumeMode::Block).then(|| Space {
            total: stored.spec.enforced,
            ..Space::default()
        }))
    }

    fn erase(
        &self,
        _sys: &dyn Sys,
        parent: &Dir,
        _spec: Option<DataSpec>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> io::Result<EraseProgress> {
        if parent.kind(DATA)? == Some(Kind::File) {
            // In steps: freeing a large file at once stalls the disk.
            let file = parent.open_file(DATA)?;
            let mut length = file.metadata()?.len();
            while length > STEP {
                length -= STEP;
                file.set_len(length)?;
            }
        }
        // Whatever is in its place goes as well.
        Ok(match parent.remove_tree(DATA.as_ref(), keep_going)? {
            true => EraseProgress::Freed,
            false => EraseProgress::Stopped,
        })
    }
}

/// Bytes of an image that are freed in one step.
const STEP: u64 = 1 << 30;
