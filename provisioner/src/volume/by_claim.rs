//! By-claim links: `by-claim/<namespace>/<claim>` points to the data: to the directory, or
//! to the image, and while an image is staged, to the place where its files can be seen.
//! Only people read them; all of them can be rebuilt from the records.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::layout::{DATA, VOLUMES};
use crate::locks::lock;
use crate::pool::record::VolumeRecord;
use crate::store::{Entry, Store};
use crate::types::{Backend, PoolId, VolumeMode};

/// Directory of the links, under the root.
pub(crate) const BY_CLAIM: &str = "by-claim";

/// Where every link of ours begins.
const UP: &str = "../../pools/";

/// A link that should be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link {
    pub(crate) namespace: String,
    pub(crate) claim: String,
    pub(crate) target: String,
}

/// Whether a link is Berth's, judging by its target.
pub(crate) fn is_ours(store: &Store, target: &Path) -> bool {
    target.starts_with(UP) || staged_below(store).is_some_and(|dir| target.starts_with(dir))
}

/// Where volumes are staged, read once for all links.
pub(crate) struct Staged(HashSet<PathBuf>);

impl Staged {
    /// As the mount table says now; nowhere if it cannot be read.
    pub(crate) fn now(store: &Store) -> Self {
        let Some(below) = staged_below(store) else {
            return Self(HashSet::new());
        };
        let table = store.sys.mounts().unwrap_or_default();
        let points = table.into_iter().map(|mount| mount.point);
        Self(points.filter(|point| point.starts_with(&below)).collect())
    }

    /// Whether a link leads to where a volume is staged.
    fn has(&self, target: &OsStr) -> bool {
        self.0.contains(Path::new(target))
    }
}

/// Where kubelet has volumes staged.
fn staged_below(store: &Store) -> Option<PathBuf> {
    let kubelet = store.config.kubelet_dir.canonicalize().ok()?;
    Some(kubelet.join("plugins"))
}

/// Whether a link leads where it should: to its volume, or to where that is mounted.
pub(crate) fn is_right(link: &Link, target: &OsStr, staged: &Staged) -> bool {
    *target == *link.target || staged.has(target)
}

/// Links an image that was staged to the place where its files are, and one that was
/// unstaged to the image again.
pub(crate) fn link_staged(store: &Store, id: &str, staging: Option<&Path>) {
    let found = lock(&store.state).pools.values().find_map(|pool| {
        let Entry::Intact(record) = pool.volumes.get(id)? else {
            return None;
        };
        Some((pool.dir.clone(), record.as_ref().clone()))
    });
    let Some((dir, record)) = found else { return };
    if record.backend != Backend::Image || record.mode != VolumeMode::Filesystem {
        return;
    }
    let Some(mut link) = link_of(&dir, &record) else {
        return;
    };
    let set = match staging.and_then(|path| path.canonicalize().ok()) {
        Some(staging) => {
            link.target = staging.to_string_lossy().into_owned();
            set_link(store, &link)
        }
        // It may be staged elsewhere still.
        None => keep_link(store, &link, &Staged::now(store)),
    };
    if let Err(e) = set {
        tracing::warn!(volume = id, error = %e, "no by-claim link");
    }
}

/// The links that the records ask for. Should two volumes claim one name, the
/// newer one has it.
pub(crate) fn wanted_links(store: &Store) -> Vec<Link> {
    let state = lock(&store.state);
    let mut records: Vec<(&VolumeRecord, &str)> = state
        .pools
        .values()
        .flat_map(|pool| {
            pool.volumes
                .values()
                .map(|entry| (entry, pool.dir.as_str()))
        })
        .filter_map(|(entry, dir)| match entry {
            Entry::Intact(record) => Some((record.as_ref(), dir)),
            Entry::Damaged(_) => None,
        })
        .collect();
    records.sort_by(|a, b| (&a.0.created, &a.0.id).cmp(&(&b.0.created, &b.0.id)));
    let mut links: std::collections::BTreeMap<(String, String), String> =
        std::collections::BTreeMap::new();
    for (record, dir) in records {
        if let Some(link) = link_of(dir, record) {
            links.insert((link.namespace, link.claim), link.target);
        }
    }
    links
        .into_iter()
        .map(|((namespace, claim), target)| Link {
            namespace,
            claim,
            target,
        })
        .collect()
}

/// Whether a link points to a volume with a damaged record, or to a mount that may be its:
/// the link is probably right, and leads people to the data.
pub(crate) fn is_damaged(store: &Store, link: &OsStr, staged: &Staged) -> bool {
    let shows_mount = staged.has(link);
    lock(&store.state).pools.values().any(|pool| {
        pool.volumes.iter().any(|(id, entry)| {
            let is_its = || shows_mount || *target(&pool.dir, id) == *link;
            matches!(entry, Entry::Damaged(_)) && is_its()
        })
    })
}

