//! What the provisioner remembers, and the locks that operations take. Everything else
//! is a function of this store; the modules below lead from an id to something opened.

pub(crate) mod desks;
pub(crate) mod lookup;
pub(crate) mod open;
pub(crate) mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use berth_linux::FileId;

use serde::{Deserialize, Serialize};

use crate::backend::DataSpec;
use crate::error::{Error, IoContext};
use crate::fs::envelope::Document;
use crate::layout::POOLS;
use crate::locks::{Named, NamedLocks, lock};
use crate::notify::Notify;
use crate::pool::lease::Lease;
use crate::pool::ledger::{Holder, Ledger};
use crate::pool::record::{SnapshotRecord, VolumeRecord};
use crate::pool::shared::SharedPool;
use crate::store::desks::Desks;
use crate::sys::Sys;
use crate::types::{Config, KnownPool, PoolId};

/// File under the root, locked by the one process that changes things.
const LOCK: &str = "agent.lock";

/// What all operations share.
pub(crate) struct Store {
    pub(crate) config: Config,
    pub(crate) sys: Box<dyn Sys>,
    /// Whether this process may change things, as long as it is not stopping.
    writer: bool,
    /// Held for as long as this process may change things; `None` for inspection.
    lock: Mutex<Option<File>>,
    pub(crate) state: Mutex<State>,
    pub(crate) volume_locks: NamedLocks,
    /// Taken before a volume's lock, where both are.
    pub(crate) snapshot_locks: NamedLocks,
    /// Volumes that are being copied; taken before a volume's lock, see
    /// [`source_of_copy`](Self::source_of_copy).
    copies: NamedLocks,
    /// What each pool's worker is asked, and answered.
    pub(crate) desks: Desks,
    pub(crate) notify: Notify,
    /// When this process opened the root.
    pub(crate) opened: Instant,
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
    /// The directory that each usable pool was found in. A second one with its id is a
    /// copy, and refused.
    pub(crate) claims: BTreeMap<PoolId, String>,
    /// Locks of the pools that this process has read.
    pub(crate) leases: BTreeMap<PoolId, Arc<Lease>>,
    /// Projects of volumes that are being made, whose records do not name them yet.
    pub(crate) projects: BTreeSet<u32>,
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
    /// What the images of its volumes are, by volume: so that a mount can be told by its
    /// loop device without asking the disk.
    pub(crate) images: BTreeMap<String, FileId>,
    /// Bytes of those images whose filesystem was seen to fill them, by volume.
    pub(crate) filled: BTreeMap<String, u64>,
    /// Something that copies may have shared blocks with is gone.
    pub(crate) may_share_less: bool,
    /// How long writers of a mounted image wait for a copy of it.
    pub(crate) patience: Patience,
}

/// How long writers may wait for a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Then they go on, and the copy is given up.
    pub(crate) bound: Duration,
    /// Bytes that are expected to be copied within that.
    pub(crate) worth: u64,
}

