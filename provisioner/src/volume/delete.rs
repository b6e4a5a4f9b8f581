//! Deletes volumes: moves them into the trash, writes a tombstone, and leaves the
//! rest to the remover.

use crate::error::{Error, IoContext};
use crate::fs::dir::Kind;
use crate::layout::free_name;
use crate::locks::lock;
use crate::mount::users;
use crate::names;
use crate::pool::ledger::Holder;
use crate::pool::record::VolumeRecord;
use crate::pool::{Access, Pool, tombstone};
use crate::store::{Entry, Store, Trashed, lookup, open};
use crate::types::{Erasure, PoolId};
use crate::volume::by_claim;

/// See [`delete`](crate::Provisioner::delete).
pub(crate) fn delete(store: &Store, id: &str) -> Result<(), Error> {
    store.require_writer()?;
    names::volume_id(id)?;
    if let Some(pool) = lookup::pool_of(store, id) {
        return delete_from(store, &pool, id, &Erasure::default());
    }
    if is_erased(store, id)? {
        return Ok(());
    }
    Err(store.unknown_volume(id))
}

/// See [`is_erased`](crate::Provisioner::is_erased).
pub(crate) fn is_erased(store: &Store, id: &str) -> Result<bool, Error> {
    names::volume_id(id)?;
    for pool in store.pool_ids() {
        if let Ok(open) = open::pool(store, &pool, Access::Read)
            && tombstone::find(&open, id)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// See [`delete_from`](crate::Provisioner::delete_from).
pub(crate) fn delete_from(
    store: &Store,
    pool: &PoolId,
    id: &str,
    erasure: &Erasure,
) -> Result<(), Error> {
    store.require_writer()?;
    names::volume_id(id)?;
    let _one = store.volume_locks.hold(id);
    store.refuse_copied(id)?;
    let gate = store.gate(pool)?;
    let _shared = gate
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(other) = lookup::pool_of(store, id)
        && other != *pool
    {
        return Err(Error::AlreadyExists {
            id: id.to_owned(),
            difference: format!("it is in pool {other}, not {pool}"),
        });
    }
    let open = open::pool(store, pool, Access::Write)?;
    users::refuse_mounted(store, &open, id)?;
    let entry = lock(&store.state)
        .pools
        .get(pool)
        .and_then(|state| state.volumes.get(id).cloned());
    let record = match entry {
        Some(Entry::Intact(record)) => Some(*record),
        _ => None,
    };
    let discarded = discard(store, &open, id, record.as_ref(), erasure);
    // Also when only the tombstone failed: the data is in the trash already.
    store.notify.notify();
    if let Some(record) = &record
        && lookup::pool_of(store, id).is_none()
    {
        by_claim::unlink(store, &open.name, record);
    }
    discarded
}

fn discard(
    store: &Store,
    pool: &Pool,
    id: &str,
    record: Option<&VolumeRecord>,
    erasure: &Erasure,
) -> Result<(), Error> {
    let volumes = pool.volumes()?;
    let kind = volumes.kind(id).context("looking at", volumes.path())?;
    let there = kind.is_some();
    let known = lookup::pool_of(store, id).is_some();
    if there && (!known || kind != Some(Kind::Directory)) {
        return Err(Error::Damaged {
            id: id.to_owned(),
            why: format!(
                "something that Berth did not make is at {}",
                volumes.path().join(id).display()
            ),
        });
    }
    let mut name = None;
    if there {
        let trash = pool.trash()?;
        let new = free_name(&trash, id)?;
        volumes
            .rename(id, &trash, &new)
            .context("moving into the trash", volumes.path().join(id))?;
        name = Some(new);
    }
    let mut state = lock(&store.state);
    if let Some(state) = state.pools.get_mut(&pool.identity.id) {
        state.volumes.remove(id);
        let holder = Holder::Volume(id.to_owned());
        match &name {
            Some(name) => {
                state.ledger.transfer(&holder, Holder::Trash(name.clone()));
                let spec = record.map(VolumeRecord::data_spec);
                state.trash.insert(name.clone(), Trashed::new(spec));
            }
            None => state.ledger.release(&holder),
        }
    }
    drop(state);
    let before = tombstone::find(pool, id)?;
    if before.is_none_or(|before| before.is_outdated(erasure, there)) {
        tombstone::write(pool, id, record, erasure)?;
        tombstone::prune(&pool.tombstones()?, tombstone::KEPT)?;
    }
    tracing::info!(volume = id, pool = %pool.identity.id, "volume deleted");
    Ok(())
}
