//! Tombstones: what was erased on purpose and is not made again.

use std::time::SystemTime;

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind};
use crate::fs::envelope;
use crate::pool::Pool;
use crate::pool::record::{Tombstone, VolumeRecord, now};
use crate::types::Erasure;

/// Tombstones that a pool keeps. Beyond that the oldest tenth is removed.
pub(crate) const KEPT: usize = 10_000;

/// Writes the tombstone of a volume; its record is `None` if it could not be read.
pub(crate) fn write(
    pool: &Pool,
    id: &str,
    record: Option<&VolumeRecord>,
    erasure: &Erasure,
) -> Result<(), Error> {
    let tombstones = pool.tombstones()?;
    let stone = Tombstone {
        id: id.to_owned(),
        claim: record.and_then(|record| record.claim.clone()),
        size: record.map_or(0, |record| record.size),
        erased: now(),
        incarnation: erasure.incarnation.clone(),
        unused: erasure.unused,
    };
    tombstones
        .write(&format!("{id}.json"), &envelope::encode(&stone))
        .context("writing the tombstone in", tombstones.path())
}

/// The tombstone of this id, if the pool has one.
pub(crate) fn find(pool: &Pool, id: &str) -> Result<Option<Tombstone>, Error> {
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
    let stone = crate::pool::read::<Tombstone>(&tombstones, &name)
        .ok()
        .flatten();
    Ok(Some(stone.unwrap_or_else(|| Tombstone {
        id: id.to_owned(),
        claim: None,
        size: 0,
        erased: "an unknown time".to_owned(),
        incarnation: None,
        unused: false,
    })))
}

impl Tombstone {
    /// Whether a volume of this id must not be made for the object `incarnation`. What no
    /// pod can have used may be made again by another object, and by nobody else: a
    /// request of the erased one may still be on its way.
    pub(crate) fn forbids(&self, incarnation: Option<&str>) -> bool {
        let another = incarnation.is_some() && incarnation != self.incarnation.as_deref();
        !(self.unused && another)
    }

    /// Whether it has to be written anew for one more erasure. `there` says whether there
    /// was something to erase. What was in use stays so, unless the same object, which
    /// knows, now says otherwise: after a crash the first writer of the stone did not.
    pub(crate) fn is_outdated(&self, erasure: &Erasure, there: bool) -> bool {
        let same = self.incarnation == erasure.incarnation;
        there || (same && self.unused != erasure.unused) || (self.unused && !erasure.unused)
    }
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

    fn stone(incarnation: Option<&str>, unused: bool) -> Tombstone {
        Tombstone {
            id: "v".to_owned(),
            claim: None,
            size: 0,
            erased: String::new(),
            incarnation: incarnation.map(str::to_owned),
            unused,
        }
    }

    #[test]
    fn only_another_object_may_make_again_what_nobody_used() {
        let rows = [
            (stone(Some("1"), true), Some("2"), false),
            (stone(Some("1"), true), Some("1"), true),
            (stone(Some("1"), true), None, true),
            (stone(None, true), Some("2"), false),
            (stone(Some("1"), false), Some("2"), true),
            (stone(None, false), None, true),
        ];
        for (stone, asks, forbidden) in rows {
            assert_eq!(stone.forbids(asks), forbidden, "{stone:?} {asks:?}");
        }
    }

    #[test]
    fn a_tombstone_never_forgets_use_for_another_objects_sake() {
        let erasure = |incarnation: &str, unused| Erasure {
            incarnation: Some(incarnation.to_owned()),
            unused,
        };
        let used = stone(Some("1"), false);
        assert!(!used.is_outdated(&erasure("2", true), false));
        assert!(
            used.is_outdated(&erasure("1", true), false),
            "it knows better"
        );
        assert!(used.is_outdated(&erasure("2", true), true), "another life");
        let unused = stone(Some("1"), true);
        assert!(unused.is_outdated(&erasure("2", false), false));
        assert!(!unused.is_outdated(&erasure("1", true), false));
    }

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
