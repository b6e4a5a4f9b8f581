//! A real filesystem that lets no write through, under load: everything on the other disk
//! goes on, the silence is told, an agent that is started meanwhile works on the other
//! disk, and once the disk answers, nothing is lost and nothing is left.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use berth_provisioner::testing::TestNode;
use berth_provisioner::{
    Backend, Error, Health, InitOptions, PoolId, PoolReport, Provisioner, Publish, SnapshotSpec,
    Source, Stage, VolumeHealth, VolumeMode, VolumeSpec, init_pool,
};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// A filesystem that is frozen, and thawed whatever happens to the test: also when the
/// test itself is caught in it.
struct Frozen {
    at: PathBuf,
    watch: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Frozen {
    fn new(at: &Path) -> Self {
        freeze("-f", at);
        let (done, wait) = channel();
        let path = at.to_owned();
        let watch = std::thread::spawn(move || {
            if wait.recv_timeout(PATIENCE).is_err() {
                let _ = Command::new("fsfreeze").arg("-u").arg(path).status();
            }
        });
        Self {
            at: at.to_owned(),
            watch: Some((done, watch)),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some((done, watch)) = self.watch.take() {
            let _ = done.send(());
            let _ = watch.join();
        }
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.at).status();
    }
}

fn freeze(how: &str, at: &Path) {
    let done = Command::new("fsfreeze").arg(how).arg(at).status().unwrap();
    assert!(done.success(), "fsfreeze {how} {}", at.display());
}

/// Two disks, and a pool on each. Threads that are caught in a disk hold the provisioner,
/// so none is joined before the disk is let go.
struct Machine {
    node: TestNode,
    backend: Backend,
    silent: PoolId,
    well: PoolId,
}

impl Machine {
    fn new(fstype: &str, backend: Backend) -> Self {
        let node = TestNode::new();
        for disk in ["disk0", "disk1"] {
            node.disk_of(disk, 1024 * MIB, fstype, "");
        }
        let init = |disk| init_pool(&node.config(), disk, &InitOptions::default()).unwrap();
        let (silent, well) = (init("disk0"), init("disk1"));
        Self {
            node,
            backend,
            silent,
            well,
        }
    }

    fn open(&self) -> Arc<Provisioner> {
        Arc::new(Provisioner::open(self.node.config()).unwrap())
    }

    fn want(&self, id: &str) -> VolumeSpec {
        VolumeSpec {
            id: id.into(),
            size: 48 * MIB,
            claim: None,
            set: None,
            backend: Some(self.backend),
            mode: VolumeMode::Filesystem,
            source: None,
            sparse: false,
            incarnation: None,
            expect_existing: false,
        }
    }

    fn mount(&self, p: &Provisioner, id: &str) -> PathBuf {
        let (staging, target) = (self.node.staging(id), self.node.target("pod", id));
        p.stage(&Stage {
            id: id.into(),
            staging: staging.clone(),
            mode: VolumeMode::Filesystem,
        })
        .unwrap();
        p.publish(&Publish {
            id: id.into(),
            target: target.clone(),
            staging: Some(staging),
            mode: VolumeMode::Filesystem,
            readonly: false,
            flags: Vec::new(),
            pod_uid: "pod".into(),
            pod: String::new(),
            single_writer: true,
        })
        .unwrap();
        target
    }

    /// As kubelet does: again, while somebody still uses it.
    fn unmount(&self, p: &Provisioner, id: &str) {
        let (staging, target) = (self.node.staging(id), self.node.target("pod", id));
        until(|| not_busy(p.unpublish(id, &target)));
        until(|| not_busy(p.unstage(id, &staging)));
    }

