//! Reports: what callers and people are told about pools and volumes.

use std::fs::File;
use std::io;

use crate::backend::{self, Body};
use crate::dir::{Dir, Kind, Mounts, is_trick};
use crate::error::{Doing, Error};
use crate::ledger::{self, Physical};
use crate::locks::lock;
use crate::mountinfo::MountEntry;
use crate::pool::{Need, Observed, Pool, Verdict};
use crate::provisioner::{Entry, Inner, Provisioner};
use crate::record::{DATA, VOLUMES, VolumeRecord};
use crate::shared;
use crate::sys::Qgroup;
use crate::types::{
    Backend, Health, KnownPool, PoolId, PoolReport, Usage, VolumeHealth, VolumeReport,
};

/// A volume's data, opened.
#[derive(Debug)]
pub(crate) enum Data {
    /// A directory tree.
    Tree(Dir),
    /// An image.
    Image(File),
}

type Qgroups = std::collections::BTreeMap<u64, Qgroup>;

impl Provisioner {
    /// The volume, if a pool that was seen holds one of that id.
    pub fn find(&self, id: &str) -> Option<VolumeReport> {
        let pool = self.inner.home(id)?;
        self.inner.report_volumes(&pool, Some(id)).pop()
    }

    /// Every volume of every pool that was seen, also of those that are not there
    /// now.
    pub fn list(&self) -> Vec<VolumeReport> {
        let pools: Vec<PoolId> = lock(&self.inner.state).pools.keys().cloned().collect();
        pools
            .iter()
            .flat_map(|pool| self.inner.report_volumes(pool, None))
            .collect()
    }

    /// Space of a volume.
    ///
    /// # Errors
    /// [`Error::UnknownVolume`], [`Error::Damaged`], or what is wrong with the pool.
    pub fn stats(&self, id: &str) -> Result<Usage, Error> {
        let inner = &self.inner;
        let (pool, record) = inner.sound(id, Need::Read)?;
        let (path, space) = match inner.mounted_image(&pool, id)? {
            // Only the filesystem inside knows how full it is.
            Some(mounted) => (
                mounted.path().to_owned(),
                inner.sys.space(&mounted).map(Some),
            ),
            None => {
                let home = pool
                    .volumes()?
                    .open(id, Mounts::Stay)
                    .doing("opening", pool.dir.path().join(id))?;
                let made = inner.made(&pool, &home, record.body());
                let space = backend::of(record.backend).space(&made);
                (home.path().to_owned(), space)
            }
        };
        let space = space.doing("measuring", path)?.unwrap_or_default();
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
}

impl Inner {
    /// The pool that holds a volume of this id.
    pub(crate) fn home(&self, id: &str) -> Option<PoolId> {
        lock(&self.state)
            .pools
            .iter()
            .find(|(_, pool)| pool.volumes.contains_key(id))
            .map(|(pool, _)| pool.clone())
    }

    /// A volume's pool, opened, and its record.
    pub(crate) fn sound(&self, id: &str, need: Need) -> Result<(Pool, VolumeRecord), Error> {
        let home = self
            .home(id)
            .ok_or_else(|| Error::UnknownVolume { id: id.into() })?;
        let pool = self.open_pool(&home, need)?;
        match lock(&self.state)
            .pools
            .get(&home)
            .and_then(|p| p.volumes.get(id))
        {
            Some(Entry::Sound(record)) => Ok((pool, record.as_ref().clone())),
            Some(Entry::Damaged(why)) => Err(Error::Damaged {
                id: id.into(),
                why: why.clone(),
            }),
            None => Err(Error::UnknownVolume { id: id.into() }),
        }
    }

    pub(crate) fn report_volumes(&self, home: &PoolId, only: Option<&str>) -> Vec<VolumeReport> {
        let pool = self.open_pool(home, Need::Read);
        let qgroups = match &pool {
            Ok(pool) => self.sys.qgroups(&pool.dir).unwrap_or_default(),
            Err(_) => Qgroups::new(),
        };
        let table = self.sys.mounts().unwrap_or_default();
        let entries: Vec<(String, Entry)> = lock(&self.state)
            .pools
            .get(home)
            .into_iter()
            .flat_map(|pool| pool.volumes.iter())
            .filter(|(id, _)| only.is_none_or(|only| only == id.as_str()))
            .map(|(id, entry)| (id.clone(), entry.clone()))
            .collect();
        entries
            .into_iter()
            .map(|(id, entry)| self.report_volume(home, &pool, &id, &entry, &qgroups, &table))
            .collect()
    }

