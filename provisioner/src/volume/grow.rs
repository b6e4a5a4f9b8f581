//! Lets volumes grow.

use crate::backend;
use crate::error::{Error, IoContext};
use crate::fs::dir::Mounts;
use crate::fs::envelope;
use crate::layout::{RECORD, VOLUMES};
use crate::locks::lock;
use crate::pool::Pool;
use crate::pool::ledger::Holder;
use crate::pool::record::VolumeRecord;
use crate::store::{Entry, Store, space};
use crate::types::Backend;
use crate::volume::limit;

/// Refuses a size that no disk has.
pub(crate) fn validate_size(size: u64) -> Result<(), Error> {
    if size == 0 || i64::try_from(size).is_err() {
        return Err(Error::invalid(
            "size",
            size.to_string(),
            "must be between 1 and 2^63-1 bytes",
        ));
    }
    Ok(())
}

/// Grows a volume to `size` bytes; a size that it has already changes nothing.
pub(crate) fn grow(
    store: &Store,
    pool: &Pool,
    mut record: VolumeRecord,
    size: u64,
) -> Result<(), Error> {
    let path = pool.dir.path().join(VOLUMES).join(&record.id);
    if size <= record.size {
        // An earlier call may have recorded the size and failed at the limit.
        limit::set(store, pool, &record, None).context("setting the limit of", &path)?;
        return finish_growth(store, pool, record);
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
    space::admit(store, pool, &holder, record.enforced)?;
    // The record first: if a crash comes before the limit is set, the next start
    // sets it.
    let written = write_record(pool, &record);
    let mut state = lock(&store.state);
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
    limit::set(store, pool, &record, None).context("setting the limit of", &path)?;
    tracing::info!(volume = record.id, size, "volume grown");
    finish_growth(store, pool, record)
}

/// Records that an image has reached its new length: from now on a shorter one is
/// damaged.
fn finish_growth(store: &Store, pool: &Pool, mut record: VolumeRecord) -> Result<(), Error> {
    if record.growing_from.take().is_none() {
        return Ok(());
    }
    write_record(pool, &record)?;
    if let Some(state) = lock(&store.state).pools.get_mut(&pool.identity.id) {
        let id = record.id.clone();
        state.volumes.insert(id, Entry::Intact(Box::new(record)));
    }
    Ok(())
}

/// Writes the record of a volume that is there.
pub(crate) fn write_record(pool: &Pool, record: &VolumeRecord) -> Result<(), Error> {
    let path = pool.dir.path().join(VOLUMES).join(&record.id);
    let dir = pool
        .volumes()?
        .open(&record.id, Mounts::Stay)
        .context("opening", &path)?;
    dir.write(RECORD, &envelope::encode(record))
        .context("writing the record of", &path)
}
