//! What lies outside the pools: by-claim links, and mounts below kubelet's
//! directory.

use std::collections::BTreeSet;
use std::path::Path;

use berth_linux::DeviceNumber;
use berth_linux::loops::MAJOR;
use berth_linux::mountinfo::MountEntry;
use nix::sys::stat::fstat;

use crate::fs::dir::{Dir, Mounts};
use crate::layout::{DATA, VOLUMES};
use crate::locks::lock;
use crate::mount::loop_image::{LoopIndex, shows_inside, shows_node};
use crate::pool::Pool;
use crate::report::check::findings::Findings;
use crate::store::{Store, lookup};
use crate::sys::Loop;
use crate::types::FindingKind;
use crate::volume::by_claim::{self, BY_CLAIM, Link, is_ours};

pub(super) fn links(findings: &mut Findings, store: &Store) {
    let wanted = by_claim::wanted_links(store);
    let staged = by_claim::Staged::now(store);
    let root = store.config.root.join(BY_CLAIM);
    let by_claim = Dir::open_root(&store.config.root)
        .and_then(|root| root.open(BY_CLAIM, Mounts::Stay))
        .ok();
    let namespace_of = |link: &Link| {
        by_claim
            .as_ref()
            .and_then(|dir| dir.open(&link.namespace, Mounts::Stay).ok())
    };
    let advice = "restart the agent: it makes links anew; remove a link that leads nowhere";
    for link in &wanted {
        findings.count();
        let namespace = namespace_of(link);
        let found = namespace
            .as_ref()
            .and_then(|dir| dir.read_link(&link.claim).ok().flatten());
        if found
            .as_deref()
            .is_some_and(|found| by_claim::is_right(link, found, &staged))
        {
            continue;
        }
        let there = namespace.and_then(|dir| dir.kind(&link.claim).ok().flatten());
        let (what, advice) = match (found, there) {
            (Some(found), _) => (format!("points to {}", found.to_string_lossy()), advice),
            (None, None) => ("missing".to_owned(), advice),
            (None, Some(_)) => (
                "not a link, so that the volume has none".to_owned(),
                "move it away, then restart the agent",
            ),
        };
        let path = root.join(&link.namespace).join(&link.claim);
        findings.add(FindingKind::StaleLink, None, None, path, what, advice);
    }
    let Some(by_claim) = &by_claim else { return };
    for namespace in by_claim.directories().unwrap_or_default() {
        let Ok(dir) = by_claim.open(&namespace, Mounts::Stay) else {
            continue;
        };
        for name in dir.names().unwrap_or_default() {
            findings.count();
            let known = wanted
                .iter()
                .any(|link| link.namespace == namespace && *link.claim == *name);
            let ours = dir.read_link(&name).ok().flatten().is_some_and(|target| {
                is_ours(store, Path::new(&target)) && !by_claim::is_damaged(store, &target, &staged)
            });
            if ours && !known {
                let path = dir.path().join(&name);
                let what = "links to a volume that is not there";
                findings.add(FindingKind::StaleLink, None, None, path, what, advice);
            }
        }
    }
}

/// Mounts below kubelet's directory that look like volumes of these pools, or of
/// images in them, and are in no record.
pub(super) fn mounts(findings: &mut Findings, store: &Store, pools: &[Pool]) {
    // No kubelet, no mounts of its: an empty path would be above every mount.
    let Ok(kubelet) = store.config.kubelet_dir.canonicalize() else {
        return;
    };
    let table = store.sys.mounts().unwrap_or_default();
    let below: Vec<&MountEntry> = table
        .iter()
        .filter(|mount| mount.point.starts_with(&kubelet))
        .collect();
    let of_pools = pools
        .iter()
        .filter_map(|pool| fstat(&pool.dir).ok())
        .map(|stat| DeviceNumber::from_stat(stat.st_dev))
        .collect();
    let strangers = match below.iter().any(|mount| mount.device.major == MAJOR) {
        true => unknown_loops(store, pools, &of_pools),
        false => Vec::new(),
    };
    for mount in below {
        // The rest of a filesystem may be the system's, kubelet's own too.
        let in_pool = pools.iter().any(|pool| {
            pool.mount.device == mount.device && mount.root.starts_with(pool.inside(""))
        });
        let image = strangers
            .iter()
            .any(|it| shows_inside(mount, it.number) || shows_node(mount, it.number));
        if !in_pool && !image {
            continue;
        }
        findings.count();
        let parts: Vec<&str> = mount
            .root
            .components()
            .filter_map(|part| part.as_os_str().to_str())
            .collect();
        let known = parts.windows(3).any(|part| {
            part[0] == VOLUMES && part[2] == DATA && lookup::pool_of(store, part[1]).is_some()
        });
        if known && !image {
            continue;
        }
        let what = match image {
            true => "shows an image in a pool that no record describes".to_owned(),
            false => format!("shows {}, which no record describes", mount.root.display()),
        };
        findings.add(
            FindingKind::UnknownMount,
            None,
            None,
            mount.point.clone(),
            what,
            "see which pod uses it; unmount it when none does",
        );
    }
}

/// Loop devices of files in pools that are no volume's image.
fn unknown_loops(store: &Store, pools: &[Pool], of_pools: &BTreeSet<DeviceNumber>) -> Vec<Loop> {
    let mut loops = store.sys.loops().unwrap_or_default();
    let index = LoopIndex::new(loops.clone());
    loops.retain(|it| of_pools.contains(&it.file.device));
    let mut known = BTreeSet::new();
    for pool in pools {
        let ids: Vec<String> = lock(&store.state)
            .pools
            .get(&pool.identity.id)
            .into_iter()
            .flat_map(|state| state.volumes.keys().cloned())
            .collect();
        for id in ids {
            known.extend(index.of(store, pool, &id));
        }
    }
    loops.retain(|it| !known.contains(it));
    loops
}
