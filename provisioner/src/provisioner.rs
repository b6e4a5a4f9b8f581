//! The face of this crate: one method for each operation, which one function of the
//! modules below carries out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::discovery::shared;
use crate::error::{Error, IoContext};
use crate::mount::{publish, publishers};
use crate::operation;
use crate::pool::shared::SharedPool;
use crate::report::{check, pools, snapshots, volumes};
use crate::store::desks::SILENCE;
use crate::store::{Store, lookup};
use crate::sys::Sys;
use crate::types::{
    CheckReport, ClaimRef, Config, Erasure, InitOptions, KnownPool, PoolId, PoolReport, Publish,
    Recorded, SetRef, SnapshotReport, SnapshotSpec, Stage, Usage, VolumeReport, VolumeSpec,
};
use crate::volume::{by_claim, delete, snapshot, trash};
use crate::workers;

/// How long background work that can end has to end when a provisioner is dropped.
const FAREWELL: Duration = Duration::from_secs(10);

/// Everything that touches this node's disks. Shared by reference between
/// threads; calls block.
#[derive(Debug)]
pub struct Provisioner {
    pub(crate) store: Arc<Store>,
}

impl Provisioner {
    /// Opens the root to work on it: takes its lock, reads every pool, finishes
    /// what a crash left half made and goes on erasing what is in the trash.
    /// Initialises nothing; see [`rescan`](Self::rescan). Does not wait for disks that
    /// do not answer.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process has it open, [`Error::Io`] when the
    /// root cannot be used. Pools that cannot be used are no error: see
    /// [`rescan`](Self::rescan).
    #[cfg(target_os = "linux")]
    pub fn open(config: Config) -> Result<Self, Error> {
        Self::open_with(config, Box::new(crate::sys::Linux))
    }

    /// Like [`open`](Self::open), without waiting for any disk: each pool is read in the
    /// background. Until then whatever may concern it is refused with
    /// [`Error::NotOpenYet`]; see [`wait_open`](Self::wait_open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(target_os = "linux")]
    pub fn start(config: Config) -> Result<Self, Error> {
        Self::start_with(config, Box::new(crate::sys::Linux))
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
        let opened = Self::start_with(config, sys)?;
        opened.wait_open();
        Ok(opened)
    }

    pub(crate) fn start_with(config: Config, sys: Box<dyn Sys>) -> Result<Self, Error> {
        let store = Arc::new(Store::for_writing(config, sys)?);
        let root = store.config.root.clone();
        publishers::load(&store).context("reading who uses the volumes below", root)?;
        let started = Self { store };
        workers::ask(&started.store, false)?;
        Ok(started)
    }

    pub(crate) fn inspect_with(config: Config, sys: Box<dyn Sys>) -> Result<Self, Error> {
        let root = config.root.clone();
        let store = Arc::new(Store::for_inspection(config, sys));
        publishers::load(&store).context("reading who uses the volumes below", &root)?;
        let started = Self { store };
        workers::ask(&started.store, false)?;
        started.wait_open();
        Ok(started)
    }

    /// Waits until every pool has been read; not for disks that are silent.
    pub fn wait_open(&self) {
        self.store.desks.wait(|_| true, SILENCE);
    }

    /// Begins nothing any more and lets the next process in: gives up the root's lock,
    /// and those of all pools but the ones on which an operation still runs. Waits for
    /// background work for at most `patience`; what waits for a disk cannot be ended.
    pub fn close(&self, patience: Duration) {
        workers::close(&self.store, patience);
    }

    /// Remembers pools that this node had according to the API, so that an empty
    /// directory in the place of one is refused as a lost mount. Call it before
    /// [`rescan`](Self::rescan) is to initialise anything.
    pub fn remember(&self, known: Vec<KnownPool>) {
        self.store.remember(known);
    }

    /// Looks at every directory under `pools/`, healthy or not, and at those that
    /// are remembered: picks up disks that were mounted, initialised or unmounted
    /// since. Cheap enough to be called every few seconds. A disk that has not answered
    /// for 10 s is reported as [`Health::Unresponsive`](crate::Health::Unresponsive),
    /// and not waited for any more.
    ///
    /// # Errors
    /// [`Error::Io`] when the root itself cannot be read.
    pub fn rescan(&self) -> Result<Vec<PoolReport>, Error> {
        self.rescan_within(SILENCE)
    }

    /// Like [`rescan`](Self::rescan), but waits for the answers for at most `patience`:
    /// what has not answered by then is reported as it was seen last.
    ///
    /// # Errors
    /// As [`rescan`](Self::rescan).
    pub fn rescan_within(&self, patience: Duration) -> Result<Vec<PoolReport>, Error> {
        workers::rescan(&self.store, true, patience)
    }

    /// Asks every disk for a sign of life, and waits for none: what a disk answers, or
    /// that it does not, is in later reports. Makes no pools.
    ///
    /// # Errors
    /// [`Error::Io`] when the root itself cannot be read.
    pub fn ask(&self) -> Result<(), Error> {
        workers::ask(&self.store, false)
    }

