//! Pools: made on purpose, refused when they are not what they were.

use std::fs;

use berth_provisioner::testing::TestNode;
use berth_provisioner::{
    Backend, Error, Health, InitOptions, KnownPool, PoolId, Provisioner, VolumeHealth, init_pool,
};

use crate::help::{GIB, MIB, PATIENCE, btrfs, commit, node, publish, subvolumes, want};

#[test]
fn an_unmounted_pool_is_refused_and_nothing_is_written_beneath() {
    let (node, disk, p, pool) = node();
    let at = node.pool_dir("disk0");
    let volume = p.create(&pool, &want("v", 32 * MIB)).unwrap();
    fs::write(volume.path.join("file"), "keep").unwrap();
    // Nothing of ours holds the pool.
    disk.unmount(&at);
    assert!(!disk.is_attached());
    assert!(matches!(
        p.create(&pool, &want("w", MIB)),
        Err(Error::LostMount { .. })
    ));
    assert!(matches!(p.delete("v"), Err(Error::LostMount { .. })));
    assert!(matches!(
        p.publish(&publish(&node, "v", "pod")),
        Err(Error::LostMount { .. })
    ));
    let report = p.rescan().unwrap().remove(0);
    assert_eq!(report.health, Health::LostMount);
    assert_eq!(report.id, Some(pool.clone()));
    assert!(matches!(p.find("v").unwrap().health, VolumeHealth::Lost(_)));
    assert!(p.init_pool("disk0", &InitOptions::default()).is_err());
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    // And back.
    disk.mount(&at, "");
    assert_eq!(p.rescan().unwrap()[0].health, Health::Healthy);
    let back = p.find("v").unwrap();
    assert_eq!(back.health, VolumeHealth::Ready);
    assert_eq!(fs::read_to_string(back.path.join("file")).unwrap(), "keep");
    p.create(&pool, &want("w", MIB)).unwrap();
}

