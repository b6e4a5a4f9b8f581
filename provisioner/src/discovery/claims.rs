//! Which directory has a pool, where several show its id: the one that was there first
//! keeps it for as long as it shows the pool, and the other is a copy.

use crate::locks::lock;
use crate::store::Store;
use crate::types::PoolId;

/// Claims the pool for a directory; the other directory that has it, if one does.
pub(crate) fn claim(store: &Store, id: &PoolId, dir: &str) -> Result<(), String> {
    let mut state = lock(&store.state);
    match state.claims.get(id) {
        Some(other) if other != dir => return Err(other.clone()),
        _ => {}
    }
    state.claims.insert(id.clone(), dir.to_owned());
    drop(state);
    release(store, dir, Some(id));
    Ok(())
}

/// Gives up what a directory had claimed, except `kept`: the pools are read again where
/// they are found next.
pub(crate) fn release(store: &Store, dir: &str, kept: Option<&PoolId>) {
    let mut given_up = false;
    let mut state = lock(&store.state);
    state.claims.retain(|id, at| {
        let stays = at != dir || Some(id) == kept;
        given_up |= !stays;
        stays
    });
    for (id, pool) in &mut state.pools {
        if pool.dir == dir && pool.usable && Some(id) != kept {
            pool.usable = false;
            tracing::warn!(pool = %id, dir, "pool is not there any more");
        }
    }
    drop(state);
    if given_up {
        // The pool may have been refused elsewhere because it was here.
        for picture in store.desks.pictures() {
            if picture.dir != dir {
                store.desks.ask(&picture.dir);
            }
        }
    }
}

/// Forgets that other directories had this pool: it moved here, and is not lost there.
pub(crate) fn forget_elsewhere(store: &Store, id: &PoolId, dir: &str) {
    let mut left = Vec::new();
    lock(&store.state).known.retain(|at, known| {
        let stays = at == dir || known.id != *id;
        if !stays {
            left.push(at.clone());
        }
        stays
    });
    for dir in left {
        store.desks.ask(&dir);
    }
}
