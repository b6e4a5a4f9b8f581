//! Makes volumes and lets them grow.

use crate::backend::{self, Driver};
use crate::dir::Mounts;
use crate::error::{Doing, Error};
use crate::ledger::Holder;
use crate::locks::lock;
use crate::names;
use crate::pool::{Need, Pool};
use crate::provisioner::{Entry, Inner, Provisioner};
use crate::record::{DATA, RECORD, VOLUMES, VolumeRecord, now};
use crate::seal;
use crate::types::{Backend, PoolId, VolumeReport, VolumeSpec};

impl Provisioner {
    /// Makes a volume, or returns the one that was made by an earlier call with
    /// the same parameters (it may have grown since).
    ///
    /// # Errors
    /// [`Error::NoRoom`]: nothing was made. [`Error::AlreadyExists`]: another volume
    /// has the id. [`Error::Tombstoned`]: it was erased on purpose.
    /// [`Error::Lost`]: it is expected, or recorded, and its data is not there.
    /// [`Error::PoolMissing`], [`Error::LostMount`], [`Error::ReadOnly`],
    /// [`Error::Unsupported`], [`Error::Damaged`] and [`Error::Io`] as they say.
    pub fn create(&self, pool: &PoolId, want: &VolumeSpec) -> Result<VolumeReport, Error> {
        let inner = &self.inner;
        inner.manage()?;
        validate(want)?;
        let _one = inner.volume_locks.hold(&want.id);
        let gate = inner.gate(pool)?;
        let _shared = gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let open = inner.open_pool(pool, Need::Write)?;
        if let Some(other) = inner.home(&want.id)
            && other != *pool
        {
            return Err(Error::AlreadyExists {
                id: want.id.clone(),
                difference: format!("it is in pool {other}"),
            });
        }
        let record = match inner.existing(&open, want)? {
            Some(record) => record,
            None => inner.make(&open, want)?,
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
    /// [`Error::NoRoom`], [`Error::UnknownVolume`], or what is wrong with the volume
    /// or its pool.
    pub fn expand(&self, id: &str, size: u64) -> Result<VolumeReport, Error> {
        let inner = &self.inner;
        inner.manage()?;
        let _one = inner.volume_locks.hold(id);
        let home = inner
            .home(id)
            .ok_or_else(|| Error::UnknownVolume { id: id.into() })?;
        let gate = inner.gate(&home)?;
        let _shared = gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (pool, record) = inner.sound(id, Need::Write)?;
        inner.open_data(&pool, &record)?;
        inner.grow(&pool, record, size)?;
        drop(pool);
        inner
            .report_volumes(&home, Some(id))
            .pop()
            .ok_or_else(|| Error::UnknownVolume { id: id.into() })
    }
}

fn validate(want: &VolumeSpec) -> Result<(), Error> {
    names::volume_id(&want.id)?;
    if want.size == 0 || i64::try_from(want.size).is_err() {
        return Err(Error::invalid(
            "size",
            want.size.to_string(),
            "must be between 1 and 2^63-1 bytes",
        ));
    }
    if let Some(claim) = &want.claim {
        names::dns_label("namespace", &claim.namespace)?;
        names::dns_subdomain("claim", &claim.name)?;
    }
    Ok(())
}

impl Inner {
    /// What the pool has of the wanted volume: its record; `None` if it is to be
    /// made.
    fn existing(&self, pool: &Pool, want: &VolumeSpec) -> Result<Option<VolumeRecord>, Error> {
        let id = &want.id;
        let entry = lock(&self.state)
            .pools
            .get(&pool.identity.id)
            .and_then(|state| state.volumes.get(id).cloned());
        match entry {
            Some(Entry::Sound(record)) => {
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
            .doing("looking at", volumes.path())?
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

    fn make(&self, pool: &Pool, want: &VolumeSpec) -> Result<VolumeRecord, Error> {
        let (kind, driver) = self.choose(pool, want)?;
        let mut record = VolumeRecord {
            id: want.id.clone(),
            claim: want.claim.clone(),
            set: want.set.clone(),
            size: want.size,
            enforced: driver.round_up(want.size),
            backend: kind,
            mode: want.mode,
            pool: pool.identity.id.clone(),
            fs_uuid: pool.filesystem.uuid.clone(),
            created: now(),
            subvolume: None,
            project: None,
            source: want.source.clone(),
            sparse: want.sparse,
        };
        let holder = Holder::Volume(want.id.clone());
        self.admit(pool, &holder, record.enforced)?;
        let made = self.make_in_place(pool, driver, &mut record);
        let mut state = lock(&self.state);
        if let Some(state) = state.pools.get_mut(&pool.identity.id) {
            match &made {
                Ok(()) => {
                    let entry = Entry::Sound(Box::new(record.clone()));
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

    /// The backend for a volume: the demanded one, or the best that is there.
    fn choose(
        &self,
        pool: &Pool,
        want: &VolumeSpec,
    ) -> Result<(Backend, &'static dyn Driver), Error> {
        let fitting = backend::candidates(want.mode);
        let wanted = match &want.backend {
            Some(demanded) => std::slice::from_ref(demanded),
            None => fitting,
        };
        let mut refusal = None;
        for &candidate in wanted {
            let answer = if fitting.contains(&candidate) {
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

    fn admit(&self, pool: &Pool, holder: &Holder, bytes: u64) -> Result<(), Error> {
        let physical = self.physical(pool)?;
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

    /// Makes everything aside and lets it appear by one rename.
    fn make_in_place(
        &self,
        pool: &Pool,
        driver: &dyn Driver,
        record: &mut VolumeRecord,
    ) -> Result<(), Error> {
        let id = record.id.clone();
        let volumes = pool.volumes()?;
        let making = self.making(pool)?;
        let path = making.path().join(&id);
        if making.kind(&id).doing("looking at", &path)?.is_some() {
            // An earlier call failed half-way in this life of the process.
            self.unmake(&making, &id)?;
        }
        making.make(&id, 0o700).doing("making", &path)?;
        let dir = making.open(&id, Mounts::Stay).doing("opening", &path)?;
        let finished = driver
            .create(self.sys.as_ref(), &dir, DATA, record.enforced)
            .doing("making the data of", &path)
            .and_then(|made| {
                record.subvolume = made.subvolume;
                dir.write(RECORD, &seal::seal(record))
                    .doing("writing the record of", &path)?;
                making
                    .rename(&id, &volumes, &id)
                    .doing("moving into place", volumes.path().join(&id))
            });
        drop(dir);
        if finished.is_err()
            && making.kind(&id).ok().flatten().is_some()
            && let Err(e) = self.unmake(&making, &id)
        {
            tracing::warn!(volume = id, error = %e, "what was left in the making stays");
        }
        finished
    }

    fn grow(&self, pool: &Pool, mut record: VolumeRecord, size: u64) -> Result<(), Error> {
        let path = pool.dir.path().join(VOLUMES).join(&record.id);
        let driver = backend::of(record.backend).map_err(|why| Error::Unsupported {
            backend: record.backend,
            why,
        })?;
        if size <= record.size {
            // An earlier call may have recorded the size and failed at the limit.
            return driver
                .limit(self.sys.as_ref(), &pool.dir, &record)
                .doing("setting the limit of", &path);
        }
        let holder = Holder::Volume(record.id.clone());
        record.size = size;
        // A volume that was rounded up may hold the new size already.
        let before = record.enforced;
        record.enforced = before.max(driver.round_up(size));
        self.admit(pool, &holder, record.enforced)?;
        // The record first: a limit that a crash left behind it is set at start.
        let written = pool
            .volumes()?
            .open(&record.id, Mounts::Stay)
            .doing("opening", &path)
            .and_then(|dir| {
                dir.write(RECORD, &seal::seal(&record))
                    .doing("writing the record of", &path)
            });
        let mut state = lock(&self.state);
        if let Some(state) = state.pools.get_mut(&pool.identity.id) {
            match &written {
                Ok(()) => {
                    let entry = Entry::Sound(Box::new(record.clone()));
                    state.volumes.insert(record.id.clone(), entry);
                }
                Err(_) => state.ledger.hold(holder, before),
            }
        }
        drop(state);
        written?;
        driver
            .limit(self.sys.as_ref(), &pool.dir, &record)
            .doing("setting the limit of", &path)?;
        tracing::info!(volume = record.id, size, "volume grown");
        Ok(())
    }
}
