//! Looks at everything and compares it with the records. Changes nothing:
//! what to do about a finding is for people.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::dir::{Dir, Kind, Mounts};
use crate::error::Error;
use crate::links::{BY_CLAIM, is_ours};
use crate::locks::lock;
use crate::names;
use crate::pool::{Need, Pool};
use crate::provisioner::{Entry, Inner, Provisioner};
use crate::record::{
    DATA, MAKING, META, RECORD, SNAPSHOTS, TOMBSTONES, TRASH, VOLUMES, VolumeRecord,
};
use crate::report::Data;
use crate::types::{Backend, CheckReport, Finding, FindingKind, Health, PoolId, VolumeHealth};

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
        let mut places = BTreeSet::new();
        for id in pools {
            if let Ok(pool) = inner.open_pool(&id, Need::Read) {
                places.insert((pool.mount.device.clone(), pool.inside("")));
                check.pool(&pool);
            }
        }
        check.links();
        check.mounts(&places);
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
        if let Ok(volumes) = pool.volumes() {
            self.volumes(pool, &volumes);
        }
        self.snapshots(pool);
        if let Ok(trash) = pool.trash() {
            self.trash(pool, &trash);
        }
        let making = PathBuf::from(META).join(MAKING);
        if let Ok(making) = pool.dir.open(&making, Mounts::Stay) {
            for name in making.names().unwrap_or_default() {
                self.find(
                    FindingKind::Trash,
                    Some(id),
                    name.to_str(),
                    making.path().join(&name),
                    "a volume in the making",
                    "it goes or is finished by itself; if it stays, restart the agent",
                );
            }
        }
    }

    fn volumes(&mut self, pool: &Pool, volumes: &Dir) {
        let id = &pool.identity.id;
        let qgroups = self.inner.sys.qgroups(&pool.dir).unwrap_or_default();
        let mut seen = BTreeSet::new();
        for name in volumes.names().unwrap_or_default() {
            self.report.checked += 1;
            let path = volumes.path().join(&name);
            let volume = name
                .to_str()
                .filter(|name| names::volume_id(name).is_ok())
                .filter(|_| volumes.kind(&name).ok().flatten() == Some(Kind::Directory));
            let Some(volume) = volume else {
                self.orphan(id, path);
                continue;
            };
            seen.insert(volume.to_owned());
            let entry = lock(&self.inner.state)
                .pools
                .get(id)
                .and_then(|state| state.volumes.get(volume).cloned());
            match entry {
                None => self.orphan(id, path),
                Some(Entry::Damaged(why)) => {
                    let missing = volumes
                        .open(volume, Mounts::Stay)
                        .is_ok_and(|dir| matches!(dir.kind(RECORD), Ok(None)));
                    let kind = if missing {
                        FindingKind::MissingRecord
                    } else {
                        FindingKind::DamagedRecord
                    };
                    self.find(
                        kind,
                        Some(id),
                        Some(volume),
                        path,
                        why,
                        "the data is untouched; restore record.json from a backup, or copy the \
                         data out and delete the volume",
                    );
                }
                Some(Entry::Sound(record)) => {
                    let group = record.subvolume.and_then(|s| qgroups.get(&s));
                    self.volume(pool, volumes, &record, group.and_then(|g| g.limit));
                }
            }
        }
        let vanished: Vec<String> = lock(&self.inner.state)
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
            self.find(
                FindingKind::MissingData,
                Some(id),
                Some(&volume),
                volumes.path().join(&volume),
                "the volume's directory vanished while the agent was running",
                "restore it from a backup; nothing is made in its place",
            );
        }
    }

    fn orphan(&mut self, pool: &PoolId, path: PathBuf) {
        self.find(
            FindingKind::Orphan,
            Some(pool),
            None,
            path,
            "not a volume of Berth's",
            "move it away if it is yours; Berth never removes it",
        );
    }

    fn volume(&mut self, pool: &Pool, volumes: &Dir, record: &VolumeRecord, limit: Option<u64>) {
        let id = &pool.identity.id;
        let path = volumes.path().join(&record.id).join(DATA);
        let data = match self.inner.open_data(pool, record) {
            Ok(data) => data,
            Err(e) => {
                self.find(
                    FindingKind::MissingData,
                    Some(id),
                    Some(&record.id),
                    path,
                    e.to_string(),
                    "restore the data from a backup; nothing is made in its place",
                );
                return;
            }
        };
        let limit = self.inner.found_limit(pool, record, limit);
        if limit != Some(record.enforced) && record.backend != Backend::Directory {
            let found = limit.map_or("none".to_owned(), |limit| format!("{limit} bytes"));
            self.find(
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
                let nested = self.inner.sys.nested_subvolumes(data, subvolume);
                nested.unwrap_or_default()
            }
            _ => Vec::new(),
        };
        if !nested.is_empty() {
            self.find(
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

    fn snapshots(&mut self, pool: &Pool) {
        let id = &pool.identity.id;
        let Ok(snapshots) = pool.dir.open(SNAPSHOTS, Mounts::Stay) else {
            return;
        };
        for name in snapshots.names().unwrap_or_default() {
            self.report.checked += 1;
            let path = snapshots.path().join(&name);
            let entry = name.to_str().and_then(|name| {
                lock(&self.inner.state)
                    .pools
                    .get(id)
                    .and_then(|state| state.snapshots.get(name).cloned())
            });
            let (kind, why) = match entry {
                None => {
                    self.orphan(id, path);
                    continue;
                }
                Some(Entry::Damaged(why)) => (FindingKind::DamagedRecord, why),
                Some(Entry::Sound(record)) => match self.inner.snapshot_health(pool, &record) {
                    VolumeHealth::Ready => continue,
                    VolumeHealth::Lost(why) | VolumeHealth::Damaged(why) => {
                        (FindingKind::MissingData, why)
                    }
                },
            };
            self.find(
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

    fn trash(&mut self, pool: &Pool, trash: &Dir) {
        let id = &pool.identity.id;
        for name in trash.names().unwrap_or_default() {
            self.report.checked += 1;
            let path = trash.path().join(&name);
            let known = name.to_str().is_some_and(|name| {
                lock(&self.inner.state)
                    .pools
                    .get(id)
                    .is_some_and(|state| state.trash.contains_key(name))
            });
            if known || crate::removal::is_moved_aside(&name) {
                self.find(
                    FindingKind::Trash,
                    Some(id),
                    name.to_str().map(crate::load::id_in_trash),
                    path,
                    "deleted; its space is not freed yet",
                    "nothing: it goes by itself while the agent runs",
                );
            } else {
                self.orphan(id, path);
            }
        }
    }

    fn links(&mut self) {
        let wanted = self.inner.wanted_links();
        let root = self.inner.config.root.join(BY_CLAIM);
        let by_claim = Dir::open_root(&self.inner.config.root)
            .and_then(|root| root.open(BY_CLAIM, Mounts::Stay))
            .ok();
        let held = |namespace: &str, claim: &Path| {
            by_claim
                .as_ref()
                .and_then(|dir| dir.open(namespace, Mounts::Stay).ok())
                .and_then(|dir| dir.read_link(claim).ok().flatten())
        };
        let advice = "restart the agent: it makes links anew; remove a link that leads nowhere";
        for link in &wanted {
            self.report.checked += 1;
            let found = held(&link.namespace, Path::new(&link.claim));
            if found.as_deref() != Some(link.target.as_ref()) {
                let what = found.map_or("missing".to_owned(), |found| {
                    format!("points to {}", found.to_string_lossy())
                });
                let path = root.join(&link.namespace).join(&link.claim);
                self.find(FindingKind::StaleLink, None, None, path, what, advice);
            }
        }
        let Some(by_claim) = &by_claim else { return };
        for namespace in by_claim.directories().unwrap_or_default() {
            let Ok(dir) = by_claim.open(&namespace, Mounts::Stay) else {
                continue;
            };
            for name in dir.names().unwrap_or_default() {
                self.report.checked += 1;
                let known = wanted
                    .iter()
                    .any(|link| link.namespace == namespace && *link.claim == *name);
                let ours = dir
                    .read_link(&name)
                    .ok()
                    .flatten()
                    .is_some_and(|target| is_ours(Path::new(&target)));
                if ours && !known {
                    let path = dir.path().join(&name);
                    let what = "links to a volume that is not there";
                    self.find(FindingKind::StaleLink, None, None, path, what, advice);
                }
            }
        }
    }

    /// Mounts below kubelet's directory that look like volumes of these pools
    /// and are in no record. `places` are the pools' devices and directories inside
    /// them: the rest of a filesystem may be the system's, kubelet's own too.
    fn mounts(&mut self, places: &BTreeSet<(String, PathBuf)>) {
        // No kubelet, no mounts of its: an empty path would be above every mount.
        let Ok(kubelet) = self.inner.config.kubelet_dir.canonicalize() else {
            return;
        };
        for mount in self.inner.sys.mounts().unwrap_or_default() {
            let shows_pool = places
                .iter()
                .any(|(device, place)| *device == mount.device && mount.root.starts_with(place));
            if !shows_pool || !mount.point.starts_with(&kubelet) {
                continue;
            }
            self.report.checked += 1;
            let parts: Vec<&str> = mount
                .root
                .components()
                .filter_map(|part| part.as_os_str().to_str())
                .collect();
            let known = parts.windows(3).any(|part| {
                part[0] == VOLUMES && part[2] == DATA && self.inner.home(part[1]).is_some()
            });
            if !known {
                self.find(
                    FindingKind::UnknownMount,
                    None,
                    None,
                    mount.point.clone(),
                    format!("shows {}, which no record knows", mount.root.display()),
                    "see which pod uses it; unmount it when none does",
                );
            }
        }
    }
}
