//! Makes volumes and lets them grow.

use crate::backend::{self, DataSpec, Driver, NewData};
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts};
use crate::fs::envelope;
use crate::layout::{COPYING, RECORD, VOLUMES};
use crate::locks::lock;
use crate::names;
use crate::pool::ledger::Holder;
use crate::pool::record::{VolumeRecord, now};
use crate::pool::{Access, Pool};
use crate::provisioner::{Entry, Inner, Provisioner};
use crate::types::{Backend, PoolId, Source, VolumeMode, VolumeReport, VolumeSpec};
use crate::volume::source::Origin;

impl Provisioner {
    /// Makes a volume, or returns the one that an earlier call with the same parameters
    /// made (it may have grown since).
    ///
    /// # Errors
    /// [`Error::NoRoom`]: nothing was made. [`Error::AlreadyExists`]: another volume
    /// has the id. [`Error::Tombstoned`]: it was erased on purpose.
    /// [`Error::Lost`]: it is expected, or recorded, and its data is not there.
    /// [`Error::TooSmall`], and what is wrong with the source, for a volume that has
    /// one.
    /// [`Error::PoolMissing`], [`Error::LostMount`], [`Error::ReadOnly`],
    /// [`Error::Unsupported`], [`Error::Damaged`] and [`Error::Io`] as they say.
    pub fn create(&self, pool: &PoolId, want: &VolumeSpec) -> Result<VolumeReport, Error> {
        let inner = &self.inner;
        inner.require_writer()?;
        validate(want)?;
        // Always in the same order, or two calls could deadlock: snapshots before
        // volumes, volumes by id.
        let mut ids = vec![want.id.as_str()];
        let _snapshot = match &want.source {
            Some(Source::Snapshot(id)) => Some(inner.snapshot_locks.hold(id)),
            Some(Source::Volume(id)) => {
                ids.push(id);
                None
            }
            None => None,
        };
        ids.sort_unstable();
        ids.dedup();
        let _held: Vec<_> = ids.iter().map(|id| inner.volume_locks.hold(id)).collect();
        let gate = inner.gate(pool)?;
        let _shared = gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let open = inner.open_pool(pool, Access::Write)?;
        if let Some(other) = inner.pool_of(&want.id)
            && other != *pool
        {
            return Err(Error::AlreadyExists {
                id: want.id.clone(),
                difference: format!("it is in pool {other}"),
            });
        }
        let record = match inner.find_existing(&open, want)? {
            Some(record) => record,
            None => inner.make_new(&open, want)?,
        };
        inner.link(&open.name, &record);
        drop(open);
        inner
            .report_volumes(pool, Some(&want.id))
            .pop()
            .ok_or_else(|| Error::UnknownVolume {
                id: want.id.clone(),
            })
    }

    /// Lets a volume grow to `size` bytes. A size that it has already changes
    /// nothing: volumes do not shrink.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a size that no disk has, [`Error::NoRoom`],
    /// [`Error::UnknownVolume`], or what is wrong with the volume or its pool.
    pub fn expand(&self, id: &str, size: u64) -> Result<VolumeReport, Error> {
        let inner = &self.inner;
        inner.require_writer()?;
        validate_size(size)?;
        let _one = inner.volume_locks.hold(id);
        let pool_id = inner
            .pool_of(id)
            .ok_or_else(|| Error::UnknownVolume { id: id.into() })?;
        let gate = inner.gate(&pool_id)?;
        let _shared = gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (pool, record) = inner.open_healthy(id, Access::Write)?;
        inner.open_data(&pool, &record)?;
        inner.grow(&pool, record, size)?;
        inner.grow_filesystem(&pool, id)?;
        drop(pool);
        inner
            .report_volumes(&pool_id, Some(id))
            .pop()
            .ok_or_else(|| Error::UnknownVolume { id: id.into() })
    }
}

fn validate_size(size: u64) -> Result<(), Error> {
    if size == 0 || i64::try_from(size).is_err() {
        return Err(Error::invalid(
            "size",
            size.to_string(),
            "must be between 1 and 2^63-1 bytes",
        ));
    }
    Ok(())
}

