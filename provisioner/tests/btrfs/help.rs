//! What the tests have in common.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use berth_provisioner::testing::{LoopPool, TestNode};
use berth_provisioner::{
    Backend, ClaimRef, InitOptions, PoolId, Provisioner, Publish, SetRef, Stage, VolumeMode,
    VolumeSpec, init_pool,
};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn want(id: &str, size: u64) -> VolumeSpec {
    VolumeSpec {
        id: id.into(),
        size,
        claim: Some(ClaimRef {
            namespace: "default".into(),
            name: format!("data-{id}"),
            uid: format!("uid-{id}"),
        }),
        set: Some(SetRef {
            kind: "OrdinalSet".into(),
            name: "web".into(),
            ordinal: 0,
        }),
        backend: Some(Backend::Btrfs),
        mode: VolumeMode::Filesystem,
        source: None,
        sparse: false,
        incarnation: None,
        expect_existing: false,
    }
}

pub(crate) fn publish(node: &TestNode, id: &str, pod: &str) -> Publish {
    Publish {
        id: id.into(),
        target: node.target(pod, id),
        staging: None,
        mode: VolumeMode::Filesystem,
        readonly: false,
        flags: Vec::new(),
        pod_uid: pod.into(),
        pod: String::new(),
        single_writer: true,
    }
}

/// A node with one healthy pool.
pub(crate) fn node() -> (TestNode, LoopPool, Provisioner, PoolId) {
    node_with(&InitOptions::default())
}

pub(crate) fn node_with(options: &InitOptions) -> (TestNode, LoopPool, Provisioner, PoolId) {
    let node = TestNode::new();
    let disk = node.disk("disk0", 2 * GIB);
    let id = init_pool(&node.config(), "disk0", options).unwrap();
    let provisioner = Provisioner::open(node.config()).unwrap();
    (node, disk, provisioner, id)
}

/// Writes until the filesystem refuses; the bytes that went in.
pub(crate) fn fill(file: &Path) -> (u64, std::io::Error) {
    let mut out = fs::File::create(file).unwrap();
    // Random, so that a compressing filesystem gains nothing.
    let mut block = vec![0u8; MIB as usize];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut block).unwrap();
    let mut written = 0;
    loop {
        match out.write(&block).and_then(|n| out.sync_data().map(|()| n)) {
            Ok(n) => written += n as u64,
            Err(e) => return (written, e),
        }
        assert!(written < GIB, "no limit was met");
    }
}

pub(crate) fn commit(path: &Path) {
    let dir = fs::File::open(path).unwrap();
    nix::unistd::syncfs(&dir).unwrap();
}

pub(crate) fn subvolumes(path: &Path) -> String {
    let output = std::process::Command::new("btrfs")
        .args(["subvolume", "list"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn btrfs(args: &[&str], path: &Path) {
    let output = std::process::Command::new("btrfs")
        .args(args)
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

pub(crate) fn stage(id: &str, staging: &Path) -> Stage {
    Stage {
        id: id.into(),
        staging: staging.into(),
        mode: VolumeMode::Filesystem,
    }
}
