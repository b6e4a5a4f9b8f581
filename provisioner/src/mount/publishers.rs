//! Which pod a target was published for. A mount shows the pod's UID at most, and that in
//! its path; whether the next pod is its successor is told by the name. Remembered in files
//! under the root, because mounts outlive this process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::fs::dir::{Dir, Mounts};
use crate::fs::envelope;
use crate::locks::lock;
use crate::names::hex;
use crate::store::{Publisher, Store};

/// Directory of the files, under the root.
const PUBLISHED: &str = "published";

/// Remembers a pod before its volume is mounted, so that no mount is without one.
///
/// # Errors
/// The root's filesystem refuses the write.
pub(crate) fn remember(store: &Store, publisher: Publisher) -> io::Result<()> {
    let known = lock(&store.state)
        .publishers
        .get(&publisher.target)
        .cloned();
    if known.as_ref() == Some(&publisher) {
        return Ok(());
    }
    // What kubelet asks for without a pod's name is told by the path.
    if !publisher.pod.is_empty() {
        directory(store)?.write(&file_of(&publisher.target), &envelope::encode(&publisher))?;
    }
    let mut state = lock(&store.state);
    state.publishers.insert(publisher.target.clone(), publisher);
    Ok(())
}

/// Forgets the pod of a target that is unmounted. A file that stays is of no consequence:
/// who uses a volume is read from the mount table.
pub(crate) fn forget(store: &Store, target: &Path) {
    let known = lock(&store.state).publishers.remove(target);
    if known.is_none_or(|known| known.pod.is_empty()) {
        return;
    }
    let removed = directory(store).and_then(|all| all.remove_file(file_of(target)));
    if let Err(e) = removed
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(target = %target.display(), error = %e, "its file stays in {PUBLISHED}");
    }
}

/// Reads what an earlier process remembered. A writer removes what is mounted no more.
pub(crate) fn load(store: &Store) -> io::Result<()> {
    let mounted: Vec<PathBuf> = store.sys.mounts()?.into_iter().map(|it| it.point).collect();
    let all = match Dir::open_root(&store.config.root)?.open(PUBLISHED, Mounts::Stay) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        all => all?,
    };
    let mut found = BTreeMap::new();
    for name in all.names()? {
        let Some(name) = name.to_str() else { continue };
        let read = all.read(name, envelope::MAX_BYTES);
        let publisher = read.ok().flatten();
        let publisher = publisher.and_then(|bytes| envelope::decode::<Publisher>(&bytes).ok());
        match publisher.filter(|it| mounted.contains(&it.target)) {
            Some(publisher) => {
                found.insert(publisher.target.clone(), publisher);
            }
            // What stays is of no consequence: it is mounted no more.
            None if store.is_writer() => {
                if let Err(e) = all.remove_file(name) {
                    tracing::warn!(name, error = %e, "a file that is of no use stays in {PUBLISHED}");
                }
            }
            None => {}
        }
    }
    lock(&store.state).publishers.extend(found);
    Ok(())
}

fn directory(store: &Store) -> io::Result<Dir> {
    Dir::open_root(&store.config.root)?.ensure(PUBLISHED, 0o700, Mounts::Stay)
}

/// The name of a target's file: paths are longer than names may be.
fn file_of(target: &Path) -> String {
    hex(&Sha256::digest(target.as_os_str().as_encoded_bytes()))
}
