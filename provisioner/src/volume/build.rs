//! Builds volumes and snapshots in the pool's build area, from which they appear by one
//! rename, and removes what was left there unfinished.

use crate::backend;
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::layout::{COPYING, DATA, META, NEW, RECORD};
use crate::locks::lock;
use crate::pool::Pool;
use crate::store::Store;
use crate::types::Backend;

/// Removes what an earlier process left unfinished. It was never given to anybody,
/// so it is empty or marked as a copy; anything else belongs to somebody and stays.
pub(crate) fn clear(store: &Store, pool: &Pool) -> Result<(), Error> {
    let area = area(pool)?;
    for name in area.directories().context("listing", area.path())? {
        if let Err(e) = discard(store, &area, &name) {
            tracing::warn!(volume = name, error = %e, "what was left unfinished stays");
        }
    }
    Ok(())
}

/// The number of a project, kept from others until it is dropped: by then the volume's
/// record names it, or nothing was made.
pub(crate) struct Project<'a> {
    store: &'a Store,
    pub(crate) number: u32,
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        lock(&self.store.state).projects.remove(&self.number);
    }
}

/// A project for a volume of this backend, if it needs one. Numbers are kept apart for all
/// pools together, since several may share a filesystem; but it is a number that is kept,
/// and nobody waits for a disk that is not his.
pub(crate) fn free_project<'a>(
    store: &'a Store,
    pool: &Pool,
    kind: Backend,
) -> Result<Option<Project<'a>>, Error> {
    if kind != Backend::ProjectQuota {
        return Ok(None);
    }
    loop {
        let mut taken: Vec<u32> = {
            let state = lock(&store.state);
            let specs = state.pools.values().flat_map(|pool| pool.data_specs());
            let made = specs.filter_map(|spec| spec.project);
            made.chain(state.projects.iter().copied()).collect()
        };
        taken.sort_unstable();
        let number = backend::free_project(store.sys.as_ref(), &pool.dir, &taken)
            .context("looking for a free project in", pool.dir.path())?;
        // Another volume may have got it since.
        let mut state = lock(&store.state);
        let specs = state.pools.values().flat_map(|pool| pool.data_specs());
        let made = specs.filter_map(|spec| spec.project).any(|it| it == number);
        if !made && state.projects.insert(number) {
            drop(state);
            return Ok(Some(Project { store, number }));
        }
    }
}

/// Builds everything as `name` in the pool's build area, and moves it to `id` of
/// `there` by one rename. `fill` makes the data and returns the record.
pub(crate) fn build(
    store: &Store,
    pool: &Pool,
    name: &str,
    there: &Dir,
    id: &str,
    copying: bool,
    fill: impl FnOnce(&Dir) -> Result<Vec<u8>, Error>,
) -> Result<(), Error> {
    let area = area(pool)?;
    let path = area.path().join(name);
    if area.kind(name).context("looking at", &path)?.is_some() {
        // An earlier call failed half-way in this life of the process.
        discard(store, &area, name)?;
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
        && let Err(e) = discard(store, &area, name)
    {
        tracing::warn!(name, error = %e, "what was left unfinished stays");
    }
    finished
}

/// The directory where volumes are built.
fn area(pool: &Pool) -> Result<Dir, Error> {
    let path = pool.dir.path().join(META);
    let meta = pool
        .dir
        .open(META, Mounts::Stay)
        .map_err(|e| pool.unexpected_entry(&path, e))?;
    meta.ensure(NEW, 0o700, Mounts::Stay)
        .map_err(|e| pool.unexpected_entry(&path.join(NEW), e))
}

/// Removes one unfinished volume.
fn discard(store: &Store, area: &Dir, name: &str) -> Result<(), Error> {
    let path = area.path().join(name);
    let dir = area.open(name, Mounts::Stay).context("opening", &path)?;
    let copy = dir.kind(COPYING).context("looking at", &path)?.is_some();
    if dir.kind(DATA).context("looking at", &path)? == Some(Kind::Directory) {
        let data = dir.open(DATA, Mounts::Stay).context("opening", &path)?;
        let subvolume = store.sys.subvolume_id(&data).context("looking at", &path)?;
        if !copy && !data.names().context("listing", data.path())?.is_empty() {
            return Err(Error::DamagedPool {
                path: data.path().to_owned(),
                why: "an unfinished volume is not empty; look at it and remove it by hand".into(),
            });
        }
        drop(data);
        if subvolume.is_some() {
            store
                .sys
                .destroy_subvolume(&dir, DATA)
                .context("removing", &path)?;
        } else {
            dir.remove_tree(DATA.as_ref(), &mut || true)
                .context("removing", &path)?;
        }
    }
    for file in dir.names().context("listing", &path)? {
        dir.remove_file(&file).context("removing", &path)?;
    }
    drop(dir);
    area.remove_empty(name).context("removing", &path)
}
