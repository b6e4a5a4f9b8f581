//! xfs and ext4 with project quotas: a volume is a directory, its size the limit
//! of the project that everything in it belongs to.
//!
//! Whoever is root on the host, or in a container without a user namespace, may
//! move files to another project and so past the limit; SECURITY.md says so.

use std::io;

use super::directory::{Directory, fill};
use super::{Body, Driver, Erasing, Made, Making};
use crate::dir::{Dir, Mounts};
use crate::record::DATA;
use crate::sys::{Filesystem, Space, Sys};
use crate::types::VolumeMode;

/// The first project that Berth takes: far above what people number by hand.
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

fn project(body: Body) -> io::Result<u32> {
    body.project
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

    fn create(&self, making: &Making<'_>) -> io::Result<Option<u64>> {
        Directory.create(making)?;
        let project = project(making.body)?;
        let data = making.parent.open(DATA, Mounts::Stay)?;
        making.sys.set_project(&data, project)?;
        making
            .sys
            .limit_project(&data, project, Some(making.body.enforced))?;
        Ok(None)
    }

    fn copy(
        &self,
        making: &Making<'_>,
        source: &Made<'_>,
        _snapshot: bool,
    ) -> io::Result<Option<u64>> {
        self.create(making)?;
        fill(making, source)
    }

    fn limit(&self, made: &Made<'_>) -> io::Result<()> {
        let project = project(made.body)?;
        if made.sys.project(made.pool, project)?.limit == Some(made.body.enforced) {
            return Ok(());
        }
        made.sys
            .limit_project(made.pool, project, Some(made.body.enforced))
    }

    fn is_it(&self, made: &Made<'_>) -> io::Result<bool> {
        let data = made.home.open(DATA, Mounts::Stay)?;
        Ok(Some(made.sys.project_of(&data)?) == made.body.project)
    }

    fn pinned(&self, made: &Made<'_>) -> io::Result<u64> {
        made.sys.commit(made.pool)?;
        Ok(made.sys.project(made.pool, project(made.body)?)?.used)
    }

    fn space(&self, made: &Made<'_>) -> io::Result<Option<Space>> {
        let known = made.sys.project(made.pool, project(made.body)?)?;
        let all = made.sys.space(made.pool)?;
        Ok(Some(Space {
            total: made.body.enforced,
            used: known.used,
            available: made.body.enforced.saturating_sub(known.used),
            inodes: all.inodes,
            inodes_used: known.inodes,
        }))
    }

    fn erase(
        &self,
        sys: &dyn Sys,
        parent: &Dir,
        body: Option<Body>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Erasing> {
        let erased = Directory.erase(sys, parent, body, go_on)?;
        if erased == Erasing::Freed
            && let Some(project) = body.and_then(|body| body.project)
        {
            // The number may be given again now.
            sys.limit_project(parent, project, None)?;
        }
        Ok(erased)
    }
}
