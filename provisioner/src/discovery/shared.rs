//! The pool on a node's own filesystem, for nodes without a spare disk: requested by
//! name and size, made only where the node is known never to have had it.

use std::io;

use crate::error::Error;
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::fs::envelope;
use crate::layout::{IDENTITY, META};
use crate::locks::lock;
use crate::pool::record::Identity;
use crate::pool::shared::SharedPool;
use crate::pool::{Observed, Verdict};
use crate::store::Store;
use crate::types::{Config, Health, InitOptions};

/// Makes the directory `name` if it is that of the requested shared pool; the error if
/// that fails.
pub(crate) fn make_directory(store: &Store, pools: &Dir, name: &str) -> Option<io::Error> {
    requested(store, name)?;
    if lock(&store.state).known.contains_key(name) {
        return None;
    }
    match ensure(pools, name) {
        Ok(()) => None,
        // The look refuses it by name.
        Err(_) if matches!(pools.kind(name), Ok(Some(Kind::Link))) => None,
        Err(e) => Some(e),
    }
}

/// The options to make a pool of a directory without an identity; `None` if it is
/// not the requested shared pool.
pub(crate) fn options_for(store: &Store, name: &str) -> Option<(Config, InitOptions)> {
    let wanted = requested(store, name)?;
    let config = Config {
        allow_root_fs: true,
        ..store.config.clone()
    };
    Some((config, wanted.options()))
}

/// Gives the pool the requested size, and explains how to give up a lost one.
pub(crate) fn keep(
    store: &Store,
    name: &str,
    dir: &Dir,
    seen: &mut Observed,
    verdict: &mut Verdict,
) {
    let Some(wanted) = requested(store, name) else {
        return;
    };
    match (&verdict.health, &mut seen.identity) {
        (Health::LostMount, Ok(None)) if !seen.mount_point => verdict.message.push_str(&format!(
            "; if it was no disk of its own, this node was set up anew, and its volumes are \
                 gone permanently: `berth-agent pools init {name} --allow-root-fs --capacity SIZE`"
        )),
        (Health::Healthy, Ok(Some(identity)))
            if identity.shared && identity.capacity != Some(wanted.capacity()) =>
        {
            let before = identity.capacity;
            match resize(dir, identity, wanted.capacity()) {
                Ok(()) => tracing::info!(
                    pool = %identity.id, before, now = wanted.capacity(), "the shared pool's size is changed"
                ),
                Err(e) => {
                    verdict.message =
                        format!("the pool keeps its size, its identity cannot be written: {e}");
                }
            }
        }
        _ => {}
    }
}

/// See [`share`](crate::Provisioner::share).
pub(crate) fn request(store: &Store, pool: SharedPool) -> Result<(), Error> {
    store.require_writer()?;
    lock(&store.state).shared = Some(pool);
    Ok(())
}

fn ensure(pools: &Dir, name: &str) -> io::Result<()> {
    if pools.make(name, 0o700)? {
        pools.sync()?;
    }
    Ok(())
}

/// Writes the identity with another capacity. Nothing else in it ever changes.
fn resize(dir: &Dir, identity: &mut Identity, capacity: u64) -> io::Result<()> {
    let resized = Identity {
        capacity: Some(capacity),
        ..identity.clone()
    };
    let meta = dir.open(META, Mounts::Stay)?;
    meta.write(IDENTITY, &envelope::encode(&resized))?;
    *identity = resized;
    Ok(())
}

/// The requested shared pool, if `name` is its directory.
fn requested(store: &Store, name: &str) -> Option<SharedPool> {
    let wanted = lock(&store.state).shared.clone();
    wanted.filter(|wanted| wanted.dir() == name)
}
