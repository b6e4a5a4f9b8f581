//! Reports about snapshots.

use crate::layout::{DATA, SNAPSHOTS};
use crate::locks::lock;
use crate::pool::Access;
use crate::store::{Entry, Store, lookup, open};
use crate::types::{Backend, PoolId, SnapshotReport, VolumeHealth};

/// See [`find_snapshot`](crate::Provisioner::find_snapshot).
pub(crate) fn find(store: &Store, id: &str) -> Option<SnapshotReport> {
    let pool_id = lookup::pool_of_snapshot(store, id)?;
    report(store, &pool_id, Some(id)).pop()
}

/// See [`list_snapshots`](crate::Provisioner::list_snapshots).
pub(crate) fn list(store: &Store) -> Vec<SnapshotReport> {
    let mut all: Vec<_> = store
        .pool_ids()
        .iter()
        .flat_map(|pool| report(store, pool, None))
        .collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// The snapshots of a pool, or one of them.
pub(crate) fn report(store: &Store, pool_id: &PoolId, only: Option<&str>) -> Vec<SnapshotReport> {
    let pool = open::pool(store, pool_id, Access::Read);
    let state = lock(&store.state);
    let Some(known) = state.pools.get(pool_id) else {
        return Vec::new();
    };
    let base = store.path_of(&known.dir).join(SNAPSHOTS);
    let entries: Vec<_> = known
        .snapshots
        .iter()
        .filter(|(id, _)| only.is_none_or(|only| only == id.as_str()))
        .map(|(id, entry)| (id.clone(), entry.clone()))
        .collect();
    drop(state);
    entries
        .into_iter()
        .map(|(id, entry)| {
            let mut report = SnapshotReport {
                path: base.join(&id).join(DATA),
                id,
                volume: String::new(),
                pool: pool_id.clone(),
                size: 0,
                reserved: 0,
                backend: Backend::Btrfs,
                mode: crate::types::VolumeMode::Filesystem,
                created: String::new(),
                health: VolumeHealth::Ready,
            };
            match entry {
                Entry::Damaged(why) => report.health = VolumeHealth::Damaged(why),
                Entry::Intact(record) => {
                    report.health = match &pool {
                        Err(e) => VolumeHealth::Lost(e.to_string()),
                        Ok(pool) => lookup::snapshot_health(store, pool, &record),
                    };
                    report.volume = record.volume;
                    report.size = record.size;
                    report.reserved = record.reserved;
                    report.backend = record.backend;
                    report.mode = record.mode;
                    report.created = record.created;
                }
            }
            report
        })
        .collect()
}