    /// Every directory as it was seen last; asks no disk, and never waits.
    pub fn pools(&self) -> Vec<PoolReport> {
        pools::last(&self.store)
    }

    /// Looks at one pool, and at no other; nothing if no directory has shown it.
    pub fn look_at(&self, pool: &PoolId) -> Option<PoolReport> {
        workers::look_at(&self.store, pool)
    }

    /// The pool that holds a volume or a snapshot of this id, as far as pools were read.
    /// Never waits.
    pub fn pool_of(&self, id: &str) -> Option<PoolId> {
        lookup::pool_of(&self.store, id).or_else(|| lookup::pool_of_snapshot(&self.store, id))
    }

    /// Whether this pool's disk does not answer. Never waits.
    pub fn is_silent(&self, pool: &PoolId) -> bool {
        self.store.is_silent(pool)
    }

    /// The error for a volume that no pool which was read has: while one was not read, it
    /// says that. Never waits.
    pub fn unknown_volume(&self, id: &str) -> Error {
        self.store.unknown_volume(id)
    }

    /// Refuses to take what was not found for absent, while a pool was never read that
    /// may hold it. Never waits.
    ///
    /// # Errors
    /// [`Error::NotOpenYet`].
    pub fn require_all_read(&self, id: &str) -> Result<(), Error> {
        self.store.refuse_unopened(id)
    }

