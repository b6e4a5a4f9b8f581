//! Pools without a disk of their own, on the filesystem that the system uses.

use std::fs;
use std::path::Path;

use berth_provisioner::testing::{LoopPool, TestNode};
use berth_provisioner::{
    Backend, Config, Error, FindingKind, Health, InitOptions, KnownPool, PoolId, PoolReport,
    Provisioner, SharedPool, VolumeSpec, init_pool,
};

use crate::help::{GIB, MIB, fill, publish, stage, want};

/// A node whose root lies on a filesystem of 4 GiB, as the system's own would be.
fn node_on(fstype: &str) -> TestNode {
    let node = TestNode::new();
    let image = node.kubelet().join("system.img");
    LoopPool::format(image, 4 * GIB, fstype, false).mount(&node.root(), "");
    node
}

/// What a claim gets here, whatever the filesystem.
fn image(id: &str, size: u64) -> VolumeSpec {
    VolumeSpec {
        backend: None,
        ..want(id, size)
    }
}

fn shared(capacity: u64) -> SharedPool {
    SharedPool::new("shared", capacity).unwrap()
}

/// The only directory under `pools/`.
fn only(p: &Provisioner) -> PoolReport {
    let mut reports = p.rescan().unwrap();
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0)
}

fn is_made_and_carries_images(fstype: &str) {
    let node = node_on(fstype);
    let p = Provisioner::open(node.config()).unwrap();
    assert_eq!(p.rescan().unwrap(), []);
    p.share(shared(GIB)).unwrap();
    let report = only(&p);
    assert_eq!(report.health, Health::Healthy, "{report:?}");
    assert_eq!((report.capacity, report.room), (GIB, GIB));
    assert_eq!(report.message, "");
    assert_eq!(report.backends, [Backend::Image, Backend::Directory]);
    let pool = report.id.unwrap();

    let volume = p.create(&pool, &image("v", 64 * MIB)).unwrap();
    assert_eq!(volume.backend, Backend::Image);
    let mut request = publish(&node, "v", "pod-1");
    request.staging = Some(node.staging("v"));
    p.stage(&stage("v", &node.staging("v"))).unwrap();
    p.publish(&request).unwrap();
    let (written, error) = fill(&request.target.join("fill"));
    assert!(error.raw_os_error() == Some(nix::errno::Errno::ENOSPC as i32));
    assert!((32 * MIB..=64 * MIB).contains(&written), "{written}");
    assert!(matches!(
        p.create(&pool, &image("w", GIB)),
        Err(Error::NoRoom { .. })
    ));
    // The system's own mounts of the filesystem are none of the pool's.
    fs::create_dir(node.root().join("systems")).unwrap();
    let at = node.kubelet().join("pods/pod-1/volume-subpaths");
    fs::create_dir_all(&at).unwrap();
    bind(&node.root().join("systems"), &at);
    assert_eq!(p.check().unwrap().findings, []);
    bind(&node.pool_dir("shared").join("volumes"), &at);
    let findings = p.check().unwrap().findings;
    assert!(
        matches!(&findings[..], [one] if one.path == at && one.kind == FindingKind::UnknownMount),
        "{findings:?}"
    );
    p.unpublish("v", &request.target).unwrap();
    p.unstage("v", &node.staging("v")).unwrap();
}

