//! The node's disks as the agent's services share them: one blocking operation
//! per volume at a time, and so many per pool, counted and timed, and every service
//! notified of changes. Whoever waits for a disk that stops answering is released.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use berth_model::InvalidName;
use berth_provisioner::{Error, Health, PoolId, PoolReport, Provisioner, Recorded};
use tokio::sync::{Notify, mpsc};

use crate::{
    lanes::{Lane, Lanes},
    metrics::{Metrics, Operation, Outcome},
    volume_locks::{VolumeGuard, VolumeLocks},
};

/// Volumes that wait to be looked at by the reconciler. More than this at once
/// are found by its timer instead.
const CHANGES: usize = 1024;

/// How long what concerns all pools waits for disks: those that are well answer at once,
/// and those that are not must not hold up the others.
const MOMENT: Duration = Duration::from_secs(1);

/// How long a call waits for a place among those of its pool.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a caller looks whether its disk has fallen silent; from memory.
const LOOK_UP: Duration = Duration::from_millis(500);

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
    /// The pool's disk does not answer.
    #[error(
        "the disk of pool {pool} does not answer; what was begun goes on when it does: try again"
    )]
    Silent {
        /// The pool.
        pool: PoolId,
    },
    /// As many calls as may be are in the pool already.
    #[error("too many calls wait for {what}: try again")]
    Crowded {
        /// The pool, or what else they wait for.
        what: String,
    },
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
    lanes: Lanes,
    metrics: Metrics,
    volumes_changed: mpsc::Sender<String>,
    pools_changed: Arc<Notify>,
    refused: Arc<AtomicBool>,
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
            lanes: Lanes::default(),
            metrics,
            volumes_changed,
            pools_changed: Arc::default(),
            refused: Arc::default(),
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

    /// Has all pools looked at, and reports them. Disks that do not answer within a
    /// moment are reported as they were seen last, and once they have been silent for a
    /// while, as just that.
    ///
    /// # Errors
    /// [`Failure::Disk`] when the root cannot be read.
    pub async fn rescan(&self) -> Result<Vec<PoolReport>, Failure> {
        Ok(self.read(|disk| disk.rescan_within(MOMENT)).await??)
    }

    /// Asks all disks for a sign of life, and waits for none.
    ///
    /// # Errors
    /// [`Failure::Disk`] when the root cannot be read.
    pub async fn ask(&self) -> Result<(), Failure> {
        Ok(self.read(Provisioner::ask).await??)
    }

    /// The pools as they were seen last. Asks no disk.
    pub fn pools(&self) -> Vec<PoolReport> {
        self.provisioner.pools()
    }

    /// Every volume whose record was read, from memory.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.provisioner.recorded()
    }

    /// One pool as it is now; nothing if no directory of this node has shown it. Asks no
    /// other disk.
    ///
    /// # Errors
    /// [`Failure::Silent`] when its disk stops answering meanwhile.
    pub async fn look_at(&self, pool: &PoolId) -> Result<Option<PoolReport>, Failure> {
        let id = pool.clone();
        // Not refused for silence: the answer says it.
        let look = move |disk: &Provisioner| disk.look_at(&id);
        match self.read_in(Some(pool), look).await {
            Err(Failure::Silent { .. }) => Ok(pool_of(&self.pools(), pool).cloned()),
            answer => answer,
        }
    }

    /// Reads what concerns no single pool, where blocking is allowed.
    ///
    /// # Errors
    /// [`Failure::Crowded`], and [`Failure::Stopped`] when the read panicked.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Provisioner) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.read_in(None, read).await
    }

    /// Reads about the volume or snapshot `id`, in the pool that has it.
    ///
    /// # Errors
    /// As [`Disks::read`], and [`Failure::Silent`].
    pub async fn read_of<T: Send + 'static>(
        &self,
        id: &str,
        read: impl FnOnce(&Provisioner) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let pool = self.home_of(id).await;
        self.read_in(pool.as_ref(), read).await
    }

    async fn read_in<T: Send + 'static>(
        &self,
        pool: Option<&PoolId>,
        read: impl FnOnce(&Provisioner) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.block(pool, Lane::Look, move |disks| read(&disks.provisioner))
            .await
    }

    /// Reads from every pool that was read, side by side, and puts the answers together.
    /// A pool whose disk does not answer is answered for from memory.
    ///
    /// # Errors
    /// As [`Disks::read`]; [`Failure::Disk`] while a pool has not been opened yet.
    pub async fn read_each<T: Send + 'static>(
        &self,
        read: fn(&Provisioner, &PoolId) -> Vec<T>,
    ) -> Result<Vec<T>, Failure> {
        self.opened().await;
        self.provisioner.require_all_read("some")?;
        let pools = self.provisioner.pool_ids();
        let reads = pools.iter().map(async |pool| {
            let of = pool.clone();
            match self.read_in(Some(pool), move |disk| read(disk, &of)).await {
                // Known to be silent, so the disk is not asked again.
                Err(Failure::Silent { .. }) => {
                    let of = pool.clone();
                    self.read(move |disk| read(disk, &of)).await
                }
                answer => answer,
            }
        });
        let answers = futures::future::join_all(reads).await;
        let answers: Result<Vec<_>, _> = answers.into_iter().collect();
        Ok(answers?.into_iter().flatten().collect())
    }

    /// The pool that holds a volume or snapshot; asks no disk.
    async fn home_of(&self, id: &str) -> Option<PoolId> {
        if self.provisioner.pool_of(id).is_none() {
            self.opened().await;
        }
        self.provisioner.pool_of(id)
    }

    /// Gives pools that are being opened a moment, so that whoever calls at the start is
    /// not sent away for nothing.
    pub(crate) async fn opened(&self) {
        let end = Instant::now() + MOMENT;
        while self.provisioner.require_all_read("").is_err() && Instant::now() < end {
            tokio::time::sleep(MOMENT / 50).await;
        }
    }

    /// Opening the pools goes on in the background; this waits for it, but for no disk
    /// that is silent.
    ///
    /// # Errors
    /// As [`Disks::read`].
    pub async fn wait_open(&self) -> Result<(), Failure> {
        self.read(Provisioner::wait_open).await
    }

    /// Gives up the locks of the root and of all pools, except those on which an
    /// operation still runs. Nothing is begun after this.
    ///
    /// # Errors
    /// As [`Disks::read`].
    pub async fn close(&self) -> Result<(), Failure> {
        self.read(|disk| disk.close(MOMENT)).await
    }

    /// Does blocking work in a lane of a pool. The caller is released when the pool's
    /// disk falls silent; the work goes on to its end, and takes its place until then.
    async fn block<T: Send + 'static>(
        &self,
        pool: Option<&PoolId>,
        lane: Lane,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let crowded = || Failure::Crowded {
            what: pool.map_or_else(|| "the pools".to_owned(), |pool| format!("pool {pool}")),
        };
        let enter = tokio::time::timeout(PATIENCE, self.lanes.enter(pool, lane));
        let permit = tokio::select! {
            biased;
            () = self.silence(pool, lane) => return Err(silent(pool)),
            entered = enter => entered.ok().flatten().ok_or_else(crowded)?,
        };
        let disks = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&disks);
            drop(permit);
            done
        });
        tokio::select! {
            done = done => done.map_err(|error| Failure::Stopped(error.to_string())),
            () = self.silence(pool, lane) => Err(silent(pool)),
        }
    }

    /// Completes when the pool's disk is silent. What unmounts need not ask the disk, and
    /// has its time.
    async fn silence(&self, pool: Option<&PoolId>, lane: Lane) {
        let Some(pool) = pool else {
            return std::future::pending().await;
        };
        if lane == Lane::Unmount {
            tokio::time::sleep(PATIENCE).await;
        }
        while !self.provisioner.is_silent(pool) {
            tokio::time::sleep(LOOK_UP).await;
        }
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

    /// Does one operation on one volume or snapshot, where blocking is allowed. It goes on
    /// to its end even if the caller goes away, and keeps others out until then.
    ///
    /// # Errors
    /// [`Failure::Busy`] when another operation on the volume runs, [`Failure::Silent`]
    /// and [`Failure::Crowded`] when its disk does not answer, else what the operation
    /// answers.
    pub async fn operate<T: Send + 'static>(
        &self,
        operation: Operation,
        id: &str,
        work: impl FnOnce(&Provisioner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let pool = self.home_of(id).await;
        self.operate_in(pool.as_ref(), lane_of(operation), operation, id, work)
            .await
    }

    /// The same in a pool that is known, and in the lane of what it takes: for volumes
    /// and snapshots that are made.
    ///
    /// # Errors
    /// As [`Disks::operate`].
    pub async fn operate_in<T: Send + 'static>(
        &self,
        pool: Option<&PoolId>,
        lane: Lane,
        operation: Operation,
        id: &str,
        work: impl FnOnce(&Provisioner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let Some(guard) = self.locks.try_lock(id) else {
            self.metrics.refused(operation);
            return Err(Failure::Busy { id: id.to_owned() });
        };
        let id = id.to_owned();
        let work = move |disks: &Self| {
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
        };
        self.block(pool, lane, work).await?.map_err(Failure::Disk)
    }

    /// The pool that holds a volume or a snapshot; asks no disk.
    pub fn pool_of(&self, id: &str) -> Option<PoolId> {
        self.provisioner.pool_of(id)
    }

    /// The answer for a volume that no pool which was read has.
    pub fn unknown_volume(&self, id: &str) -> Failure {
        Failure::Disk(self.provisioner.unknown_volume(id))
    }

    /// The same for a snapshot.
    pub fn unknown_snapshot(&self, id: &str) -> Failure {
        let unread = self.provisioner.require_all_read(id).err();
        Failure::Disk(unread.unwrap_or_else(|| Error::UnknownSnapshot { id: id.to_owned() }))
    }
}