    /// Makes, mounts, writes, snapshots, restores, reports and erases on the disk that is
    /// well, and has the room back.
    fn whole_life(&self, p: &Provisioner, round: u32) {
        let (id, copy, snap) = (
            format!("life-{round}"),
            format!("copy-{round}"),
            format!("snap-{round}"),
        );
        let made = p.create(&self.well, &self.want(&id)).unwrap();
        assert_eq!(made.health, VolumeHealth::Ready);
        let at = self.mount(p, &id);
        fs::write(at.join("file"), &id).unwrap();
        File::open(&at).unwrap().sync_all().unwrap();
        p.snapshot(&SnapshotSpec {
            id: snap.clone(),
            volume: id.clone(),
        })
        .unwrap();
        let restored = VolumeSpec {
            source: Some(Source::Snapshot(snap.clone())),
            ..self.want(&copy)
        };
        p.create(&self.well, &restored).unwrap();
        let other = self.mount(p, &copy);
        assert_eq!(fs::read_to_string(other.join("file")).unwrap(), id);
        assert!(p.stats(&id).unwrap().total >= 32 * MIB);
        for id in [&id, &copy] {
            self.unmount(p, id);
            p.delete(id).unwrap();
        }
        p.delete_snapshot(&snap).unwrap();
        until(|| {
            let pool = p.look_at(&self.well).unwrap();
            assert_eq!(pool.health, Health::Healthy, "{}", pool.message);
            (pool.reserved, pool.trash) == (0, 0)
        });
    }
}

fn not_busy(answer: Result<(), Error>) -> bool {
    match answer {
        Ok(()) => true,
        Err(Error::Busy { .. }) => false,
        Err(e) => panic!("{e}"),
    }
}

fn until(mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn health(reports: &[PoolReport]) -> Vec<&Health> {
    reports.iter().map(|report| &report.health).collect()
}

/// A pod that writes numbers, each of them to the disk, until it is told to stop; how many
/// it has written.
fn writer(at: &Path, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let (path, stop) = (at.join("numbers"), stop.clone());
    std::thread::spawn(move || {
        let mut out = File::create(path).unwrap();
        let mut n = 0;
        while !stop.load(Ordering::SeqCst) {
            out.write_all(format!("{n}\n").as_bytes()).unwrap();
            out.sync_data().unwrap();
            n += 1;
        }
        n
    })
}

type Caught = JoinHandle<Result<(), Error>>;

fn caught(
    p: &Arc<Provisioner>,
    work: impl FnOnce(&Provisioner) -> Result<(), Error> + Send + 'static,
) -> Caught {
    let p = p.clone();
    std::thread::spawn(move || work(&p))
}

fn one_frozen_disk_stops_nothing_else(fstype: &str, backend: Backend) {
    let machine = Machine::new(fstype, backend);
    let p = machine.open();
    for id in ["busy", "idle", "erased"] {
        p.create(&machine.silent, &machine.want(id)).unwrap();
    }
    let busy = machine.mount(&p, "busy");
    machine.mount(&p, "idle");
    let stop = Arc::new(AtomicBool::new(false));
    let pod = writer(&busy, &stop);
    until(|| fs::metadata(busy.join("numbers")).is_ok_and(|numbers| numbers.len() > 100));

    let frozen = Frozen::new(&machine.node.pool_dir("disk0"));
    let (silent, made) = (machine.silent.clone(), machine.want("made"));
    let calls = [
        caught(&p, move |p| p.create(&silent, &made).map(drop)),
        caught(&p, |p| p.delete("erased")),
    ];
    // Under load, the others go on, from the first moment until it is told and after that.
    let mut round = 0;
    while health(&p.pools()) != [&Health::Unresponsive, &Health::Healthy] {
        p.ask().unwrap();
        machine.whole_life(&p, round);
        round += 1;
        assert!(round < 10_000, "{:?}", p.pools());
    }
    machine.whole_life(&p, round);
    let told = p.look_at(&machine.silent).unwrap();
    assert!(told.message.contains("frozen"), "{}", told.message);
    assert!(
        told.capacity > 0 && told.reserved >= 3 * 48 * MIB,
        "{told:?}"
    );

    // What needs the disk is refused at once; pods can end.
    for refused in [
        p.create(&machine.silent, &machine.want("new")).map(drop),
        p.delete("idle"),
        p.stats("idle").map(drop),
    ] {
        assert!(
            matches!(refused, Err(Error::Unresponsive { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(p.list().len(), 3 + usize::from(p.find("made").is_some()));
    // A filesystem of its own, in an image, is written to when its last mount goes.
    let target = machine.node.target("pod", "idle");
    p.unpublish("idle", &target).unwrap();
    if backend != Backend::Image {
        p.unstage("idle", &machine.node.staging("idle")).unwrap();
    }

    // Another agent starts while calls of the first one are still caught.
    p.close(Duration::ZERO);
    let next = machine.open();
    assert_eq!(
        health(&next.rescan().unwrap()),
        [&Health::Unresponsive, &Health::Healthy]
    );
    machine.whole_life(&next, round + 1);
    assert!(matches!(
        next.stats("busy"),
        Err(Error::NotOpenYet { .. } | Error::Unresponsive { .. })
    ));

    drop(frozen);
    for call in calls {
        call.join().unwrap().unwrap();
    }
    drop(p);
    until(|| health(&next.rescan().unwrap()) == [&Health::Healthy, &Health::Healthy]);
    stop.store(true, Ordering::SeqCst);
    let written = pod.join().unwrap();
    let numbers = fs::read_to_string(busy.join("numbers")).unwrap();
    assert!(
        numbers
            .lines()
            .map(str::to_owned)
            .eq((0..written).map(|n| n.to_string()))
    );

    // What was asked for is done, once.
    let mut ids: Vec<_> = next.list().into_iter().map(|volume| volume.id).collect();
    ids.sort();
    assert_eq!(ids, ["busy", "idle", "made"]);
    assert!(next.is_erased("erased").unwrap());
    machine.mount(&next, "made");
    for id in ["busy", "idle", "made"] {
        machine.unmount(&next, id);
    }
    assert!(next.settle(PATIENCE));
    let check = next.check().unwrap();
    assert!(check.findings.is_empty(), "{check:?}");
    for id in ids {
        next.delete(&id).unwrap();
    }
    assert!(next.settle(PATIENCE));
    let reserved: u64 = next
        .rescan()
        .unwrap()
        .iter()
        .map(|pool| pool.reserved)
        .sum();
    assert_eq!(reserved, 0);
}

#[test]
fn one_frozen_btrfs_stops_nothing_else() {
    one_frozen_disk_stops_nothing_else("btrfs", Backend::Btrfs);
}

#[test]
fn one_frozen_xfs_with_images_stops_nothing_else() {
    one_frozen_disk_stops_nothing_else("xfs", Backend::Image);
}

#[test]
fn one_frozen_ext4_stops_nothing_else() {
    one_frozen_disk_stops_nothing_else("ext4", Backend::Directory);
}
