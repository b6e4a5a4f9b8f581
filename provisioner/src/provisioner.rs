//! The provisioner itself: what is shared by all operations, and how it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::backend::DataSpec;
use crate::discovery::shared::SharedPool;
use crate::error::{Error, IoContext};
use crate::layout::POOLS;
use crate::locks::{NamedLocks, lock};
use crate::notify::Notify;
use crate::pool::ledger::Ledger;
use crate::pool::record::{SnapshotRecord, VolumeRecord};
use crate::sys::Sys;
use crate::types::{Config, InitOptions, KnownPool, PoolId, PoolReport};
use crate::volume::trash;

/// File under the root, locked by the one process that changes things.
const LOCK: &str = "agent.lock";

/// Everything that touches this node's disks. Shared by reference between
/// threads; calls block.
#[derive(Debug)]
pub struct Provisioner {
    pub(crate) inner: Arc<Inner>,
    remover: Option<JoinHandle<()>>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) sys: Box<dyn Sys>,
    /// Held for as long as this process may change things; `None` for inspection.
    lock: Option<File>,
    pub(crate) state: Mutex<State>,
    pub(crate) volume_locks: NamedLocks,
    /// Taken before a volume's lock, where both are.
    pub(crate) snapshot_locks: NamedLocks,
    /// One scan of all pools at a time.
    pub(crate) rescan: Mutex<()>,
    pub(crate) notify: Notify,
    /// Held from finding a free project to its volume's record.
    pub(crate) projects: Mutex<()>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What is kept in memory. No I/O happens while it is locked.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) pools: BTreeMap<PoolId, PoolState>,
    /// What is remembered of each directory under `pools/`.
    pub(crate) known: BTreeMap<String, KnownPool>,
    /// UIDs of pods by target, for targets whose path does not contain it.
    pub(crate) pods: BTreeMap<PathBuf, String>,
    /// The requested pool on the node's own filesystem.
    pub(crate) shared: Option<SharedPool>,
    /// Staging paths outside kubelet's `plugins/`.
    pub(crate) staging: BTreeSet<PathBuf>,
}

/// A pool that was seen healthy at least once.
#[derive(Debug)]
pub(crate) struct PoolState {
    /// Its directory's name, when last seen.
    pub(crate) dir: String,
    pub(crate) fs_uuid: Option<String>,
    /// Whether it could be used when last looked at.
    pub(crate) usable: bool,
    /// Operations share it; reading everything anew excludes them.
    pub(crate) gate: Arc<RwLock<()>>,
    pub(crate) ledger: Ledger,
    pub(crate) volumes: BTreeMap<String, Entry>,
    pub(crate) snapshots: BTreeMap<String, Entry<SnapshotRecord>>,
    pub(crate) trash: BTreeMap<String, Trashed>,
}

/// A volume, or snapshot, as last read or written.
#[derive(Clone, Debug)]
pub(crate) enum Entry<Record = VolumeRecord> {
    /// Its record.
    Intact(Box<Record>),
    /// Why its record cannot be trusted.
    Damaged(String),
}

/// Something in the trash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trashed {
    /// What its record says of the data, if it can be read.
    pub(crate) spec: Option<DataSpec>,
    /// Removed subvolumes whose space the filesystem is freeing.
    pub(crate) freeing: BTreeSet<u64>,
    /// Steps so far that did not finish it; they set the pace.
    pub(crate) tries: u32,
    /// Why the last step failed, if it did.
    pub(crate) why: Option<String>,
}

impl Trashed {
    pub(crate) fn new(spec: Option<DataSpec>) -> Self {
        Self {
            freeing: spec.iter().filter_map(|spec| spec.subvolume).collect(),
            spec,
            tries: 0,
            why: None,
        }
    }
}

impl PoolState {
    /// The data of everything in the pool, trash included, as far as records describe it.
    pub(crate) fn data_specs(&self) -> impl Iterator<Item = DataSpec> + '_ {
        let volumes = self.volumes.values().filter_map(|entry| match entry {
            Entry::Intact(record) => Some(record.data_spec()),
            Entry::Damaged(_) => None,
        });
        let snapshots = self.snapshots.values().filter_map(|entry| match entry {
            Entry::Intact(record) => Some(record.data_spec()),
            Entry::Damaged(_) => None,
        });
        let trash = self.trash.values().filter_map(|trashed| trashed.spec);
        volumes.chain(snapshots).chain(trash)
    }
}

impl Provisioner {
    /// Opens the root to work on it: takes its lock, reads every pool, finishes
    /// what a crash left half made and goes on erasing what is in the trash.
    /// Initialises nothing; see [`rescan`](Self::rescan).
    ///
    /// # Errors
    /// [`Error::Locked`] while another process has it open, [`Error::Io`] when the
    /// root cannot be used. Pools that cannot be used are no error: see
    /// [`rescan`](Self::rescan).
    #[cfg(target_os = "linux")]
    pub fn open(config: Config) -> Result<Self, Error> {
        Self::open_with(config, Box::new(crate::sys::Linux))
    }

