//! Empties the trash in the background: one thread per pool, one entry at a time, so that
//! pods on the same disk keep their bandwidth, and no disk waits for another. Room goes back to the ledger only when
//! the filesystem has freed the space.

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::backend::{self, EraseProgress};
use crate::error::{Error, IoContext};
use crate::fs::dir::{Kind, Mounts};
use crate::layout::{DATA, RECORD, TRASH};
use crate::locks::lock;
use crate::mount::users;
use crate::pool::ledger::Holder;
use crate::pool::{Access, Pool};
use crate::store::{Store, Trashed, open};
use crate::types::{Backend, PoolId};
use crate::volume::shares;

/// Longest pause between two checks of something that is being freed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// First pause.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// See [`settle`](crate::Provisioner::settle).
pub(crate) fn settle(store: &Store, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        let seen = store.notify.count();
        if waiting(store, None).is_empty() {
            return true;
        }
        let Some(left) = end.checked_duration_since(Instant::now()) else {
            return false;
        };
        store.notify.wait(seen, Some(left));
    }
}

/// Empties the trash of the pool in one directory, until it is asked to stop.
pub(crate) fn run(store: &Store, dir: &str, has_ended: impl Fn() -> bool) {
    while !store.notify.stopped() && !has_ended() {
        let seen = store.notify.count();
        let work = waiting(store, Some(dir));
        let mut pause = None;
        for (pool, name, tries) in work {
            if store.notify.stopped() {
                return;
            }
            let erased = erase(store, &pool, &name);
            let why = erased.as_ref().err().map(ToString::to_string);
            if let Some(state) = lock(&store.state).pools.get_mut(&pool)
                && let Some(kept) = state.trash.get_mut(&name)
            {
                kept.why = why;
            }
            match erased {
                Ok(true) => store.notify.notify(),
                Ok(false) => {}
                // Not each time: it may take long until somebody repairs it.
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
        if let Some(pool) = shares_less(store, dir)
            && let Err(e) = settle_shares(store, &pool)
        {
            tracing::debug!(%pool, error = %e, "copies are not looked at");
        }
        store.notify.wait(seen, pause);
    }
}

/// The pool in a directory, if it has copies, and something is gone that they may have
/// shared blocks with.
fn shares_less(store: &Store, dir: &str) -> Option<PoolId> {
    let state = lock(&store.state);
    let mut pools = state.pools.iter();
    let found = pools.find(|(_, it)| {
        let mine = it.may_share_less && it.usable && it.dir == dir;
        mine && it.data_specs().any(|spec| spec.shares)
    });
    found.map(|(id, _)| id.clone())
}

fn settle_shares(store: &Store, id: &PoolId) -> Result<(), Error> {
    let gate = store.gate(id)?;
    let _shared = gate.read().unwrap_or_else(PoisonError::into_inner);
    let pool = open::pool(store, id, Access::Write)?;
    if let Some(state) = lock(&store.state).pools.get_mut(id) {
        state.may_share_less = false;
    }
    shares::settle(store, &pool);
    Ok(())
}

/// Adds advice for files that even root may not remove.
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

/// What is in the trash of usable pools, or of that in one directory.
fn waiting(store: &Store, dir: Option<&str>) -> Vec<(PoolId, String, u32)> {
    lock(&store.state)
        .pools
        .iter()
        .filter(|(_, pool)| pool.usable && dir.is_none_or(|dir| pool.dir == dir))
        .flat_map(|(id, pool)| {
            pool.trash
                .iter()
                .map(move |(name, trashed)| (id.clone(), name.clone(), trashed.tries))
        })
        .collect()
}

/// Performs one step of an erasure; `true` when everything is gone.
fn erase(store: &Store, id: &PoolId, name: &str) -> Result<bool, Error> {
    let gate = store.gate(id)?;
    let _shared = gate.read().unwrap_or_else(PoisonError::into_inner);
    let mut trashed = match lock(&store.state).pools.get_mut(id) {
        Some(state) => match state.trash.get_mut(name) {
            Some(trashed) => {
                trashed.tries += 1;
                trashed.clone()
            }
            None => return Ok(true),
        },
        None => return Ok(true),
    };
    let pool = open::pool(store, id, Access::Write)?;
    let gone = step(store, &pool, name, &mut trashed)?;
    let mut state = lock(&store.state);
    if let Some(state) = state.pools.get_mut(id) {
        if gone {
            state.trash.remove(name);
            state.ledger.release(&Holder::Trash(name.to_owned()));
            state.may_share_less = true;
            tracing::info!(pool = %id, trash = name, "space freed");
        } else if let Some(kept) = state.trash.get_mut(name) {
            kept.freeing = trashed.freeing;
        }
    }
    Ok(gone)
}

fn step(store: &Store, pool: &Pool, name: &str, trashed: &mut Trashed) -> Result<bool, Error> {
    let trash = pool.trash()?;
    let path = trash.path().join(name);
    if trash.kind(name).context("looking at", &path)? != Some(Kind::Directory) {
        return Ok(true);
    }
    let dir = trash.open(name, Mounts::Stay).context("opening", &path)?;
    users::refuse_mounts_in(store, pool, name, &format!("{TRASH}/{name}"))?;
    let mut keep_going = || !store.notify.stopped();
    // Also where an earlier process removed the data, and ended before it gave the project's
    // number back.
    let limited = trashed.spec.is_some_and(|spec| spec.project.is_some());
    if limited || dir.kind(DATA).context("looking at", &path)?.is_some() {
        let kind = trashed.spec.map_or(Backend::Btrfs, |spec| spec.backend);
        match backend::of(kind)
            .erase(store.sys.as_ref(), &dir, trashed.spec, &mut keep_going)
            .map_err(|e| explained(e, &path))
            .context("erasing", &path)?
        {
            EraseProgress::Freed => {}
            EraseProgress::Freeing(subvolumes) => trashed.freeing.extend(subvolumes),
            EraseProgress::Stopped => return Ok(false),
        }
    }
    // Before waiting for the subvolume: somebody may have moved it beside the data.
    for rest in dir.names().context("listing", &path)? {
        if rest != RECORD
            && !dir
                .remove_tree(&rest, &mut keep_going)
                .context("erasing", &path)?
        {
            return Ok(false);
        }
    }
    for subvolume in trashed.freeing.clone() {
        if store
            .sys
            .subvolume_exists(&pool.dir, subvolume)
            .context("looking at the subvolumes of", pool.dir.path())?
        {
            if trashed.tries.is_multiple_of(8) {
                store
                    .sys
                    .commit(&pool.dir)
                    .context("writing down", pool.dir.path())?;
            }
            return Ok(false);
        }
        // Newer kernels did it; the numbers of others can lag behind. A group
        // that stays costs nothing, since ids are not used again.
        if let Err(e) = store.sys.remove_qgroup(&pool.dir, subvolume) {
            tracing::debug!(subvolume, error = %e, "qgroup stays");
        }
        trashed.freeing.remove(&subvolume);
    }
    // The record goes last: until then a crash leaves what can be resumed.
    dir.remove_file(RECORD).context("erasing", &path)?;
    drop(dir);
    trash.remove_empty(name).context("erasing", &path)?;
    trash.sync().context("writing down", trash.path())?;
    Ok(true)
}
