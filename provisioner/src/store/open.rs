//! Opens pools: for every operation anew, after comparing their identity.

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts};
use crate::locks::lock;
use crate::pool::{self, Access, Observed, Pool};
use crate::store::Store;
use crate::types::{Health, PoolId};

/// Opens a pool for one operation, after checking that it is still there and still
/// the same.
pub(crate) fn pool(store: &Store, id: &PoolId, access: Access) -> Result<Pool, Error> {
    let name = lock(&store.state)
        .pools
        .get(id)
        .map(|pool| pool.dir.clone())
        .ok_or_else(|| Error::PoolMissing { pool: id.clone() })?;
    let pools = pool::open_pools(&store.config.root)?;
    let path = store.path_of(&name);
    let dir = match pools.open(&name, Mounts::Cross) {
        Ok(dir) => dir,
        Err(e) => {
            return Err(Error::LostMount {
                path,
                why: e.to_string(),
            });
        }
    };
    let seen = pool::observe(store.sys.as_ref(), &pools, &dir)?;
    let known = lock(&store.state).known.get(&name).cloned();
    let verdict = pool::judge(&seen, known.as_ref());
    let usable = match verdict.health {
        Health::Healthy => true,
        Health::ReadOnly => access == Access::Read,
        _ => false,
    };
    if !usable {
        return Err(match verdict.health {
            Health::ReadOnly => Error::ReadOnly { path },
            Health::Uninitialized | Health::LostMount => Error::LostMount {
                path,
                why: verdict.message,
            },
            _ => Error::DamagedPool {
                path,
                why: verdict.message,
            },
        });
    }
    match observed(store, name, dir, seen)? {
        Some(pool) if pool.identity.id == *id => Ok(pool),
        _ => Err(Error::LostMount {
            path,
            why: format!("another pool is in the place of {id}"),
        }),
    }
}

/// The pool in a directory that was observed; `None` if it has no valid identity.
pub(crate) fn observed(
    store: &Store,
    name: String,
    dir: Dir,
    seen: Observed,
) -> Result<Option<Pool>, Error> {
    let Ok(Some(identity)) = seen.identity else {
        return Ok(None);
    };
    let mount = store
        .sys
        .mount_of(&dir)
        .context("looking at the mount of", dir.path())?;
    Ok(Some(Pool {
        dir,
        name,
        identity,
        filesystem: seen.filesystem,
        mount,
    }))
}
