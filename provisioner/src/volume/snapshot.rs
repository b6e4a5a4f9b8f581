//! Takes and erases snapshots of volumes.

use crate::backend;
use crate::error::{Error, IoContext};
use crate::fs::dir::Mounts;
use crate::fs::envelope;
use crate::layout::{SNAPSHOTS, free_name};
use crate::locks::lock;
use crate::mount::users;
use crate::pool::ledger::Holder;
use crate::pool::record::{SnapshotRecord, VolumeRecord, now};
use crate::pool::{Access, Pool};
use crate::store::{Entry, Store, Trashed, lookup, open, space};
use crate::volume::{build, source};

/// Marks a snapshot in the build area and in the trash; no id contains it.
const MARK: &str = "~snapshot";

/// Takes a snapshot of a volume.
pub(crate) fn take(
    store: &Store,
    pool: &Pool,
    volume: &VolumeRecord,
    id: &str,
) -> Result<(), Error> {
    let origin = source::of_volume(pool, volume)?;
    let driver = backend::of(volume.backend);
    let dir = pool
        .volumes()?
        .open(&volume.id, Mounts::Stay)
        .context("opening", pool.dir.path().join(&volume.id))?;
    let pinned = driver
        .pinned(&lookup::stored_data(store, pool, &dir, volume.data_spec()))
        .context("measuring", dir.path())?;
    let holder = Holder::Snapshot(id.to_owned());
    space::admit(store, pool, &holder, pinned)?;
    let mut record = SnapshotRecord {
        id: id.to_owned(),
        volume: volume.id.clone(),
        size: volume.size,
        enforced: volume.enforced,
        reserved: pinned,
        backend: volume.backend,
        mode: volume.mode,
        pool: pool.identity.id.clone(),
        created: now(),
        subvolume: None,
        project: None,
        shares: pool.shares_blocks(),
    };
    // Kept until the record is known, which names it.
    let mut project = None;
    let taken = build::free_project(store, pool, record.backend).and_then(|free| {
        record.project = free.as_ref().map(|free| free.number);
        project = free;
        make_snapshot(store, pool, driver, &origin, &mut record)
    });
    let mut state = lock(&store.state);
    if let Some(state) = state.pools.get_mut(&pool.identity.id) {
        match &taken {
            Ok(()) => {
                state.ledger.hold(holder, record.reserved);
                let entry = Entry::Intact(Box::new(record.clone()));
                state.snapshots.insert(id.to_owned(), entry);
            }
            Err(_) => state.ledger.release(&holder),
        }
    }
    drop(state);
    drop(project);
    taken?;
    tracing::info!(
        snapshot = id,
        volume = volume.id,
        reserved = record.reserved,
        "snapshot taken"
    );
    Ok(())
}

/// See [`delete_snapshot`](crate::Provisioner::delete_snapshot).
pub(crate) fn delete(store: &Store, id: &str) -> Result<(), Error> {
    store.require_writer()?;
    let _one = store.snapshot_locks.hold(id);
    let Some(pool_id) = lookup::pool_of_snapshot(store, id) else {
        return store.refuse_unopened(id);
    };
    let gate = store.gate(&pool_id)?;
    let _shared = gate
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let pool = open::pool(store, &pool_id, Access::Write)?;
    discard(store, &pool, id)?;
    store.notify.notify();
    Ok(())
}

fn make_snapshot(
    store: &Store,
    pool: &Pool,
    driver: &dyn backend::Driver,
    origin: &crate::volume::source::Origin<'_>,
    record: &mut SnapshotRecord,
) -> Result<(), Error> {
    let snapshots = pool.snapshots()?;
    let id = record.id.clone();
    let aside = format!("{id}{MARK}");
    build::build(store, pool, &aside, &snapshots, &id, true, |parent| {
        let new = backend::NewData {
            sys: store.sys.as_ref(),
            parent,
            spec: record.data_spec(),
        };
        record.subvolume = source::copy(store, driver, &new, origin, true)?;
        // More may have been written between the measure and the copy.
        let now = driver
            .pinned(&lookup::stored_data(
                store,
                pool,
                parent,
                record.data_spec(),
            ))
            .context("measuring", parent.path())?;
        record.reserved = record.reserved.max(now);
        Ok(envelope::encode(record))
    })
}

fn discard(store: &Store, pool: &Pool, id: &str) -> Result<(), Error> {
    let snapshots = pool.snapshots()?;
    let path = snapshots.path().join(id);
    let mut name = None;
    if snapshots.kind(id).context("looking at", &path)?.is_some() {
        users::refuse_mounts_in(store, pool, id, &format!("{SNAPSHOTS}/{id}"))?;
        let trash = pool.trash()?;
        let new = free_name(&trash, &format!("{id}{MARK}"))?;
        snapshots
            .rename(id, &trash, &new)
            .context("moving into the trash", &path)?;
        name = Some(new);
    }
    let mut state = lock(&store.state);
    if let Some(state) = state.pools.get_mut(&pool.identity.id) {
        let spec = match state.snapshots.remove(id) {
            Some(Entry::Intact(record)) => Some(record.data_spec()),
            _ => None,
        };
        let holder = Holder::Snapshot(id.to_owned());
        match name {
            Some(name) => {
                state.ledger.transfer(&holder, Holder::Trash(name.clone()));
                state.trash.insert(name, Trashed::new(spec));
            }
            None => state.ledger.release(&holder),
        }
    }
    drop(state);
    tracing::info!(snapshot = id, pool = %pool.identity.id, "snapshot deleted");
    Ok(())
}