impl Default for Patience {
    /// 10 s, and 100 MiB a second.
    fn default() -> Self {
        Self {
            bound: Duration::from_secs(10),
            worth: 1000 << 20,
        }
    }
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
        self.holders().map(|(_, spec)| spec)
    }

    /// The same, with who holds bytes of the pool for it.
    pub(crate) fn holders(&self) -> impl Iterator<Item = (Holder, DataSpec)> + '_ {
        let volumes = self.volumes.iter().filter_map(|(id, entry)| match entry {
            Entry::Intact(record) => Some((Holder::Volume(id.clone()), record.data_spec())),
            Entry::Damaged(_) => None,
        });
        let snapshots = self.snapshots.iter().filter_map(|(id, entry)| match entry {
            Entry::Intact(record) => Some((Holder::Snapshot(id.clone()), record.data_spec())),
            Entry::Damaged(_) => None,
        });
        let trash = self.trash.iter().filter_map(|(name, trashed)| {
            trashed.spec.map(|spec| (Holder::Trash(name.clone()), spec))
        });
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
            writer: lock.is_some(),
            lock: Mutex::new(lock),
            state: Mutex::default(),
            volume_locks: NamedLocks::default(),
            snapshot_locks: NamedLocks::default(),
            copies: NamedLocks::default(),
            desks: Desks::default(),
            notify: Notify::default(),
            opened: Instant::now(),
        }
    }

    /// Whether this process may change things.
    pub(crate) fn is_writer(&self) -> bool {
        self.writer && lock(&self.lock).is_some()
    }

    /// Refuses when this process may only inspect.
    pub(crate) fn require_writer(&self) -> Result<(), Error> {
        match (self.writer, self.is_writer()) {
            (_, true) => Ok(()),
            (true, false) => Err(Error::Stopping),
            (false, false) => Err(Error::InspectOnly),
        }
    }

    /// Takes the pool's lock, unless this process has it already; nothing for inspection.
    ///
    /// # Errors
    /// [`Error::Unresponsive`] while an earlier agent's operation on the pool goes on.
    pub(crate) fn take_lease(&self, pool: &PoolId) -> Result<(), Error> {
        if self.is_writer() && !lock(&self.state).leases.contains_key(pool) {
            let lease = Arc::new(Lease::take(&self.config.root, pool)?);
            lock(&self.state).leases.insert(pool.clone(), lease);
        }
        Ok(())
    }

    /// Lets the next process in: begins nothing any more, and gives up the locks, except
    /// those of pools on which an operation still runs.
    pub(crate) fn close(&self) {
        lock(&self.lock).take();
        lock(&self.state).leases.clear();
    }

    /// Holds a volume as the source of a copy, which may take long: it can be mounted and
    /// unmounted meanwhile, and is neither erased nor grown, nor is its image attached
    /// (see [`refuse_copied`](Self::refuse_copied)). Waits for what is being done to it.
    pub(crate) fn source_of_copy(&self, id: &str) -> Named<'_> {
        let copy = self.copies.hold(id);
        // Whoever takes the volume's lock after this sees that it is being copied.
        drop(self.volume_locks.hold(id));
        copy
    }

    /// Refuses what would spoil a copy of this volume that is being made. The caller
    /// holds the volume's lock.
    pub(crate) fn refuse_copied(&self, id: &str) -> Result<(), Error> {
        match self.copies.is_held(id) {
            true => Err(Error::Copied { id: id.to_owned() }),
            false => Ok(()),
        }
    }

    /// The error for an id that no pool which was read has.
    pub(crate) fn unknown_volume(&self, id: &str) -> Error {
        self.refuse_unopened(id)
            .err()
            .unwrap_or_else(|| Error::UnknownVolume { id: id.to_owned() })
    }

    /// Refuses to take what was not found for absent while a pool has never been read.
    pub(crate) fn refuse_unopened(&self, id: &str) -> Result<(), Error> {
        let dirs = self.desks.unopened();
        match dirs.is_empty() {
            true => Ok(()),
            false => Err(Error::NotOpenYet {
                id: id.to_owned(),
                dirs: dirs.join(", "),
            }),
        }
    }

    /// The gate of a pool, to be held while an operation on it runs.
    pub(crate) fn gate(&self, id: &PoolId) -> Result<Arc<RwLock<()>>, Error> {
        lock(&self.state)
            .pools
            .get(id)
            .map(|pool| Arc::clone(&pool.gate))
            .ok_or_else(|| self.missing_pool(id))
    }

    /// Whether the pool's disk does not answer.
    pub(crate) fn is_silent(&self, id: &PoolId) -> bool {
        let dir = lock(&self.state).pools.get(id).map(|pool| pool.dir.clone());
        dir.is_some_and(|dir| self.desks.is_silent(&dir))
    }

    /// The error for a pool that was not read.
    pub(crate) fn missing_pool(&self, id: &PoolId) -> Error {
        match self.refuse_unopened(&format!("pool {id}")) {
            Err(e) => e,
            Ok(()) => Error::PoolMissing { pool: id.clone() },
        }
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
            let elsewhere = state.claims.get(&pool.id);
            if elsewhere.is_none_or(|dir| *dir == pool.dir) {
                state.known.entry(pool.dir.clone()).or_insert(pool);
            }
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
