//! Problems of pools and volumes that are usable all the same, present or imminent.
//! They are determined anew for every report. Messages omit changing numbers, so that
//! an unchanged problem is not written again.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_linux::mountinfo::MountEntry;

use crate::fs::dir::Dir;
use crate::layout::{DATA, VOLUMES};
use crate::locks::lock;
use crate::mount::loop_image;
use crate::pool::record::VolumeRecord;
use crate::pool::{Pool, ledger};
use crate::store::lookup::Data;
use crate::store::{Entry, Store, Trashed, lookup};
use crate::sys::{Errors, Loop, Qgroups};
use crate::types::{Backend, VolumeMode};
use berth_model::{Problem, ProblemKind};

/// Failed steps of an erasure before it is reported: the data may still be in use
/// for a moment.
const PATIENT_STEPS: u32 = 5;

/// Below this, nothing more fits into a pool: the smallest limit that btrfs and
/// images can have.
const SMALLEST_ROOM: u64 = 16 << 20;

/// How full a volume is, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsedSpace {
    pub(crate) used: u64,
    /// What can be used in all.
    pub(crate) total: u64,
}

/// A pool whose ledger has no room for another volume.
pub(crate) fn full_pool(room: u64) -> Option<Problem> {
    (room < SMALLEST_ROOM).then(|| {
        ProblemKind::Full.with(
            "all of it is promised: no new volume fits, and none can grow; delete claims that are \
             not needed, or add a pool",
        )
    })
}

/// Errors that the filesystem of `dir` counted; empty if it does not count.
pub(crate) fn errors(store: &Store, dir: &Dir) -> Vec<Errors> {
    store.sys.errors(dir).unwrap_or_default()
}

