//! Finds the pools under `pools/`, and which of them are those that were known.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, PoisonError};

use crate::discovery::{load, shared};
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::locks::lock;
use crate::mount::loop_image;
use crate::pool::record::Identity;
use crate::pool::{self, Observed, Pool, Verdict, init, ledger};
use crate::store::{Store, open};
use crate::types::{Health, InitOptions, KnownPool, PoolId};
use crate::volume::by_claim;

/// What a scan finds under one name, before it is reported.
pub(crate) enum Found<'a> {
    /// The directory of the requested shared pool could not be made.
    NotMade(io::Error),
    /// It cannot be opened as a directory.
    Unopened {
        known: Option<&'a KnownPool>,
        error: io::Error,
    },
    /// It cannot be examined.
    Failed {
        known: Option<&'a KnownPool>,
        why: String,
    },
    /// It is a directory, and no pool that can be used.
    Unusable { seen: Observed, verdict: Verdict },
    /// It is a pool, opened; the verdict says whether it can be used.
    Usable { pool: Pool, verdict: Verdict },
}

/// Registers every pool that can be used, and reports nothing.
///
/// # Errors
/// [`Error::Io`] when the root itself cannot be read.
pub(crate) fn register_all(store: &Store) -> Result<(), Error> {
    scan(store, false, &mut |_, _| {})
}

/// Examines every directory under `pools/` and every remembered one, and registers the
/// pools that can be used. `each` gets what was found, one after another; it is dropped
/// before the next one, so that no pool is held open for long. With `create`, mount
/// points become pools.
///
/// # Errors
/// [`Error::Io`] when the root itself cannot be read.
pub(crate) fn scan(
    store: &Store,
    create: bool,
    each: &mut dyn FnMut(&str, Found<'_>),
) -> Result<(), Error> {
    let _one = lock(&store.rescan);
    let pools = pool::open_pools(&store.config.root)?;
    if let Some((name, error)) = shared::make_directory(store, &pools) {
        each(&name, Found::NotMade(error));
    }
    let mut names: BTreeSet<String> = lock(&store.state).known.keys().cloned().collect();
    for name in pools.names().context("listing", pools.path())? {
        let may_be_pool = match pools.kind(&name) {
            // Links are listed too: they are refused by name, not overlooked.
            Ok(kind) => matches!(kind, Some(Kind::Directory | Kind::Link)),
            // A disk that answers with errors must not hide the other pools.
            Err(_) => true,
        };
        if may_be_pool
            && let Ok(name) = name.into_string()
            && !name.starts_with('.')
            && name != "lost+found"
        {
            names.insert(name);
        }
    }
    let mut claimed = BTreeSet::new();
    // A pool that is still where it was takes precedence over a copy elsewhere.
    let mut names: Vec<String> = names.into_iter().collect();
    let present: BTreeSet<String> = lock(&store.state)
        .pools
        .values()
        .map(|pool| pool.dir.clone())
        .collect();
    names.sort_by_key(|name| !present.contains(name));
    for name in &names {
        let known = lock(&store.state).known.get(name).cloned();
        let found = scan_one(store, &pools, name, known.as_ref(), create, &mut claimed);
        each(name, found);
    }
    forget_absent(store, &claimed);
    Ok(())
}

fn scan_one<'a>(
    store: &Store,
    pools: &Dir,
    name: &str,
    known: Option<&'a KnownPool>,
    create: bool,
    claimed: &mut BTreeSet<PoolId>,
) -> Found<'a> {
    let failed = |why: String| Found::Failed { known, why };
    let dir = match pools.open(name, Mounts::Cross) {
        Ok(dir) => dir,
        Err(e) => return Found::Unopened { known, error: e },
    };
    let mut seen = match pool::observe(store.sys.as_ref(), pools, &dir) {
        Ok(seen) => seen,
        Err(e) => return failed(e.to_string()),
    };
    let mut verdict = pool::judge(&seen, known);
    let wanted = match verdict.health {
        Health::Uninitialized if !seen.mount_point => shared::options_for(store, name),
        Health::Uninitialized if create => Some((store.config.clone(), InitOptions::default())),
        _ => None,
    };
    if let Some((config, options)) = wanted {
        match init::init(store.sys.as_ref(), &config, name, &options, false) {
            Ok(id) => {
                tracing::info!(pool = %id, dir = name, "pool made");
                if let Ok(again) = pool::observe(store.sys.as_ref(), pools, &dir) {
                    seen = again;
                    verdict = pool::judge(&seen, known);
                }
            }
            Err(e) => verdict.message = e.to_string(),
        }
    }
    shared::keep(store, name, &dir, &mut seen, &mut verdict);
    if let Some(id) = verdict.id.clone()
        && matches!(verdict.health, Health::Healthy | Health::ReadOnly)
    {
        if !claimed.insert(id.clone()) {
            let why = format!(
                "pool {id} is here twice, as a copy or a second mount of one disk; unmount one"
            );
            verdict.health = Health::Damaged(why.clone());
            verdict.message = why;
            return Found::Unusable { seen, verdict };
        }
        let uuid = seen.filesystem.uuid.clone();
        return match open::observed(store, name.to_owned(), dir, seen) {
            Ok(Some(pool)) => register(store, pool, verdict, uuid),
            Ok(None) => failed("its identity vanished".into()),
            Err(e) => failed(e.to_string()),
        };
    }
    Found::Unusable { seen, verdict }
}

/// Registers a usable pool; reads it if it was not there before.
fn register(store: &Store, pool: Pool, verdict: Verdict, uuid: Option<String>) -> Found<'static> {
    let id = pool.identity.id.clone();
    let name = pool.name.clone();
    let fresh = lock(&store.state)
        .pools
        .get(&id)
        .is_none_or(|state| !state.usable || state.dir != name);
    if fresh {
        let gate = store.gate(&id).unwrap_or_default();
        let _alone = gate.write().unwrap_or_else(PoisonError::into_inner);
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
        if store.is_writer() {
            by_claim::link_pool(store, &id);
            loop_image::thaw_all(store, &pool);
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

/// Marks pools that were not seen; they are read again when they return.
fn forget_absent(store: &Store, seen: &BTreeSet<PoolId>) {
    for (id, pool) in &mut lock(&store.state).pools {
        if !seen.contains(id) && pool.usable {
            pool.usable = false;
            tracing::warn!(pool = %id, dir = pool.dir, "pool is not there any more");
        }
    }
}