fn validate(want: &VolumeSpec) -> Result<(), Error> {
    names::volume_id(&want.id)?;
    validate_size(want.size)?;
    if want.mode == VolumeMode::Block
        && let Some(backend) = want.backend
        && !backend::possible(backend, want.mode)
    {
        return Err(Error::invalid(
            "backend",
            backend.as_str(),
            "makes no raw block devices; use image, or leave it out",
        ));
    }
    if let Some(claim) = &want.claim {
        names::dns_label("namespace", &claim.namespace)?;
        names::dns_subdomain("claim", &claim.name)?;
    }
    Ok(())
}

impl Inner {
    /// The record of the requested volume, if the pool has it; `None` if it is to be
    /// made.
    fn find_existing(&self, pool: &Pool, want: &VolumeSpec) -> Result<Option<VolumeRecord>, Error> {
        let id = &want.id;
        let entry = lock(&self.state)
            .pools
            .get(&pool.identity.id)
            .and_then(|state| state.volumes.get(id).cloned());
        match entry {
            Some(Entry::Intact(record)) => {
                self.open_data(pool, &record)?;
                if let Some(difference) = record.difference(want, &pool.identity.id) {
                    return Err(Error::AlreadyExists {
                        id: id.clone(),
                        difference,
                    });
                }
                return Ok(Some(*record));
            }
            Some(Entry::Damaged(why)) => {
                return Err(Error::Damaged {
                    id: id.clone(),
                    why,
                });
            }
            None => {}
        }
        let volumes = pool.volumes()?;
        if volumes
            .kind(id)
            .context("looking at", volumes.path())?
            .is_some()
        {
            return Err(Error::Damaged {
                id: id.clone(),
                why: format!(
                    "something that Berth did not make is at {}",
                    volumes.path().join(id).display()
                ),
            });
        }
        if let Some(erased) = self.tombstone(pool, id)? {
            return Err(Error::Tombstoned {
                id: id.clone(),
                erased,
            });
        }
        if want.expect_existing {
            return Err(Error::Lost {
                id: id.clone(),
                why: format!("pool {} holds nothing of it", pool.identity.id),
            });
        }
        Ok(None)
    }

    fn make_new(&self, pool: &Pool, want: &VolumeSpec) -> Result<VolumeRecord, Error> {
        let origin = self.origin(pool, want)?;
        let (kind, driver) = self.choose_backend(pool, want, origin.as_ref())?;
        let mut record = VolumeRecord {
            id: want.id.clone(),
            claim: want.claim.clone(),
            set: want.set.clone(),
            size: want.size,
            enforced: driver.round_up(want.size, want.mode),
            backend: kind,
            mode: want.mode,
            pool: pool.identity.id.clone(),
            fs_uuid: pool.filesystem.uuid.clone(),
            created: now(),
            subvolume: None,
            project: None,
            source: want.source.clone(),
            growing_from: None,
            sparse: want.sparse,
            shares: origin.is_some() && pool.shares_blocks(),
        };
        let holder = Holder::Volume(want.id.clone());
        self.admit(pool, &holder, record.enforced)?;
        let made = self.make_volume(pool, driver, &mut record, origin.as_ref());
        let mut state = lock(&self.state);
        if let Some(state) = state.pools.get_mut(&pool.identity.id) {
            match &made {
                Ok(()) => {
                    let entry = Entry::Intact(Box::new(record.clone()));
                    state.volumes.insert(want.id.clone(), entry);
                }
                Err(_) => state.ledger.release(&holder),
            }
        }
        drop(state);
        made?;
        tracing::info!(
            volume = record.id,
            pool = %record.pool,
            size = record.size,
            enforced = record.enforced,
            "volume made"
        );
        Ok(record)
    }