fn silent(pool: Option<&PoolId>) -> Failure {
    match pool {
        Some(pool) => Failure::Silent { pool: pool.clone() },
        None => Failure::Crowded {
            what: "the pools".to_owned(),
        },
    }
}

/// The lane of an operation.
fn lane_of(operation: Operation) -> Lane {
    match operation {
        Operation::Stats => Lane::Look,
        Operation::Snapshot => Lane::Copy,
        Operation::Unstage | Operation::Unpublish => Lane::Unmount,
        Operation::Create
        | Operation::Assign
        | Operation::Grow
        | Operation::Erase
        | Operation::Stage
        | Operation::Publish
        | Operation::Expand
        | Operation::EraseSnapshot => Lane::Work,
    }
}

/// The report of the pool `id`: of several directories that show it, of the one that can
/// be used.
pub(crate) fn pool_of<'a>(reports: &'a [PoolReport], id: &PoolId) -> Option<&'a PoolReport> {
    let of_id = reports
        .iter()
        .filter(|report| report.id.as_ref() == Some(id));
    of_id.min_by_key(|report| match report.health {
        Health::Healthy => 0,
        Health::ReadOnly => 1,
        // It is mounted there, and its state says more than its absence elsewhere.
        Health::Damaged(_) | Health::Unsupported(_) | Health::Unresponsive => 2,
        Health::Uninitialized | Health::LostMount => 3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata::pool;

    #[test]
    fn a_pool_is_where_it_can_be_used() {
        let at = |dir: &str, health| PoolReport {
            dir: dir.to_owned(),
            ..pool(health)
        };
        let other = PoolReport {
            id: Some(PoolId::new("disk1-0123456789ab").expect("valid")),
            ..at("disk1", Health::Healthy)
        };
        let damaged = || Health::Damaged("torn".to_owned());
        let id = PoolId::new("disk0-0123456789ab").expect("valid");
        for (old, new) in [
            (Health::LostMount, Health::Healthy),
            (Health::LostMount, Health::ReadOnly),
            (Health::LostMount, damaged()),
            (damaged(), Health::ReadOnly),
            (Health::ReadOnly, Health::Healthy),
        ] {
            let (old, new) = (at("disk0", old), at("fast", new));
            for reports in [
                vec![other.clone(), old.clone(), new.clone()],
                vec![new.clone(), old.clone(), other.clone()],
            ] {
                let found = pool_of(&reports, &id).map(|report| report.dir.as_str());
                assert_eq!(found, Some("fast"), "{:?}, {:?}", old.health, new.health);
            }
        }
        // A pool that only lost its mount is reported as just that.
        let lost = [other.clone(), at("disk0", Health::LostMount)];
        let found = pool_of(&lost, &id).map(|report| &report.health);
        assert_eq!(found, Some(&Health::LostMount));
        assert!(pool_of(&[other], &id).is_none());
    }
}