    /// Opens the root for inspection, beside an agent that works on it. Every operation
    /// that changes something returns [`Error::InspectOnly`].
    ///
    /// # Errors
    /// [`Error::Io`] when the root cannot be read.
    #[cfg(target_os = "linux")]
    pub fn inspect(config: Config) -> Result<Self, Error> {
        Self::inspect_with(config, Box::new(crate::sys::Linux))
    }

    pub(crate) fn open_with(config: Config, sys: Box<dyn Sys>) -> Result<Self, Error> {
        let root = config.root.clone();
        std::fs::create_dir_all(root.join(POOLS)).context("making", root.join(POOLS))?;
        let path = root.join(LOCK);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .context("opening", &path)?;
        take(&file, &path)?;
        let inner = Arc::new(Inner::new(config, sys, Some(file)));
        inner.scan(false)?;
        let remover = trash::start(&inner).context("starting a thread for", &root)?;
        Ok(Self {
            inner,
            remover: Some(remover),
        })
    }

    pub(crate) fn inspect_with(config: Config, sys: Box<dyn Sys>) -> Result<Self, Error> {
        let inner = Arc::new(Inner::new(config, sys, None));
        inner.scan(false)?;
        Ok(Self {
            inner,
            remover: None,
        })
    }

    /// Remembers pools that this node had according to the API, so that an empty
    /// directory in the place of one is refused as a lost mount. Call it before
    /// [`rescan`](Self::rescan) is to initialise anything.
    pub fn remember(&self, known: Vec<KnownPool>) {
        let mut state = lock(&self.inner.state);
        for pool in known {
            // What this process has seen itself is newer.
            state.known.entry(pool.dir.clone()).or_insert(pool);
        }
    }

    /// Looks at every directory under `pools/`, healthy or not, and at those that
    /// are remembered: picks up disks that were mounted, initialised or unmounted
    /// since. Cheap enough to be called every few seconds.
    ///
    /// # Errors
    /// [`Error::Io`] when the root itself cannot be read.
    pub fn rescan(&self) -> Result<Vec<PoolReport>, Error> {
        self.inner
            .scan(self.inner.config.create_pools && self.inner.lock.is_some())
    }

    /// Makes a directory under `pools/` a pool, see [`init_pool`](crate::init_pool).
    ///
    /// # Errors
    /// [`Error::InitRefused`] with the reason.
    pub fn init_pool(&self, dir: &str, options: &InitOptions) -> Result<PoolReport, Error> {
        self.inner.require_writer()?;
        let known = lock(&self.inner.state).known.contains_key(dir);
        crate::pool::init::init(
            self.inner.sys.as_ref(),
            &self.inner.config,
            dir,
            options,
            known,
        )?;
        self.inner
            .scan(false)?
            .into_iter()
            .find(|report| report.dir == dir)
            .ok_or_else(|| Error::InitRefused {
                path: self.inner.config.root.join(POOLS).join(dir),
                why: "it vanished".into(),
            })
    }
}

impl Drop for Provisioner {
    fn drop(&mut self) {
        self.inner.notify.stop();
        if let Some(thread) = self.remover.take() {
            // It only fails if the thread panicked, which is logged already.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn new(config: Config, sys: Box<dyn Sys>, lock: Option<File>) -> Self {
        Self {
            config,
            sys,
            lock,
            state: Mutex::default(),
            volume_locks: NamedLocks::default(),
            snapshot_locks: NamedLocks::default(),
            rescan: Mutex::default(),
            notify: Notify::default(),
            projects: Mutex::default(),
        }
    }

    /// Whether this process may change things.
    pub(crate) fn is_writer(&self) -> bool {
        self.lock.is_some()
    }

    /// Refuses when this process may only look.
    pub(crate) fn require_writer(&self) -> Result<(), Error> {
        if self.is_writer() {
            Ok(())
        } else {
            Err(Error::InspectOnly)
        }
    }

    /// The gate of a pool, to be held while an operation on it runs.
    pub(crate) fn gate(&self, id: &PoolId) -> Result<Arc<RwLock<()>>, Error> {
        lock(&self.state)
            .pools
            .get(id)
            .map(|pool| Arc::clone(&pool.gate))
            .ok_or_else(|| Error::PoolMissing { pool: id.clone() })
    }

    /// The path of a pool's directory, as people know it.
    pub(crate) fn path_of(&self, dir: &str) -> PathBuf {
        self.config.root.join(POOLS).join(dir)
    }
}

/// Locks the root's lock file. Retries for a moment: a process that has just ended may
/// have passed its handle to a child that is about to start another program.
fn take(file: &File, path: &Path) -> Result<(), Error> {
    for _ in 0..10 {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(e).context("locking", path),
        }
    }
    Err(Error::Locked {
        path: path.to_owned(),
    })
}