    /// The backend for a volume: the requested one, or the best available.
    fn choose_backend(
        &self,
        pool: &Pool,
        want: &VolumeSpec,
        origin: Option<&Origin<'_>>,
    ) -> Result<(Backend, &'static dyn Driver), Error> {
        let demanded = want
            .backend
            .or_else(|| origin.map(|origin| origin.data_spec().backend));
        let wanted = match &demanded {
            Some(demanded) => std::slice::from_ref(demanded),
            None => backend::candidates(want.mode),
        };
        let mut refusal = None;
        for &candidate in wanted {
            let answer = if backend::possible(candidate, want.mode) {
                backend::driver(candidate, self.sys.as_ref(), &pool.dir, &pool.filesystem)
            } else {
                Err(format!("it makes no {:?} volumes", want.mode))
            };
            match answer {
                Ok(driver) => return Ok((candidate, driver)),
                Err(why) => {
                    refusal.get_or_insert(Error::Unsupported {
                        backend: candidate,
                        why,
                    });
                }
            }
        }
        Err(refusal.expect("every mode has a candidate, and it was refused"))
    }

    pub(crate) fn admit(&self, pool: &Pool, holder: &Holder, bytes: u64) -> Result<(), Error> {
        let physical = self.physical(pool, &self.qgroups_of(pool)?);
        let id = &pool.identity.id;
        let mut state = lock(&self.state);
        let state = state
            .pools
            .get_mut(id)
            .ok_or_else(|| Error::PoolMissing { pool: id.clone() })?;
        state
            .ledger
            .admit(holder.clone(), bytes, physical)
            .map_err(|no| Error::NoRoom {
                pool: id.clone(),
                needed: no.needed,
                room: no.room,
            })
    }

    fn make_volume(
        &self,
        pool: &Pool,
        driver: &dyn Driver,
        record: &mut VolumeRecord,
        origin: Option<&Origin<'_>>,
    ) -> Result<(), Error> {
        // Held until the record names the project.
        let _projects = (record.backend == Backend::ProjectQuota).then(|| lock(&self.projects));
        record.project = self.free_project_for(pool, record.backend)?;
        let id = record.id.clone();
        let volumes = pool.volumes()?;
        self.build_aside(pool, &id, &volumes, &id, origin.is_some(), |parent| {
            let path = parent.path().to_owned();
            let new = NewData {
                sys: self.sys.as_ref(),
                parent,
                spec: record.data_spec(),
            };
            record.subvolume = match origin {
                None => driver.create(&new).context("making the data of", &path)?,
                Some(origin) => self.copy(driver, &new, origin, false)?,
            };
            Ok(envelope::encode(record))
        })
    }

    /// A project for a volume of this backend, if it needs one.
    pub(crate) fn free_project_for(
        &self,
        pool: &Pool,
        kind: Backend,
    ) -> Result<Option<u32>, Error> {
        if kind != Backend::ProjectQuota {
            return Ok(None);
        }
        let mut taken: Vec<u32> = {
            let state = lock(&self.state);
            let data_specs = state.pools.values().flat_map(|pool| pool.data_specs());
            data_specs.filter_map(|spec| spec.project).collect()
        };
        taken.sort_unstable();
        backend::free_project(self.sys.as_ref(), &pool.dir, &taken)
            .context("looking for a free project in", pool.dir.path())
            .map(Some)
    }

