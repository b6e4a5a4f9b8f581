//! xfs and ext4 with project quotas: a volume is a directory, its size the limit
//! of the project that everything in it belongs to.
//!
//! Whoever is root on the host, or in a container without a user namespace, may
//! move files to another project and so past the limit; SECURITY.md says so.

use std::io;

use super::copy;
use super::directory::{Directory, fill};
use super::driver::{DataSpec, Driver, EraseProgress, NewData, Stillness, StoredData};
use crate::fs::dir::{Dir, Mounts};
use crate::layout::DATA;
use crate::sys::{Filesystem, Project, ProjectLimits, Space, Sys};
use crate::types::VolumeMode;

/// The first project id that Berth uses: far above ids that people assign.
const FIRST: u32 = 0x4000_0000;

/// Smallest limit: room for the directory itself and a first write.
const MINIMUM: u64 = 1 << 20;

/// Limits are kept in blocks; a page is a multiple of all of them.
const GRAIN: u64 = 4096;

/// The least number of inodes that a volume may take: small claims hold small files too.
const LEAST_INODES: u64 = 1024;

/// Bytes for one inode where inodes are made as they are needed (xfs): what mkfs.ext4 takes
/// where nobody says otherwise. An inode of 512 bytes is then 3 % of a volume's size, which
/// counts towards no project.
const BYTES_PER_INODE: u64 = 16 << 10;

pub(crate) struct ProjectQuota;

/// How many inodes a volume of `enforced` bytes may take: its share of those that the
/// filesystem of `size` bytes has, rounded up, and never less than [`LEAST_INODES`]. So a
/// volume full of empty files leaves its neighbours theirs. `None` where the filesystem
/// counts none.
///
/// Where inodes are made as they are needed (`grows`), the filesystem tells how many it
/// could still make, which shrinks as it fills; a volume gets no more than one for each
/// [`BYTES_PER_INODE`].
fn inode_share(inodes: u64, size: u64, enforced: u64, grows: bool) -> Option<u64> {
    if inodes == 0 || size == 0 {
        return None;
    }
    let share = (u128::from(inodes) * u128::from(enforced)).div_ceil(u128::from(size));
    let share = u64::try_from(share).unwrap_or(u64::MAX);
    let most = match grows {
        true => enforced.div_ceil(BYTES_PER_INODE),
        false => u64::MAX,
    };
    Some(share.min(most).max(LEAST_INODES))
}

/// What a project of `enforced` bytes on the filesystem of `dir` may take. What it has
/// already stays enough: a limit of its inodes is never lowered, and a volume that was
/// filled before there was one can still be used.
fn limits(sys: &dyn Sys, dir: &Dir, enforced: u64, has: Project) -> io::Result<ProjectLimits> {
    let filesystem = sys.filesystem(dir, &sys.mount_of(dir)?)?;
    let inodes = sys.space(dir)?.inodes;
    let share = inode_share(
        inodes,
        filesystem.size,
        enforced,
        filesystem.fstype == "xfs",
    );
    let enough = match (has.inode_limit, has.inodes) {
        (None, 1..) => has.inodes.saturating_add(LEAST_INODES),
        _ => 0,
    };
    Ok(ProjectLimits {
        bytes: enforced,
        inodes: share.map(|share| share.max(enough).max(has.inode_limit.unwrap_or(0))),
    })
}

/// The lowest project that is neither in `taken`, which is sorted, nor known to the
/// filesystem, where files of a volume that nobody knows may still count towards it.
pub(crate) fn free_project(sys: &dyn Sys, pool: &Dir, taken: &[u32]) -> io::Result<u32> {
    let mut candidate = FIRST;
    loop {
        if taken.binary_search(&candidate).is_err() {
            let known = sys.project(pool, candidate)?;
            if known == Project::default() {
                return Ok(candidate);
            }
        }
        candidate = candidate
            .checked_add(1)
            .ok_or_else(|| io::Error::other("every project number is taken"))?;
    }
}

fn project(spec: DataSpec) -> io::Result<u32> {
    spec.project
        .ok_or_else(|| io::Error::other("the record names no project"))
}

/// Makes an empty directory with the limits of a volume that will soon have as many inodes
/// as `has`.
fn make(new: &NewData<'_>, has: Project) -> io::Result<Option<u64>> {
    // In no project yet: afterwards the filesystem tells the project's inodes for its own.
    let limits = limits(new.sys, new.parent, new.spec.enforced, has)?;
    Directory.create(new)?;
    let project = project(new.spec)?;
    let data = new.parent.open(DATA, Mounts::Stay)?;
    new.sys.set_project(&data, project)?;
    new.sys.limit_project(&data, project, Some(limits))?;
    Ok(None)
}

impl Driver for ProjectQuota {
    fn why_not(&self, sys: &dyn Sys, pool: &Dir, filesystem: &Filesystem) -> Option<String> {
        let fstype = filesystem.fstype.as_str();
        if !["xfs", "ext4"].contains(&fstype) {
            return Some(format!("the filesystem is {fstype}"));
        }
        match sys.project_quotas(pool) {
            Ok(true) => None,
            Ok(false) => Some(match fstype {
                "xfs" => "it is mounted without project quotas; mount it with `-o prjquota`".into(),
                _ => "it has no project quotas; make it with `mkfs.ext4 -O project,quota -E \
                      quotatype=prjquota` and mount it with `-o prjquota`"
                    .into(),
            }),
            Err(e) => Some(format!("its quotas cannot be read: {e}")),
        }
    }

