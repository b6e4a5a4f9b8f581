//! Reports about volumes.

use std::fs::File;
use std::io;

use crate::backend;
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind, Mounts, is_symlink_or_mount_escape};
use crate::layout::{DATA, VOLUMES};
use crate::locks::lock;
use crate::mount::loop_image;
use crate::mountinfo::MountEntry;
use crate::pool::record::VolumeRecord;
use crate::pool::{Access, Pool};
use crate::provisioner::{Entry, Inner, Provisioner};
use crate::sys::{Loop, Qgroups};
use crate::types::{Backend, PoolId, Usage, VolumeHealth, VolumeReport};

/// A volume's data, opened.
#[derive(Debug)]
pub(crate) enum Data {
    /// A directory tree.
    Tree(Dir),
    /// An image.
    Image(File),
}

/// How full a volume is, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsedSpace {
    pub(crate) used: u64,
    /// What can be used in all.
    pub(crate) total: u64,
}

/// The state of the host, read once for all volumes of a pool.
struct HostView {
    /// Quotas of the pool's filesystem.
    qgroups: Qgroups,
    /// The mount table.
    table: Vec<MountEntry>,
    /// Loop devices, where a volume may have one.
    loops: Vec<Loop>,
}

impl Provisioner {
    /// The volume, if a pool that was seen holds one of that id.
    pub fn find(&self, id: &str) -> Option<VolumeReport> {
        let pool = self.inner.pool_of(id)?;
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
        let (pool, record) = inner.open_healthy(id, Access::Read)?;
        let (path, space) = match inner.mounted_image(&pool, id)? {
            // Only the filesystem inside knows how full it is.
            Some(mounted) => (
                mounted.path().to_owned(),
                inner.sys.space(&mounted).map(Some),
            ),
            None => {
                let dir = pool
                    .volumes()?
                    .open(id, Mounts::Stay)
                    .context("opening", pool.dir.path().join(id))?;
                let made = inner.stored_data(&pool, &dir, record.data_spec());
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
}

impl Inner {
    /// The pool that holds a volume of this id.
    pub(crate) fn pool_of(&self, id: &str) -> Option<PoolId> {
        lock(&self.state)
            .pools
            .iter()
            .find(|(_, pool)| pool.volumes.contains_key(id))
            .map(|(pool, _)| pool.clone())
    }

    /// A volume's pool, opened, and its record.
    pub(crate) fn open_healthy(
        &self,
        id: &str,
        access: Access,
    ) -> Result<(Pool, VolumeRecord), Error> {
        let pool_id = self
            .pool_of(id)
            .ok_or_else(|| Error::UnknownVolume { id: id.into() })?;
        let pool = self.open_pool(&pool_id, access)?;
        match lock(&self.state)
            .pools
            .get(&pool_id)
            .and_then(|p| p.volumes.get(id))
        {
            Some(Entry::Intact(record)) => Ok((pool, record.as_ref().clone())),
            Some(Entry::Damaged(why)) => Err(Error::Damaged {
                id: id.into(),
                why: why.clone(),
            }),
            None => Err(Error::UnknownVolume { id: id.into() }),
        }
    }

    pub(crate) fn report_volumes(&self, pool_id: &PoolId, only: Option<&str>) -> Vec<VolumeReport> {
        let pool = self.open_pool(pool_id, Access::Read);
        let qgroups = match &pool {
            Ok(pool) => self.qgroups_of(pool).unwrap_or_default(),
            Err(_) => Qgroups::new(),
        };
        let entries: Vec<(String, Entry)> = lock(&self.state)
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
            table: self.sys.mounts().unwrap_or_default(),
            loops: match with_loops {
                true => self.sys.loops().unwrap_or_default(),
                false => Vec::new(),
            },
        };
        entries
            .into_iter()
            .map(|(id, entry)| self.report_volume(pool_id, &pool, &id, &entry, &view))
            .collect()
    }

    fn report_volume(
        &self,
        pool_id: &PoolId,
        pool: &Result<Pool, Error>,
        id: &str,
        entry: &Entry,
        view: &HostView,
    ) -> VolumeReport {
        let loops = pool.as_ref().map_or_else(
            |_| Vec::new(),
            |pool| self.loops_among(pool, id, &view.loops),
        );
        let mounts = self.mounts_among(pool.as_ref().ok(), id, &view.table, &loops);
        let dir = lock(&self.state).pools.get(pool_id).map(|p| p.dir.clone());
        let path = self
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
                    Ok(pool) => self.volume_health(pool, record),
                };
                if let Ok(pool) = pool {
                    let fill = self.used_space(pool, record, view, &loops);
                    report.used = fill.map(|fill| fill.used);
                    if report.health == VolumeHealth::Ready {
                        report.troubles =
                            self.volume_problems(pool, record, fill, &view.table, &loops);
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

    fn volume_health(&self, pool: &Pool, record: &VolumeRecord) -> VolumeHealth {
        match self.open_data(pool, record) {
            Ok(_) => VolumeHealth::Ready,
            Err(Error::Damaged { why, .. }) => VolumeHealth::Damaged(why),
            Err(e) => VolumeHealth::Lost(e.to_string()),
        }
    }

    /// Opens a volume's data after checking that it is what was made.
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
            _ if is_symlink_or_mount_escape(&e) => {
                damaged(format!("{} is not what was made ({e})", path.display()))
            }
            _ => Error::Io {
                action: "opening",
                path: path.clone(),
                source: e,
            },
        };
        let dir = volumes.open(&record.id, Mounts::Stay).map_err(&missing)?;
        if dir.kind(DATA).map_err(&missing)?.is_none() {
            return Err(missing(io::ErrorKind::NotFound.into()));
        }
        let made = self.stored_data(pool, &dir, record.data_spec());
        if !backend::of(record.backend)
            .matches_record(&made)
            .map_err(&missing)?
        {
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
            Backend::Image => dir.open_file(DATA).map(Data::Image),
            _ => dir.open(DATA, Mounts::Stay).map(Data::Tree),
        }
        .map_err(missing)
    }

    /// How full a volume is, where something counts that cheaply.
    fn used_space(
        &self,
        pool: &Pool,
        record: &VolumeRecord,
        view: &HostView,
        loops: &[Loop],
    ) -> Option<UsedSpace> {
        let of_limit = |used| UsedSpace {
            used,
            total: record.enforced,
        };
        match record.backend {
            Backend::Btrfs => Some(of_limit(view.qgroups.get(&record.subvolume?)?.used)),
            Backend::ProjectQuota => {
                let project = self.sys.project(&pool.dir, record.project?);
                Some(of_limit(project.ok()?.used))
            }
            Backend::Image => {
                let mounted = self.mounted_among(loops, &view.table)?;
                let space = self.sys.space(&mounted).ok()?;
                // The filesystem inside takes some of the image for itself.
                Some(UsedSpace {
                    used: space.used,
                    total: space.total,
                })
            }
            Backend::Directory => None,
        }
    }

    /// When a pool erased the volume of this id; `None` if it has no tombstone of it.
    pub(crate) fn tombstone(&self, pool: &Pool, id: &str) -> Result<Option<String>, Error> {
        let tombstones = pool.tombstones()?;
        let name = format!("{id}.json");
        if tombstones
            .kind(&name)
            .context("looking at", tombstones.path())?
            != Some(Kind::File)
        {
            return Ok(None);
        }
        // A tombstone that cannot be read is a tombstone.
        let erased = crate::pool::read::<crate::pool::record::Tombstone>(&tombstones, &name)
            .ok()
            .flatten()
            .map_or_else(|| "an unknown time".to_owned(), |stone| stone.erased);
        Ok(Some(erased))
    }
}