    /// Builds everything as `name` in the pool's build area, and moves it to `id` of
    /// `there` by one rename. `fill` makes the data and returns the record.
    pub(crate) fn build_aside(
        &self,
        pool: &Pool,
        name: &str,
        there: &Dir,
        id: &str,
        copying: bool,
        fill: impl FnOnce(&Dir) -> Result<Vec<u8>, Error>,
    ) -> Result<(), Error> {
        let area = self.build_area(pool)?;
        let path = area.path().join(name);
        if area.kind(name).context("looking at", &path)?.is_some() {
            // An earlier call failed half-way in this life of the process.
            self.discard_unfinished(&area, name)?;
        }
        area.make(name, 0o700).context("making", &path)?;
        let dir = area.open(name, Mounts::Stay).context("opening", &path)?;
        let marked = match copying {
            // What a crash leaves of a copy is not empty, and still belongs to nobody.
            true => dir.write(COPYING, b"").context("marking", &path),
            false => Ok(()),
        };
        let finished = marked.and_then(|()| fill(&dir)).and_then(|record| {
            dir.write(RECORD, &record)
                .context("writing the record of", &path)?;
            if copying {
                dir.remove_file(COPYING).context("finishing", &path)?;
                dir.sync().context("finishing", &path)?;
            }
            area.rename(name, there, id)
                .context("moving into place", there.path().join(id))
        });
        drop(dir);
        if finished.is_err()
            && area.kind(name).ok().flatten().is_some()
            && let Err(e) = self.discard_unfinished(&area, name)
        {
            tracing::warn!(name, error = %e, "what was left unfinished stays");
        }
        finished
    }

    fn grow(&self, pool: &Pool, mut record: VolumeRecord, size: u64) -> Result<(), Error> {
        let path = pool.dir.path().join(VOLUMES).join(&record.id);
        if size <= record.size {
            // An earlier call may have recorded the size and failed at the limit.
            self.limit(pool, &record)
                .context("setting the limit of", &path)?;
            return self.finish_growth(pool, record);
        }
        let driver = backend::of(record.backend);
        let holder = Holder::Volume(record.id.clone());
        record.size = size;
        // A volume that was rounded up may hold the new size already.
        let before = record.enforced;
        record.enforced = before.max(driver.round_up(size, record.mode));
        if record.backend == Backend::Image {
            record.growing_from.get_or_insert(before);
        }
        self.admit(pool, &holder, record.enforced)?;
        // The record first: if a crash comes before the limit is set, the next start
        // sets it.
        let written = self.write_record(pool, &record);
        let mut state = lock(&self.state);
        if let Some(state) = state.pools.get_mut(&pool.identity.id) {
            match &written {
                Ok(()) => {
                    let entry = Entry::Intact(Box::new(record.clone()));
                    state.volumes.insert(record.id.clone(), entry);
                }
                Err(_) => state.ledger.hold(holder, before),
            }
        }
        drop(state);
        written?;
        self.limit(pool, &record)
            .context("setting the limit of", &path)?;
        tracing::info!(volume = record.id, size, "volume grown");
        self.finish_growth(pool, record)
    }

    /// Records that an image has reached its new length: from now on a shorter one is
    /// damaged.
    fn finish_growth(&self, pool: &Pool, mut record: VolumeRecord) -> Result<(), Error> {
        if record.growing_from.take().is_none() {
            return Ok(());
        }
        self.write_record(pool, &record)?;
        if let Some(state) = lock(&self.state).pools.get_mut(&pool.identity.id) {
            let id = record.id.clone();
            state.volumes.insert(id, Entry::Intact(Box::new(record)));
        }
        Ok(())
    }

    fn write_record(&self, pool: &Pool, record: &VolumeRecord) -> Result<(), Error> {
        let path = pool.dir.path().join(VOLUMES).join(&record.id);
        let dir = pool
            .volumes()?
            .open(&record.id, Mounts::Stay)
            .context("opening", &path)?;
        dir.write(RECORD, &envelope::encode(record))
            .context("writing the record of", &path)
    }

    /// Sets the limit of an existing volume.
    pub(crate) fn limit(&self, pool: &Pool, record: &VolumeRecord) -> std::io::Result<()> {
        let dir = pool
            .dir
            .open(format!("{VOLUMES}/{}", record.id), Mounts::Stay)?;
        backend::of(record.backend).limit(&self.stored_data(pool, &dir, record.data_spec()))
    }

    /// What a backend needs to know of existing data.
    pub(crate) fn stored_data<'a>(
        &'a self,
        pool: &'a Pool,
        dir: &'a Dir,
        spec: DataSpec,
    ) -> backend::StoredData<'a> {
        backend::StoredData {
            sys: self.sys.as_ref(),
            pool: &pool.dir,
            dir,
            spec,
        }
    }
}
