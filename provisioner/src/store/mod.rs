//! What the provisioner remembers, and the locks that operations take. Everything else
//! is a function of this store; the modules below lead from an id to something opened.

pub(crate) mod lookup;
pub(crate) mod open;
pub(crate) mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::DataSpec;
use crate::error::{Error, IoContext};
use crate::fs::envelope::Document;
use crate::layout::POOLS;
use crate::locks::{NamedLocks, lock};
use crate::notify::Notify;
use crate::pool::ledger::Ledger;
use crate::pool::record::{SnapshotRecord, VolumeRecord};
use crate::pool::shared::SharedPool;
use crate::sys::Sys;
use crate::types::{Config, KnownPool, PoolId};

/// File under the root, locked by the one process that changes things.
const LOCK: &str = "agent.lock";

/// What all operations share.
pub(crate) struct Store {
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

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
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
    /// The pods that volumes were published for, by target.
    pub(crate) publishers: BTreeMap<PathBuf, Publisher>,
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

/// A pod that a volume was published for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Publisher {
    /// Where.
    pub(crate) target: PathBuf,
    /// UID of the pod, empty when unknown.
    pub(crate) pod_uid: String,
    /// `<namespace>/<name>` of the pod, empty when unknown.
    pub(crate) pod: String,
}

impl Document for Publisher {
    const KIND: &'static str = "berth-publisher";
    const VERSION: u64 = 1;
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

impl Store {
    /// A store that may change things: it holds the lock of the root.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process holds it, [`Error::Io`] when the root
    /// cannot be used.
    pub(crate) fn for_writing(config: Config, sys: Box<dyn Sys>) -> Result<Self, Error> {
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
        Ok(Self::new(config, sys, Some(file)))
    }

    /// A store for inspection: it refuses every change.
    pub(crate) fn for_inspection(config: Config, sys: Box<dyn Sys>) -> Self {
        Self::new(config, sys, None)
    }

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

    /// Refuses when this process may only inspect.
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

    /// The ids of the pools that were seen.
    pub(crate) fn pool_ids(&self) -> Vec<PoolId> {
        lock(&self.state).pools.keys().cloned().collect()
    }

    /// The path of a pool's directory, as people know it.
    pub(crate) fn path_of(&self, dir: &str) -> PathBuf {
        self.config.root.join(POOLS).join(dir)
    }

    /// Remembers pools that this node had, unless this process has seen newer ones.
    pub(crate) fn remember(&self, known: Vec<KnownPool>) {
        let mut state = lock(&self.state);
        for pool in known {
            // What this process has seen itself is newer.
            state.known.entry(pool.dir.clone()).or_insert(pool);
        }
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
