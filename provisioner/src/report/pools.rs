//! Reports about pools, and what their filesystems can still hold.

use std::io;

use crate::backend::{self, DataSpec};
use crate::discovery::shared;
use crate::error::{Error, IoContext};
use crate::fs::dir::is_symlink_or_mount_escape;
use crate::locks::lock;
use crate::pool::ledger::{self, Physical};
use crate::pool::{Observed, Pool, Verdict};
use crate::provisioner::Inner;
use crate::report::problems;
use crate::sys::Qgroups;
use crate::types::{Backend, Health, KnownPool, PoolReport};

impl Inner {
    /// Bytes of the filesystem that this data has written, so that they need not be
    /// kept free for it: never more than it really has to itself.
    fn written(&self, pool: &Pool, spec: DataSpec, qgroups: &Qgroups) -> u64 {
        match spec.backend {
            Backend::Btrfs => spec
                .subvolume
                .and_then(|subvolume| qgroups.get(&subvolume))
                .map_or(0, |group| match spec.shares {
                    true => group.exclusive,
                    false => group.used,
                }),
            // Copies may share their blocks.
            _ if spec.shares => 0,
            Backend::ProjectQuota => spec
                .project
                .and_then(|project| self.sys.project(&pool.dir, project).ok())
                .map_or(0, |project| project.used),
            Backend::Image if !spec.sparse => spec.enforced,
            Backend::Image | Backend::Directory => 0,
        }
    }

    /// Quotas of the subvolumes of a pool's filesystem; empty if it has none.
    pub(crate) fn qgroups_of(&self, pool: &Pool) -> Result<Qgroups, Error> {
        match pool.filesystem.fstype.as_str() {
            "btrfs" => match self.sys.qgroups(&pool.dir) {
                // No quotas, which images need none of.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Qgroups::new()),
                qgroups => qgroups.context("reading the quotas of", pool.dir.path()),
            },
            _ => Ok(Qgroups::new()),
        }
    }

    /// What the filesystem itself can still hold for the holders of this ledger.
    pub(crate) fn physical(&self, pool: &Pool, qgroups: &Qgroups) -> Physical {
        // Pools that share the filesystem have been promised parts of it too.
        let sharing: Vec<(bool, Vec<DataSpec>, u64)> = lock(&self.state)
            .pools
            .iter()
            .filter_map(|(id, other)| {
                let own = *id == pool.identity.id;
                let shares = other.usable
                    && other.fs_uuid.is_some()
                    && other.fs_uuid == pool.filesystem.uuid;
                (own || shares)
                    .then(|| (own, other.data_specs().collect(), other.ledger.reserved()))
            })
            .collect();
        let mut physical = Physical {
            free: pool.filesystem.free,
            written: 0,
        };
        if pool.identity.shared {
            physical.free = physical
                .free
                .saturating_sub(ledger::headroom(pool.filesystem.size));
        }
        for (own, data_specs, reserved) in sharing {
            let written = data_specs
                .into_iter()
                .map(|spec| self.written(pool, spec, qgroups))
                .sum();
            match own {
                true => physical.written = written,
                false => {
                    let unwritten = reserved.saturating_sub(written);
                    physical.free = physical.free.saturating_sub(unwritten);
                }
            }
        }
        physical
    }

