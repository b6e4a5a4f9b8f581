//! Keeps the filesystem in a mounted image still while the image is copied, for a bounded
//! time: pods that write wait meanwhile, cannot be probed and cannot be killed. A mark in
//! the pool says what this agent froze, so that the next one thaws that, and nothing that
//! somebody else froze (a backup's hook).

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::Stillness;
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts};
use crate::layout::{FROZEN, META};
use crate::locks::lock;
use crate::mount::loop_image;
use crate::pool::Pool;
use crate::store::{Patience, Store};
use crate::sys::Sys;

/// What to do where a copy cannot be had.
const ADVICE: &str = "take it while no pod has the volume mounted, or keep such volumes in a pool \
     on btrfs or xfs, where a copy takes an instant";

/// Who has an image, as far as a copy of it is concerned.
#[derive(Debug)]
pub(crate) enum Use {
    /// Nobody.
    Unused,
    /// The filesystem in it is mounted here, and can be frozen.
    Mounted(Dir),
    /// A device shows it, and nothing can be frozen: a raw block device.
    Attached,
}

/// How an image is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As it is.
    Plain,
    /// While the filesystem in it is frozen.
    Frozen,
}

/// How to copy an image with `data` bytes in it, so that the copy shows one moment and
/// nobody waits for longer than `patience` allows.
///
/// # Errors
/// Why it is not copied, and what to do.
pub(crate) fn way(
    used: &Use,
    reflinks: bool,
    data: u64,
    patience: Patience,
) -> Result<Way, String> {
    match used {
        Use::Unused => Ok(Way::Plain),
        Use::Mounted(_) if reflinks || data <= patience.worth => Ok(Way::Frozen),
        Use::Mounted(_) => Err(format!(
            "it is mounted, and holds more than can be copied while its writers wait, which is {} \
             s at most; {ADVICE}",
            patience.bound.as_secs()
        )),
        // Shared at once, as after a loss of power.
        Use::Attached if reflinks => Ok(Way::Plain),
        Use::Attached => Err(format!(
            "its device is in use, and a copy would show no moment of it: this filesystem cannot \
             share blocks; {ADVICE}"
        )),
    }
}

/// What a copy that was not done in time is told.
pub(crate) fn too_slow(patience: Patience) -> String {
    format!(
        "the copy was not done after {} s, for which its writers waited: they go on, and it was \
         removed; {ADVICE}",
        patience.bound.as_secs()
    )
}