/// Problems of a pool that can be used.
pub(crate) fn pool_problems(
    store: &Store,
    pool: &Pool,
    errors: &[Errors],
    qgroups: Option<&Qgroups>,
) -> Vec<Problem> {
    let stuck = lock(&store.state)
        .pools
        .get(&pool.identity.id)
        .and_then(|state| trash_stuck(&state.trash));
    [
        io_errors(errors, &pool.filesystem.fstype, pool.dir.path()),
        space_short(
            pool.filesystem.free,
            unwritten(store, pool, qgroups),
            pool.filesystem.size,
        ),
        stuck,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Problems of a volume that can be used.
pub(crate) fn volume_problems(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    fill: Option<UsedSpace>,
    table: &[MountEntry],
    loops: &[Loop],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if pool.filesystem.read_only {
        problems.push(ProblemKind::ReadOnly.with(format!(
            "pool {} is mounted read-only: writes fail until it is mounted writable again",
            pool.identity.id
        )));
    }
    if record.backend == Backend::Image && record.mode == VolumeMode::Filesystem {
        problems.extend(image_problems(store, pool, record, table, loops));
    }
    problems.extend(fill.and_then(full_volume));
    problems
}

/// A volume that will soon refuse writes: less than a twentieth is left.
fn full_volume(fill: UsedSpace) -> Option<Problem> {
    (fill.used >= fill.total - fill.total / 20).then(|| {
        ProblemKind::Full.with(
            "95 % of its size or more is used, and writes will fail when all is: delete files, or \
             raise the claim's storage request",
        )
    })
}

/// The errors that a filesystem counted, and how to inspect and reset the counters.
fn io_errors(errors: &[Errors], fstype: &str, path: &Path) -> Option<Problem> {
    let kinds: Vec<_> = errors
        .iter()
        .filter(|errors| errors.count > 0)
        .map(|errors| errors.kind)
        .collect();
    if kinds.is_empty() {
        return None;
    }
    let path = path.display();
    let advice = match fstype {
        "btrfs" => format!(
            "`btrfs device stats {path}` shows how many; once the disk is known to be sound, reset \
             them with `btrfs device stats -z {path}`"
        ),
        _ => "the kernel's log shows them; once the disk is known to be sound, unmount it and \
              repair it with `e2fsck -f`, which resets them"
            .to_owned(),
    };
    let kinds = kinds.join(", ");
    Some(ProblemKind::IoErrors.with(format!(
        "the filesystem met errors ({kinds}): copy the data away and look at the disk; {advice}"
    )))
}

/// A filesystem with less free than volumes may still write. It may be short by what
/// was held back for its own metadata: that is what used it.
fn space_short(free: u64, unwritten: u64, size: u64) -> Option<Problem> {
    (free.saturating_add(ledger::reserve(size)) < unwritten).then(|| {
        ProblemKind::SpaceShort.with(
            "the filesystem has less free than what its volumes may still write, so writes can \
             fail before a volume is full: remove from it what is not Berth's, or move claims to \
             another pool",
        )
    })
}

/// Deleted data that cannot be erased.
fn trash_stuck<'a>(trash: impl IntoIterator<Item = (&'a String, &'a Trashed)>) -> Option<Problem> {
    let (name, why) = trash
        .into_iter()
        .filter(|(_, trashed)| trashed.tries > PATIENT_STEPS)
        .find_map(|(name, trashed)| Some((name, trashed.why.as_ref()?)))?;
    Some(ProblemKind::TrashStuck.with(format!(
        "what was deleted cannot be erased and keeps its space: trash/{name}: {why}"
    )))
}

/// Bytes that volumes of the pool may certainly still write: volumes whose usage
/// nothing counts are left out.
fn unwritten(store: &Store, pool: &Pool, qgroups: Option<&Qgroups>) -> u64 {
    let records: Vec<VolumeRecord> = lock(&store.state)
        .pools
        .get(&pool.identity.id)
        .into_iter()
        .flat_map(|state| state.volumes.values())
        .filter_map(|entry| match entry {
            Entry::Intact(record) => Some(record.as_ref().clone()),
            Entry::Damaged(_) => None,
        })
        .collect();
    let written = |record: &VolumeRecord| match record.backend {
        Backend::Btrfs => Some(qgroups?.get(&record.subvolume?)?.used),
        Backend::ProjectQuota => {
            let project = store.sys.project(&pool.dir, record.project?);
            Some(project.ok()?.used)
        }
        // A copy is as sparse as its source's data is, whatever was asked for.
        Backend::Image if record.sparse || record.source.is_some() => {
            match lookup::open_data(store, pool, record).ok()? {
                Data::Image(image) => Some(image.metadata().ok()?.blocks() * 512),
                Data::Tree(_) => None,
            }
        }
        // Its blocks are its own already, or it has no limit.
        Backend::Image | Backend::Directory => None,
    };
    records
        .iter()
        .filter_map(|record| Some(record.enforced.saturating_sub(written(record)?)))
        .fold(0, u64::saturating_add)
}

/// Problems of the filesystem inside an image.
fn image_problems(
    store: &Store,
    pool: &Pool,
    record: &VolumeRecord,
    table: &[MountEntry],
    loops: &[Loop],
) -> Vec<Problem> {
    // One that was mounted read-only on purpose is so by the mount as well.
    let refuses_writes = table.iter().any(|mount| {
        mount.filesystem_read_only
            && !mount.read_only
            && loops
                .iter()
                .any(|it| loop_image::shows_inside(mount, it.number))
    });
    let image = pool.dir.path().join(VOLUMES).join(&record.id).join(DATA);
    let repair = format!(
        "delete the pods that use it, and once it is unmounted run `e2fsck -f {}` on the node",
        image.display()
    );
    let mut problems = Vec::new();
    if refuses_writes {
        problems.push(ProblemKind::ReadOnly.with(format!(
            "the filesystem in the image met an error and refuses writes: {repair}"
        )));
    }
    let mounted = loop_image::mounted_among(store, loops, table);
    if mounted.is_some() && loop_image::is_behind(store, pool, record) {
        problems.push(ProblemKind::NotGrown.with(
            "the volume has grown, and the filesystem in its image has not: the agent has no right \
             to resize it while it is mounted (CAP_SYS_RESOURCE); it grows when the pods that use it \
             are started anew",
        ));
    }
    let errors = mounted.map(|dir| errors(store, &dir)).unwrap_or_default();
    if errors.iter().any(|errors| errors.count > 0) {
        let repair = match refuses_writes {
            // The other problem says it.
            true => String::new(),
            false => format!(", then {repair}"),
        };
        problems.push(ProblemKind::IoErrors.with(format!(
            "the filesystem in the image met errors: copy the data away{repair}"
        )));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counts: &[(&'static str, u64)]) -> Vec<Errors> {
        counts
            .iter()
            .map(|(kind, count)| Errors {
                kind,
                count: *count,
            })
            .collect()
    }

    #[test]
    fn only_errors_that_were_met_are_named() {
        let path = Path::new("/p");
        assert_eq!(io_errors(&counted(&[("read", 0)]), "btrfs", path), None);
        let met = counted(&[("write", 2), ("read", 0), ("corruption", 1)]);
        let problem = io_errors(&met, "btrfs", path).unwrap();
        assert_eq!(problem.kind, ProblemKind::IoErrors);
        for words in ["(write, corruption)", "device stats -z /p"] {
            assert!(problem.message.contains(words), "{}", problem.message);
        }
        let more = counted(&[("write", 3), ("read", 0), ("corruption", 9)]);
        assert_eq!(io_errors(&more, "btrfs", path), Some(problem));
        let ext4 = io_errors(&counted(&[("filesystem", 1)]), "ext4", path).unwrap();
        assert!(ext4.message.contains("e2fsck"), "{}", ext4.message);
    }

    #[test]
    fn nearly_full_is_full() {
        let fill = |used| UsedSpace { used, total: 100 };
        assert_eq!(full_volume(fill(94)), None);
        let full = full_volume(fill(95)).map(|it| it.kind);
        assert_eq!(full, Some(ProblemKind::Full));
        assert_eq!(full_pool(SMALLEST_ROOM), None);
        assert!(full_pool(SMALLEST_ROOM - 1).is_some());
        let (size, kept) = (1 << 30, ledger::reserve(1 << 30));
        assert_eq!(space_short(5, 5 + kept, size), None);
        assert!(space_short(4, 5 + kept, size).is_some());
    }

    #[test]
    fn trash_is_stuck_after_some_failed_steps() {
        let name = "pvc-1.0".to_owned();
        let mut trashed = Trashed::new(None);
        let stuck = |trashed: &Trashed| trash_stuck([(&name, trashed)]).map(|t| t.message);
        trashed.tries = PATIENT_STEPS + 1;
        assert_eq!(stuck(&trashed), None, "it only takes long");
        trashed.why = Some("a mount in it".to_owned());
        let message = stuck(&trashed).unwrap();
        assert!(
            message.ends_with("trash/pvc-1.0: a mount in it"),
            "{message}"
        );
        trashed.tries = 1;
        assert_eq!(stuck(&trashed), None);
    }
}