/// Links every volume of a pool that was registered.
pub(crate) fn link_pool(store: &Store, id: &PoolId) {
    let (dir, records) = match lock(&store.state).pools.get(id) {
        Some(pool) => {
            let records: Vec<VolumeRecord> = pool
                .volumes
                .values()
                .filter_map(|entry| match entry {
                    Entry::Intact(record) => Some(record.as_ref().clone()),
                    Entry::Damaged(_) => None,
                })
                .collect();
            (pool.dir.clone(), records)
        }
        None => return,
    };
    let staged = Staged::now(store);
    for record in &records {
        link_unless(store, &dir, record, &staged);
    }
}

/// Links a volume that was made or found; the volume is usable without.
pub(crate) fn link(store: &Store, dir: &str, record: &VolumeRecord) {
    link_unless(store, dir, record, &Staged::now(store));
}

fn link_unless(store: &Store, dir: &str, record: &VolumeRecord, staged: &Staged) {
    if let Some(link) = link_of(dir, record)
        && let Err(e) = keep_link(store, &link, staged)
    {
        tracing::warn!(volume = record.id, error = %e, "no by-claim link");
    }
}

/// Removes the link of a volume that was deleted, unless its name is another
/// volume's by now.
pub(crate) fn unlink(store: &Store, dir: &str, record: &VolumeRecord) {
    let Some(link) = link_of(dir, record) else {
        return;
    };
    let removed = directory(store).and_then(|by_claim| {
        let namespace = by_claim.open(&link.namespace, Mounts::Stay)?;
        if namespace
            .read_link(&link.claim)?
            .is_some_and(|target| is_right(&link, &target, &Staged::now(store)))
        {
            namespace.remove_file(&link.claim)?;
        }
        if namespace.names()?.is_empty() {
            by_claim.remove_empty(&link.namespace)?;
        }
        Ok(())
    });
    if let Err(e) = removed
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(volume = record.id, error = %e, "by-claim link is not removed");
    }
}

/// See [`repair_links`](crate::Provisioner::repair_links).
pub(crate) fn repair(store: &Store) -> Result<u64, Error> {
    store.require_writer()?;
    let mut changed = 0;
    let wanted = wanted_links(store);
    let path = store.config.root.join(BY_CLAIM);
    let staged = Staged::now(store);
    for link in &wanted {
        if keep_link(store, link, &staged).context("linking in", &path)? {
            changed += 1;
        }
    }
    let by_claim = directory(store).context("opening", &path)?;
    for namespace in by_claim.directories().context("listing", &path)? {
        let dir = by_claim
            .open(&namespace, Mounts::Stay)
            .context("opening", path.join(&namespace))?;
        for name in dir.names().context("listing", dir.path())? {
            let Some(target) = dir.read_link(&name).context("reading", dir.path())? else {
                continue;
            };
            let known = wanted
                .iter()
                .any(|link| link.namespace == namespace && *link.claim == *name);
            if is_ours(store, Path::new(&target)) && !known && !is_damaged(store, &target, &staged)
            {
                dir.remove_file(&name).context("removing", dir.path())?;
                changed += 1;
            }
        }
    }
    Ok(changed)
}

/// The target of a volume's link.
fn target(dir: &str, id: &str) -> String {
    format!("{UP}{dir}/{VOLUMES}/{id}/{DATA}")
}

fn link_of(dir: &str, record: &VolumeRecord) -> Option<Link> {
    let claim = record.claim.as_ref()?;
    // Records are ours, but a disk may have been through other hands.
    crate::names::dns_label("namespace", &claim.namespace).ok()?;
    crate::names::dns_subdomain("claim", &claim.name).ok()?;
    Some(Link {
        namespace: claim.namespace.clone(),
        claim: claim.name.clone(),
        target: target(dir, &record.id),
    })
}

fn directory(store: &Store) -> io::Result<Dir> {
    Dir::open_root(&store.config.root)?.ensure(BY_CLAIM, 0o700, Mounts::Stay)
}

/// Sets a link, unless it leads where its volume is mounted.
fn keep_link(store: &Store, link: &Link, staged: &Staged) -> io::Result<bool> {
    let namespace = directory(store)?.ensure(&link.namespace, 0o700, Mounts::Stay)?;
    match namespace.read_link(&link.claim)? {
        Some(target) if is_right(link, &target, staged) => Ok(false),
        _ => set_link(store, link),
    }
}

fn set_link(store: &Store, link: &Link) -> io::Result<bool> {
    let namespace = directory(store)?.ensure(&link.namespace, 0o700, Mounts::Stay)?;
    if namespace
        .read_link(&link.claim)?
        .is_some_and(|target| *target == *link.target)
    {
        return Ok(false);
    }
    if let Some(kind) = namespace.kind(&link.claim)?
        && kind != Kind::Link
    {
        return Err(io::Error::other(format!(
            "{} is not a link; it is left alone",
            namespace.path().join(&link.claim).display()
        )));
    }
    namespace.link(&link.claim, &link.target)?;
    Ok(true)
}
