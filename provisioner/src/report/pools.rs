//! Reports about pools, and what their filesystems can still hold.

use std::io;

use crate::backend;
use crate::discovery::scan::{self, Found};
use crate::fs::dir::is_symlink_or_mount_escape;
use crate::locks::lock;
use crate::pool::record::{Identity, now};
use crate::pool::{Observed, Pool, Verdict};
use crate::report::problems;
use crate::store::desks::Picture;
use crate::store::{Store, open, space};
use crate::types::{Backend, Health, KnownPool, PoolId, PoolReport};

/// Looks at one directory and reports it. Only the directory's own worker calls this.
pub(crate) fn look(store: &Store, name: &str, create: bool) -> PoolReport {
    match &scan::look(store, name, create) {
        Found::NotMade(e) => {
            let mut report = report_failed(store, name, None, &e.to_string());
            report.message = format!("the directory of the shared pool cannot be made: {e}");
            report
        }
        Found::Unopened { known, error } => report_unopened(store, name, known.as_ref(), error),
        Found::Failed { known, why } => report_failed(store, name, known.as_ref(), why),
        Found::Waits(known, why) => report_waiting(store, name, known.as_ref(), why),
        Found::Unusable { seen, verdict } => report_pool(store, name, seen, verdict, None),
        Found::Usable { pool, verdict } => report_opened(store, pool, verdict),
    }
}

/// The reports of all directories as their workers gave them last. What is silent is said
/// to be; nobody is asked.
pub(crate) fn last(store: &Store) -> Vec<PoolReport> {
    let pictures = store.desks.pictures().into_iter();
    pictures.map(|picture| as_of(store, picture)).collect()
}

/// The report of the pool `id`: of the directory that has it, or that had it last.
pub(crate) fn of(store: &Store, id: &PoolId) -> Option<PoolReport> {
    let claimed = lock(&store.state).claims.get(id).cloned();
    let of_id = |report: &PoolReport| report.id.as_ref() == Some(id);
    let reports = last(store).into_iter().filter(of_id);
    reports.max_by_key(|report| Some(&report.dir) == claimed.as_ref())
}

fn as_of(store: &Store, picture: Picture) -> PoolReport {
    let mut report = match picture.report {
        Some(report) if !picture.silent => report,
        Some(report) => PoolReport {
            health: Health::Unresponsive,
            message: format!("{} (it answered last at {})", open::SILENT, report.taken_at),
            room: 0,
            troubles: Vec::new(),
            ..report
        },
        None => {
            let known = lock(&store.state).known.get(&picture.dir).cloned();
            let why = match picture.silent {
                true => open::SILENT,
                false => "being opened",
            };
            report_waiting(store, &picture.dir, known.as_ref(), why)
        }
    };
    remembered(store, &mut report);
    report
}

/// The figures that are known without the disk, as they are now.
fn remembered(store: &Store, report: &mut PoolReport) {
    if let Some(id) = &report.id
        && let Some(state) = lock(&store.state).pools.get(id)
    {
        report.capacity = state.ledger.capacity();
        report.reserved = state.ledger.reserved();
        report.reserved_by_volumes = state.ledger.reserved_by_volumes();
        report.volumes = state.volumes.len() as u64;
        report.snapshots = state.snapshots.len() as u64;
        report.trash = state.trash.len() as u64;
    }
}

fn report_waiting(store: &Store, name: &str, known: Option<&KnownPool>, why: &str) -> PoolReport {
    PoolReport {
        taken_at: String::new(),
        health: Health::Unresponsive,
        message: why.to_owned(),
        ..report_failed(store, name, known, why)
    }
}

fn report_unopened(
    store: &Store,
    name: &str,
    known: Option<&KnownPool>,
    error: &io::Error,
) -> PoolReport {
    let mut report = report_failed(store, name, known, &error.to_string());
    if error.kind() == io::ErrorKind::NotFound && known.is_some() {
        report.health = Health::LostMount;
        report.message = "its directory is gone: make it and mount the disk there".into();
    } else if is_symlink_or_mount_escape(error) {
        let why = "a link, not a directory: mount the disk here, or bind-mount it".to_owned();
        report.health = Health::Damaged(why.clone());
        report.message = why;
    } else if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) {
        report.message = "answers with I/O errors: look for the cause in the kernel's log, \
             unmount it, repair its filesystem and mount it again"
            .into();
    }
    report
}