    fn report_volume(
        &self,
        home: &PoolId,
        pool: &Result<Pool, Error>,
        id: &str,
        entry: &Entry,
        qgroups: &Qgroups,
        table: &[MountEntry],
    ) -> VolumeReport {
        let uses = self.uses(pool.as_ref().ok(), id, table);
        let dir = lock(&self.state).pools.get(home).map(|p| p.dir.clone());
        let path = self
            .path_of(&dir.unwrap_or_default())
            .join(VOLUMES)
            .join(id)
            .join(DATA);
        let mut report = VolumeReport {
            id: id.to_owned(),
            pool: home.clone(),
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
            used: None,
            staged: uses
                .iter()
                .filter(|u| u.staging)
                .map(|u| u.target.clone())
                .collect(),
            published: uses
                .into_iter()
                .filter(|u| u.whole && !u.staging)
                .map(|u| u.publication())
                .collect(),
        };
        match entry {
            Entry::Damaged(why) => report.health = VolumeHealth::Damaged(why.clone()),
            Entry::Sound(record) => {
                report.health = match pool {
                    Err(e) => VolumeHealth::Lost(e.to_string()),
                    Ok(pool) => self.volume_health(pool, record),
                };
                report.used = pool
                    .as_ref()
                    .ok()
                    .and_then(|pool| self.used(pool, record, qgroups));
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

    fn volume_health(&self, pool: &Pool, record: &VolumeRecord) -> VolumeHealth {
        match self.open_data(pool, record) {
            Ok(_) => VolumeHealth::Ready,
            Err(Error::Damaged { why, .. }) => VolumeHealth::Damaged(why),
            Err(e) => VolumeHealth::Lost(e.to_string()),
        }
    }

    /// Opens a volume's data after making sure that it is what was made.
    pub(crate) fn open_data(&self, pool: &Pool, record: &VolumeRecord) -> Result<Data, Error> {
        let volumes = pool.volumes()?;
        let relative = format!("{}/{DATA}", record.id);
        let path = volumes.path().join(&relative);
        let damaged = |why: String| Error::Damaged {
            id: record.id.clone(),
            why,
        };
        let missing = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Error::Lost {
                id: record.id.clone(),
                why: format!("{} is gone", path.display()),
            },
            _ if is_trick(&e) => damaged(format!("{} is not what was made ({e})", path.display())),
            _ => Error::Io {
                doing: "opening",
                path: path.clone(),
                source: e,
            },
        };
        let home = volumes.open(&record.id, Mounts::Stay).map_err(&missing)?;
        if home.kind(DATA).map_err(&missing)?.is_none() {
            return Err(missing(io::ErrorKind::NotFound.into()));
        }
        let made = self.made(pool, &home, record.body());
        if !backend::of(record.backend).is_it(&made).map_err(&missing)? {
            return Err(damaged(format!(
                "{} is not the {} that was made for it",
                path.display(),
                match record.backend {
                    Backend::Btrfs => "subvolume",
                    Backend::ProjectQuota | Backend::Directory => "directory",
                    Backend::Image => "image",
                }
            )));
        }
        match record.backend {
            Backend::Image => home.open_file(DATA).map(Data::Image),
            _ => home.open(DATA, Mounts::Stay).map(Data::Tree),
        }
        .map_err(missing)
    }

    /// Bytes in use, as far as somebody counts them cheaply.
    fn used(&self, pool: &Pool, record: &VolumeRecord, qgroups: &Qgroups) -> Option<u64> {
        match record.backend {
            Backend::Btrfs => Some(qgroups.get(&record.subvolume?)?.used),
            Backend::ProjectQuota => {
                let project = self.sys.project(&pool.dir, record.project?);
                Some(project.ok()?.used)
            }
            Backend::Image => {
                let mounted = self.mounted_image(pool, &record.id).ok()??;
                Some(self.sys.space(&mounted).ok()?.used)
            }
            Backend::Directory => None,
        }
    }

    /// Bytes of the filesystem that something holds already, so that they need not
    /// be kept free for it: never more than it really has to itself.
    fn written(&self, pool: &Pool, body: Body, qgroups: &Qgroups) -> u64 {
        match body.backend {
            Backend::Btrfs => body
                .subvolume
                .and_then(|subvolume| qgroups.get(&subvolume))
                .map_or(0, |group| match body.shares {
                    true => group.exclusive,
                    false => group.used,
                }),
            // Copies may share their blocks.
            _ if body.shares => 0,
            Backend::ProjectQuota => body
                .project
                .and_then(|project| self.sys.project(&pool.dir, project).ok())
                .map_or(0, |project| project.used),
            Backend::Image if !body.sparse => body.enforced,
            Backend::Image | Backend::Directory => 0,
        }
    }

    /// What the filesystem itself can still keep for the holders of this ledger.
    pub(crate) fn physical(&self, pool: &Pool) -> Result<Physical, Error> {
        let qgroups = match pool.filesystem.fstype.as_str() {
            "btrfs" => match self.sys.qgroups(&pool.dir) {
                // No quotas, which images need none of.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Qgroups::new(),
                qgroups => qgroups.doing("reading the quotas of", pool.dir.path())?,
            },
            _ => Qgroups::new(),
        };
        // Pools that share the filesystem have been promised parts of it too.
        let sharing: Vec<(bool, Vec<Body>, u64)> = lock(&self.state)
            .pools
            .iter()
            .filter_map(|(id, other)| {
                let own = *id == pool.identity.id;
                let shares = other.usable
                    && other.fs_uuid.is_some()
                    && other.fs_uuid == pool.filesystem.uuid;
                (own || shares).then(|| (own, other.bodies().collect(), other.ledger.reserved()))
            })
            .collect();
        let mut physical = Physical {
            free: pool.filesystem.free,
            written: 0,
        };
        if pool.identity.shared {
            physical.free = physical
                .free
                .saturating_sub(ledger::headroom(pool.filesystem.size));
        }
        for (own, bodies, reserved) in sharing {
            let written = bodies
                .into_iter()
                .map(|body| self.written(pool, body, &qgroups))
                .sum();
            match own {
                true => physical.written = written,
                false => {
                    let unwritten = reserved.saturating_sub(written);
                    physical.free = physical.free.saturating_sub(unwritten);
                }
            }
        }
        Ok(physical)
    }

    pub(crate) fn report_unopened(
        &self,
        name: &str,
        known: Option<&KnownPool>,
        error: &io::Error,
    ) -> PoolReport {
        let mut report = self.report_failed(name, known, &error.to_string());
        if error.kind() == io::ErrorKind::NotFound && known.is_some() {
            report.health = Health::LostMount;
            report.message = "its directory is gone: make it and mount the disk there".into();
        } else if is_trick(error) {
            let why = "a link, not a directory: mount the disk here, or bind-mount it".to_owned();
            report.health = Health::Damaged(why.clone());
            report.message = why;
        }
        report
    }

    pub(crate) fn report_failed(
        &self,
        name: &str,
        known: Option<&KnownPool>,
        why: &str,
    ) -> PoolReport {
        PoolReport {
            id: known.map(|known| known.id.clone()),
            dir: name.to_owned(),
            path: self.path_of(name),
            health: Health::Damaged(why.to_owned()),
            message: format!("cannot be looked at: {why}"),
            filesystem: String::new(),
            fs_uuid: None,
            backends: Vec::new(),
            why_not: Vec::new(),
            capacity: 0,
            reserved: 0,
            room: 0,
            free: 0,
            volumes: 0,
            snapshots: 0,
            trash: 0,
        }
    }

    pub(crate) fn report_opened(&self, pool: &Pool, verdict: &Verdict) -> PoolReport {
        let seen = Observed {
            identity: Ok(Some(pool.identity.clone())),
            filesystem: pool.filesystem.clone(),
            mount_point: true,
        };
        self.report_pool(&pool.name, &seen, verdict, Some(pool))
    }

    /// Reports a directory; `pool` is given when it can be used.
    pub(crate) fn report_pool(
        &self,
        name: &str,
        seen: &Observed,
        verdict: &Verdict,
        pool: Option<&Pool>,
    ) -> PoolReport {
        let known = verdict.id.clone().map(|id| KnownPool {
            dir: name.to_owned(),
            id,
            fs_uuid: None,
        });
        let mut report = self.report_failed(name, known.as_ref(), "");
        report.health = verdict.health.clone();
        report.message.clone_from(&verdict.message);
        report.filesystem.clone_from(&seen.filesystem.fstype);
        report.fs_uuid.clone_from(&seen.filesystem.uuid);
        if let Some(id) = &report.id
            && let Some(state) = lock(&self.state).pools.get(id)
        {
            report.capacity = state.ledger.capacity();
            report.reserved = state.ledger.reserved();
            report.volumes = state.volumes.len() as u64;
            report.snapshots = state.snapshots.len() as u64;
            report.trash = state.trash.len() as u64;
        }
        let Some(pool) = pool else {
            return report;
        };
        report.free = pool.filesystem.free;
        for candidate in Backend::ALL {
            match backend::driver(candidate, self.sys.as_ref(), &pool.dir, &pool.filesystem) {
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
            && let Ok(physical) = self.physical(pool)
            && let Some(state) = lock(&self.state).pools.get(&pool.identity.id)
        {
            report.room = state.ledger.room(physical);
            let (capacity, reserved) = (report.capacity, report.reserved);
            let short = shared::shortage(&pool.identity, capacity, reserved, report.room);
            if let Some(short) = short.filter(|_| report.message.is_empty()) {
                report.message = short;
            }
        }
        report
    }

    /// Whether a pool has a tombstone of this id, and when it was erased.
    pub(crate) fn tombstone(&self, pool: &Pool, id: &str) -> Result<Option<String>, Error> {
        let tombstones = pool.tombstones()?;
        let name = format!("{id}.json");
        if tombstones
            .kind(&name)
            .doing("looking at", tombstones.path())?
            != Some(Kind::File)
        {
            return Ok(None);
        }
        // A tombstone that cannot be read is a tombstone.
        let erased = crate::pool::read::<crate::record::Tombstone>(&tombstones, &name)
            .ok()
            .flatten()
            .map_or_else(|| "an unknown time".to_owned(), |stone| stone.erased);
        Ok(Some(erased))
    }
}
