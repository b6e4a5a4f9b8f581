//! Sources of new volumes: a snapshot, or another volume in its present state.

use crate::backend::{DataSpec, Driver, Frozen, NewData};
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts};
use crate::layout::{SNAPSHOTS, VOLUMES};
use crate::locks::lock;
use crate::pool::Pool;
use crate::pool::record::{SnapshotRecord, VolumeRecord};
use crate::provisioner::{Entry, Inner};
use crate::types::{Backend, Source, VolumeHealth, VolumeSpec};

/// The data that a copy is made of, opened.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    pool: &'a Pool,
    dir: Dir,
    spec: DataSpec,
    /// The volume to freeze during the copy, if the source is one.
    live: Option<String>,
}

impl Origin<'_> {
    pub(crate) fn data_spec(&self) -> DataSpec {
        self.spec
    }
}

impl Inner {
    /// The source of the requested volume, checked against the request.
    pub(crate) fn origin<'a>(
        &self,
        pool: &'a Pool,
        want: &VolumeSpec,
    ) -> Result<Option<Origin<'a>>, Error> {
        let Some(source) = &want.source else {
            return Ok(None);
        };
        let (origin, id, needed) = match source {
            Source::Volume(id) => {
                let record = self.volume_in(pool, id)?;
                if is_foreign(want, &record) {
                    return Err(Error::ForeignSource { id: id.clone() });
                }
                self.open_data(pool, &record)?;
                (self.origin_of_volume(pool, &record)?, id, record.size)
            }
            Source::Snapshot(id) => {
                let record = self.snapshot_in(pool, id)?;
                match self.snapshot_health(pool, &record) {
                    VolumeHealth::Ready => {}
                    VolumeHealth::Lost(why) => {
                        return Err(Error::Lost {
                            id: id.clone(),
                            why,
                        });
                    }
                    VolumeHealth::Damaged(why) => {
                        return Err(Error::Damaged {
                            id: id.clone(),
                            why,
                        });
                    }
                }
                let dir = pool
                    .dir
                    .open(format!("{SNAPSHOTS}/{id}"), Mounts::Stay)
                    .context("opening", pool.dir.path().join(SNAPSHOTS).join(id))?;
                let origin = Origin {
                    pool,
                    dir,
                    spec: record.data_spec(),
                    live: None,
                };
                (origin, id, record.size)
            }
        };
        if want.size < needed {
            return Err(Error::TooSmall {
                source_id: id.clone(),
                size: want.size,
                needed,
            });
        }
        let spec = origin.spec;
        if want.mode != spec.mode {
            return Err(Error::invalid(
                "mode",
                format!("{:?}", want.mode),
                format!("its source {id} is of mode {:?}", spec.mode),
            ));
        }
        if want.backend.is_some_and(|backend| backend != spec.backend) {
            return Err(Error::invalid(
                "backend",
                want.backend.map_or("", Backend::as_str),
                format!("its source {id} is of backend {}", spec.backend),
            ));
        }
        Ok(Some(origin))
    }

    /// A volume as the origin of a copy.
    pub(crate) fn origin_of_volume<'a>(
        &self,
        pool: &'a Pool,
        record: &VolumeRecord,
    ) -> Result<Origin<'a>, Error> {
        let dir = pool
            .dir
            .open(format!("{VOLUMES}/{}", record.id), Mounts::Stay)
            .context("opening", pool.dir.path().join(VOLUMES).join(&record.id))?;
        Ok(Origin {
            pool,
            dir,
            spec: record.data_spec(),
            live: Some(record.id.clone()),
        })
    }

    /// Copies the origin's data. A mounted image is frozen meanwhile, so that the copy
    /// is consistent.
    pub(crate) fn copy(
        &self,
        driver: &dyn Driver,
        new: &NewData<'_>,
        origin: &Origin<'_>,
        snapshot: bool,
    ) -> Result<Option<u64>, Error> {
        let path = new.parent.path();
        let mounted = match &origin.live {
            Some(id) => self.mounted_image(origin.pool, id)?,
            None => None,
        };
        let _frozen = match mounted {
            Some(dir) => {
                let at = dir.path().to_owned();
                Some(Frozen::new(self.sys.as_ref(), dir).context("freezing", at)?)
            }
            None => None,
        };
        let source = self.stored_data(origin.pool, &origin.dir, origin.spec);
        driver
            .copy(new, &source, snapshot)
            .context("copying into", path)
    }

    /// The record of a volume of this pool.
    fn volume_in(&self, pool: &Pool, id: &str) -> Result<VolumeRecord, Error> {
        match self.entry(pool, |state| state.volumes.get(id).cloned()) {
            Some(Entry::Intact(record)) => Ok(*record),
            Some(Entry::Damaged(why)) => Err(Error::Damaged { id: id.into(), why }),
            None => Err(Error::UnknownVolume { id: id.into() }),
        }
    }

    /// The record of a snapshot of this pool.
    pub(crate) fn snapshot_in(&self, pool: &Pool, id: &str) -> Result<SnapshotRecord, Error> {
        match self.entry(pool, |state| state.snapshots.get(id).cloned()) {
            Some(Entry::Intact(record)) => Ok(*record),
            Some(Entry::Damaged(why)) => Err(Error::Damaged { id: id.into(), why }),
            None => Err(Error::UnknownSnapshot { id: id.into() }),
        }
    }

    fn entry<T>(
        &self,
        pool: &Pool,
        find: impl FnOnce(&crate::provisioner::PoolState) -> Option<T>,
    ) -> Option<T> {
        lock(&self.state)
            .pools
            .get(&pool.identity.id)
            .and_then(find)
    }
}

/// Whether both volumes are claims' and the claims are of two namespaces. Whoever asked
/// for the copy has looked at the claims; that is looked at here once more, where the
/// data lies, because what was asked may be late.
fn is_foreign(want: &VolumeSpec, record: &VolumeRecord) -> bool {
    match (&want.claim, &record.claim) {
        (Some(want), Some(of)) => want.namespace != of.namespace,
        _ => false,
    }
}
