//! Reports about volumes.

use berth_linux::mountinfo::MountEntry;

use crate::backend;
use crate::error::{Error, IoContext};
use crate::fs::dir::Mounts;
use crate::layout::{DATA, VOLUMES};
use crate::locks::lock;
use crate::mount::loop_image::{self, LoopIndex};
use crate::mount::users::{self, MountIndex};
use crate::pool::record::VolumeRecord;
use crate::pool::{Access, Pool};
use crate::report::problems::{self, UsedSpace};
use crate::store::{Entry, Store, lookup, open, space};
use crate::sys::{Loop, Qgroups};
use crate::types::{Backend, PoolId, Usage, VolumeHealth, VolumeReport};

/// The state of the host, read once for all volumes of a pool.
struct HostView {
    /// Quotas of the pool's filesystem.
    qgroups: Qgroups,
    /// The mount table.
    mounts: MountIndex,
    /// Loop devices, where a volume may have one.
    loops: LoopIndex,
}

/// The volumes of a pool, or one of them.
pub(crate) fn report(store: &Store, pool_id: &PoolId, only: Option<&str>) -> Vec<VolumeReport> {
    let pool = open::pool(store, pool_id, Access::Read);
    let qgroups = match &pool {
        Ok(pool) => space::qgroups(store, pool).unwrap_or_default(),
        Err(_) => Qgroups::new(),
    };
    let entries: Vec<(String, Entry)> = lock(&store.state)
        .pools
        .get(pool_id)
        .into_iter()
        .flat_map(|pool| pool.volumes.iter())
        .filter(|(id, _)| only.is_none_or(|only| only == id.as_str()))
        .map(|(id, entry)| (id.clone(), entry.clone()))
        .collect();
    let with_loops = entries
        .iter()
        .any(|(_, entry)| loop_image::may_be_image(entry));
    let view = HostView {
        qgroups,
        mounts: MountIndex::new(store.sys.mounts().unwrap_or_default()),
        loops: match with_loops {
            true => LoopIndex::new(store.sys.loops().unwrap_or_default()),
            false => LoopIndex::default(),
        },
    };
    entries
        .into_iter()
        .map(|(id, entry)| report_volume(store, pool_id, &pool, &id, &entry, &view))
        .collect()
}

/// See [`find`](crate::Provisioner::find).
pub(crate) fn find(store: &Store, id: &str) -> Option<VolumeReport> {
    let pool = lookup::pool_of(store, id)?;
    report(store, &pool, Some(id)).pop()
}

/// See [`list`](crate::Provisioner::list).
pub(crate) fn list(store: &Store) -> Vec<VolumeReport> {
    store
        .pool_ids()
        .iter()
        .flat_map(|pool| report(store, pool, None))
        .collect()
}

/// See [`stats`](crate::Provisioner::stats).
pub(crate) fn stats(store: &Store, id: &str) -> Result<Usage, Error> {
    let (pool, record) = lookup::open_healthy(store, id, Access::Read)?;
    let (path, space) = match loop_image::mounted(store, &pool, id)? {
        // Only the filesystem inside knows how full it is.
        Some(mounted) => (
            mounted.path().to_owned(),
            store.sys.space(&mounted).map(Some),
        ),
        None => {
            let dir = pool
                .volumes()?
                .open(id, Mounts::Stay)
                .context("opening", pool.dir.path().join(id))?;
            let made = lookup::stored_data(store, &pool, &dir, record.data_spec());
            let space = backend::of(record.backend).space(&made);
            (dir.path().to_owned(), space)
        }
    };
    let space = space.context("measuring", path)?.unwrap_or_default();
    let counted = |n: u64| (space.inodes > 0).then_some(n);
    Ok(Usage {
        total: if space.total > 0 {
            space.total
        } else {
            record.enforced
        },
        used: space.used,
        available: match record.backend {
            Backend::Image => space.available,
            _ => space.available.min(pool.filesystem.free),
        },
        inodes: counted(space.inodes),
        inodes_used: counted(space.inodes_used),
    })
}

fn report_volume(
    store: &Store,
    pool_id: &PoolId,
    pool: &Result<Pool, Error>,
    id: &str,
    entry: &Entry,
    view: &HostView,
) -> VolumeReport {
    let loops = pool
        .as_ref()
        .map_or_else(|_| Vec::new(), |pool| view.loops.of(store, pool, id));
    let table = view.mounts.of(id, &loops);
    let mounts = users::mounts_among(store, pool.as_ref().ok(), id, &table, &loops);
    let dir = lock(&store.state).pools.get(pool_id).map(|p| p.dir.clone());
    let path = store
        .path_of(&dir.unwrap_or_default())
        .join(VOLUMES)
        .join(id)
        .join(DATA);
    let mut report = VolumeReport {
        id: id.to_owned(),
        pool: pool_id.clone(),
        claim: None,
        set: None,
        size: 0,
        enforced: 0,
        backend: Backend::Btrfs,
        mode: crate::types::VolumeMode::Filesystem,
        created: String::new(),
        path,
        source: None,
        health: VolumeHealth::Ready,
        troubles: Vec::new(),
        used: None,
        staged: mounts
            .iter()
            .filter(|mount| mount.staging)
            .map(|mount| mount.target.clone())
            .collect(),
        published: mounts
            .into_iter()
            .filter(|mount| mount.whole && !mount.staging)
            .map(|mount| mount.publication())
            .collect(),
    };
    match entry {
        Entry::Damaged(why) => report.health = VolumeHealth::Damaged(why.clone()),
        Entry::Intact(record) => {
            report.health = match pool {
                Err(e) => VolumeHealth::Lost(e.to_string()),
                Ok(pool) => volume_health(store, pool, record),
            };
            if let Ok(pool) = pool {
                let fill = used_space(store, pool, record, view, &table, &loops);
                report.used = fill.map(|fill| fill.used);
                if report.health == VolumeHealth::Ready {
                    report.troubles =
                        problems::volume_problems(store, pool, record, fill, &table, &loops);
                }
            }
            report.source.clone_from(&record.source);
            report.claim.clone_from(&record.claim);
            report.set.clone_from(&record.set);
            report.size = record.size;
            report.enforced = record.enforced;
            report.backend = record.backend;
            report.mode = record.mode;
            report.created.clone_from(&record.created);
        }
    }
    report
}

fn volume_health(store: &Store, pool: &Pool, record: &VolumeRecord) -> VolumeHealth {
    match lookup::open_data(store, pool, record) {
        Ok(_) => VolumeHealth::Ready,
        Err(Error::Damaged { why, .. }) => VolumeHealth::Damaged(why),
        Err(e) => VolumeHealth::Lost(e.to_string()),
    }
}

/// How full a volume is, where something counts that cheaply.
fn used_space(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    view: &HostView,
    table: &[MountEntry],
    loops: &[Loop],
) -> Option<UsedSpace> {
    let of_limit = |used| UsedSpace {
        used,
        total: record.enforced,
    };
    match record.backend {
        Backend::Btrfs => Some(of_limit(view.qgroups.get(&record.subvolume?)?.used)),
        Backend::ProjectQuota => {
            let project = store.sys.project(&pool.dir, record.project?);
            Some(of_limit(project.ok()?.used))
        }
        Backend::Image => {
            let mounted = loop_image::mounted_among(store, loops, table)?;
            let space = store.sys.space(&mounted).ok()?;
            // The filesystem inside takes some of the image for itself.
            Some(UsedSpace {
                used: space.used,
                total: space.total,
            })
        }
        Backend::Directory => None,
    }
}
