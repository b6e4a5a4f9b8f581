//! Tombstones: what was erased on purpose and is not made again.

use std::time::SystemTime;

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind};
use crate::fs::envelope;
use crate::pool::Pool;
use crate::pool::record::{Tombstone, VolumeRecord, now};

/// Tombstones that a pool keeps. Beyond that the oldest tenth is removed.
pub(crate) const KEPT: usize = 10_000;

/// Writes the tombstone of a volume; its record is `None` if it could not be read.
pub(crate) fn write(pool: &Pool, id: &str, record: Option<&VolumeRecord>) -> Result<(), Error> {
    let tombstones = pool.tombstones()?;
    let stone = Tombstone {
        id: id.to_owned(),
        claim: record.and_then(|record| record.claim.clone()),
        size: record.map_or(0, |record| record.size),
        erased: now(),
    };
    tombstones
        .write(&format!("{id}.json"), &envelope::encode(&stone))
        .context("writing the tombstone in", tombstones.path())
}

/// When a pool erased the volume of this id; `None` if it has no tombstone of it.
pub(crate) fn erased_at(pool: &Pool, id: &str) -> Result<Option<String>, Error> {
    let tombstones = pool.tombstones()?;
    let name = format!("{id}.json");
    if tombstones
        .kind(&name)
        .context("looking at", tombstones.path())?
        != Some(Kind::File)
    {
        return Ok(None);
    }
    // A tombstone that cannot be read is a tombstone.
    let erased = crate::pool::read::<Tombstone>(&tombstones, &name)
        .ok()
        .flatten()
        .map_or_else(|| "an unknown time".to_owned(), |stone| stone.erased);
    Ok(Some(erased))
}

/// Removes the oldest tombstones when there are more than `keep`.
pub(crate) fn prune(tombstones: &Dir, keep: usize) -> Result<(), Error> {
    let names = tombstones.names().context("listing", tombstones.path())?;
    if names.len() <= keep {
        return Ok(());
    }
    let mut aged: Vec<(SystemTime, _)> = names
        .into_iter()
        .map(|name| {
            (
                tombstones.modified(&name).unwrap_or(SystemTime::UNIX_EPOCH),
                name,
            )
        })
        .collect();
    aged.sort();
    let surplus = aged.len() - keep + keep / 10;
    for (_, name) in aged.into_iter().take(surplus) {
        tombstones
            .remove_file(&name)
            .context("removing an old tombstone in", tombstones.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tombstones_go_first() {
        let at = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(at.path()).unwrap();
        for i in 0..21u64 {
            let file = std::fs::File::create(at.path().join(format!("{i}.json"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(100 - i))
                .unwrap();
        }
        prune(&dir, 21).unwrap();
        assert_eq!(dir.names().unwrap().len(), 21);
        prune(&dir, 20).unwrap();
        let left = dir.names().unwrap();
        assert_eq!(left.len(), 18);
        assert!(!left.iter().any(|name| name == "20.json"));
        assert!(left.iter().any(|name| name == "0.json"));
    }
}