/// Who has the image of a volume.
pub(crate) fn used(store: &Store, pool: &Pool, id: &str) -> Result<Use, Error> {
    if !loop_image::is_attached(store, pool, id)? {
        return Ok(Use::Unused);
    }
    Ok(match loop_image::mounted(store, pool, id)? {
        Some(mounted) => Use::Mounted(mounted),
        None => Use::Attached,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    /// Frozen, and writers wait since then.
    Frozen(Instant),
    Over,
    /// Thawed before the copy was done.
    Expired,
}

/// One freeze of what is mounted from an image. Whoever makes it has [`Freeze::watch`] run
/// beside the copy, which thaws when the bound is over, wherever the copy is.
pub(crate) struct Freeze<'a> {
    sys: &'a dyn Sys,
    pool: &'a Pool,
    id: &'a str,
    mounted: Dir,
    bound: Duration,
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl<'a> Freeze<'a> {
    /// Of the volume `id`, whose filesystem is mounted at `mounted`; not begun.
    pub(crate) fn new(
        sys: &'a dyn Sys,
        pool: &'a Pool,
        id: &'a str,
        mounted: Dir,
        bound: Duration,
    ) -> Self {
        Self {
            sys,
            pool,
            id,
            mounted,
            bound,
            phase: Mutex::new(Phase::Before),
            changed: Condvar::new(),
        }
    }

    /// Returns when it is over; thaws when the bound is.
    pub(crate) fn watch(&self) {
        let mut phase = lock(&self.phase);
        loop {
            phase = match *phase {
                Phase::Before => self
                    .changed
                    .wait(phase)
                    .unwrap_or_else(PoisonError::into_inner),
                Phase::Frozen(since) => {
                    let left = self.bound.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        *phase = Phase::Expired;
                        self.thaw();
                        return;
                    }
                    self.changed
                        .wait_timeout(phase, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                Phase::Over | Phase::Expired => return,
            };
        }
    }

    /// Ends it when the answer is dropped, however the copy went.
    pub(crate) fn closed_at_end(&self) -> Closed<'_, 'a> {
        Closed(self)
    }

    fn close(&self) {
        let mut phase = lock(&self.phase);
        match *phase {
            Phase::Frozen(_) => {
                *phase = Phase::Over;
                self.thaw();
            }
            Phase::Before => *phase = Phase::Over,
            Phase::Over | Phase::Expired => {}
        }
        drop(phase);
        self.changed.notify_all();
    }

    /// Whether it was thawed before the copy was done.
    pub(crate) fn has_expired(&self) -> bool {
        *lock(&self.phase) == Phase::Expired
    }

    fn thaw(&self) {
        match self.sys.thaw(&self.mounted) {
            Ok(_) => unmark(self.pool, self.id),
            Err(e) => {
                let path = self.mounted.path().display();
                tracing::error!(volume = self.id, %path, error = %e, "cannot be thawed");
            }
        }
    }
}

/// See [`Freeze::closed_at_end`].
pub(crate) struct Closed<'f, 'a>(&'f Freeze<'a>);

impl Drop for Closed<'_, '_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Stillness for Freeze<'_> {
    fn begin(&self) -> io::Result<()> {
        // What is written down now need not be while writers wait.
        self.sys.commit(&self.mounted)?;
        marks(self.pool)?.write(self.id, b"")?;
        let since = Instant::now();
        if let Err(e) = self.sys.freeze(&self.mounted) {
            unmark(self.pool, self.id);
            return Err(
                match e.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32) {
                    true => io::Error::new(e.kind(), "it is frozen already, by another program"),
                    false => e,
                },
            );
        }
        *lock(&self.phase) = Phase::Frozen(since);
        self.changed.notify_all();
        Ok(())
    }

    fn lasts(&self) -> bool {
        match *lock(&self.phase) {
            Phase::Frozen(since) => since.elapsed() < self.bound,
            Phase::Before | Phase::Over | Phase::Expired => false,
        }
    }

    fn end(&self) -> io::Result<()> {
        let mut phase = lock(&self.phase);
        if let Phase::Frozen(since) = *phase {
            *phase = match since.elapsed() < self.bound {
                true => Phase::Over,
                false => Phase::Expired,
            };
            self.thaw();
        }
        let expired = *phase == Phase::Expired;
        drop(phase);
        self.changed.notify_all();
        match expired {
            false => Ok(()),
            true => Err(io::Error::other(
                "its source was written to before it was done",
            )),
        }
    }
}

/// Thaws what an earlier agent froze and did not thaw, as its marks say.
pub(crate) fn thaw_marked(store: &Store, pool: &Pool) {
    let marks = pool.dir.open(META, Mounts::Stay);
    let marks = marks.and_then(|meta| meta.open(FROZEN, Mounts::Stay));
    let Ok(marks) = marks else { return };
    for id in marks.names().unwrap_or_default() {
        let Some(id) = id.to_str() else { continue };
        match thaw_one(store, pool, id) {
            Ok(thawed) => {
                if thawed {
                    tracing::warn!(volume = id, "was frozen by an earlier agent; thawed");
                }
                unmark(pool, id);
            }
            Err(e) => tracing::error!(volume = id, error = %e, "may be frozen still"),
        }
    }
}

fn thaw_one(store: &Store, pool: &Pool, id: &str) -> Result<bool, Error> {
    match loop_image::mounted(store, pool, id)? {
        Some(mounted) => store.sys.thaw(&mounted).context("thawing", mounted.path()),
        None => Ok(false),
    }
}

/// The directory of the marks, one for each volume that is frozen.
fn marks(pool: &Pool) -> io::Result<Dir> {
    let meta = pool.dir.open(META, Mounts::Stay)?;
    meta.ensure(FROZEN, 0o700, Mounts::Stay)
}

fn unmark(pool: &Pool, id: &str) {
    if let Err(e) = marks(pool).and_then(|marks| marks.remove_file(id)) {
        tracing::warn!(volume = id, error = %e, "the mark of a freeze that is over stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(used: &Use, reflinks: bool, data: u64) -> &'static str {
        let patience = Patience {
            worth: 100,
            ..Patience::default()
        };
        match way(used, reflinks, data, patience) {
            Ok(Way::Plain) => "plain",
            Ok(Way::Frozen) => "frozen",
            Err(why) if why.contains("more than can be copied") => "too much",
            Err(why) if why.contains("no moment") => "torn",
            Err(why) => panic!("{why}"),
        }
    }

    #[test]
    fn a_copy_shows_one_moment_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Use::Mounted(Dir::open_root(dir.path()).unwrap());
        for (used, reflinks, data, expected) in [
            (&Use::Unused, false, u64::MAX, "plain"),
            (&Use::Unused, true, u64::MAX, "plain"),
            (&mounted, true, u64::MAX, "frozen"),
            (&mounted, false, 100, "frozen"),
            (&mounted, false, 101, "too much"),
            (&Use::Attached, true, u64::MAX, "plain"),
            (&Use::Attached, false, 0, "torn"),
        ] {
            assert_eq!(
                told(used, reflinks, data),
                expected,
                "{used:?} {reflinks} {data}"
            );
        }
    }
}