    /// Makes a directory under `pools/` a pool, see [`init_pool`](crate::init_pool).
    ///
    /// # Errors
    /// [`Error::InitRefused`] with the reason.
    pub fn init_pool(&self, dir: &str, options: &InitOptions) -> Result<PoolReport, Error> {
        operation::init_pool(&self.store, dir, options)
    }

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
        shared::request(&self.store, pool)
    }

    /// Makes a volume, or returns the one that an earlier call with the same parameters
    /// made (it may have grown since).
    ///
    /// # Errors
    /// [`Error::NoRoom`]: nothing was made. [`Error::AlreadyExists`]: another volume
    /// has the id. [`Error::Tombstoned`]: it was erased on purpose.
    /// [`Error::Lost`]: it is expected, or recorded, and its data is not there.
    /// [`Error::TooSmall`], and what is wrong with the source, for a volume that has
    /// one.
    /// [`Error::PoolMissing`], [`Error::LostMount`], [`Error::ReadOnly`],
    /// [`Error::Unsupported`], [`Error::Damaged`] and [`Error::Io`] as they say.
    pub fn create(&self, pool: &PoolId, want: &VolumeSpec) -> Result<VolumeReport, Error> {
        operation::create(&self.store, pool, want)
    }

    /// Lets a volume grow to `size` bytes. A size that it has already changes
    /// nothing: volumes do not shrink.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a size that no disk has, [`Error::NoRoom`],
    /// [`Error::UnknownVolume`], or what is wrong with the volume or its pool.
    pub fn expand(&self, id: &str, size: u64) -> Result<VolumeReport, Error> {
        operation::expand(&self.store, id, size)
    }

    /// Gives a volume to another claim, in its record and its by-claim link. The claim
    /// that it has already changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a claim that cannot be, [`Error::UnknownVolume`], or
    /// what is wrong with the volume or its pool.
    pub fn assign(
        &self,
        id: &str,
        claim: ClaimRef,
        set: Option<SetRef>,
    ) -> Result<VolumeReport, Error> {
        operation::assign(&self.store, id, claim, set)
    }

    /// The volume, if a pool that was seen holds one of that id.
    pub fn find(&self, id: &str) -> Option<VolumeReport> {
        volumes::find(&self.store, id)
    }

    /// Every volume of every pool that was seen, also of those that are not there
    /// now.
    pub fn list(&self) -> Vec<VolumeReport> {
        volumes::list(&self.store)
    }

    /// Every volume whose record was read and is intact, from memory. Never waits.
    pub fn recorded(&self) -> Vec<Recorded> {
        lookup::recorded(&self.store)
    }

    /// Every volume of one pool that was seen; from memory where its disk does not
    /// answer.
    pub fn list_of(&self, pool: &PoolId) -> Vec<VolumeReport> {
        volumes::report(&self.store, pool, None)
    }

    /// The pools that were seen. Never waits.
    pub fn pool_ids(&self) -> Vec<PoolId> {
        self.store.pool_ids()
    }

    /// Space of a volume.
    ///
    /// # Errors
    /// [`Error::UnknownVolume`], [`Error::Damaged`], or what is wrong with the pool.
    pub fn stats(&self, id: &str) -> Result<Usage, Error> {
        volumes::stats(&self.store, id)
    }

    /// Erases a volume on purpose. When this returns, the volume is gone permanently and
    /// for every caller; its space is freed in the background, and its room with it.
    /// Succeeds when it was erased before.
    ///
    /// # Errors
    /// [`Error::Published`] while it is mounted anywhere. [`Error::UnknownVolume`]
    /// when no pool that was seen has, or erased, a volume of this id: it may lie
    /// in a pool that is not here, so this is no proof that it is gone; see
    /// [`delete_from`](Self::delete_from). Otherwise what is wrong with the pool.
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        delete::delete(&self.store, id)
    }

    /// Whether a pool that is here erased a volume of this id on purpose: no pool
    /// makes it again, so a caller that names volumes itself looks before it does.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when this cannot be an id, [`Error::Io`] when a
    /// tombstone cannot be read.
    pub fn is_erased(&self, id: &str) -> Result<bool, Error> {
        delete::is_erased(&self.store, id)
    }

    /// Like [`delete`](Self::delete), of a volume that is known to lie in `pool`:
    /// when that pool is here and holds nothing of the id, it is gone, and a
    /// tombstone says so.
    ///
    /// # Errors
    /// As [`delete`](Self::delete), and [`Error::PoolMissing`].
    pub fn delete_from(&self, pool: &PoolId, id: &str, erasure: &Erasure) -> Result<(), Error> {
        delete::delete_from(&self.store, pool, id, erasure)
    }

    /// Waits until the trash of all present pools is empty, for at most `patience`;
    /// returns whether it is.
    pub fn settle(&self, patience: Duration) -> bool {
        trash::settle(&self.store, patience)
    }

    /// Takes a snapshot, or returns the one that an earlier call of the same
    /// parameters took. It reserves what it pins: the bytes that its volume uses at
    /// that moment.
    ///
    /// # Errors
    /// [`Error::UnknownVolume`], [`Error::NoRoom`], [`Error::AlreadyExists`] when the id
    /// is that of another volume's snapshot, or what is wrong with the volume or its
    /// pool.
    pub fn snapshot(&self, want: &SnapshotSpec) -> Result<SnapshotReport, Error> {
        operation::snapshot(&self.store, want)
    }

    /// The snapshot, if a pool that was seen holds one of that id.
    pub fn find_snapshot(&self, id: &str) -> Option<SnapshotReport> {
        snapshots::find(&self.store, id)
    }

    /// Every snapshot of every pool that was seen, in the order of their ids.
    pub fn list_snapshots(&self) -> Vec<SnapshotReport> {
        snapshots::list(&self.store)
    }

    /// Every snapshot of one pool that was seen; from memory where its disk does not
    /// answer.
    pub fn list_snapshots_of(&self, pool: &PoolId) -> Vec<SnapshotReport> {
        snapshots::report(&self.store, pool, None)
    }

    /// Erases a snapshot on purpose. Succeeds when it is gone already, or never existed.
    ///
    /// # Errors
    /// What is wrong with its pool.
    pub fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        snapshot::delete(&self.store, id)
    }

    /// Mounts a volume at a staging path, once per node; repeated calls change
    /// nothing. A raw block device is attached, and mounted nowhere yet.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), without its refusals.
    pub fn stage(&self, request: &Stage) -> Result<(), Error> {
        publish::stage(&self.store, request)?;
        by_claim::link_staged(&self.store, &request.id, Some(&request.staging));
        Ok(())
    }

    /// Unmounts a staging path. The directory stays; it is the caller's. Succeeds when
    /// nothing is mounted there.
    ///
    /// # Errors
    /// [`Error::Busy`] while a process uses it, [`Error::TargetConflict`] when
    /// something else is mounted there.
    pub fn unstage(&self, id: &str, staging: &Path) -> Result<(), Error> {
        publish::unstage(&self.store, id, staging)?;
        by_claim::link_staged(&self.store, id, None);
        Ok(())
    }

    /// Mounts a volume for a pod; repeated calls with the same parameters change
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Published`]: `single_writer` was asked for and another publish
    /// stands. [`Error::NotStaged`]. [`Error::TargetConflict`]: something else is
    /// at the target, or the volume in the other mode. [`Error::UnknownVolume`],
    /// [`Error::Lost`], [`Error::Damaged`], or what is wrong with the pool.
    pub fn publish(&self, request: &Publish) -> Result<(), Error> {
        publish::publish(&self.store, request)
    }

    /// Unmounts a pod's target and removes its directory. Succeeds when nothing is
    /// mounted there, and when the volume or its pool is not known any more.
    ///
    /// # Errors
    /// [`Error::Busy`] while a process uses it, [`Error::TargetConflict`] when
    /// something else is mounted there, or the directory is not empty.
    pub fn unpublish(&self, id: &str, target: &Path) -> Result<(), Error> {
        publish::unpublish(&self.store, id, target)
    }

    /// Makes by-claim links that are missing or point elsewhere, and removes those
    /// of volumes that are gone. Whatever is not a link of Berth's is left alone.
    /// Returns how many were changed.
    ///
    /// # Errors
    /// [`Error::InspectOnly`], or [`Error::Io`].
    pub fn repair_links(&self) -> Result<u64, Error> {
        by_claim::repair(&self.store)
    }

    /// Compares disks, records, links and mounts, and reports what does not fit.
    ///
    /// # Errors
    /// [`Error::Io`] when the root itself cannot be read.
    pub fn check(&self) -> Result<CheckReport, Error> {
        let pools = workers::rescan(&self.store, false, SILENCE)?;
        Ok(check::run(&self.store, &pools))
    }
}

impl Drop for Provisioner {
    fn drop(&mut self) {
        workers::close(&self.store, FAREWELL);
    }
}
