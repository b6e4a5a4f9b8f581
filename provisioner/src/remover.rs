//! Empties the trash in the background: one thread, one thing at a time, so
//! that pods on the same disk keep theirs. Room goes back to the ledger only when
//! the filesystem has freed the space.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::backend::{self, Erasing};
use crate::dir::{Kind, Mounts};
use crate::error::{Doing, Error};
use crate::ledger::Holder;
use crate::locks::lock;
use crate::pool::{Need, Pool};
use crate::provisioner::{Inner, Provisioner, Trashed};
use crate::record::{DATA, RECORD, TRASH};
use crate::types::{Backend, PoolId};

/// Longest pause between two looks at something that is being freed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// First pause.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// How the remover is told that there is work, or that it is to stop.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    word: Mutex<Word>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Word {
    stop: bool,
    wakes: u64,
}

impl Signal {
    /// There is work, or some was done.
    pub(crate) fn wake(&self) {
        lock(&self.word).wakes += 1;
        self.changed.notify_all();
    }

    /// No more work is to be done.
    pub(crate) fn stop(&self) {
        lock(&self.word).stop = true;
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        lock(&self.word).stop
    }

    fn wakes(&self) -> u64 {
        lock(&self.word).wakes
    }

    /// Waits for a wake after the `seen`th, for at most `pause`.
    fn wait(&self, seen: u64, pause: Option<Duration>) {
        let word = lock(&self.word);
        let idle = |word: &mut Word| !word.stop && word.wakes == seen;
        match pause {
            Some(pause) => drop(self.changed.wait_timeout_while(word, pause, idle)),
            None => drop(self.changed.wait_while(word, idle)),
        }
    }
}

impl Provisioner {
    /// Waits until nothing is in the trash of the pools that are here, for at most
    /// `patience`; whether that came to be.
    pub fn settle(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            let seen = self.inner.signal.wakes();
            if self.inner.waiting().is_empty() {
                return true;
            }
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return false;
            };
            self.inner.signal.wait(seen, Some(left));
        }
    }
}

/// Starts the thread; it ends when told to, or when nobody needs it any more.
pub(crate) fn start(inner: &Arc<Inner>) -> std::io::Result<JoinHandle<()>> {
    let inner = Arc::downgrade(inner);
    std::thread::Builder::new()
        .name("berth-remover".into())
        .spawn(move || run(&inner))
}

fn run(inner: &Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        if inner.signal.stopped() {
            return;
        }
        let seen = inner.signal.wakes();
        let work = inner.waiting();
        let mut pause = None;
        for (pool, name, tries) in work {
            if inner.signal.stopped() {
                return;
            }
            let erased = inner.erase(&pool, &name);
            let why = erased.as_ref().err().map(ToString::to_string);
            if let Some(state) = lock(&inner.state).pools.get_mut(&pool)
                && let Some(kept) = state.trash.get_mut(&name)
            {
                kept.why = why;
            }
            match erased {
                Ok(true) => inner.signal.wake(),
                Ok(false) => {}
                // Now and then only: it may take long until somebody repairs it.
                Err(e) if (tries + 1).is_power_of_two() => {
                    tracing::warn!(pool = %pool, trash = name, error = %e, "cannot be erased yet");
                }
                Err(_) => {}
            }
            let mine = FIRST_PAUSE
                .saturating_mul(1 << tries.min(10))
                .min(LONGEST_PAUSE);
            pause = Some(pause.map_or(mine, |pause: Duration| pause.min(mine)));
        }
        inner.signal.wait(seen, pause);
    }
}

impl Inner {
    /// What is in the trash of usable pools.
    fn waiting(&self) -> Vec<(PoolId, String, u32)> {
        lock(&self.state)
            .pools
            .iter()
            .filter(|(_, pool)| pool.usable)
            .flat_map(|(id, pool)| {
                pool.trash
                    .iter()
                    .map(move |(name, trashed)| (id.clone(), name.clone(), trashed.tries))
            })
            .collect()
    }