    fn round_up(&self, size: u64, _mode: VolumeMode) -> u64 {
        size.max(MINIMUM).next_multiple_of(GRAIN)
    }

    fn create(&self, new: &NewData<'_>) -> io::Result<Option<u64>> {
        make(new, Project::default())
    }

    fn copy(
        &self,
        new: &NewData<'_>,
        source: &StoredData<'_>,
        _snapshot: bool,
        _still: &dyn Stillness,
    ) -> io::Result<Option<u64>> {
        let from = source.sys.project(source.pool, project(source.spec)?)?;
        let has = Project {
            inodes: from.inodes,
            ..Project::default()
        };
        make(new, has)?;
        fill(new, source)
    }

    fn limit(&self, stored: &StoredData<'_>) -> io::Result<()> {
        let project = project(stored.spec)?;
        let has = stored.sys.project(stored.pool, project)?;
        let enforced = stored.spec.enforced;
        // Volumes of an older program have no limit of their inodes.
        if has.limit == Some(enforced) && has.inode_limit.is_some() {
            return Ok(());
        }
        let limits = limits(stored.sys, stored.pool, enforced, has)?;
        if has.limit == Some(limits.bytes) && has.inode_limit == limits.inodes {
            return Ok(());
        }
        stored.sys.limit_project(stored.pool, project, Some(limits))
    }

    fn matches_record(&self, stored: &StoredData<'_>) -> io::Result<bool> {
        let data = stored.dir.open(DATA, Mounts::Stay)?;
        Ok(Some(stored.sys.project_of(&data)?) == stored.spec.project)
    }

    fn shares(&self, stored: &StoredData<'_>) -> io::Result<bool> {
        copy::shares(stored.sys, &stored.dir.open(DATA, Mounts::Stay)?)
    }

    fn pinned(&self, stored: &StoredData<'_>) -> io::Result<u64> {
        stored.sys.commit(stored.pool)?;
        Ok(stored.sys.project(stored.pool, project(stored.spec)?)?.used)
    }

    fn space(&self, stored: &StoredData<'_>) -> io::Result<Option<Space>> {
        let known = stored.sys.project(stored.pool, project(stored.spec)?)?;
        let all = stored.sys.space(stored.pool)?;
        Ok(Some(Space {
            total: stored.spec.enforced,
            used: known.used,
            available: stored.spec.enforced.saturating_sub(known.used),
            inodes: known.inode_limit.unwrap_or(all.inodes),
            inodes_used: known.inodes,
        }))
    }

    fn erase(
        &self,
        sys: &dyn Sys,
        parent: &Dir,
        spec: Option<DataSpec>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> io::Result<EraseProgress> {
        let erased = Directory.erase(sys, parent, spec, keep_going)?;
        if erased == EraseProgress::Freed
            && let Some(project) = spec.and_then(|spec| spec.project)
        {
            // From now on the id may be used again.
            sys.limit_project(parent, project, None)?;
        }
        Ok(erased)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_are_shared_out_as_bytes_are() {
        const GIB: u64 = 1 << 30;
        // ext4 as it is made by default: an inode for each 16 KiB.
        for (inodes, size, enforced, share) in [
            (65_536, GIB, GIB, Some(65_536)),
            (65_536, GIB, GIB / 4, Some(16_384)),
            // Rounded up, and enough for a small claim.
            (65_536, GIB, GIB / 4 + 1, Some(16_385)),
            (65_536, GIB, 1 << 20, Some(LEAST_INODES)),
            (65_536, GIB, 0, Some(LEAST_INODES)),
            // One that was made for few files.
            (1_000, GIB, GIB, Some(LEAST_INODES)),
            // btrfs and others count none.
            (0, GIB, GIB, None),
            (65_536, 0, GIB, None),
            (u64::MAX, GIB, GIB, Some(u64::MAX)),
            (u64::MAX, 1, u64::MAX, Some(u64::MAX)),
        ] {
            let told = inode_share(inodes, size, enforced, false);
            assert_eq!(told, share, "{inodes} {size} {enforced}");
        }
    }

    #[test]
    fn where_inodes_are_made_as_needed_a_full_disk_takes_none_away() {
        const GIB: u64 = 1 << 30;
        let share = |inodes| inode_share(inodes, 100 * GIB, 10 * GIB, true);
        // An empty xfs could make 200 million, a full one ten.
        assert_eq!(share(200_000_000), Some(655_360));
        assert_eq!(share(10_000_000), Some(655_360));
        assert_eq!(share(1_000_000), Some(100_000));
    }

    #[test]
    fn the_shares_of_a_whole_disk_are_all_there_is() {
        let (inodes, size) = (6_553_600, 100u64 << 30);
        let shares = (1..=100).map(|_| inode_share(inodes, size, size / 100, false));
        assert_eq!(shares.sum::<Option<u64>>(), Some(inodes));
    }
}
