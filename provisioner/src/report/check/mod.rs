//! Compares everything on the disks with the records. Changes nothing: what to do
//! about a finding is for people to decide.

mod contents;
mod links_and_mounts;
mod removed;

use std::path::PathBuf;

use crate::error::Error;
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::layout::{IDENTITY, META, NEW, SNAPSHOTS, TOMBSTONES, TRASH, VOLUMES};
use crate::locks::lock;
use crate::pool::{Access, Pool};
use crate::provisioner::{Inner, Provisioner};
use crate::types::{CheckReport, Finding, FindingKind, Health, PoolId};

impl Provisioner {
    /// Compares disks, records, links and mounts, and reports what does not fit.
    ///
    /// # Errors
    /// [`Error::Io`] when the root itself cannot be read.
    pub fn check(&self) -> Result<CheckReport, Error> {
        let inner = &self.inner;
        let mut check = Check {
            inner,
            report: CheckReport::default(),
        };
        for pool in inner.scan(false)? {
            check.report.checked += 1;
            if pool.health != Health::Healthy {
                check.find(
                    FindingKind::Pool,
                    pool.id.as_ref(),
                    None,
                    pool.path.clone(),
                    format!("{:?}", pool.health),
                    pool.message.clone(),
                );
            }
        }
        let pools: Vec<PoolId> = lock(&inner.state).pools.keys().cloned().collect();
        let opened: Vec<Pool> = pools
            .iter()
            .filter_map(|id| inner.open_pool(id, Access::Read).ok())
            .collect();
        for pool in &opened {
            check.pool(pool);
        }
        check.links();
        check.mounts(&opened);
        check
            .report
            .findings
            .sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
        Ok(check.report)
    }
}

struct Check<'a> {
    inner: &'a Inner,
    report: CheckReport,
}

impl Check<'_> {
    fn find(
        &mut self,
        kind: FindingKind,
        pool: Option<&PoolId>,
        volume: Option<&str>,
        path: PathBuf,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.report.findings.push(Finding {
            kind,
            pool: pool.cloned(),
            volume: volume.map(str::to_owned),
            path,
            what: what.into(),
            advice: advice.into(),
        });
    }

    fn pool(&mut self, pool: &Pool) {
        let id = &pool.identity.id;
        for name in pool.dir.names().unwrap_or_default() {
            self.report.checked += 1;
            let ours = [META, VOLUMES, SNAPSHOTS, TRASH, TOMBSTONES, "lost+found"];
            if !ours.iter().any(|our| name == *our) {
                self.find(
                    FindingKind::Orphan,
                    Some(id),
                    None,
                    pool.dir.path().join(&name),
                    "Berth did not make this",
                    "it takes room that the ledger does not know of; move it away if it is yours",
                );
            }
        }
        self.part(pool, pool.volumes(), Self::volumes);
        // Pools of older programs have none before the first snapshot.
        if let Ok(snapshots) = pool.dir.open(SNAPSHOTS, Mounts::Stay) {
            self.snapshots(pool, &snapshots);
        }
        self.part(pool, pool.trash(), Self::trash);
        self.part(pool, pool.tombstones(), Self::tombstones);
        self.meta(pool);
    }

    /// Looks at one of the pool's own directories, which has to be there.
    fn part(
        &mut self,
        pool: &Pool,
        part: Result<Dir, Error>,
        look: fn(&mut Self, pool: &Pool, part: &Dir),
    ) {
        match part {
            Ok(part) => look(self, pool, &part),
            Err(e) => {
                let path = match &e {
                    Error::DamagedPool { path, .. } | Error::Io { path, .. } => path.clone(),
                    _ => pool.dir.path().to_owned(),
                };
                self.find(
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
    fn meta(&mut self, pool: &Pool) {
        let id = &pool.identity.id;
        let Ok(meta) = pool.dir.open(META, Mounts::Stay) else {
            return;
        };
        for name in meta.names().unwrap_or_default() {
            if name != IDENTITY && name != NEW && name != *replacing(IDENTITY) {
                self.orphan(id, meta.path().join(&name));
            }
        }
        let Ok(area) = meta.open(NEW, Mounts::Stay) else {
            return;
        };
        for name in area.names().unwrap_or_default() {
            if area.kind(&name).ok().flatten() != Some(Kind::Directory) {
                self.orphan(id, area.path().join(&name));
                continue;
            }
            self.find(
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

    fn orphan(&mut self, pool: &PoolId, path: PathBuf) {
        self.find(
            FindingKind::Orphan,
            Some(pool),
            None,
            path,
            "Berth did not make this",
            "move it away if it is yours; Berth never removes it",
        );
    }
}

/// The name under which a file of this name is written before it replaces the old one.
fn replacing(name: &str) -> String {
    format!(".{name}.new")
}