#[test]
fn a_pool_that_the_cluster_remembers_is_not_made_anew() {
    let node = TestNode::new();
    let mut config = node.config();
    config.create_pools = true;
    let p = Provisioner::open(config).unwrap();
    p.remember(vec![KnownPool {
        dir: "disk0".into(),
        id: PoolId::new("disk0-0123456789ab").unwrap(),
        fs_uuid: None,
    }]);
    // A fresh disk in the place of the remembered one, and one in a new place.
    let _disk0 = node.disk("disk0", GIB);
    let _disk1 = node.disk("disk1", GIB);
    fs::create_dir(node.pool_dir("plain")).unwrap();
    let reports = p.rescan().unwrap();
    let health: Vec<_> = reports.iter().map(|r| (&*r.dir, &r.health)).collect();
    assert_eq!(
        health,
        [
            ("disk0", &Health::LostMount),
            ("disk1", &Health::Healthy),
            ("plain", &Health::Uninitialized),
        ]
    );
    assert_eq!(fs::read_dir(node.pool_dir("disk0")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(node.pool_dir("plain")).unwrap().count(), 0);
}

#[test]
fn a_missing_identity_file_is_refused() {
    let (node, _disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let identity = node.pool_dir("disk0").join(".berth/pool.json");
    let content = fs::read(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    assert!(matches!(
        p.create(&pool, &want("w", MIB)),
        Err(Error::LostMount { .. })
    ));
    assert_eq!(p.rescan().unwrap()[0].health, Health::LostMount);
    let options = InitOptions {
        allow_foreign_content: true,
        ..InitOptions::default()
    };
    assert!(p.init_pool("disk0", &options).is_err());
    fs::write(&identity, "torn").unwrap();
    assert!(matches!(p.rescan().unwrap()[0].health, Health::Damaged(_)));
    fs::write(&identity, content).unwrap();
    assert_eq!(p.rescan().unwrap()[0].health, Health::Healthy);
    assert_eq!(p.find("v").unwrap().health, VolumeHealth::Ready);
}

#[test]
fn a_read_only_pool_is_told_and_not_written_to() {
    let (node, disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let at = node.pool_dir("disk0");
    disk.unmount(&at);
    disk.mount(&at, "ro");
    assert_eq!(p.rescan().unwrap()[0].health, Health::ReadOnly);
    assert!(matches!(
        p.create(&pool, &want("w", MIB)),
        Err(Error::ReadOnly { .. })
    ));
    assert!(matches!(p.delete("v"), Err(Error::ReadOnly { .. })));
    assert_eq!(p.find("v").unwrap().health, VolumeHealth::Ready);
    disk.unmount(&at);
    disk.mount(&at, "");
    p.rescan().unwrap();
    p.create(&pool, &want("w", MIB)).unwrap();
}

#[test]
fn one_agent_at_a_time_while_anyone_may_look() {
    let (node, _disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    assert!(matches!(
        Provisioner::open(node.config()),
        Err(Error::Locked { .. })
    ));
    let looking = Provisioner::inspect(node.config()).unwrap();
    assert_eq!(looking.list(), p.list());
    assert!(matches!(
        looking.create(&pool, &want("w", MIB)),
        Err(Error::InspectOnly)
    ));
    assert!(matches!(looking.delete("v"), Err(Error::InspectOnly)));
    drop(p);
    Provisioner::open(node.config()).unwrap();
}

#[test]
fn pools_are_made_on_purpose_only() {
    let node = TestNode::new();
    let options = InitOptions::default();
    let refused = |dir: &str, because: &str| {
        let error = init_pool(&node.config(), dir, &options).unwrap_err();
        assert!(error.to_string().contains(because), "{error}");
    };
    refused("none", "does not exist");
    refused("../x", "name of a directory");
    fs::create_dir(node.pool_dir("plain")).unwrap();
    refused("plain", "not a mount point");
    fs::create_dir(node.pool_dir("memory")).unwrap();
    let none = None::<&str>;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(none, &node.pool_dir("memory"), Some("tmpfs"), flags, none).unwrap();
    refused("memory", "tmpfs");
    let _used = node.disk("used", GIB);
    fs::write(node.pool_dir("used").join("photo"), "x").unwrap();
    refused("used", "photo");
    fs::remove_file(node.pool_dir("used").join("photo")).unwrap();
    btrfs(
        &["subvolume", "create"],
        &node.pool_dir("used").join("home"),
    );
    refused("used", "not empty");
    let p = Provisioner::open(node.config()).unwrap();
    let memory = p.rescan().unwrap().remove(0);
    assert!(
        matches!(memory.health, Health::Unsupported(_)),
        "{memory:?}"
    );
    // And with leave, also beside other content.
    let options = InitOptions {
        capacity: Some(128 * MIB),
        allow_foreign_content: true,
        allow_enabling_quotas: true,
    };
    let report = p.init_pool("used", &options).unwrap();
    assert_eq!(report.health, Health::Healthy);
    assert_eq!(report.capacity, 128 * MIB);
    let all = [Backend::Btrfs, Backend::Image, Backend::Directory];
    assert_eq!(report.backends, all);
    assert_eq!(report.why_not.len(), 1);
    assert!(p.init_pool("used", &options).is_err());
    assert!(node.pool_dir("used").join("home").exists());
}

#[test]
fn a_disk_that_moves_to_another_place_brings_its_volumes_along() {
    let (node, disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    disk.unmount(&node.pool_dir("disk0"));
    disk.mount(&node.pool_dir("elsewhere"), "");
    // Exactly one directory has it: it is not lost where it was.
    let reports = p.rescan().unwrap();
    assert_eq!(reports[0].health, Health::Uninitialized);
    assert_eq!(reports[1].health, Health::Healthy);
    let ids: Vec<_> = reports.into_iter().map(|report| report.id).collect();
    assert_eq!(ids, [None, Some(pool.clone())]);
    // Nor does it come back there from what the cluster remembers of before.
    let before = KnownPool {
        dir: "disk0".into(),
        id: pool.clone(),
        fs_uuid: None,
    };
    p.remember(vec![before]);
    assert_eq!(p.rescan().unwrap()[0].id, None);
    let moved = p.find("v").unwrap();
    assert!(moved.path.starts_with(node.pool_dir("elsewhere")));
    assert_eq!(moved.health, VolumeHealth::Ready);
    assert!(node.root().join("by-claim/default/data-v/.").exists());
    // One disk in two places is one pool.
    std::fs::create_dir_all(node.pool_dir("twice")).unwrap();
    let bound = std::process::Command::new("mount")
        .arg("--bind")
        .args([node.pool_dir("elsewhere"), node.pool_dir("twice")])
        .status()
        .unwrap();
    assert!(bound.success());
    let reports = p.rescan().unwrap();
    assert_eq!(reports[1].health, Health::Healthy);
    assert!(matches!(reports[2].health, Health::Damaged(_)));
    p.create(&pool, &want("w", MIB)).unwrap();
}

#[test]
fn removing_large_volumes_does_not_switch_limits_off() {
    let (_node, _disk, p, _pool) = node();
    let uuid = p.rescan().unwrap().remove(0).fs_uuid.unwrap();
    let knob = format!("/sys/fs/btrfs/{uuid}/qgroups/drop_subtree_threshold");
    // Kernels before 6.1 have no such threshold, and always account.
    match fs::read_to_string(&knob) {
        Ok(level) => assert_eq!(level.trim(), "8"),
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::NotFound),
    }
}

#[test]
fn quotas_that_became_inconsistent_are_counted_again() {
    let (node, _disk, p, pool) = node();
    let volume = p.create(&pool, &want("v", 64 * MIB)).unwrap();
    fs::write(volume.path.join("file"), vec![7; 4 * MIB as usize]).unwrap();
    let at = node.pool_dir("disk0");
    commit(&at);
    let complaint = || {
        let output = std::process::Command::new("btrfs")
            .args(["qgroup", "show"])
            .arg(&at)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stderr).contains("inconsistent")
    };
    // Data that two subvolumes share cannot be added to a group without counting.
    let snapshot = std::process::Command::new("btrfs")
        .args(["subvolume", "snapshot"])
        .args([&volume.path, &at.join("snapshot")])
        .status()
        .unwrap();
    assert!(snapshot.success());
    commit(&at);
    btrfs(&["qgroup", "create", "1/9"], &at);
    let list = subvolumes(&at);
    let id = list.split_whitespace().nth(1).unwrap();
    let member = format!("0/{id}");
    btrfs(&["qgroup", "assign", "--no-rescan", &member, "1/9"], &at);
    assert!(complaint(), "{list}");
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        assert_eq!(p.rescan().unwrap()[0].health, Health::Healthy);
        if !complaint() {
            break;
        }
        assert!(std::time::Instant::now() < end, "never counted again");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(p.stats("v").unwrap().used >= 4 * MIB);
}