    pub(crate) fn report_unopened(
        &self,
        name: &str,
        known: Option<&KnownPool>,
        error: &io::Error,
    ) -> PoolReport {
        let mut report = self.report_failed(name, known, &error.to_string());
        if error.kind() == io::ErrorKind::NotFound && known.is_some() {
            report.health = Health::LostMount;
            report.message = "its directory is gone: make it and mount the disk there".into();
        } else if is_symlink_or_mount_escape(error) {
            let why = "a link, not a directory: mount the disk here, or bind-mount it".to_owned();
            report.health = Health::Damaged(why.clone());
            report.message = why;
        } else if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) {
            report.message = "answers with I/O errors: look for the cause in the kernel's log,                               unmount it, repair its filesystem and mount it again"
                .into();
        }
        report
    }

    pub(crate) fn report_failed(
        &self,
        name: &str,
        known: Option<&KnownPool>,
        why: &str,
    ) -> PoolReport {
        PoolReport {
            id: known.map(|known| known.id.clone()),
            dir: name.to_owned(),
            path: self.path_of(name),
            health: Health::Damaged(why.to_owned()),
            message: format!("cannot be looked at: {why}"),
            troubles: Vec::new(),
            io_errors: 0,
            filesystem: String::new(),
            fs_uuid: known.and_then(|known| known.fs_uuid.clone()),
            backends: Vec::new(),
            why_not: Vec::new(),
            capacity: 0,
            reserved: 0,
            room: 0,
            free: 0,
            volumes: 0,
            snapshots: 0,
            trash: 0,
        }
    }

    pub(crate) fn report_opened(&self, pool: &Pool, verdict: &Verdict) -> PoolReport {
        let seen = Observed {
            identity: Ok(Some(pool.identity.clone())),
            filesystem: pool.filesystem.clone(),
            mount_point: true,
        };
        self.report_pool(&pool.name, &seen, verdict, Some(pool))
    }

    /// Reports a directory; `pool` is given when it can be used.
    pub(crate) fn report_pool(
        &self,
        name: &str,
        seen: &Observed,
        verdict: &Verdict,
        pool: Option<&Pool>,
    ) -> PoolReport {
        let known = verdict.id.clone().map(|id| KnownPool {
            dir: name.to_owned(),
            id,
            fs_uuid: verdict.fs_uuid.clone(),
        });
        let mut report = self.report_failed(name, known.as_ref(), "");
        report.health = verdict.health.clone();
        report.message.clone_from(&verdict.message);
        report.filesystem.clone_from(&seen.filesystem.fstype);
        report.fs_uuid.clone_from(&verdict.fs_uuid);
        if let Some(id) = &report.id
            && let Some(state) = lock(&self.state).pools.get(id)
        {
            report.capacity = state.ledger.capacity();
            report.reserved = state.ledger.reserved();
            report.volumes = state.volumes.len() as u64;
            report.snapshots = state.snapshots.len() as u64;
            report.trash = state.trash.len() as u64;
        }
        let Some(pool) = pool else {
            return report;
        };
        report.free = pool.filesystem.free;
        let errors = self.errors(&pool.dir);
        report.io_errors = errors.iter().map(|errors| errors.count).sum();
        let qgroups = self.qgroups_of(pool);
        report.troubles = self.pool_problems(pool, &errors, qgroups.as_ref().ok());
        for candidate in Backend::ALL {
            match backend::driver(candidate, self.sys.as_ref(), &pool.dir, &pool.filesystem) {
                Ok(_) => report.backends.push(candidate),
                Err(why) => report.why_not.push((candidate, why)),
            }
        }
        let limited = |backend: &Backend| *backend != Backend::Directory;
        let usable = report.backends.iter().any(limited);
        if !usable
            && report.message.is_empty()
            && let Some((backend, why)) = report.why_not.first()
        {
            report.message = format!("no new volumes: {backend}: {why}");
        }
        if report.health == Health::Healthy
            && usable
            && let Ok(qgroups) = &qgroups
            && let physical = self.physical(pool, qgroups)
            && let Some(state) = lock(&self.state).pools.get(&pool.identity.id)
        {
            report.room = state.ledger.room(physical);
            report.troubles.extend(problems::full_pool(report.room));
            let (capacity, reserved) = (report.capacity, report.reserved);
            let short = shared::shortage(&pool.identity, capacity, reserved, report.room);
            if let Some(short) = short.filter(|_| report.message.is_empty()) {
                report.message = short;
            }
        }
        report
    }
}
