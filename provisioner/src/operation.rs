//! Operations that answer with a report of what they changed. They hold the locks of
//! the volume, the snapshot and the pool until it is written, so that the report
//! describes what the operation left. What writes knows nothing of reports.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use crate::error::Error;
use crate::layout::POOLS;
use crate::locks::lock;
use crate::mount::loop_image;
use crate::names;
use crate::pool::{Access, init};
use crate::report::{pools, snapshots, volumes};
use crate::store::desks::SILENCE;
use crate::store::{Store, lookup, open};
use crate::types::{
    ClaimRef, InitOptions, PoolId, PoolReport, SetRef, SnapshotReport, SnapshotSpec, Source,
    VolumeReport, VolumeSpec,
};
use crate::volume::{assign, by_claim, create, grow, snapshot};
use crate::workers;

/// See [`init_pool`](crate::Provisioner::init_pool).
pub(crate) fn init_pool(
    store: &Arc<Store>,
    dir: &str,
    options: &InitOptions,
) -> Result<PoolReport, Error> {
    store.require_writer()?;
    let known = lock(&store.state).known.contains_key(dir);
    init::init(store.sys.as_ref(), &store.config, dir, options, known)?;
    workers::ask(store, false)?;
    store.desks.wait(|at| at == dir, SILENCE);
    pools::last(store)
        .into_iter()
        .find(|report| report.dir == dir)
        .ok_or_else(|| Error::InitRefused {
            path: store.config.root.join(POOLS).join(dir),
            why: "it vanished".into(),
        })
}

/// See [`create`](crate::Provisioner::create).
pub(crate) fn create(
    store: &Store,
    pool: &PoolId,
    want: &VolumeSpec,
) -> Result<VolumeReport, Error> {
    store.require_writer()?;
    create::validate(want)?;
    // Always in the same order, or two calls could deadlock: snapshots, sources of copies,
    // volumes. Nobody who holds a volume waits for another.
    let (mut _snapshot, mut _copy) = (None, None);
    match &want.source {
        Some(Source::Snapshot(id)) => _snapshot = Some(store.snapshot_locks.hold(id)),
        Some(Source::Volume(id)) => _copy = Some(store.source_of_copy(id)),
        None => {}
    }
    let _one = store.volume_locks.hold(&want.id);
    let gate = store.gate(pool)?;
    let _shared = gate.read().unwrap_or_else(PoisonError::into_inner);
    let open = open::pool(store, pool, Access::Write)?;
    if let Some(other) = lookup::pool_of(store, &want.id)
        && other != *pool
    {
        return Err(Error::AlreadyExists {
            id: want.id.clone(),
            difference: format!("it is in pool {other}"),
        });
    }
    let record = match create::find_existing(store, &open, want)? {
        Some(record) => record,
        None => create::make_new(store, &open, want)?,
    };
    by_claim::link(store, &open.name, &record);
    drop(open);
    volumes::report(store, pool, Some(&want.id))
        .pop()
        .ok_or_else(|| Error::UnknownVolume {
            id: want.id.clone(),
        })
}

/// See [`expand`](crate::Provisioner::expand).
pub(crate) fn expand(store: &Store, id: &str, size: u64) -> Result<VolumeReport, Error> {
    store.require_writer()?;
    grow::validate_size(size)?;
    let _one = store.volume_locks.hold(id);
    store.refuse_copied(id)?;
    let pool_id = lookup::pool_of(store, id).ok_or_else(|| store.unknown_volume(id))?;
    let gate = store.gate(&pool_id)?;
    let _shared = gate.read().unwrap_or_else(PoisonError::into_inner);
    let (pool, record) = lookup::open_healthy(store, id, Access::Write)?;
    lookup::open_data(store, &pool, &record)?;
    grow::grow(store, &pool, record, size)?;
    loop_image::grow_filesystem(store, &pool, id)?;
    drop(pool);
    volumes::report(store, &pool_id, Some(id))
        .pop()
        .ok_or_else(|| Error::UnknownVolume { id: id.into() })
}

/// See [`assign`](crate::Provisioner::assign).
pub(crate) fn assign(
    store: &Store,
    id: &str,
    claim: ClaimRef,
    set: Option<SetRef>,
) -> Result<VolumeReport, Error> {
    store.require_writer()?;
    let unknown = || Error::UnknownVolume { id: id.into() };
    let _one = store.volume_locks.hold(id);
    let pool_id = lookup::pool_of(store, id).ok_or_else(unknown)?;
    let gate = store.gate(&pool_id)?;
    let _shared = gate.read().unwrap_or_else(PoisonError::into_inner);
    let (pool, record) = lookup::open_healthy(store, id, Access::Write)?;
    assign::assign(store, &pool, record, claim, set)?;
    drop(pool);
    let report = volumes::report(store, &pool_id, Some(id));
    let report = report.into_iter().next().ok_or_else(unknown)?;
    by_claim::link_staged(store, id, report.staged.first().map(PathBuf::as_path));
    Ok(report)
}

/// See [`snapshot`](crate::Provisioner::snapshot).
pub(crate) fn snapshot(store: &Store, want: &SnapshotSpec) -> Result<SnapshotReport, Error> {
    store.require_writer()?;
    names::volume_id(&want.id)?;
    let _one = store.snapshot_locks.hold(&want.id);
    if let Some(there) = snapshots::find(store, &want.id) {
        return match there.volume == want.volume {
            true => Ok(there),
            false => Err(Error::AlreadyExists {
                id: want.id.clone(),
                difference: format!("it is a snapshot of volume {}", there.volume),
            }),
        };
    }
    let _copy = store.source_of_copy(&want.volume);
    let pool_id =
        lookup::pool_of(store, &want.volume).ok_or_else(|| store.unknown_volume(&want.volume))?;
    let gate = store.gate(&pool_id)?;
    let _shared = gate.read().unwrap_or_else(PoisonError::into_inner);
    let (pool, record) = lookup::open_healthy(store, &want.volume, Access::Write)?;
    lookup::open_data(store, &pool, &record)?;
    snapshot::take(store, &pool, &record, &want.id)?;
    drop(pool);
    snapshots::find(store, &want.id).ok_or_else(|| Error::UnknownSnapshot {
        id: want.id.clone(),
    })
}
