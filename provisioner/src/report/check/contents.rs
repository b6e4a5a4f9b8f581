//! What a pool holds: volumes and snapshots, their records, data and limits.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::Error;
use crate::fs::dir::{Dir, Kind, Mounts, replacement_of};
use crate::layout::{DATA, RECORD};
use crate::locks::lock;
use crate::names;
use crate::pool::Pool;
use crate::pool::record::VolumeRecord;
use crate::report::check::findings::Findings;
use crate::store::lookup::Data;
use crate::store::{Entry, Store, lookup};
use crate::types::{Backend, FindingKind, VolumeHealth};
use crate::volume::limit;

pub(super) fn volumes(findings: &mut Findings, store: &Store, pool: &Pool, volumes: &Dir) {
    let id = &pool.identity.id;
    let qgroups = store.sys.qgroups(&pool.dir).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for name in volumes.names().unwrap_or_default() {
        findings.count();
        let path = volumes.path().join(&name);
        let volume = name
            .to_str()
            .filter(|name| names::volume_id(name).is_ok())
            .filter(|_| volumes.kind(&name).ok().flatten() == Some(Kind::Directory));
        let Some(volume) = volume else {
            findings.orphan(id, path);
            continue;
        };
        seen.insert(volume.to_owned());
        let entry = lock(&store.state)
            .pools
            .get(id)
            .and_then(|state| state.volumes.get(volume).cloned());
        match entry {
            None => findings.orphan(id, path),
            Some(Entry::Damaged(why)) => {
                findings.add(
                    record_problem(volumes, volume),
                    Some(id),
                    Some(volume),
                    path,
                    why,
                    "the data is untouched; restore record.json from a backup, or copy the \
                     data out and delete the volume",
                );
            }
            Some(Entry::Intact(record)) => {
                let group = record.subvolume.and_then(|s| qgroups.get(&s));
                volume_data(
                    findings,
                    store,
                    pool,
                    volumes,
                    &record,
                    group.and_then(|g| g.limit),
                );
                extra_entries(findings, pool, volumes, volume);
            }
        }
    }
    let vanished: Vec<String> = lock(&store.state)
        .pools
        .get(id)
        .map(|state| {
            state
                .volumes
                .keys()
                .filter(|v| !seen.contains(*v))
                .cloned()
                .collect()
        })
        .unwrap_or_default();
    for volume in vanished {
        findings.add(
            FindingKind::MissingData,
            Some(id),
            Some(&volume),
            volumes.path().join(&volume),
            "the volume's directory vanished while the agent was running",
            "restore it from a backup; nothing is made in its place",
        );
    }
}

pub(super) fn snapshots(findings: &mut Findings, store: &Store, pool: &Pool, snapshots: &Dir) {
    let id = &pool.identity.id;
    for name in snapshots.names().unwrap_or_default() {
        findings.count();
        let path = snapshots.path().join(&name);
        let entry = name.to_str().and_then(|name| {
            lock(&store.state)
                .pools
                .get(id)
                .and_then(|state| state.snapshots.get(name).cloned())
        });
        let (kind, why) = match entry {
            None => {
                findings.orphan(id, path);
                continue;
            }
            Some(Entry::Damaged(why)) => (record_problem(snapshots, &name), why),
            Some(Entry::Intact(record)) => {
                extra_entries(findings, pool, snapshots, &record.id);
                match lookup::snapshot_health(store, pool, &record) {
                    VolumeHealth::Ready => continue,
                    VolumeHealth::Lost(why) => (FindingKind::MissingData, why),
                    VolumeHealth::Damaged(why) => (FindingKind::DamagedData, why),
                }
            }
        };
        findings.add(
            kind,
            Some(id),
            name.to_str(),
            path,
            format!("snapshot: {why}"),
            "nothing can be restored from it; delete the snapshot, or restore its files from \
             a backup",
        );
    }
}

fn volume_data(
    findings: &mut Findings,
    store: &Store,
    pool: &Pool,
    volumes: &Dir,
    record: &VolumeRecord,
    limit: Option<u64>,
) {
    let id = &pool.identity.id;
    let path = volumes.path().join(&record.id).join(DATA);
    let data = match lookup::open_data(store, pool, record) {
        Ok(data) => data,
        Err(e) => {
            let kind = match e {
                Error::Lost { .. } => FindingKind::MissingData,
                _ => FindingKind::DamagedData,
            };
            findings.add(
                kind,
                Some(id),
                Some(&record.id),
                path,
                e.to_string(),
                "restore the data from a backup; nothing is made in its place",
            );
            return;
        }
    };
    let limit = limit::in_force(store, pool, record, limit);
    if limit != Some(record.enforced) && record.backend != Backend::Directory {
        let found = limit.map_or("none".to_owned(), |limit| format!("{limit} bytes"));
        findings.add(
            FindingKind::Limit,
            Some(id),
            Some(&record.id),
            path.clone(),
            format!("its limit is {found}, not {} bytes", record.enforced),
            "see that the filesystem's quotas are on, then restart the agent: it sets limits \
             at start",
        );
    }
    let nested = match (record.subvolume, &data) {
        (Some(subvolume), Data::Tree(data)) => {
            let nested = store.sys.nested_subvolumes(data, subvolume);
            nested.unwrap_or_default()
        }
        _ => Vec::new(),
    };
    if !nested.is_empty() {
        findings.add(
            FindingKind::NestedSubvolume,
            Some(id),
            Some(&record.id),
            path,
            format!(
                "{} subvolumes were made inside it; what they hold is not limited",
                nested.len()
            ),
            "ask the volume's owner to remove them (`btrfs subvolume delete`)",
        );
    }
}

/// Whatever lies beside the record and the data of something sound.
fn extra_entries(findings: &mut Findings, pool: &Pool, parent: &Dir, id: &str) {
    let Ok(dir) = parent.open(id, Mounts::Stay) else {
        return;
    };
    for name in dir.names().unwrap_or_default() {
        if name != RECORD && name != DATA && name != *replacement_of(RECORD) {
            findings.orphan(&pool.identity.id, dir.path().join(&name));
        }
    }
}

/// What is wrong with the record of something that is not sound.
fn record_problem(parent: &Dir, id: impl AsRef<Path>) -> FindingKind {
    let missing = parent
        .open(id, Mounts::Stay)
        .is_ok_and(|dir| matches!(dir.kind(RECORD), Ok(None)));
    match missing {
        true => FindingKind::MissingRecord,
        false => FindingKind::DamagedRecord,
    }
}
