//! A plain directory: for people who ask for one, because nothing limits it.

use std::io;

use super::{Body, Driver, Erasing, Made, Making};
use crate::copy;
use crate::dir::{Dir, Kind, Mounts};
use crate::record::DATA;
use crate::sys::{Filesystem, Space, Sys};
use crate::types::VolumeMode;

pub(crate) struct Directory;

/// Copies the source's tree into the directory that was made. `copy_tree` has it
/// all on the disk when it returns.
pub(super) fn fill(making: &Making<'_>, source: &Made<'_>) -> io::Result<Option<u64>> {
    let from = source.home.open(DATA, Mounts::Stay)?;
    let to = making.parent.open(DATA, Mounts::Stay)?;
    copy::copy_tree(making.sys, &from, &to, &mut || true)?;
    Ok(None)
}

impl Driver for Directory {
    fn why_not(&self, _sys: &dyn Sys, _pool: &Dir, _filesystem: &Filesystem) -> Option<String> {
        None
    }

    fn round_up(&self, size: u64, _mode: VolumeMode) -> u64 {
        size
    }

    fn create(&self, making: &Making<'_>) -> io::Result<Option<u64>> {
        making
            .parent
            .ensure(DATA, 0o755, Mounts::Stay)?
            .set_mode(0o755)?;
        Ok(None)
    }

    fn copy(
        &self,
        making: &Making<'_>,
        source: &Made<'_>,
        _snapshot: bool,
    ) -> io::Result<Option<u64>> {
        self.create(making)?;
        fill(making, source)
    }

    fn limit(&self, _made: &Made<'_>) -> io::Result<()> {
        Ok(())
    }

    fn is_it(&self, made: &Made<'_>) -> io::Result<bool> {
        Ok(made.home.kind(DATA)? == Some(Kind::Directory))
    }

    fn pinned(&self, made: &Made<'_>) -> io::Result<u64> {
        copy::used_by(&made.home.open(DATA, Mounts::Stay)?)
    }

    /// That of the whole filesystem: nobody counts the directory.
    fn space(&self, made: &Made<'_>) -> io::Result<Option<Space>> {
        made.sys.space(made.pool).map(Some)
    }

    fn erase(
        &self,
        _sys: &dyn Sys,
        parent: &Dir,
        _body: Option<Body>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Erasing> {
        Ok(if parent.remove_tree(DATA.as_ref(), go_on)? {
            Erasing::Freed
        } else {
            Erasing::Stopped
        })
    }
}
