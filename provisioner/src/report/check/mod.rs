//! Compares everything on the disks with the records. Changes nothing: what to do
//! about a finding is for people to decide.

mod contents;
mod findings;
mod links_and_mounts;
mod removed;

use crate::error::Error;
use crate::fs::dir::{Dir, Kind, Mounts, replacement_of};
use crate::layout::{FROZEN, IDENTITY, META, NEW, PROBE, SNAPSHOTS, TOMBSTONES, TRASH, VOLUMES};
use crate::pool::{Access, Pool};
use crate::report::check::findings::Findings;
use crate::store::{Store, open};
use crate::types::{CheckReport, FindingKind, Health, PoolReport};

/// See [`check`](crate::Provisioner::check); `pools` are what was just looked at.
pub(crate) fn run(store: &Store, pools: &[PoolReport]) -> CheckReport {
    let mut findings = Findings::default();
    for pool in pools {
        findings.count();
        if pool.health != Health::Healthy {
            findings.add(
                FindingKind::Pool,
                pool.id.as_ref(),
                None,
                pool.path.clone(),
                format!("{:?}", pool.health),
                pool.message.clone(),
            );
        }
    }
    let opened: Vec<Pool> = store
        .pool_ids()
        .iter()
        .filter_map(|id| open::pool(store, id, Access::Read).ok())
        .collect();
    for opened_pool in &opened {
        pool(&mut findings, store, opened_pool);
    }
    links_and_mounts::links(&mut findings, store);
    links_and_mounts::mounts(&mut findings, store, &opened);
    findings.into_report()
}

fn pool(findings: &mut Findings, store: &Store, pool: &Pool) {
    let id = &pool.identity.id;
    for name in pool.dir.names().unwrap_or_default() {
        findings.count();
        let ours = [META, VOLUMES, SNAPSHOTS, TRASH, TOMBSTONES, "lost+found"];
        if !ours.iter().any(|our| name == *our) {
            findings.add(
                FindingKind::Orphan,
                Some(id),
                None,
                pool.dir.path().join(&name),
                "Berth did not make this",
                "it takes room that the ledger does not know of; move it away if it is yours",
            );
        }
    }
    part(findings, pool, pool.volumes(), |findings, volumes| {
        contents::volumes(findings, store, pool, volumes);
    });
    // Pools of older programs have none before the first snapshot.
    if let Ok(snapshots) = pool.dir.open(SNAPSHOTS, Mounts::Stay) {
        contents::snapshots(findings, store, pool, &snapshots);
    }
    part(findings, pool, pool.trash(), |findings, trash| {
        removed::trash(findings, store, pool, trash);
    });
    part(findings, pool, pool.tombstones(), |findings, tombstones| {
        removed::tombstones(findings, pool, tombstones);
    });
    meta(findings, pool);
}

/// Examines one of the pool's own directories, which has to be there.
fn part(
    findings: &mut Findings,
    pool: &Pool,
    part: Result<Dir, Error>,
    examine: impl FnOnce(&mut Findings, &Dir),
) {
    match part {
        Ok(part) => examine(findings, &part),
        Err(e) => {
            let path = match &e {
                Error::DamagedPool { path, .. } | Error::Io { path, .. } => path.clone(),
                _ => pool.dir.path().to_owned(),
            };
            findings.add(
                FindingKind::Pool,
                Some(&pool.identity.id),
                None,
                path,
                e.to_string(),
                "put the directory back, or restore the pool from a backup",
            );
        }
    }
}

/// What lies beside the identity, and the build area.
fn meta(findings: &mut Findings, pool: &Pool) {
    let id = &pool.identity.id;
    let Ok(meta) = pool.dir.open(META, Mounts::Stay) else {
        return;
    };
    for name in meta.names().unwrap_or_default() {
        let ours = [FROZEN, IDENTITY, NEW, PROBE]
            .iter()
            .any(|our| name == *our);
        if !ours && name != *replacement_of(IDENTITY) && name != *replacement_of(PROBE) {
            findings.orphan(id, meta.path().join(&name));
        }
    }
    let Ok(area) = meta.open(NEW, Mounts::Stay) else {
        return;
    };
    for name in area.names().unwrap_or_default() {
        if area.kind(&name).ok().flatten() != Some(Kind::Directory) {
            findings.orphan(id, area.path().join(&name));
            continue;
        }
        findings.add(
            FindingKind::Trash,
            Some(id),
            name.to_str(),
            area.path().join(&name),
            "an unfinished volume",
            "it goes or is finished by itself, or by a restart of the agent; if it stays, it \
             holds data: look at it, and move it away",
        );
    }
}
