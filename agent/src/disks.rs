//! The node's disks as the agent's services share them: one blocking operation
//! per volume at a time, counted and timed, and every service notified of changes.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use berth_model::InvalidName;
use berth_provisioner::{Error, PoolReport, Provisioner};
use tokio::sync::{Notify, mpsc};

use crate::{
    metrics::{Metrics, Operation, Outcome},
    volume_locks::{VolumeGuard, VolumeLocks},
};

/// Volumes that wait to be looked at by the reconciler. More than this at once
/// are found by its timer instead.
const CHANGES: usize = 1024;

/// How old a look at the pools may be where nothing depends on it.
const RECENT: Duration = Duration::from_secs(2);

/// The pools, as they were looked at last.
type Pools = Arc<Vec<PoolReport>>;

/// Why an operation did not happen, or not entirely.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something is being done to the volume already.
    #[error("another operation on {id} is running; try again")]
    Busy {
        /// The volume.
        id: String,
    },
    /// The disk's own answer.
    #[error(transparent)]
    Disk(#[from] Error),
    /// The operation panicked, or the program is ending.
    #[error("the operation did not end: {0}; try again")]
    Stopped(String),
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Self {
        Self::Disk(error.into())
    }
}

/// Shared by every service of the agent; cheap to clone.
#[derive(Clone)]
pub struct Disks {
    /// The node's name in the API.
    pub node_name: Arc<str>,
    provisioner: Arc<Provisioner>,
    locks: VolumeLocks,
    metrics: Metrics,
    volumes_changed: mpsc::Sender<String>,
    pools_changed: Arc<Notify>,
    refused: Arc<AtomicBool>,
    pools: Arc<Mutex<Option<(Instant, Pools)>>>,
}

impl Disks {
    /// The disks, and the ids of volumes as they change.
    pub fn new(
        node_name: &str,
        provisioner: Provisioner,
        metrics: Metrics,
    ) -> (Self, mpsc::Receiver<String>) {
        let (volumes_changed, changes) = mpsc::channel(CHANGES);
        let disks = Self {
            node_name: node_name.into(),
            provisioner: Arc::new(provisioner),
            locks: VolumeLocks::default(),
            metrics,
            volumes_changed,
            pools_changed: Arc::default(),
            refused: Arc::default(),
            pools: Arc::default(),
        };
        (disks, changes)
    }

    /// Metrics of the agent.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Completes after each change to what the pools hold.
    pub async fn pools_changed(&self) {
        self.pools_changed.notified().await;
    }

    /// A volume was refused for want of room: whoever asked for it took the pool
    /// for emptier than it is.
    pub fn set_refused(&self) {
        self.refused.store(true, Ordering::SeqCst);
        self.pools_changed.notify_one();
    }

    /// Whether a volume was refused since this was last asked.
    pub fn take_refused(&self) -> bool {
        self.refused.swap(false, Ordering::SeqCst)
    }

    /// Looks at the pools.
    ///
    /// # Errors
    /// [`Failure::Disk`] when the root cannot be read.
    pub async fn rescan(&self) -> Result<Pools, Failure> {
        let reports = Arc::new(self.read(Provisioner::rescan).await??);
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        *pools = Some((Instant::now(), reports.clone()));
        Ok(reports)
    }

    /// The pools as of a moment ago: for what is looked at again anyway.
    ///
    /// # Errors
    /// As [`Disks::rescan`].
    pub async fn recent_pools(&self) -> Result<Pools, Failure> {
        let recent = self
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .filter(|(looked, _)| looked.elapsed() < RECENT);
        match recent {
            Some((_, pools)) => Ok(pools),
            None => self.rescan().await,
        }
    }

    /// Reads from the disks, where blocking is allowed.
    ///
    /// # Errors
    /// [`Failure::Stopped`] when the read panicked.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Provisioner) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let provisioner = self.provisioner.clone();
        tokio::task::spawn_blocking(move || read(&provisioner))
            .await
            .map_err(|error| Failure::Stopped(error.to_string()))
    }

    /// Keeps a name for one operation: while something is made of it, it has no id
    /// to be held by. Nothing else is done under the same `key`.
    ///
    /// # Errors
    /// [`Failure::Busy`] when another operation on it runs.
    pub fn hold(&self, key: &str) -> Result<VolumeGuard, Failure> {
        self.locks
            .try_lock(key)
            .ok_or_else(|| Failure::Busy { id: key.to_owned() })
    }

    /// Does one operation on one volume, where blocking is allowed. It goes on to
    /// its end even if the caller goes away, and keeps others out until then.
    ///
    /// # Errors
    /// [`Failure::Busy`] when another operation on the volume runs, else what the
    /// operation answers.
    pub async fn operate<T: Send + 'static>(
        &self,
        operation: Operation,
        id: &str,
        work: impl FnOnce(&Provisioner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let Some(guard) = self.locks.try_lock(id) else {
            self.metrics.refused(operation);
            return Err(Failure::Busy { id: id.to_owned() });
        };
        let disks = self.clone();
        let id = id.to_owned();
        tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let result = work(&disks.provisioner);
            drop(guard);
            let outcome = match &result {
                Ok(_) => Outcome::Ok,
                Err(_) => Outcome::Error,
            };
            disks.metrics.done(operation, outcome, started.elapsed());
            if operation.changes_volume() {
                // The reconciler itself made these known already; a full queue
                // is caught up with by its timer.
                if !operation.is_reconcilers() {
                    let _ = disks.volumes_changed.try_send(id);
                }
                disks.pools_changed.notify_one();
            }
            result
        })
        .await
        .map_err(|error| Failure::Stopped(error.to_string()))?
        .map_err(Failure::Disk)
    }
}