    /// Takes a step at erasing something; `true` when it is gone for good.
    fn erase(&self, id: &PoolId, name: &str) -> Result<bool, Error> {
        let gate = self.gate(id)?;
        let _shared = gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut trashed = match lock(&self.state).pools.get_mut(id) {
            Some(state) => match state.trash.get_mut(name) {
                Some(trashed) => {
                    trashed.tries += 1;
                    trashed.clone()
                }
                None => return Ok(true),
            },
            None => return Ok(true),
        };
        let pool = self.open_pool(id, Need::Write)?;
        let gone = self.step(&pool, name, &mut trashed)?;
        let mut state = lock(&self.state);
        if let Some(state) = state.pools.get_mut(id) {
            if gone {
                state.trash.remove(name);
                state.ledger.release(&Holder::Trash(name.to_owned()));
                tracing::info!(pool = %id, trash = name, "space freed");
            } else if let Some(kept) = state.trash.get_mut(name) {
                kept.freeing = trashed.freeing;
            }
        }
        Ok(gone)
    }

    fn step(&self, pool: &Pool, name: &str, trashed: &mut Trashed) -> Result<bool, Error> {
        let trash = pool.trash()?;
        let path = trash.path().join(name);
        if trash.kind(name).doing("looking at", &path)? != Some(Kind::Directory) {
            return Ok(true);
        }
        let dir = trash.open(name, Mounts::Stay).doing("opening", &path)?;
        self.refuse_mounts_in(pool, name, &format!("{TRASH}/{name}"))?;
        let mut go_on = || !self.signal.stopped();
        if dir.kind(DATA).doing("looking at", &path)?.is_some() {
            let kind = trashed.body.map_or(Backend::Btrfs, |body| body.backend);
            match backend::of(kind)
                .erase(self.sys.as_ref(), &dir, trashed.body, &mut go_on)
                .map_err(|e| explained(e, &path))
                .doing("erasing", &path)?
            {
                Erasing::Freed => {}
                Erasing::Freeing(subvolumes) => trashed.freeing.extend(subvolumes),
                Erasing::Stopped => return Ok(false),
            }
        }
        // Before the subvolume is waited for: somebody may have moved it beside.
        for rest in dir.names().doing("listing", &path)? {
            if rest != RECORD && !dir.remove_tree(&rest, &mut go_on).doing("erasing", &path)? {
                return Ok(false);
            }
        }
        for subvolume in trashed.freeing.clone() {
            if self
                .sys
                .subvolume_exists(&pool.dir, subvolume)
                .doing("looking at the subvolumes of", pool.dir.path())?
            {
                if trashed.tries.is_multiple_of(8) {
                    self.sys
                        .commit(&pool.dir)
                        .doing("writing down", pool.dir.path())?;
                }
                return Ok(false);
            }
            // Newer kernels did it; the numbers of others can lag behind. A group
            // that stays costs nothing, since ids are not used again.
            if let Err(e) = self.sys.remove_qgroup(&pool.dir, subvolume) {
                tracing::debug!(subvolume, error = %e, "qgroup stays");
            }
            trashed.freeing.remove(&subvolume);
        }
        // The record goes last: until then a crash leaves what can be resumed.
        dir.remove_file(RECORD).doing("erasing", &path)?;
        drop(dir);
        trash.remove_empty(name).doing("erasing", &path)?;
        trash.sync().doing("writing down", trash.path())?;
        Ok(true)
    }
}

/// Says what to do about what may not be removed: root may remove everything else.
fn explained(error: io::Error, path: &Path) -> io::Error {
    if error.raw_os_error() != Some(Errno::EPERM as i32) {
        return error;
    }
    io::Error::new(
        error.kind(),
        format!(
            "{error}; it holds files that are immutable or append-only: run \
             `chattr -R -i -a {}` on the node",
            path.display()
        ),
    )
}
