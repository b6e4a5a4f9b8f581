//! The arbiter of room. Sizes are promises: the sum of what was promised never
//! exceeds a pool's capacity, however many volumes are asked for at once and
//! however empty they are.
//!
//! **Capacity**, unless a person set it at `pools init`, is the filesystem's size
//! less a reserve for its own metadata: 2 %, at least 64 MiB, at most 10 GiB.
//!
//! **Room** is the smaller of two: what is left of the capacity, and what the
//! filesystem can still keep (its free space less what was promised and is not
//! written yet). The second matters where others write to the same filesystem.

use std::collections::BTreeMap;

use crate::layout::{SNAPSHOTS, TRASH, VOLUMES};

/// 1 MiB in bytes.
const MIB: u64 = 1 << 20;

/// Bytes kept back for the filesystem's own metadata.
pub(crate) fn reserve(filesystem_size: u64) -> u64 {
    (filesystem_size / 50).clamp(64 * MIB, 10 << 30)
}

/// Bytes that volumes may take in all: what was set, never more than fits.
pub(crate) fn capacity(filesystem_size: u64, configured: Option<u64>) -> u64 {
    let most = filesystem_size.saturating_sub(reserve(filesystem_size));
    configured.map_or(most, |configured| configured.min(most))
}

/// Bytes of a filesystem that others use too which are never promised: 5 %, at
/// least 1 GiB, at most 20 GiB.
pub(crate) fn headroom(filesystem_size: u64) -> u64 {
    (filesystem_size / 20).clamp(1 << 30, 20 << 30)
}

/// The promises of one pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    capacity: u64,
    held: BTreeMap<Holder, u64>,
}

/// Who holds bytes of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// A volume, by id.
    Volume(String),
    /// A snapshot, by id.
    Snapshot(String),
    /// Something in the trash, by its name there.
    Trash(String),
}

impl Holder {
    /// Where its data lies in the pool's directory.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Volume(id) => format!("{VOLUMES}/{id}"),
            Self::Snapshot(id) => format!("{SNAPSHOTS}/{id}"),
            Self::Trash(name) => format!("{TRASH}/{name}"),
        }
    }
}

/// The filesystem's own view at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Physical {
    /// Bytes that it has free.
    pub(crate) free: u64,
    /// Bytes that holders of the ledger have written.
    pub(crate) written: u64,
}

/// The answer when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom {
    /// Bytes that were needed.
    pub(crate) needed: u64,
    /// Bytes that are left.
    pub(crate) room: u64,
}

