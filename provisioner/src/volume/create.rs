//! Makes volumes.

use crate::backend::{Driver, NewData};
use crate::error::{Error, IoContext};
use crate::fs::envelope;
use crate::locks::lock;
use crate::pool::ledger::Holder;
use crate::pool::record::{VolumeRecord, now};
use crate::pool::{Pool, tombstone};
use crate::store::{Entry, Store, lookup, space};
use crate::types::{Backend, VolumeMode, VolumeSpec};
use crate::volume::source::Origin;
use crate::volume::{build, grow, source};
use crate::{backend, names};

/// Refuses a request that no backend could fulfil.
pub(crate) fn validate(want: &VolumeSpec) -> Result<(), Error> {
    names::volume_id(&want.id)?;
    grow::validate_size(want.size)?;
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

/// The record of the requested volume, if the pool has it; `None` if it is to be
/// made.
pub(crate) fn find_existing(
    store: &Store,
    pool: &Pool,
    want: &VolumeSpec,
) -> Result<Option<VolumeRecord>, Error> {
    let id = &want.id;
    let entry = lock(&store.state)
        .pools
        .get(&pool.identity.id)
        .and_then(|state| state.volumes.get(id).cloned());
    match entry {
        Some(Entry::Intact(record)) => {
            lookup::open_data(store, pool, &record)?;
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
    let stone = tombstone::find(pool, id)?;
    let asks = want
        .incarnation
        .as_deref()
        .filter(|_| !want.expect_existing);
    if let Some(stone) = stone.filter(|stone| stone.forbids(asks)) {
        return Err(Error::Tombstoned {
            id: id.clone(),
            erased: stone.erased,
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

/// Makes a volume that the pool does not have yet.
pub(crate) fn make_new(
    store: &Store,
    pool: &Pool,
    want: &VolumeSpec,
) -> Result<VolumeRecord, Error> {
    let origin = source::origin(store, pool, want)?;
    let (kind, driver) = choose_backend(store, pool, want, origin.as_ref())?;
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
    space::admit(store, pool, &holder, record.enforced)?;
    // Kept until the record is known, which names it.
    let mut project = None;
    let made = build::free_project(store, pool, kind).and_then(|free| {
        record.project = free.as_ref().map(|free| free.number);
        project = free;
        make_volume(store, pool, driver, &mut record, origin.as_ref())
    });
    let mut state = lock(&store.state);
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
    drop(project);
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
    store: &Store,
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
            backend::driver(candidate, store.sys.as_ref(), &pool.dir, &pool.filesystem)
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

fn make_volume(
    store: &Store,
    pool: &Pool,
    driver: &dyn Driver,
    record: &mut VolumeRecord,
    origin: Option<&Origin<'_>>,
) -> Result<(), Error> {
    let id = record.id.clone();
    let volumes = pool.volumes()?;
    build::build(
        store,
        pool,
        &id,
        &volumes,
        &id,
        origin.is_some(),
        |parent| {
            let path = parent.path().to_owned();
            let new = NewData {
                sys: store.sys.as_ref(),
                parent,
                spec: record.data_spec(),
            };
            record.subvolume = match origin {
                None => driver.create(&new).context("making the data of", &path)?,
                Some(origin) => source::copy(store, driver, &new, origin, false)?,
            };
            Ok(envelope::encode(record))
        },
    )
}
