//! What the targets `damage` and `hostile` have in common: a node with a pool, a
//! victim and a neighbour on it, and a fingerprint of everything that lies on a disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sha2::Digest;

use berth_provisioner::testing::{LoopPool, TestNode};
use berth_provisioner::{
    Backend, ClaimRef, Error, InitOptions, PoolId, Provisioner, Publish, Stage, VolumeMode,
    VolumeSpec, init_pool,
};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A disk and what makes volumes on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    pub(crate) fstype: &'static str,
    pub(crate) backend: Backend,
}

/// A node with one pool.
pub(crate) struct Rig {
    pub(crate) disk: Disk,
    pub(crate) node: TestNode,
    pub(crate) image: LoopPool,
    pub(crate) pool: PoolId,
    p: Option<Provisioner>,
}

impl Rig {
    pub(crate) fn new(disk: Disk) -> Self {
        let node = TestNode::new();
        let image = node.disk_of("disk0", 1024 * MIB, disk.fstype, "");
        let pool = init_pool(&node.config(), "disk0", &InitOptions::default()).unwrap();
        let p = Some(Provisioner::open(node.config()).unwrap());
        Self {
            disk,
            node,
            image,
            pool,
            p,
        }
    }

    pub(crate) fn p(&self) -> &Provisioner {
        self.p.as_ref().unwrap()
    }

    /// As after a `kill -9`: what is in memory is gone, what is mounted stays.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.p = Some(Provisioner::open(self.node.config()).unwrap());
    }

    pub(crate) fn stop(&mut self) {
        self.p = None;
    }

    pub(crate) fn pool_dir(&self) -> PathBuf {
        self.node.pool_dir("disk0")
    }

    /// The directory of a volume.
    pub(crate) fn home(&self, id: &str) -> PathBuf {
        self.pool_dir().join("volumes").join(id)
    }

    pub(crate) fn want(&self, id: &str, size: u64) -> VolumeSpec {
        VolumeSpec {
            id: id.into(),
            size,
            claim: Some(ClaimRef {
                namespace: "default".into(),
                name: format!("data-{id}"),
                uid: format!("uid-{id}"),
            }),
            set: None,
            backend: Some(self.disk.backend),
            mode: VolumeMode::Filesystem,
            source: None,
            sparse: false,
            incarnation: None,
            expect_existing: false,
        }
    }

    pub(crate) fn make(&self, id: &str) {
        self.p()
            .create(&self.pool, &self.want(id, 32 * MIB))
            .unwrap();
    }

    pub(crate) fn stage(&self, id: &str, mode: VolumeMode) -> Result<PathBuf, Error> {
        let staging = self.node.staging(id);
        self.p().stage(&Stage {
            id: id.into(),
            staging: staging.clone(),
            mode,
        })?;
        Ok(staging)
    }

    pub(crate) fn stage_at(&self, id: &str, staging: &Path) -> Result<(), Error> {
        self.p().stage(&Stage {
            id: id.into(),
            staging: staging.into(),
            mode: VolumeMode::Filesystem,
        })
    }

    /// Stages and publishes; where a pod would see it.
    pub(crate) fn mount_as(&self, id: &str, mode: VolumeMode) -> Result<PathBuf, Error> {
        let staging = self.stage(id, mode)?;
        let target = self.node.target("pod", id);
        self.p().publish(&Publish {
            id: id.into(),
            target: target.clone(),
            staging: Some(staging),
            mode,
            readonly: false,
            flags: Vec::new(),
            pod_uid: "pod".into(),
            pod: String::new(),
            single_writer: true,
        })?;
        Ok(target)
    }

    pub(crate) fn mount(&self, id: &str) -> Result<PathBuf, Error> {
        self.mount_as(id, VolumeMode::Filesystem)
    }

    pub(crate) fn unmount(&self, id: &str) {
        again_while_busy(|| self.p().unpublish(id, &self.node.target("pod", id)));
        again_while_busy(|| self.p().unstage(id, &self.node.staging(id)));
    }

    /// A volume that is sound is mounted, written, read and unmounted.
    pub(crate) fn is_usable(&self, id: &str) {
        let at = self.mount(id).unwrap();
        fs::write(at.join("probe"), "sound").unwrap();
        assert_eq!(fs::read_to_string(at.join("probe")).unwrap(), "sound");
        self.unmount(id);
    }

    /// What is in a volume's tree is on the disk before anybody looks at it.
    pub(crate) fn put(&self, id: &str, fill: impl FnOnce(&Path)) {
        let at = self.mount(id).unwrap();
        fill(&at);
        nix::unistd::syncfs(fs::File::open(&at).unwrap()).unwrap();
        self.unmount(id);
    }
}

/// As kubelet does. Programs that other tests start hold our files for the moment
/// between fork and exec.
fn again_while_busy(mut step: impl FnMut() -> Result<(), Error>) {
    let end = Instant::now() + PATIENCE;
    while let Err(e) = step() {
        assert!(matches!(e, Error::Busy { .. }), "{e}");
        assert!(Instant::now() < end, "{e}");
    }
}

/// Waits for what is about to be.
pub(crate) fn until(mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes a mount off that the test made.
pub(crate) fn umount(at: &Path) {
    let end = Instant::now() + PATIENCE;
    while let Err(e) = nix::mount::umount(at) {
        assert!(e == nix::errno::Errno::EBUSY && Instant::now() < end, "{e}");
    }
}

/// Everything beneath a directory: kinds, modes, owners, sizes, times, contents,
/// and where links lead.
pub(crate) fn fingerprint(at: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![at.to_owned()];
    while let Some(path) = ahead.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let content = if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                ahead.push(entry.unwrap().path());
            }
            String::new()
        } else if kind.is_file() {
            digest(&path, meta.len())
        } else {
            format!("{kind:?} {}", meta.rdev())
        };
        let facts = format!(
            "{:o} {}:{} {} {}.{} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            if kind.is_file() { meta.len() } else { 0 },
            meta.mtime(),
            meta.mtime_nsec(),
        );
        found.insert(path, facts);
    }
    found
}

/// Images are too long for our memory.
fn digest(path: &Path, length: u64) -> String {
    if length <= MIB {
        return format!("{:x?}", sha2::Sha256::digest(fs::read(path).unwrap()));
    }
    run(Command::new("sha256sum").arg("--").arg(path))
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Runs a program that has to succeed; what it said.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
