//! Finds the directories under `pools/`, and looks at one of them: whether it is a pool,
//! and the one that was known there.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, TryLockError};
use std::time::Duration;

use sha2::Digest;

use crate::discovery::{claims, load, shared};
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::layout::{META, NEW, PROBE};
use crate::locks::lock;
use crate::mount::freeze;
use crate::pool::record::Identity;
use crate::pool::{self, Observed, Pool, Verdict, init, ledger};
use crate::store::{Store, open};
use crate::types::{Health, InitOptions, KnownPool};
use crate::volume::by_claim;

/// How long, after the start, the look at a pool waits for the pools before it in the
/// order of names: of two copies of one pool, a restart must not take the other. A silent
/// disk holds the others up for no longer.
const ORDER: Duration = Duration::from_secs(2);

/// Bytes of the file that is read to see whether a disk answers.
const PROBE_BYTES: usize = 8192;

/// What a look finds under one name, before it is reported.
pub(crate) enum Found {
    /// The directory of the requested shared pool could not be made.
    NotMade(io::Error),
    /// It cannot be opened as a directory.
    Unopened {
        known: Option<KnownPool>,
        error: io::Error,
    },
    /// It cannot be examined.
    Failed {
        known: Option<KnownPool>,
        why: String,
    },
    /// It is the pool that is known, and has to be waited for.
    Waits(Option<KnownPool>, String),
    /// It is a directory, and no pool that can be used.
    Unusable { seen: Observed, verdict: Verdict },
    /// It is a pool, opened; the verdict says whether it can be used.
    Usable { pool: Pool, verdict: Verdict },
}

/// Names of the directories to look at: those under `pools/`, and those that are
/// remembered. Asks the root's own filesystem only: a mounted disk that answers nothing
/// must not hide the other pools.
///
/// # Errors
/// [`Error::Io`] when the root itself cannot be read.
pub(crate) fn names(store: &Store) -> Result<Vec<String>, Error> {
    let pools = pool::open_pools(&store.config.root)?;
    let mut names: BTreeSet<String> = {
        let state = lock(&store.state);
        let shared = state.shared.as_ref().map(|shared| shared.dir().to_owned());
        state.known.keys().cloned().chain(shared).collect()
    };
    let found = pools.names_of_places().context("listing", pools.path())?;
    let may_be_pool = |name: &String| !name.starts_with('.') && name != "lost+found";
    names.extend(found.into_iter().filter(may_be_pool));
    Ok(names.into_iter().collect())
}

/// Looks at one directory under `pools/`, and registers the pool in it if it can be used.
/// With `create`, a mount point becomes a pool. Only the directory's own worker calls this.
pub(crate) fn look(store: &Store, name: &str, create: bool) -> Found {
    let found = examine(store, name, create);
    if !matches!(&found, Found::Usable { verdict, .. } if is_usable(&verdict.health)) {
        claims::release(store, name, None);
    }
    found
}

fn examine(store: &Store, name: &str, create: bool) -> Found {
    let known = lock(&store.state).known.get(name).cloned();
    let failed = |known: &Option<KnownPool>, why: String| Found::Failed {
        known: known.clone(),
        why,
    };
    let pools = match pool::open_pools(&store.config.root) {
        Ok(pools) => pools,
        Err(e) => return failed(&known, e.to_string()),
    };
    if let Some(error) = shared::make_directory(store, &pools, name) {
        return Found::NotMade(error);
    }
    let dir = match pools.open(name, Mounts::Cross) {
        Ok(dir) => dir,
        Err(error) => return Found::Unopened { known, error },
    };
    let mut seen = match pool::observe(store.sys.as_ref(), &pools, &dir) {
        Ok(seen) => seen,
        Err(e) => return failed(&known, e.to_string()),
    };
    let mut verdict = pool::judge(&seen, known.as_ref());
    let wanted = match verdict.health {
        Health::Uninitialized if !seen.mount_point => shared::options_for(store, name),
        Health::Uninitialized if create => Some((store.config.clone(), InitOptions::default())),
        _ => None,
    };
    if let Some((config, options)) = wanted {
        match init::init(store.sys.as_ref(), &config, name, &options, false) {
            Ok(id) => {
                tracing::info!(pool = %id, dir = name, "pool made");
                if let Ok(again) = pool::observe(store.sys.as_ref(), &pools, &dir) {
                    seen = again;
                    verdict = pool::judge(&seen, known.as_ref());
                }
            }
            Err(e) => verdict.message = e.to_string(),
        }
    }
    shared::keep(store, name, &dir, &mut seen, &mut verdict);
    if let Some(id) = verdict.id.clone()
        && is_usable(&verdict.health)
    {
        // Of two copies the same is taken at each start.
        store.desks.wait_for_earlier(name, store.opened + ORDER);
        if let Err(other) = claims::claim(store, &id, name) {
            let why = format!(
                "pool {id} is here twice, as a copy or a second mount of one disk (it is in \
                 {other} as well); unmount one"
            );
            verdict.health = Health::Damaged(why.clone());
            verdict.message = why;
            return Found::Unusable { seen, verdict };
        }
        if let Err(e) = probe(store, &dir, &verdict.health) {
            tracing::warn!(pool = %id, error = %e, "the disk answers, with an error");
        }
        let uuid = seen.filesystem.uuid.clone();
        let taken = store.take_lease(&id);
        return match taken.and_then(|()| open::observed(store, name.to_owned(), dir, seen)) {
            Ok(Some(pool)) => register(store, pool, verdict, uuid),
            Ok(None) => failed(&known, "its identity vanished".into()),
            Err(Error::Unresponsive { path, why }) => {
                Found::Waits(known, format!("{}: {why}", path.display()))
            }
            Err(e) => failed(&known, e.to_string()),
        };
    }
    Found::Unusable { seen, verdict }
}