fn report_failed(store: &Store, name: &str, known: Option<&KnownPool>, why: &str) -> PoolReport {
    PoolReport {
        id: known.map(|known| known.id.clone()),
        dir: name.to_owned(),
        path: store.path_of(name),
        taken_at: now(),
        health: Health::Damaged(why.to_owned()),
        message: format!("cannot be looked at: {why}"),
        troubles: Vec::new(),
        io_errors: 0,
        filesystem: String::new(),
        fs_uuid: known.and_then(|known| known.fs_uuid.clone()),
        backends: Vec::new(),
        why_not: Vec::new(),
        capacity: 0,
        reserved: 0,
        reserved_by_volumes: 0,
        room: 0,
        free: 0,
        volumes: 0,
        snapshots: 0,
        trash: 0,
    }
}

fn report_opened(store: &Store, pool: &Pool, verdict: &Verdict) -> PoolReport {
    let seen = Observed {
        identity: Ok(Some(pool.identity.clone())),
        filesystem: pool.filesystem.clone(),
        mount: pool.mount.clone(),
        mount_point: true,
    };
    report_pool(store, &pool.name, &seen, verdict, Some(pool))
}

/// Reports a directory; `pool` is given when it can be used.
fn report_pool(
    store: &Store,
    name: &str,
    seen: &Observed,
    verdict: &Verdict,
    pool: Option<&Pool>,
) -> PoolReport {
    let known = verdict.id.clone().map(|id| KnownPool {
        dir: name.to_owned(),
        id,
        fs_uuid: verdict.fs_uuid.clone(),
    });
    let mut report = report_failed(store, name, known.as_ref(), "");
    report.health = verdict.health.clone();
    report.message.clone_from(&verdict.message);
    report.filesystem.clone_from(&seen.filesystem.fstype);
    report.fs_uuid.clone_from(&verdict.fs_uuid);
    remembered(store, &mut report);
    let Some(pool) = pool else {
        return report;
    };
    report.free = pool.filesystem.free;
    let errors = problems::errors(store, &pool.dir);
    report.io_errors = errors.iter().map(|errors| errors.count).sum();
    let qgroups = space::qgroups(store, pool);
    report.troubles = problems::pool_problems(store, pool, &errors, qgroups.as_ref().ok());
    for candidate in Backend::ALL {
        match backend::driver(candidate, store.sys.as_ref(), &pool.dir, &pool.filesystem) {
            Ok(_) => report.backends.push(candidate),
            Err(why) => report.why_not.push((candidate, why)),
        }
    }
    let limited = |backend: &Backend| *backend != Backend::Directory;
    let usable = report.backends.iter().any(limited);
    if !usable
        && report.message.is_empty()
        && let Some((backend, why)) = report.why_not.first()
    {
        report.message = format!("no new volumes: {backend}: {why}");
    }
    if report.health == Health::Healthy
        && usable
        && let Ok(qgroups) = &qgroups
        && let physical = space::physical(store, pool, qgroups)
        && let Some(state) = lock(&store.state).pools.get(&pool.identity.id)
    {
        report.room = state.ledger.room(physical);
        report.troubles.extend(problems::full_pool(report.room));
        let (capacity, reserved) = (report.capacity, report.reserved);
        let short = shortage(&pool.identity, capacity, reserved, report.room);
        if let Some(short) = short.filter(|_| report.message.is_empty()) {
            report.message = short;
        }
    }
    report
}

/// The message for a pool whose filesystem has less left than the pool may take;
/// `capacity`, `reserved` and `room` are the ledger's. It omits changing numbers, so
/// that an unchanged shortage is not written again.
fn shortage(identity: &Identity, capacity: u64, reserved: u64, room: u64) -> Option<String> {
    let asked = identity.capacity?;
    let short = capacity < asked || room < capacity.saturating_sub(reserved);
    (identity.shared && short).then(|| {
        "too little room on the filesystem that it shares with the system for all of its \
         capacity: volumes get what is left there; free some space, or ask for a smaller pool"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_reported_for_shared_pools_only() {
        let mut identity = Identity {
            id: PoolId::new("shared-0123456789ab").unwrap(),
            fs_uuid: None,
            fstype: "ext4".into(),
            created: String::new(),
            capacity: Some(100),
            enabled_quotas: false,
            shared: true,
        };
        assert_eq!(shortage(&identity, 100, 30, 70), None);
        assert!(shortage(&identity, 100, 30, 69).is_some());
        assert!(shortage(&identity, 90, 0, 90).is_some());
        // More was promised before it was made smaller.
        assert_eq!(shortage(&identity, 100, 130, 0), None);
        identity.shared = false;
        assert_eq!(shortage(&identity, 90, 0, 1), None);
    }
}
