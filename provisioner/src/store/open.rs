//! Opens pools: for every operation anew, after comparing their identity.

use crate::error::Error;
use crate::fs::dir::{Dir, Mounts};
use crate::locks::lock;
use crate::pool::{self, Access, Observed, Pool};
use crate::store::Store;
use crate::types::{Health, PoolId};

/// The message about a disk that does not answer.
pub(crate) const SILENT: &str = "the disk does not answer: look for hung tasks, timeouts and lost \
     paths in the kernel's log, and whether the filesystem is frozen; volumes stay where they are, \
     and nothing new is made here until it answers";

/// Opens a pool for one operation, after checking that it is still there and still
/// the same.
pub(crate) fn pool(store: &Store, id: &PoolId, access: Access) -> Result<Pool, Error> {
    let name = lock(&store.state)
        .pools
        .get(id)
        .map(|pool| pool.dir.clone())
        .ok_or_else(|| store.missing_pool(id))?;
    let path = store.path_of(&name);
    // One more thread would only wait as well.
    if store.desks.is_silent(&name) {
        return Err(Error::Unresponsive {
            path,
            why: SILENT.into(),
        });
    }
    let pools = pool::open_pools(&store.config.root)?;
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
        // A process that is stopping has given its locks up.
        Some(pool) if pool.lease.is_none() && access == Access::Write => {
            Err(store.require_writer().err().unwrap_or(Error::Stopping))
        }
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
    Ok(Some(Pool {
        lease: lock(&store.state).leases.get(&identity.id).cloned(),
        dir,
        name,
        identity,
        filesystem: seen.filesystem,
        mount: seen.mount,
    }))
}