fn bind(from: &Path, to: &Path) {
    let none = None::<&str>;
    nix::mount::mount(Some(from), to, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
}

#[test]
fn a_shared_pool_on_ext4() {
    is_made_and_carries_images("ext4");
}

#[test]
fn a_shared_pool_on_a_btrfs_leaves_its_quotas_off() {
    is_made_and_carries_images("btrfs");
}

#[test]
fn another_size_is_the_pools_from_then_on() {
    let node = node_on("ext4");
    let p = Provisioner::open(node.config()).unwrap();
    p.share(shared(GIB)).unwrap();
    let made = only(&p);
    let pool = made.id.clone().unwrap();
    p.create(&pool, &image("v", 64 * MIB)).unwrap();

    p.share(shared(2 * GIB)).unwrap();
    let grown = only(&p);
    assert_eq!((grown.id, grown.capacity), (made.id, 2 * GIB));
    // Promises that exceed a smaller size stand.
    p.share(shared(MIB)).unwrap();
    let small = only(&p);
    assert_eq!((small.capacity, small.room), (MIB, 0));
    assert_eq!((small.reserved, small.volumes), (64 * MIB, 1));
    drop(p);

    // It is the pool's own, whoever opens it.
    let p = Provisioner::open(node.config()).unwrap();
    assert_eq!(only(&p).capacity, MIB);
    assert_eq!(p.list().len(), 1);
}

#[test]
fn too_little_room_is_told_once_and_shrinks_what_is_promised() {
    let node = node_on("ext4");
    let p = Provisioner::open(node.config()).unwrap();
    p.share(shared(100 * GIB)).unwrap();
    let report = only(&p);
    assert_eq!(report.health, Health::Healthy);
    assert!(report.message.contains("too little room"), "{report:?}");
    // A GiB at least is kept free for the system.
    assert!(report.room < 3 * GIB && report.room > GIB, "{report:?}");
    fs::write(node.root().join("grows"), vec![7; 8 << 20]).unwrap();
    assert_eq!(only(&p).message, report.message);
}

#[test]
fn a_pool_that_the_cluster_remembers_is_not_made_anew_without_a_person() {
    let node = node_on("ext4");
    let p = Provisioner::open(node.config()).unwrap();
    let lost = PoolId::new("shared-0123456789ab").unwrap();
    p.remember(vec![KnownPool {
        dir: "shared".into(),
        id: lost.clone(),
        fs_uuid: None,
    }]);
    p.share(shared(GIB)).unwrap();
    for _ in 0..2 {
        let report = only(&p);
        assert_eq!(report.health, Health::LostMount);
        assert_eq!(report.id, Some(lost.clone()));
        // The second time its directory is there, empty.
        fs::create_dir_all(node.pool_dir("shared")).unwrap();
    }
    let told = only(&p).message;
    assert!(told.contains("pools init shared --allow-root-fs"), "{told}");
    assert_eq!(fs::read_dir(node.pool_dir("shared")).unwrap().count(), 0);

    let config = Config {
        allow_root_fs: true,
        ..node.config()
    };
    let options = InitOptions {
        capacity: Some(GIB),
        ..InitOptions::default()
    };
    let made = init_pool(&config, "shared", &options).unwrap();
    let report = only(&p);
    assert_eq!((report.health, report.id), (Health::Healthy, Some(made)));
}

#[test]
fn nothing_else_is_made_a_pool() {
    let node = node_on("ext4");
    let p = Provisioner::open(node.config()).unwrap();
    // Another directory, and a disk in the place of the shared pool.
    fs::create_dir(node.pool_dir("plain")).unwrap();
    let disk = node.disk("shared", GIB);
    p.share(shared(GIB)).unwrap();
    for report in p.rescan().unwrap() {
        assert_eq!(report.health, Health::Uninitialized, "{report:?}");
    }
    disk.unmount(&node.pool_dir("shared"));
    fs::remove_dir(node.pool_dir("shared")).unwrap();
    fs::remove_dir(node.pool_dir("plain")).unwrap();
    // What is in the way stays.
    fs::write(node.pool_dir("shared"), "mine").unwrap();
    assert!(only(&p).message.contains("cannot be made"));
    assert_eq!(fs::read(node.pool_dir("shared")).unwrap(), b"mine");
    fs::remove_file(node.pool_dir("shared")).unwrap();
    std::os::unix::fs::symlink("/tmp", node.pool_dir("shared")).unwrap();
    assert!(only(&p).message.contains("a link"));
    fs::remove_file(node.pool_dir("shared")).unwrap();
    fs::create_dir(node.pool_dir("shared")).unwrap();
    fs::write(node.pool_dir("shared").join("photo"), "mine").unwrap();
    let report = only(&p);
    assert_eq!(report.health, Health::Uninitialized);
    assert!(report.message.contains("photo"), "{report:?}");
    // And whoever only looks makes nothing.
    fs::remove_file(node.pool_dir("shared").join("photo")).unwrap();
    let looking = Provisioner::inspect(node.config()).unwrap();
    assert!(matches!(
        looking.share(shared(GIB)),
        Err(Error::InspectOnly)
    ));
}

#[test]
fn by_hand_it_takes_leave_and_a_size() {
    let node = node_on("ext4");
    fs::create_dir(node.root().join("pools")).unwrap();
    let mut config = node.config();
    let mut options = InitOptions::default();
    let refused = |config: &Config, options: &InitOptions, because: &str| {
        let error = init_pool(config, "shared", options).unwrap_err();
        assert!(error.to_string().contains(because), "{error}");
        assert!(!node.pool_dir("shared").exists());
    };
    refused(&config, &options, "--allow-root-fs and --capacity SIZE");
    options.capacity = Some(GIB);
    refused(&config, &options, "--allow-root-fs and --capacity SIZE");
    config.allow_root_fs = true;
    options.capacity = None;
    refused(&config, &options, "--capacity SIZE");
    options.capacity = Some(GIB);
    init_pool(&config, "shared", &options).unwrap();
    let p = Provisioner::open(node.config()).unwrap();
    let report = only(&p);
    assert_eq!((report.health, report.room), (Health::Healthy, GIB));
}
