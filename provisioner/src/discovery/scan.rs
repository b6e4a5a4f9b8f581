//! Finds the pools under `pools/`, and which of them are those that were known.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::locks::lock;
use crate::pool::record::Identity;
use crate::pool::{self, Access, Observed, Pool};
use crate::provisioner::Inner;
use crate::types::{Health, InitOptions, KnownPool, PoolId, PoolReport};

impl Inner {
    /// Opens a pool for one operation, after checking that it is still there and still
    /// the same.
    pub(crate) fn open_pool(&self, id: &PoolId, access: Access) -> Result<Pool, Error> {
        let name = lock(&self.state)
            .pools
            .get(id)
            .map(|pool| pool.dir.clone())
            .ok_or_else(|| Error::PoolMissing { pool: id.clone() })?;
        let pools = pool::open_pools(&self.config.root)?;
        let path = self.path_of(&name);
        let dir = match pools.open(&name, Mounts::Cross) {
            Ok(dir) => dir,
            Err(e) => {
                return Err(Error::LostMount {
                    path,
                    why: e.to_string(),
                });
            }
        };
        let seen = pool::observe(self.sys.as_ref(), &pools, &dir)?;
        let known = lock(&self.state).known.get(&name).cloned();
        let verdict = pool::judge(&seen, known.as_ref());
        let usable = match verdict.health {
            Health::Healthy => true,
            Health::ReadOnly => access == Access::Read,
            _ => false,
        };
        if !usable {
            return Err(match verdict.health {
                Health::ReadOnly => Error::ReadOnly { path },
                Health::Uninitialized | Health::LostMount => Error::LostMount {
                    path,
                    why: verdict.message,
                },
                _ => Error::DamagedPool {
                    path,
                    why: verdict.message,
                },
            });
        }
        match self.opened(name, dir, seen)? {
            Some(pool) if pool.identity.id == *id => Ok(pool),
            _ => Err(Error::LostMount {
                path,
                why: format!("another pool is in the place of {id}"),
            }),
        }
    }

    fn opened(&self, name: String, dir: Dir, seen: Observed) -> Result<Option<Pool>, Error> {
        let Ok(Some(identity)) = seen.identity else {
            return Ok(None);
        };
        let mount = self
            .sys
            .mount_of(&dir)
            .context("looking at the mount of", dir.path())?;
        Ok(Some(Pool {
            dir,
            name,
            identity,
            filesystem: seen.filesystem,
            mount,
        }))
    }

    pub(crate) fn scan(&self, create: bool) -> Result<Vec<PoolReport>, Error> {
        let _one = lock(&self.rescan);
        let pools = pool::open_pools(&self.config.root)?;
        let mut reports = Vec::from_iter(self.shared_directory(&pools));
        let mut names: BTreeSet<String> = lock(&self.state).known.keys().cloned().collect();
        for name in pools.names().context("listing", pools.path())? {
            let may_be_pool = match pools.kind(&name) {
                // Links are listed too: they are refused by name, not overlooked.
                Ok(kind) => matches!(kind, Some(Kind::Directory | Kind::Link)),
                // A disk that answers with errors must not hide the other pools.
                Err(_) => true,
            };
            if may_be_pool
                && let Ok(name) = name.into_string()
                && !name.starts_with('.')
                && name != "lost+found"
            {
                names.insert(name);
            }
        }
        let mut claimed = BTreeSet::new();
        // A pool that is still where it was takes precedence over a copy elsewhere.
        let mut names: Vec<String> = names.into_iter().collect();
        let homes: BTreeSet<String> = lock(&self.state)
            .pools
            .values()
            .map(|pool| pool.dir.clone())
            .collect();
        names.sort_by_key(|name| !homes.contains(name));
        for name in &names {
            let report = self.scan_one(&pools, name, create, &mut claimed);
            reports.push(report);
        }
        self.forget_absent(&claimed);
        reports.sort_by(|a, b| a.dir.cmp(&b.dir));
        Ok(reports)
    }

