//! Sources of new volumes: a snapshot, or another volume in its present state.

use crate::backend::{self, AsItIs, DataSpec, Driver, NewData};
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Mounts};
use crate::layout::{SNAPSHOTS, VOLUMES};
use crate::locks::lock;
use crate::mount::freeze::{self, Freeze, Use, Way};
use crate::pool::Pool;
use crate::pool::record::VolumeRecord;
use crate::store::{Store, lookup};
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

/// The source of the requested volume, checked against the request.
pub(crate) fn origin<'a>(
    store: &Store,
    pool: &'a Pool,
    want: &VolumeSpec,
) -> Result<Option<Origin<'a>>, Error> {
    let Some(source) = &want.source else {
        return Ok(None);
    };
    let (origin, id, needed) = match source {
        Source::Volume(id) => {
            let record = lookup::volume_record(store, pool, id)?;
            if is_foreign(want, &record) {
                return Err(Error::ForeignSource { id: id.clone() });
            }
            lookup::open_data(store, pool, &record)?;
            (of_volume(pool, &record)?, id, record.size)
        }
        Source::Snapshot(id) => {
            let record = lookup::snapshot_record(store, pool, id)?;
            match lookup::snapshot_health(store, pool, &record) {
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
pub(crate) fn of_volume<'a>(pool: &'a Pool, record: &VolumeRecord) -> Result<Origin<'a>, Error> {
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

/// Copies the origin's data, so that the copy shows one moment where the backend can say
/// so. A mounted image is frozen meanwhile.
///
/// # Errors
/// [`Error::NotCopied`] where that cannot be had, or would keep writers waiting.
pub(crate) fn copy(
    store: &Store,
    driver: &dyn Driver,
    new: &NewData<'_>,
    origin: &Origin<'_>,
    snapshot: bool,
) -> Result<Option<u64>, Error> {
    let source = lookup::stored_data(store, origin.pool, &origin.dir, origin.spec);
    let path = new.parent.path();
    let freeze = match &origin.live {
        Some(id) if origin.spec.backend == Backend::Image => frozen(store, origin, new, id)?,
        _ => None,
    };
    let Some((freeze, data)) = freeze else {
        let copied = driver.copy(new, &source, snapshot, &AsItIs);
        return copied.context("copying into", path);
    };
    let copied = std::thread::scope(|scope| {
        scope.spawn(|| freeze.watch());
        let _close = freeze.closed_at_end();
        driver.copy(new, &source, snapshot, &freeze)
    });
    if freeze.has_expired() {
        // Its writers waited in vain once; not at each new try.
        let pool = &origin.pool.identity.id;
        let mut state = lock(&store.state);
        let patience = state.pools.get_mut(pool).map(|state| {
            state.patience.worth = data / 2;
            state.patience
        });
        return Err(Error::NotCopied {
            id: origin.live.clone().unwrap_or_default(),
            why: freeze::too_slow(patience.unwrap_or_default()),
        });
    }
    copied.context("copying into", path)
}

/// How the image of the volume `id` is kept still, if it has to be, and the bytes that will
/// have to be moved.
fn frozen<'a>(
    store: &'a Store,
    origin: &'a Origin<'_>,
    new: &NewData<'_>,
    id: &'a str,
) -> Result<Option<(Freeze<'a>, u64)>, Error> {
    let pool = origin.pool;
    let used = freeze::used(store, pool, id)?;
    if matches!(used, Use::Unused) {
        return Ok(None);
    }
    let (sys, path) = (store.sys.as_ref(), origin.dir.path());
    let reflinks = backend::reflinks(sys, new.parent).context("looking at", new.parent.path())?;
    if let Use::Mounted(mounted) = &used
        && !reflinks
    {
        // What is only in memory now will have to be copied too.
        sys.commit(mounted)
            .context("writing down", mounted.path())?;
    }
    let data = backend::data_in_image(&origin.dir).context("measuring", path)?;
    let patience = lock(&store.state)
        .pools
        .get(&pool.identity.id)
        .map(|state| state.patience)
        .unwrap_or_default();
    let way = freeze::way(&used, reflinks, data, patience).map_err(|why| Error::NotCopied {
        id: id.to_owned(),
        why,
    })?;
    Ok(match (way, used) {
        (Way::Frozen, Use::Mounted(mounted)) => {
            let freeze = Freeze::new(sys, pool, id, mounted, patience.bound);
            Some((freeze, data))
        }
        _ => None,
    })
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
