//! A plain directory. Only on request, because nothing limits its size.

use std::io;

use super::copy;
use super::driver::{DataSpec, Driver, EraseProgress, NewData, Stillness, StoredData};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::layout::DATA;
use crate::sys::{Filesystem, Space, Sys};
use crate::types::VolumeMode;

pub(crate) struct Directory;

/// Copies the source's tree into the new directory. Everything is on the disk when
/// `copy_tree` returns.
pub(super) fn fill(new: &NewData<'_>, source: &StoredData<'_>) -> io::Result<Option<u64>> {
    let from = source.dir.open(DATA, Mounts::Stay)?;
    let to = new.parent.open(DATA, Mounts::Stay)?;
    copy::copy_tree(new.sys, &from, &to, &mut || true)?;
    Ok(None)
}

impl Driver for Directory {
    fn why_not(&self, _sys: &dyn Sys, _pool: &Dir, _filesystem: &Filesystem) -> Option<String> {
        None
    }

    fn round_up(&self, size: u64, _mode: VolumeMode) -> u64 {
        size
    }

    fn create(&self, new: &NewData<'_>) -> io::Result<Option<u64>> {
        new.parent
            .ensure(DATA, 0o755, Mounts::Stay)?
            .set_mode(0o755)?;
        Ok(None)
    }

    fn copy(
        &self,
        new: &NewData<'_>,
        source: &StoredData<'_>,
        _snapshot: bool,
        _still: &dyn Stillness,
    ) -> io::Result<Option<u64>> {
        self.create(new)?;
        fill(new, source)
    }

    fn limit(&self, _stored: &StoredData<'_>) -> io::Result<()> {
        Ok(())
    }

    fn matches_record(&self, stored: &StoredData<'_>) -> io::Result<bool> {
        Ok(stored.dir.kind(DATA)? == Some(Kind::Directory))
    }

    fn shares(&self, stored: &StoredData<'_>) -> io::Result<bool> {
        copy::shares(stored.sys, &stored.dir.open(DATA, Mounts::Stay)?)
    }

    fn pinned(&self, stored: &StoredData<'_>) -> io::Result<u64> {
        copy::used_by(&stored.dir.open(DATA, Mounts::Stay)?)
    }

    /// The space of the whole filesystem: nothing counts the directory.
    fn space(&self, stored: &StoredData<'_>) -> io::Result<Option<Space>> {
        stored.sys.space(stored.pool).map(Some)
    }

    fn erase(
        &self,
        _sys: &dyn Sys,
        parent: &Dir,
        _spec: Option<DataSpec>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> io::Result<EraseProgress> {
        Ok(if parent.remove_tree(DATA.as_ref(), keep_going)? {
            EraseProgress::Freed
        } else {
            EraseProgress::Stopped
        })
    }
}
