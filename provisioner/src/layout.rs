//! Names of what Berth keeps on a disk. They are the format of a pool: a pool of an
//! earlier version has the same ones.

use crate::error::{Error, IoContext};
use crate::fs::dir::Dir;

/// Directory of the pools, under the root.
pub(crate) const POOLS: &str = "pools";
/// Directory of the pool for Berth's own things.
pub(crate) const META: &str = ".berth";
/// The identity, in [`META`].
pub(crate) const IDENTITY: &str = "pool.json";
/// What is read to see whether the disk answers, in [`META`].
pub(crate) const PROBE: &str = "probe";
/// The build area, in [`META`]: where volumes are made before they appear. What is in
/// there was never given to anybody.
pub(crate) const NEW: &str = "new";
/// Directory of the marks of volumes whose filesystem is frozen, in [`META`].
pub(crate) const FROZEN: &str = "frozen";
/// Directory of the volumes.
pub(crate) const VOLUMES: &str = "volumes";
/// Directory of the snapshots.
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// Directory of the volumes that are being erased.
pub(crate) const TRASH: &str = "trash";
/// Directory of the tombstones.
pub(crate) const TOMBSTONES: &str = "tombstones";
/// A volume's record, in the volume's directory.
pub(crate) const RECORD: &str = "record.json";
/// Marks, in a directory of the build area, that its data is a copy.
pub(crate) const COPYING: &str = "copying";
/// A volume's data, in the volume's directory.
pub(crate) const DATA: &str = "data";

/// Separates a volume's id from a number in the trash; no id contains it.
const AGAIN: char = '~';

/// The volume's id in a name of the trash.
pub(crate) fn id_in_trash(name: &str) -> &str {
    name.split(AGAIN).next().unwrap_or(name)
}

/// A name in the trash that is not taken.
pub(crate) fn free_name(trash: &Dir, id: &str) -> Result<String, Error> {
    for n in 1u64.. {
        let name = if n == 1 {
            id.to_owned()
        } else {
            format!("{id}{AGAIN}{n}")
        };
        if trash
            .kind(&name)
            .context("looking at", trash.path())?
            .is_none()
        {
            return Ok(name);
        }
    }
    unreachable!("a directory does not hold 2^64 names")
}
