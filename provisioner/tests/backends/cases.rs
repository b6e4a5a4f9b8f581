//! What every backend promises, as functions that the targets run on their disks.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_provisioner::testing::{LoopPool, TestNode};
use berth_provisioner::{
    Backend, Error, InitOptions, PoolId, Provisioner, Publish, SnapshotSpec, Source, Stage,
    VolumeHealth, VolumeMode, VolumeSpec, init_pool,
};
use caps::{CapSet, Capability};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A disk and what makes volumes on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) fstype: &'static str,
    pub(crate) options: &'static str,
    pub(crate) backend: Backend,
}

pub(crate) struct Case {
    kind: Kind,
    pub(crate) node: TestNode,
    _disk: LoopPool,
    pub(crate) pool: PoolId,
    p: Option<Provisioner>,
}

impl Case {
    pub(crate) fn new(kind: Kind) -> Self {
        Self::on_disk_of(kind, 1024 * MIB)
    }

    /// On a disk of this size, of which only what is written takes space.
    pub(crate) fn on_disk_of(kind: Kind, size: u64) -> Self {
        let node = TestNode::new();
        let disk = node.disk_of("disk0", size, kind.fstype, kind.options);
        let pool = init_pool(&node.config(), "disk0", &InitOptions::default()).unwrap();
        let p = Some(Provisioner::open(node.config()).unwrap());
        Self {
            kind,
            node,
            _disk: disk,
            pool,
            p,
        }
    }

    /// The directory of pools and links.
    pub(crate) fn root(&self) -> PathBuf {
        self.node.root()
    }

    /// The pool's directory.
    pub(crate) fn disk(&self) -> PathBuf {
        self.node.pool_dir("disk0")
    }

    pub(crate) fn p(&self) -> &Provisioner {
        self.p.as_ref().unwrap()
    }

    /// As after a `kill -9`: what is in memory is gone, what is mounted stays.
    pub(crate) fn restart(&mut self) {
        self.p = None;
        self.p = Some(Provisioner::open(self.node.config()).unwrap());
    }

    pub(crate) fn want(&self, id: &str, size: u64) -> VolumeSpec {
        VolumeSpec {
            id: id.into(),
            size,
            claim: None,
            set: None,
            backend: Some(self.kind.backend),
            mode: VolumeMode::Filesystem,
            source: None,
            sparse: false,
            incarnation: None,
            expect_existing: false,
        }
    }

    pub(crate) fn make(&self, id: &str, size: u64) {
        self.p().create(&self.pool, &self.want(id, size)).unwrap();
    }

    pub(crate) fn make_from(&self, id: &str, size: u64, source: Source) -> Result<(), Error> {
        let want = VolumeSpec {
            source: Some(source),
            ..self.want(id, size)
        };
        self.p().create(&self.pool, &want).map(drop)
    }

    /// Stages and publishes; where a pod would see it.
    pub(crate) fn mount(&self, id: &str, mode: VolumeMode, readonly: bool) -> PathBuf {
        let staging = self.node.staging(id);
        let stage = Stage {
            id: id.into(),
            staging: staging.clone(),
            mode,
        };
        self.p().stage(&stage).unwrap();
        self.p().stage(&stage).unwrap();
        let target = self.node.target("pod", id);
        let publish = Publish {
            id: id.into(),
            target: target.clone(),
            staging: Some(staging),
            mode,
            readonly,
            flags: Vec::new(),
            pod_uid: "pod".into(),
            pod: String::new(),
            single_writer: true,
        };
        self.p().publish(&publish).unwrap();
        self.p().publish(&publish).unwrap();
        target
    }

    pub(crate) fn unmount(&self, id: &str) {
        let target = self.node.target("pod", id);
        again_while_busy(|| self.p().unpublish(id, &target));
        self.p().unpublish(id, &target).unwrap();
        assert!(!target.exists());
        let staging = self.node.staging(id);
        again_while_busy(|| self.p().unstage(id, &staging));
        self.p().unstage(id, &staging).unwrap();
    }

