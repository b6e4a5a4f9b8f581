//! The threads of each directory under `pools/`: one looks at it, one empties its trash.
//! Nobody else looks at pools, and neither thread ever waits for another disk, so a disk
//! that answers nothing stops these two, and the operations on its own pool. Two threads,
//! since one removal may take long on a disk that is well.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, IoContext};
use crate::report::pools;
use crate::store::Store;
use crate::store::desks::{DeskId, SILENCE};
use crate::types::{PoolId, PoolReport};
use crate::volume::trash;

/// Asks the worker of every directory for a look, and starts those of new directories.
/// Waits for none. With `create`, mount points become pools.
///
/// # Errors
/// [`Error::Io`] when the root itself cannot be read, or a thread cannot be started.
pub(crate) fn ask(store: &Arc<Store>, create: bool) -> Result<(), Error> {
    let names = crate::discovery::scan::names(store)?;
    let create = create && store.config.create_pools && store.is_writer();
    for (dir, id) in store.desks.ask_all(&names, create) {
        start(store, &dir, id, "look", look)?;
        if store.is_writer() {
            start(store, &dir, id, "remove", remove)?;
        }
    }
    // A new desk may have a new directory's trash; an old one may have gone.
    store.notify.notify();
    Ok(())
}

/// Has every directory looked at, and reports all; waits for the answers for at most
/// `patience`, and not for disks that are known to be silent.
///
/// # Errors
/// As [`ask`].
pub(crate) fn rescan(
    store: &Arc<Store>,
    create: bool,
    patience: Duration,
) -> Result<Vec<PoolReport>, Error> {
    ask(store, create)?;
    store.desks.wait(|_| true, patience);
    Ok(pools::last(store))
}

/// Has one pool looked at, and reports it; nothing if no directory has shown it. Asks no
/// other pool. Where the disk does not answer, the report says so.
pub(crate) fn look_at(store: &Store, id: &PoolId) -> Option<PoolReport> {
    let dir = pools::of(store, id)?.dir;
    store.desks.ask(&dir);
    store.desks.wait(|at| at == dir, SILENCE);
    pools::of(store, id)
}

/// Ends the threads, except those that wait for their disk, and lets the next process in.
pub(crate) fn close(store: &Store, patience: Duration) {
    store.notify.stop();
    if !store.desks.stop(patience) {
        tracing::warn!("some disks do not answer; what was begun on them is left behind");
    }
    store.close();
}

fn start(
    store: &Arc<Store>,
    dir: &str,
    id: DeskId,
    name: &str,
    work: fn(&Store, &str, DeskId),
) -> Result<(), Error> {
    let (shared, at) = (Arc::clone(store), dir.to_owned());
    store.desks.starts();
    let started = std::thread::Builder::new()
        .name(format!("{name} {dir}"))
        .spawn(move || {
            let _counted = Counted(Arc::clone(&shared));
            work(&shared, &at, id);
        });
    if started.is_err() {
        store.desks.ends();
    }
    started
        .map(drop)
        .context("starting a thread for", store.path_of(dir))
}

/// Counts the thread as ended, also when it panicked.
struct Counted(Arc<Store>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.desks.ends();
    }
}

fn look(store: &Store, dir: &str, id: DeskId) {
    while let Some(question) = store.desks.next(dir, id) {
        let report = pools::look(store, dir, question.create);
        store.desks.answer(dir, id, question, report);
    }
}

fn remove(store: &Store, dir: &str, id: DeskId) {
    trash::run(store, dir, || store.desks.has_ended(dir, id));
}