fn is_usable(health: &Health) -> bool {
    matches!(health, Health::Healthy | Health::ReadOnly)
}

/// Returns once the disk has answered. A frozen filesystem, and a disk that is gone, still
/// answer from memory what a look at the pool asks.
fn probe(store: &Store, dir: &Dir, health: &Health) -> std::io::Result<()> {
    let meta = dir.open(META, Mounts::Stay)?;
    if *health != Health::Healthy || meta.kind(NEW)? != Some(Kind::Directory) {
        return Ok(());
    }
    store.sys.probe(&meta, NEW, PROBE)?;
    if store.is_writer() && meta.kind(PROBE)?.is_none() {
        // Written once in a pool's life. It neither fits into an inode nor can be
        // compressed, so that it lies in a block of its own.
        let mut content: Vec<u8> = Vec::with_capacity(PROBE_BYTES);
        let mut block = sha2::Sha256::digest(dir.path().as_os_str().as_encoded_bytes());
        while content.len() < PROBE_BYTES {
            content.extend_from_slice(&block);
            block = sha2::Sha256::digest(block);
        }
        meta.write(PROBE, &content)?;
    }
    Ok(())
}

/// Registers a usable pool; reads it if it was not there before.
fn register(store: &Store, pool: Pool, verdict: Verdict, uuid: Option<String>) -> Found {
    let id = pool.identity.id.clone();
    let name = pool.name.clone();
    let fresh = lock(&store.state)
        .pools
        .get(&id)
        .is_none_or(|state| !state.usable || state.dir != name);
    if fresh {
        let gate = store.gate(&id).unwrap_or_default();
        let _alone = match gate.try_write() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            // Nobody waits for a copy of many hours.
            Err(TryLockError::WouldBlock) => {
                let known = KnownPool {
                    dir: name,
                    id,
                    fs_uuid: uuid,
                };
                let why = "it is back, and what ran on it before has not ended; it is read again \
                           when it has";
                return Found::Waits(Some(known), why.into());
            }
        };
        match load::load(store, &pool, Arc::clone(&gate)) {
            Ok(loaded) => {
                let mut state = lock(&store.state);
                state.pools.insert(id.clone(), loaded);
                state.known.insert(
                    name.clone(),
                    KnownPool {
                        dir: name.clone(),
                        id: id.clone(),
                        fs_uuid: uuid,
                    },
                );
            }
            Err(e) => {
                let why = e.to_string();
                let verdict = Verdict {
                    health: Health::Damaged(why.clone()),
                    message: why,
                    id: Some(id),
                    fs_uuid: verdict.fs_uuid,
                };
                return Found::Usable { pool, verdict };
            }
        }
        claims::forget_elsewhere(store, &id, &name);
        if store.is_writer() {
            by_claim::link_pool(store, &id);
            freeze::thaw_marked(store, &pool);
        }
        tracing::info!(pool = %id, dir = name, "pool registered");
        store.notify.notify();
    }
    if store.is_writer()
        && verdict.health == Health::Healthy
        && pool.filesystem.fstype == "btrfs"
        && let Err(e) = store.sys.keep_quotas(&pool.dir)
    {
        tracing::warn!(pool = %id, error = %e, "quotas cannot be kept consistent");
    }
    set_capacity(store, &pool.identity, pool.filesystem.size);
    Found::Usable { pool, verdict }
}

fn set_capacity(store: &Store, identity: &Identity, size: u64) {
    let capacity = ledger::capacity(size, identity.capacity);
    if let Some(pool) = lock(&store.state).pools.get_mut(&identity.id) {
        pool.ledger.set_capacity(capacity);
    }
}