    fn scan_one(
        &self,
        pools: &Dir,
        name: &str,
        create: bool,
        claimed: &mut BTreeSet<PoolId>,
    ) -> PoolReport {
        let known = lock(&self.state).known.get(name).cloned();
        let dir = match pools.open(name, Mounts::Cross) {
            Ok(dir) => dir,
            Err(e) => return self.report_unopened(name, known.as_ref(), &e),
        };
        let mut seen = match pool::observe(self.sys.as_ref(), pools, &dir) {
            Ok(seen) => seen,
            Err(e) => return self.report_failed(name, known.as_ref(), &e.to_string()),
        };
        let mut verdict = pool::judge(&seen, known.as_ref());
        let wanted = match verdict.health {
            Health::Uninitialized if !seen.mount_point => self.shared_options(name),
            Health::Uninitialized if create => Some((self.config.clone(), InitOptions::default())),
            _ => None,
        };
        if let Some((config, options)) = wanted {
            match crate::pool::init::init(self.sys.as_ref(), &config, name, &options, false) {
                Ok(id) => {
                    tracing::info!(pool = %id, dir = name, "pool made");
                    if let Ok(again) = pool::observe(self.sys.as_ref(), pools, &dir) {
                        seen = again;
                        verdict = pool::judge(&seen, known.as_ref());
                    }
                }
                Err(e) => verdict.message = e.to_string(),
            }
        }
        self.keep_shared(name, &dir, &mut seen, &mut verdict);
        if let Some(id) = verdict.id.clone()
            && matches!(verdict.health, Health::Healthy | Health::ReadOnly)
        {
            if !claimed.insert(id.clone()) {
                let why = format!(
                    "pool {id} is here twice, as a copy or a second mount of one disk; unmount one"
                );
                verdict.health = Health::Damaged(why.clone());
                verdict.message = why;
                return self.report_pool(name, &seen, &verdict, None);
            }
            let uuid = seen.filesystem.uuid.clone();
            return match self.opened(name.to_owned(), dir, seen) {
                Ok(Some(pool)) => self.register(pool, verdict, uuid),
                Ok(None) => self.report_failed(name, known.as_ref(), "its identity vanished"),
                Err(e) => self.report_failed(name, known.as_ref(), &e.to_string()),
            };
        }
        self.report_pool(name, &seen, &verdict, None)
    }

    /// Registers a usable pool; reads it if it was not there before.
    fn register(&self, pool: Pool, verdict: pool::Verdict, uuid: Option<String>) -> PoolReport {
        let id = pool.identity.id.clone();
        let name = pool.name.clone();
        let fresh = lock(&self.state)
            .pools
            .get(&id)
            .is_none_or(|state| !state.usable || state.dir != name);
        if fresh {
            let gate = self.gate(&id).unwrap_or_default();
            let _alone = gate.write().unwrap_or_else(PoisonError::into_inner);
            match self.load(&pool, Arc::clone(&gate)) {
                Ok(loaded) => {
                    let mut state = lock(&self.state);
                    state.pools.insert(id.clone(), loaded);
                    state.known.insert(
                        name.clone(),
                        KnownPool {
                            dir: name.clone(),
                            id: id.clone(),
                            fs_uuid: uuid,
                        },
                    );
                }
                Err(e) => {
                    let why = e.to_string();
                    return self.report_opened(
                        &pool,
                        &pool::Verdict {
                            health: Health::Damaged(why.clone()),
                            message: why,
                            id: Some(id),
                            fs_uuid: verdict.fs_uuid,
                        },
                    );
                }
            }
            if self.is_writer() {
                self.link_pool(&id);
                self.thaw_images(&pool);
            }
            tracing::info!(pool = %id, dir = name, "pool registered");
            self.notify.notify();
        }
        if self.is_writer()
            && verdict.health == Health::Healthy
            && pool.filesystem.fstype == "btrfs"
            && let Err(e) = self.sys.keep_quotas(&pool.dir)
        {
            tracing::warn!(pool = %id, error = %e, "quotas cannot be kept consistent");
        }
        self.set_capacity(&pool.identity, pool.filesystem.size);
        self.report_opened(&pool, &verdict)
    }

    fn set_capacity(&self, identity: &Identity, size: u64) {
        let capacity = crate::pool::ledger::capacity(size, identity.capacity);
        if let Some(pool) = lock(&self.state).pools.get_mut(&identity.id) {
            pool.ledger.set_capacity(capacity);
        }
    }

    /// Marks pools that were not seen; they are read again when they return.
    fn forget_absent(&self, seen: &BTreeSet<PoolId>) {
        for (id, pool) in &mut lock(&self.state).pools {
            if !seen.contains(id) && pool.usable {
                pool.usable = false;
                tracing::warn!(pool = %id, dir = pool.dir, "pool is not there any more");
            }
        }
    }
}