    /// Nothing is left of anything.
    pub(crate) fn is_empty(&self) {
        assert!(self.p().settle(PATIENCE), "the trash is not emptied");
        let pool = self.p().rescan().unwrap().remove(0);
        assert_eq!((pool.reserved, pool.volumes, pool.snapshots), (0, 0, 0));
        assert_eq!((pool.troubles, pool.io_errors), (vec![], 0));
        // Every kernel and filesystem tells it in its own way.
        assert!(pool.fs_uuid.is_some_and(|uuid| uuid.len() == 36));
        for part in ["volumes", "snapshots", "trash", ".berth/new"] {
            let at = self.node.pool_dir("disk0").join(part);
            assert_eq!(fs::read_dir(at).unwrap().count(), 0, "{part}");
        }
        let findings = self.p().check().unwrap().findings;
        assert!(findings.is_empty(), "{findings:?}");
    }
}

/// As kubelet does. A program that another test starts has copies of this process's open
/// files until it runs.
fn again_while_busy(mut unmount: impl FnMut() -> Result<(), Error>) {
    for _ in 0..500 {
        match unmount() {
            Err(Error::Busy { .. }) => std::thread::sleep(Duration::from_millis(20)),
            answer => return answer.unwrap(),
        }
    }
    panic!("it stays busy");
}

/// Writes until the filesystem refuses; the bytes that went in.
///
/// In a thread without CAP_SYS_RESOURCE, as containers are: ext4 lets whoever has it
/// pass every limit of its quota. Capabilities belong to threads.
pub(crate) fn fill(file: &Path) -> (u64, std::io::Error) {
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap();
            write_until_refused(file)
        });
        writer.join().unwrap()
    })
}

fn write_until_refused(file: &Path) -> (u64, std::io::Error) {
    let mut out = fs::File::create(file).unwrap();
    let mut block = vec![0u8; MIB as usize];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut block).unwrap();
    let mut written = 0;
    loop {
        match out.write(&block).and_then(|n| out.sync_data().map(|()| n)) {
            Ok(n) => written += n as u64,
            Err(e) => return (written, e),
        }
        assert!(written < 1024 * MIB, "no limit was met");
    }
}

pub(crate) fn pattern() -> Vec<u8> {
    (0..MIB).map(|i| (i % 251) as u8).collect()
}

pub(crate) fn put(path: &Path, bytes: u64) {
    let mut out = fs::File::create(path).unwrap();
    let pattern = pattern();
    for _ in 0..bytes / MIB {
        out.write_all(&pattern).unwrap();
    }
    out.sync_all().unwrap();
}

pub(crate) fn is_full(error: &std::io::Error) {
    let kind = error.kind();
    assert!(
        matches!(kind, ErrorKind::QuotaExceeded | ErrorKind::StorageFull),
        "{error}"
    );
}

/// A writer stops at its size, its neighbour goes on, and statistics are right.
pub(crate) fn a_full_volume_stops_and_its_neighbour_writes_on(kind: Kind) {
    let case = Case::new(kind);
    case.make("full", 64 * MIB);
    case.make("neighbour", 64 * MIB);
    let full = case.mount("full", VolumeMode::Filesystem, false);
    let neighbour = case.mount("neighbour", VolumeMode::Filesystem, false);
    let (written, error) = fill(&full.join("file"));
    is_full(&error);
    assert!((40 * MIB..=64 * MIB).contains(&written), "{written}");
    put(&neighbour.join("file"), 32 * MIB);
    if kind.backend != Backend::Btrfs {
        // What `df` in the pod shows.
        let stat = nix::sys::statvfs::statvfs(&full).unwrap();
        let total = stat.blocks() * stat.fragment_size();
        assert!((48 * MIB..=64 * MIB).contains(&total), "{total}");
    }
    nix::unistd::syncfs(fs::File::open(&neighbour).unwrap()).unwrap();
    let usage = case.p().stats("neighbour").unwrap();
    assert!((32 * MIB..42 * MIB).contains(&usage.used), "{usage:?}");
    assert!(
        usage.total >= 48 * MIB && usage.total <= 64 * MIB,
        "{usage:?}"
    );
    assert!(usage.available <= usage.total - usage.used, "{usage:?}");
    for id in ["full", "neighbour"] {
        assert!(matches!(case.p().delete(id), Err(Error::Published { .. })));
        case.unmount(id);
        case.p().delete(id).unwrap();
    }
    case.is_empty();
}