impl Ledger {
    /// Sets the capacity; promises that exceed a smaller one stand.
    pub(crate) fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    /// Bytes that volumes may take in all.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes promised and not freed.
    pub(crate) fn reserved(&self) -> u64 {
        self.held.values().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The part of what is promised that volumes have.
    pub(crate) fn reserved_by_volumes(&self) -> u64 {
        let volumes = (self.held.iter()).filter(|(held, _)| matches!(held, Holder::Volume(_)));
        volumes.fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// Bytes that could be promised now.
    pub(crate) fn room(&self, physical: Physical) -> u64 {
        let reserved = self.reserved();
        let unwritten = reserved.saturating_sub(physical.written);
        self.capacity
            .saturating_sub(reserved)
            .min(physical.free.saturating_sub(unwritten))
    }

    /// Bytes that were promised to `holder`.
    pub(crate) fn held(&self, holder: &Holder) -> u64 {
        self.held.get(holder).copied().unwrap_or(0)
    }

    /// What is recorded on the disk holds its bytes, room or not.
    pub(crate) fn hold(&mut self, holder: Holder, bytes: u64) {
        self.held.insert(holder, bytes);
    }

    /// Promises `bytes` to `holder` instead of what it holds now, if there is room
    /// for the difference.
    pub(crate) fn admit(
        &mut self,
        holder: Holder,
        bytes: u64,
        physical: Physical,
    ) -> Result<(), NoRoom> {
        let now = self.held.get(&holder).copied().unwrap_or(0);
        let needed = bytes.saturating_sub(now);
        let room = self.room(physical);
        if needed > room {
            return Err(NoRoom { needed, room });
        }
        self.held.insert(holder, bytes);
        Ok(())
    }

    /// Hands the bytes of `from` over to `to`.
    pub(crate) fn transfer(&mut self, from: &Holder, to: Holder) {
        if let Some(bytes) = self.held.remove(from) {
            self.held.insert(to, bytes);
        }
    }

    /// Gives the bytes of `holder` back.
    pub(crate) fn release(&mut self, holder: &Holder) {
        self.held.remove(holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn volume(id: u64) -> Holder {
        Holder::Volume(id.to_string())
    }

    fn plenty() -> Physical {
        Physical {
            free: u64::MAX,
            written: 0,
        }
    }

    #[test]
    fn the_reserve_has_a_floor_and_a_ceiling() {
        assert_eq!(reserve(GIB), 64 * MIB);
        assert_eq!(reserve(100 * GIB), 2 * GIB);
        assert_eq!(reserve(4096 * GIB), 10 * GIB);
        assert_eq!(capacity(10 * MIB, None), 0);
        assert_eq!(capacity(100 * GIB, Some(GIB)), GIB);
        assert_eq!(capacity(GIB, Some(100 * GIB)), GIB - 64 * MIB);
    }

    #[test]
    fn what_others_wrote_to_the_filesystem_is_not_promised() {
        let mut ledger = Ledger::default();
        ledger.set_capacity(100);
        ledger.hold(volume(1), 40);
        // 10 of the 40 are written, so 30 more must stay free for that volume.
        let physical = Physical {
            free: 50,
            written: 10,
        };
        assert_eq!(ledger.room(physical), 20);
        assert_eq!(
            ledger.admit(volume(2), 21, physical),
            Err(NoRoom {
                needed: 21,
                room: 20
            })
        );
        assert_eq!(ledger.admit(volume(2), 20, physical), Ok(()));
    }

    #[test]
    fn growth_needs_room_for_the_difference_only() {
        let mut ledger = Ledger::default();
        ledger.set_capacity(100);
        ledger.hold(volume(1), 60);
        assert_eq!(ledger.admit(volume(1), 100, plenty()), Ok(()));
        assert!(ledger.admit(volume(1), 101, plenty()).is_err());
        assert_eq!(ledger.reserved(), 100);
    }

    #[test]
    fn trash_holds_its_bytes_until_they_are_freed() {
        let mut ledger = Ledger::default();
        ledger.set_capacity(100);
        ledger.hold(volume(1), 100);
        let trash = Holder::Trash("1".into());
        assert_eq!(ledger.reserved_by_volumes(), 100);
        ledger.transfer(&volume(1), trash.clone());
        assert_eq!(ledger.reserved_by_volumes(), 0);
        assert_eq!(ledger.room(plenty()), 0);
        ledger.release(&trash);
        assert_eq!(ledger.room(plenty()), 100);
    }

    proptest! {
        #[test]
        fn promises_never_exceed_the_capacity(
            capacity in 0u64..1000,
            asks in proptest::collection::vec((0u64..6, 0u64..400, 0u8..4), 0..60),
        ) {
            let mut ledger = Ledger::default();
            ledger.set_capacity(capacity);
            for (id, bytes, action) in asks {
                match action {
                    0 => ledger.release(&volume(id)),
                    1 => ledger.transfer(&volume(id), Holder::Trash(id.to_string())),
                    _ => {
                        let before = ledger.reserved();
                        if ledger.admit(volume(id), bytes, plenty()).is_err() {
                            prop_assert_eq!(ledger.reserved(), before);
                        }
                    }
                }
                prop_assert!(ledger.reserved() <= capacity);
            }
        }
    }
}
