//! The space of a pool: what its filesystem can still hold, and admission by its ledger.

use std::io;

use crate::backend::DataSpec;
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts};
use crate::layout::DATA;
use crate::locks::lock;
use crate::pool::ledger::{Holder, Physical};
use crate::pool::{self, Pool, ledger};
use crate::store::Store;
use crate::sys::Qgroups;
use crate::types::Backend;

/// Quotas of the subvolumes of a pool's filesystem; empty if it has none.
pub(crate) fn qgroups(store: &Store, pool: &Pool) -> Result<Qgroups, Error> {
    match pool.filesystem.fstype.as_str() {
        "btrfs" => match store.sys.qgroups(&pool.dir) {
            // No quotas, which images need none of.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Qgroups::new()),
            qgroups => qgroups.context("reading the quotas of", pool.dir.path()),
        },
        _ => Ok(Qgroups::new()),
    }
}

/// What the filesystem itself can still hold for the holders of this ledger.
pub(crate) fn physical(store: &Store, pool: &Pool, qgroups: &Qgroups) -> Physical {
    // Pools that share the filesystem have been promised parts of it too.
    let sharing: Vec<Sharing> = lock(&store.state)
        .pools
        .iter()
        .filter_map(|(id, other)| {
            let own = *id == pool.identity.id;
            let shares =
                other.usable && other.fs_uuid.is_some() && other.fs_uuid == pool.filesystem.uuid;
            (own || shares).then(|| Sharing {
                dir: (!own).then(|| other.dir.clone()),
                holders: other
                    .holders()
                    .map(|(holder, spec)| (holder.place(), other.ledger.held(&holder), spec))
                    .collect(),
                reserved: other.ledger.reserved(),
            })
        })
        .collect();
    let mut physical = Physical {
        free: pool.filesystem.free,
        written: 0,
    };
    if pool.identity.shared {
        physical.free = physical
            .free
            .saturating_sub(ledger::headroom(pool.filesystem.size));
    }
    let pools = pool::open_pools(&store.config.root).ok();
    for Sharing {
        dir,
        holders,
        reserved,
    } in sharing
    {
        let other = dir.as_ref().and_then(|dir| {
            let pools = pools.as_ref()?;
            pools.open(dir, Mounts::Cross).ok()
        });
        let at = match dir {
            None => Some(&pool.dir),
            Some(_) => other.as_ref(),
        };
        let written = holders
            .into_iter()
            // What is written twice over is nobody else's room.
            .map(|(place, held, spec)| written(store, at, &place, spec, qgroups).min(held))
            .fold(0, u64::saturating_add);
        match dir {
            None => physical.written = written,
            Some(_) => {
                let unwritten = reserved.saturating_sub(written);
                physical.free = physical.free.saturating_sub(unwritten);
            }
        }
    }
    physical
}

/// Promises `bytes` of the pool to `holder`.
///
/// # Errors
/// [`Error::NoRoom`], or what is wrong with the pool.
pub(crate) fn admit(store: &Store, pool: &Pool, holder: &Holder, bytes: u64) -> Result<(), Error> {
    let physical = physical(store, pool, &qgroups(store, pool)?);
    let id = &pool.identity.id;
    let mut state = lock(&store.state);
    let state = state
        .pools
        .get_mut(id)
        .ok_or_else(|| Error::PoolMissing { pool: id.clone() })?;
    state
        .ledger
        .admit(holder.clone(), bytes, physical)
        .map_err(|no| Error::NoRoom {
            pool: id.clone(),
            needed: no.needed,
            room: no.room,
        })
}

/// A pool on the same filesystem.
struct Sharing {
    /// Its directory; `None` for the very pool that is asked about.
    dir: Option<String>,
    /// Where everything lies in it, how many bytes that was promised, and what it is.
    holders: Vec<(String, u64, DataSpec)>,
    reserved: u64,
}

/// Bytes of the filesystem that the data at `place` of the pool at `pool` has written, so
/// that they need not be kept free for it: never more than it really has to itself.
fn written(
    store: &Store,
    pool: Option<&Dir>,
    place: &str,
    spec: DataSpec,
    qgroups: &Qgroups,
) -> u64 {
    match spec.backend {
        Backend::Btrfs => spec
            .subvolume
            .and_then(|subvolume| qgroups.get(&subvolume))
            .map_or(0, |group| match spec.shares {
                true => group.exclusive,
                false => group.used,
            }),
        // Copies may share their blocks.
        _ if spec.shares => 0,
        Backend::ProjectQuota => spec
            .project
            .and_then(|project| store.sys.project(pool?, project).ok())
            .map_or(0, |project| project.used),
        // What is not sparse was allocated when it was made; what once was a copy was not.
        Backend::Image => pool
            .and_then(|pool| pool.open(place, Mounts::Stay).ok())
            .and_then(|dir| dir.allocated(DATA).ok())
            .unwrap_or(0),
        // Nothing counts it.
        Backend::Directory => 0,
    }
}
