//! The pool on a node's own filesystem, for nodes without a spare disk: requested by
//! name and size, made only where the node is known never to have had it.

use std::io;

use crate::error::Error;
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::fs::envelope;
use crate::layout::{IDENTITY, META};
use crate::locks::lock;
use crate::names;
use crate::pool::record::Identity;
use crate::pool::{Observed, Verdict};
use crate::provisioner::{Inner, Provisioner};
use crate::types::{Config, Health, InitOptions, PoolReport};

/// A pool on the filesystem that the node's system uses too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPool {
    dir: String,
    capacity: u64,
}

impl SharedPool {
    /// A pool in the directory `dir` of `pools/` whose volumes may take `capacity`
    /// bytes in all.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when `dir` is no plain name or the capacity is 0.
    pub fn new(dir: impl Into<String>, capacity: u64) -> Result<Self, Error> {
        let dir = dir.into();
        names::pool_dir(&dir)?;
        if capacity == 0 {
            return Err(Error::invalid(
                "size of a shared pool",
                "0",
                "must be greater than zero",
            ));
        }
        Ok(Self { dir, capacity })
    }

    fn options(&self) -> InitOptions {
        InitOptions {
            capacity: Some(self.capacity),
            ..InitOptions::default()
        }
    }
}

impl Provisioner {
    /// From now on every [`rescan`](Self::rescan) maintains this pool: makes its
    /// directory where there is none, makes an empty directory that is not a mount
    /// point the pool, and gives an existing pool the requested size; promises that
    /// exceed a smaller size stand.
    ///
    /// Nothing is made where another pool is remembered: call it after
    /// [`remember`](Self::remember) only.
    ///
    /// # Errors
    /// [`Error::InspectOnly`].
    pub fn share(&self, pool: SharedPool) -> Result<(), Error> {
        self.inner.require_writer()?;
        lock(&self.inner.state).shared = Some(pool);
        Ok(())
    }
}

impl Inner {
    /// The requested shared pool, if `name` is its directory.
    fn shared(&self, name: &str) -> Option<SharedPool> {
        let wanted = lock(&self.state).shared.clone();
        wanted.filter(|wanted| wanted.dir == name)
    }

    /// Makes the directory of the requested shared pool; a report if that fails.
    pub(crate) fn shared_directory(&self, pools: &Dir) -> Option<PoolReport> {
        let name = lock(&self.state).shared.clone()?.dir;
        if lock(&self.state).known.contains_key(&name) {
            return None;
        }
        match ensure(pools, &name) {
            Ok(()) => None,
            // The scan refuses it by name.
            Err(_) if matches!(pools.kind(&name), Ok(Some(Kind::Link))) => None,
            Err(e) => {
                let mut report = self.report_failed(&name, None, &e.to_string());
                report.message = format!("the directory of the shared pool cannot be made: {e}");
                Some(report)
            }
        }
    }

    /// The options to make a pool of a directory without an identity; `None` if it is
    /// not the requested shared pool.
    pub(crate) fn shared_options(&self, name: &str) -> Option<(Config, InitOptions)> {
        let wanted = self.shared(name)?;
        let config = Config {
            allow_root_fs: true,
            ..self.config.clone()
        };
        Some((config, wanted.options()))
    }

    /// Gives the pool the requested size, and explains how to give up a lost one.
    pub(crate) fn keep_shared(
        &self,
        name: &str,
        dir: &Dir,
        seen: &mut Observed,
        verdict: &mut Verdict,
    ) {
        let Some(wanted) = self.shared(name) else {
            return;
        };
        match (&verdict.health, &mut seen.identity) {
            (Health::LostMount, Ok(None)) if !seen.mount_point => verdict.message.push_str(
                &format!(
                    "; if it was no disk of its own, this node was set up anew, and its volumes are \
                     gone permanently: `berth-agent pools init {name} --allow-root-fs --capacity SIZE`"
                ),
            ),
            (Health::Healthy, Ok(Some(identity)))
                if identity.shared && identity.capacity != Some(wanted.capacity) =>
            {
                let before = identity.capacity;
                match resize(dir, identity, wanted.capacity) {
                    Ok(()) => tracing::info!(
                        pool = %identity.id, before, now = wanted.capacity, "the shared pool's size is changed"
                    ),
                    Err(e) => {
                        verdict.message =
                            format!("the pool keeps its size, its identity cannot be written: {e}");
                    }
                }
            }
            _ => {}
        }
    }
}

fn ensure(pools: &Dir, name: &str) -> io::Result<()> {
    if pools.make(name, 0o700)? {
        pools.sync()?;
    }
    Ok(())
}

/// Writes the identity with another capacity. Nothing else in it ever changes.
fn resize(dir: &Dir, identity: &mut Identity, capacity: u64) -> io::Result<()> {
    let resized = Identity {
        capacity: Some(capacity),
        ..identity.clone()
    };
    let meta = dir.open(META, Mounts::Stay)?;
    meta.write(IDENTITY, &envelope::encode(&resized))?;
    *identity = resized;
    Ok(())
}

/// The message for a pool whose filesystem has less left than the pool may take;
/// `capacity`, `reserved` and `room` are the ledger's. It omits changing numbers, so
/// that an unchanged shortage is not written again.
pub(crate) fn shortage(
    identity: &Identity,
    capacity: u64,
    reserved: u64,
    room: u64,
) -> Option<String> {
    let asked = identity.capacity?;
    let short = capacity < asked || room < capacity.saturating_sub(reserved);
    (identity.shared && short).then(|| {
        "too little room on the filesystem that it shares with the system for all of its \
         capacity: volumes get what is left there; free some space, or ask for a smaller pool"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PoolId;

    #[test]
    fn names_and_sizes_are_checked() {
        for name in ["shared", "disk.0", "A-1_b", "x"] {
            assert!(SharedPool::new(name, 1).is_ok(), "{name}");
        }
        let long = "x".repeat(64);
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/a",
            "-a",
            "lost+found",
            "a b",
            "a\0",
            "ä",
            &long,
        ] {
            assert!(SharedPool::new(name, 1).is_err(), "{name:?}");
        }
        assert!(SharedPool::new("shared", 0).is_err());
    }

    #[test]
    fn a_shortage_is_reported_for_shared_pools_only() {
        let mut identity = Identity {
            id: PoolId::new("shared-0123456789ab").unwrap(),
            fs_uuid: None,
            fstype: "ext4".into(),
            created: String::new(),
            capacity: Some(100),
            enabled_quotas: false,
            shared: true,
        };
        assert_eq!(shortage(&identity, 100, 30, 70), None);
        assert!(shortage(&identity, 100, 30, 69).is_some());
        assert!(shortage(&identity, 90, 0, 90).is_some());
        // More was promised before it was made smaller.
        assert_eq!(shortage(&identity, 100, 130, 0), None);
        identity.shared = false;
        assert_eq!(shortage(&identity, 90, 0, 1), None);
    }
}
