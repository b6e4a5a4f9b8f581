//! xfs and ext4 with project quotas: a volume is a directory, its size the limit
//! of the project that everything in it belongs to.
//!
//! Whoever is root on the host, or in a container without a user namespace, may
//! move files to another project and so past the limit; SECURITY.md says so.

use std::io;

use super::directory::{Directory, fill};
use super::driver::{DataSpec, Driver, EraseProgress, NewData, StoredData};
use crate::fs::dir::{Dir, Mounts};
use crate::layout::DATA;
use crate::sys::{Filesystem, Space, Sys};
use crate::types::VolumeMode;

/// The first project id that Berth uses: far above ids that people assign.
const FIRST: u32 = 0x4000_0000;

/// Smallest limit: room for the directory itself and a first write.
const MINIMUM: u64 = 1 << 20;

/// Limits are kept in blocks; a page is a multiple of all of them.
const GRAIN: u64 = 4096;

pub(crate) struct ProjectQuota;

/// The lowest project that is neither in `taken`, which is sorted, nor known to the
/// filesystem, where files of a volume that nobody knows may still count towards it.
pub(crate) fn free_project(sys: &dyn Sys, pool: &Dir, taken: &[u32]) -> io::Result<u32> {
    let mut candidate = FIRST;
    loop {
        if taken.binary_search(&candidate).is_err() {
            let known = sys.project(pool, candidate)?;
            if known.used == 0 && known.inodes == 0 && known.limit.is_none() {
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
        Directory.create(new)?;
        let project = project(new.spec)?;
        let data = new.parent.open(DATA, Mounts::Stay)?;
        new.sys.set_project(&data, project)?;
        new.sys
            .limit_project(&data, project, Some(new.spec.enforced))?;
        Ok(None)
    }

    fn copy(
        &self,
        new: &NewData<'_>,
        source: &StoredData<'_>,
        _snapshot: bool,
    ) -> io::Result<Option<u64>> {
        self.create(new)?;
        fill(new, source)
    }

    fn limit(&self, stored: &StoredData<'_>) -> io::Result<()> {
        let project = project(stored.spec)?;
        if stored.sys.project(stored.pool, project)?.limit == Some(stored.spec.enforced) {
            return Ok(());
        }
        stored
            .sys
            .limit_project(stored.pool, project, Some(stored.spec.enforced))
    }

    fn matches_record(&self, stored: &StoredData<'_>) -> io::Result<bool> {
        let data = stored.dir.open(DATA, Mounts::Stay)?;
        Ok(Some(stored.sys.project_of(&data)?) == stored.spec.project)
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
            inodes: all.inodes,
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