/// Data, limit and mounts are what they were after the process was killed.
pub(crate) fn a_restart_finds_everything(kind: Kind) {
    let mut case = Case::new(kind);
    case.make("v", 64 * MIB);
    let at = case.mount("v", VolumeMode::Filesystem, false);
    put(&at.join("file"), 8 * MIB);
    let before = case.p().find("v").unwrap();
    case.restart();
    let after = case.p().find("v").unwrap();
    assert_eq!(
        (&after.published, &after.staged, &after.health),
        (&before.published, &before.staged, &VolumeHealth::Ready)
    );
    assert_eq!(case.mount("v", VolumeMode::Filesystem, false), at);
    case.unmount("v");
    case.restart();
    let at = case.mount("v", VolumeMode::Filesystem, true);
    assert_eq!(fs::metadata(at.join("file")).unwrap().len(), 8 * MIB);
    assert_eq!(
        fs::write(at.join("other"), "x").unwrap_err().kind(),
        ErrorKind::ReadOnlyFilesystem
    );
    case.unmount("v");
    case.p().delete("v").unwrap();
    case.is_empty();
}

/// A snapshot keeps what was, also when its volume goes on and goes away.
pub(crate) fn a_snapshot_is_restored(kind: Kind) {
    let mut case = Case::new(kind);
    case.make("v", 64 * MIB);
    let at = case.mount("v", VolumeMode::Filesystem, false);
    put(&at.join("kept"), 8 * MIB);
    std::os::unix::fs::symlink("kept", at.join("link")).unwrap();
    fs::hard_link(at.join("kept"), at.join("hard")).unwrap();
    let want = SnapshotSpec {
        id: "s".into(),
        volume: "v".into(),
    };
    let taken = case.p().snapshot(&want).unwrap();
    assert_eq!(taken.size, 64 * MIB);
    assert!(taken.reserved >= 8 * MIB, "{taken:?}");
    assert_eq!(case.p().snapshot(&want).unwrap(), taken);
    fs::write(at.join("kept"), "overwritten").unwrap();
    fs::write(at.join("new"), "x").unwrap();
    case.unmount("v");
    case.p().delete("v").unwrap();
    case.restart();
    assert_eq!(case.p().find_snapshot("s"), Some(taken.clone()));

    let small = case.make_from("small", 32 * MIB, Source::Snapshot("s".into()));
    assert!(matches!(small, Err(Error::TooSmall { .. })), "{small:?}");
    case.make_from("r", 96 * MIB, Source::Snapshot("s".into()))
        .unwrap();
    let at = case.mount("r", VolumeMode::Filesystem, false);
    let bytes = fs::read(at.join("kept")).unwrap();
    assert_eq!(bytes.len() as u64, 8 * MIB);
    assert!(
        bytes
            .iter()
            .enumerate()
            .all(|(i, b)| *b == (i as u64 % MIB % 251) as u8)
    );
    assert!(!at.join("new").exists());
    assert_eq!(fs::read_link(at.join("link")).unwrap(), Path::new("kept"));
    let inode = |name: &str| fs::metadata(at.join(name)).unwrap().ino();
    assert_eq!(inode("kept"), inode("hard"));
    // It is a volume like any other: writable, limited, on its own.
    fs::write(at.join("mine"), "x").unwrap();
    case.p().delete_snapshot("s").unwrap();
    case.p().delete_snapshot("s").unwrap();
    case.p().delete_snapshot("never").unwrap();
    case.unmount("r");
    case.p().delete("r").unwrap();
    case.is_empty();
}

