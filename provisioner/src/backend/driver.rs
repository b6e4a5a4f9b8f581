//! What every backend can do, and what it is told.

use std::io;

use crate::fs::dir::Dir;
use crate::sys::{Filesystem, Loop, Space, Sys};
use crate::types::{Backend, VolumeMode};

/// The properties of a volume's or snapshot's data that its backend needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataSpec {
    pub(crate) backend: Backend,
    pub(crate) mode: VolumeMode,
    /// Bytes that are enforced.
    pub(crate) enforced: u64,
    /// Least length of its image in bytes: less than `enforced` while it grows.
    pub(crate) least: u64,
    /// Its image's blocks are allocated only when they are written.
    pub(crate) sparse: bool,
    /// It may share blocks with what it was copied from.
    pub(crate) shares: bool,
    pub(crate) subvolume: Option<u64>,
    pub(crate) project: Option<u32>,
}

/// Data that is about to be made: `data` in `parent`.
#[derive(Clone, Copy)]
pub(crate) struct NewData<'a> {
    pub(crate) sys: &'a dyn Sys,
    /// A directory in the pool's build area; nobody else knows it.
    pub(crate) parent: &'a Dir,
    /// Its properties. The subvolume is not known yet.
    pub(crate) spec: DataSpec,
}

/// Data of a volume or snapshot that exists.
#[derive(Clone, Copy)]
pub(crate) struct StoredData<'a> {
    pub(crate) sys: &'a dyn Sys,
    /// The pool's directory.
    pub(crate) pool: &'a Dir,
    /// The directory that holds it, and its record.
    pub(crate) dir: &'a Dir,
    pub(crate) spec: DataSpec,
    /// All loop devices, where somebody has listed them already.
    pub(crate) loops: Option<&'a [Loop]>,
}

/// Keeps the source of a copy as it is, for a while.
pub(crate) trait Stillness {
    /// From now on nothing is written to it.
    fn begin(&self) -> io::Result<()>;
    /// Whether that is still so.
    fn lasts(&self) -> bool;
    /// Everything was read.
    ///
    /// # Errors
    /// When it may have been written to before this.
    fn end(&self) -> io::Result<()>;
}

/// A source that nobody writes to, or of which nobody can say more.
pub(crate) struct AsItIs;

impl Stillness for AsItIs {
    fn begin(&self) -> io::Result<()> {
        Ok(())
    }

    fn lasts(&self) -> bool {
        true
    }

    fn end(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The result of one step of an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EraseProgress {
    /// Everything is removed and its space is free.
    Freed,
    /// Removed; the filesystem is still freeing the space of these subvolumes.
    Freeing(Vec<u64>),
    /// Stopped on request; there is more to remove.
    Stopped,
}

/// One way to make and limit volumes.
pub(crate) trait Driver: Sync {
    /// Why it is not available on this filesystem in its present state; `None` if it is.
    fn why_not(&self, sys: &dyn Sys, pool: &Dir, filesystem: &Filesystem) -> Option<String>;
    /// What a request of this size is rounded up to.
    fn round_up(&self, size: u64, mode: VolumeMode) -> u64;
    /// Makes the data, empty and limited. Returns the id of its subvolume, if it has one.
    fn create(&self, new: &NewData<'_>) -> io::Result<Option<u64>>;
    /// Makes the data as a copy of `source`: a limited volume, or a snapshot that is
    /// never written to. What `still` does is for images; other backends need none.
    fn copy(
        &self,
        new: &NewData<'_>,
        source: &StoredData<'_>,
        snapshot: bool,
        still: &dyn Stillness,
    ) -> io::Result<Option<u64>>;
    /// Sets the limit, after it was raised or may have been lost.
    fn limit(&self, stored: &StoredData<'_>) -> io::Result<()>;
    /// Whether the data is what the record describes.
    fn matches_record(&self, stored: &StoredData<'_>) -> io::Result<bool>;
    /// Bytes that the data takes once everything is written: what a snapshot of it
    /// pins.
    fn pinned(&self, stored: &StoredData<'_>) -> io::Result<u64>;
    /// Whether it may share blocks with other data: `false` once it certainly shares none.
    fn shares(&self, stored: &StoredData<'_>) -> io::Result<bool>;
    /// Its space while it is not mounted; `None` where nothing counts it.
    fn space(&self, stored: &StoredData<'_>) -> io::Result<Option<Space>>;
    /// Removes `data` from `parent`; stops between batches when `keep_going` says
    /// so. The spec is `None` when the record could not be read.
    fn erase(
        &self,
        sys: &dyn Sys,
        parent: &Dir,
        spec: Option<DataSpec>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> io::Result<EraseProgress>;
}