/// A raw block device: as large as was asked for, kept over restarts, copied and
/// grown like any volume.
pub(crate) fn a_raw_block_device(kind: Kind) {
    let mut case = Case::new(kind);
    let want = VolumeSpec {
        mode: VolumeMode::Block,
        ..case.want("v", 32 * MIB)
    };
    case.p().create(&case.pool, &want).unwrap();
    let device = case.mount("v", VolumeMode::Block, false);
    assert!(fs::metadata(&device).unwrap().file_type().is_block_device());
    let size = |device: &Path| {
        let mut file = fs::File::open(device).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap()
    };
    assert_eq!(size(&device), 32 * MIB);
    let write = |at: u64, text: &[u8]| {
        let file = fs::File::options().write(true).open(&device).unwrap();
        file.write_all_at(text, at).unwrap();
        file.sync_all().unwrap();
    };
    write(8 * MIB, b"kept");
    case.restart();
    case.mount("v", VolumeMode::Block, false);
    // As kubelet shows devices: below its plugins, and each to one pod.
    let kubelets = |pod: &str| {
        let at = case.node.kubelet().join("plugins/kubernetes.io/csi");
        let at = at.join("volumeDevices/publish/v");
        fs::create_dir_all(&at).unwrap();
        Publish {
            id: "v".into(),
            target: at.join(pod),
            staging: Some(case.node.staging("v")),
            mode: VolumeMode::Block,
            readonly: false,
            flags: Vec::new(),
            pod_uid: pod.into(),
            pod: String::new(),
            single_writer: true,
        }
    };
    case.p().publish(&kubelets("pod")).unwrap();
    let second = case.p().publish(&kubelets("other"));
    assert!(matches!(second, Err(Error::Published { .. })), "{second:?}");
    let pods = case.p().find("v").unwrap().published;
    assert!(
        pods.len() == 2 && pods.iter().all(|at| at.pod_uid == "pod"),
        "{pods:?}"
    );
    case.p().unpublish("v", &kubelets("pod").target).unwrap();
    let wrong = Stage {
        id: "v".into(),
        staging: case.node.staging("w"),
        mode: VolumeMode::Filesystem,
    };
    assert!(matches!(
        case.p().stage(&wrong),
        Err(Error::InvalidArgument { .. })
    ));
    let taken = SnapshotSpec {
        id: "s".into(),
        volume: "v".into(),
    };
    if kind.fstype == "ext4" {
        // Byte by byte, it would be torn.
        let told = case.p().snapshot(&taken);
        assert!(matches!(told, Err(Error::NotCopied { .. })), "{told:?}");
        case.unmount("v");
    }
    case.p().snapshot(&taken).unwrap();
    if kind.fstype == "ext4" {
        case.mount("v", VolumeMode::Block, false);
    }
    write(8 * MIB, b"lost");
    case.p().expand("v", 64 * MIB).unwrap();
    assert_eq!(size(&device), 64 * MIB);
    case.unmount("v");

    let restored = VolumeSpec {
        source: Some(Source::Snapshot("s".into())),
        ..VolumeSpec {
            id: "r".into(),
            ..want.clone()
        }
    };
    case.p().create(&case.pool, &restored).unwrap();
    let device = case.mount("r", VolumeMode::Block, true);
    let mut bytes = [0; 4];
    let file = fs::File::open(&device).unwrap();
    file.read_exact_at(&mut bytes, 8 * MIB).unwrap();
    assert_eq!(&bytes, b"kept");
    drop(file);
    // Read-only holds for the device itself.
    let file = fs::File::options().write(true).open(&device);
    let refused = file.and_then(|file| file.write_all_at(b"x", 0).and_then(|()| file.sync_all()));
    assert!(refused.is_err());
    assert!(matches!(case.p().delete("r"), Err(Error::Published { .. })));
    case.unmount("r");
    for id in ["v", "r"] {
        case.p().delete(id).unwrap();
    }
    case.p().delete_snapshot("s").unwrap();
    case.is_empty();
}

/// What was half copied when the process died is cleared away.
pub(crate) fn half_a_copy_goes(kind: Kind) {
    let mut case = Case::new(kind);
    case.make("v", 32 * MIB);
    let aside = case.node.pool_dir("disk0").join(".berth/new/c");
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("copying"), "").unwrap();
    fs::create_dir(aside.join("data")).unwrap();
    fs::write(aside.join("data/part"), "x").unwrap();
    case.restart();
    assert!(!aside.exists());
    case.p().delete("v").unwrap();
    case.is_empty();
}
