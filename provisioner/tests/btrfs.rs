//! The provisioner on real btrfs filesystems, loop-backed and sparse: what the
//! kernel does with limits, removed subvolumes and mounts cannot be faked.
//!
//! Each test has a node of its own, so they run side by side. They need root
//! and loop devices, and fail with that sentence where those are missing.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use berth_provisioner::testing::{LoopPool, TestNode};
use berth_provisioner::{
    Backend, ClaimRef, Error, FindingKind, Health, InitOptions, KnownPool, PoolId, Provisioner,
    Publish, SetRef, VolumeHealth, VolumeMode, VolumeSpec, init_pool,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(120);

fn want(id: &str, size: u64) -> VolumeSpec {
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
        backend: None,
        mode: VolumeMode::Filesystem,
        expect_existing: false,
    }
}

fn publish(node: &TestNode, id: &str, pod: &str) -> Publish {
    Publish {
        id: id.into(),
        target: node.target(pod, id),
        staging: None,
        readonly: false,
        pod_uid: pod.into(),
        single_writer: true,
    }
}

/// A node with one healthy pool.
fn node() -> (TestNode, LoopPool, Provisioner, PoolId) {
    node_with(&InitOptions::default())
}

fn node_with(options: &InitOptions) -> (TestNode, LoopPool, Provisioner, PoolId) {
    let node = TestNode::new();
    let disk = node.disk("disk0", 2 * GIB);
    let id = init_pool(&node.config(), "disk0", options).unwrap();
    let provisioner = Provisioner::open(node.config()).unwrap();
    (node, disk, provisioner, id)
}

/// Writes until the filesystem refuses; the bytes that went in.
fn fill(file: &Path) -> (u64, std::io::Error) {
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

#[test]
fn a_full_volume_stops_at_its_size_while_its_neighbour_writes_on() {
    let (_node, _disk, p, pool) = node();
    let full = p.create(&pool, &want("full", 64 * MIB)).unwrap();
    let neighbour = p.create(&pool, &want("neighbour", 64 * MIB)).unwrap();
    let (written, error) = fill(&full.path.join("file"));
    assert!(
        matches!(
            error.kind(),
            ErrorKind::QuotaExceeded | ErrorKind::StorageFull
        ),
        "{error}"
    );
    assert!((48 * MIB..=64 * MIB).contains(&written), "{written}");
    fs::write(neighbour.path.join("file"), vec![7; 32 * MIB as usize]).unwrap();
    fs::File::open(neighbour.path.join("file"))
        .unwrap()
        .sync_all()
        .unwrap();

    // It grows on line, and goes on where it stopped.
    assert_eq!(p.expand("full", 128 * MIB).unwrap().enforced, 128 * MIB);
    fs::write(full.path.join("more"), vec![7; 32 * MIB as usize]).unwrap();
    // And a full one can be emptied by its owner.
    fs::remove_file(full.path.join("file")).unwrap();
}

#[test]
fn a_tiny_volume_is_rounded_up_and_usable() {
    let (_node, _disk, p, pool) = node();
    let tiny = p.create(&pool, &want("tiny", MIB)).unwrap();
    assert_eq!((tiny.size, tiny.enforced), (MIB, 16 * MIB));
    fs::write(tiny.path.join("file"), vec![7; MIB as usize]).unwrap();
    for i in 0..200 {
        fs::write(tiny.path.join(i.to_string()), "x").unwrap();
    }
    fs::File::open(&tiny.path).unwrap().sync_all().unwrap();
    let usage = p.stats("tiny").unwrap();
    assert_eq!(usage.total, 16 * MIB);
    assert!(usage.available <= usage.total);
}

#[test]
fn usage_is_what_was_written() {
    let (node, _disk, p, pool) = node();
    let volume = p.create(&pool, &want("v", 64 * MIB)).unwrap();
    fs::write(volume.path.join("file"), vec![7; 20 * MIB as usize]).unwrap();
    commit(&node.pool_dir("disk0"));
    let usage = p.stats("v").unwrap();
    assert!((20 * MIB..22 * MIB).contains(&usage.used), "{usage:?}");
    assert_eq!(usage.available, 64 * MIB - usage.used);
    assert_eq!(p.find("v").unwrap().used, Some(usage.used));
}

fn commit(path: &Path) {
    let dir = fs::File::open(path).unwrap();
    nix::unistd::syncfs(&dir).unwrap();
}

#[test]
fn deleting_leaves_nothing_and_gives_the_room_back_when_it_is_freed() {
    let (node, _disk, p, pool) = node();
    let before = p.rescan().unwrap().remove(0);
    let volume = p.create(&pool, &want("v", 256 * MIB)).unwrap();
    fs::write(volume.path.join("file"), vec![7; 100 * MIB as usize]).unwrap();
    commit(&node.pool_dir("disk0"));
    p.delete("v").unwrap();
    assert!(p.find("v").is_none());
    assert!(p.settle(PATIENCE));
    let after = p.rescan().unwrap().remove(0);
    assert_eq!((after.reserved, after.trash, after.volumes), (0, 0, 0));
    // What metadata costs may differ by some nodes, the volume's data may not.
    assert!(after.free + 8 * MIB > before.free, "{before:?} {after:?}");
    for part in ["volumes", "trash", ".berth/new"] {
        let left = fs::read_dir(node.pool_dir("disk0").join(part)).unwrap();
        assert_eq!(left.count(), 0, "{part}");
    }
    assert!(!node.root().join("by-claim/default/data-v").exists());
    assert_eq!(subvolumes(&node.pool_dir("disk0")), "");
    // Deleting again is fine; making it again is not.
    p.delete("v").unwrap();
    assert!(matches!(
        p.create(&pool, &want("v", MIB)),
        Err(Error::Tombstoned { .. })
    ));
    assert!(p.check().unwrap().findings.is_empty());
}

fn subvolumes(path: &Path) -> String {
    let output = std::process::Command::new("btrfs")
        .args(["subvolume", "list"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn btrfs(args: &[&str], path: &Path) {
    let output = std::process::Command::new("btrfs")
        .args(args)
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

#[test]
fn subvolumes_that_a_pod_made_inside_are_seen_and_go_with_the_volume() {
    let (node, _disk, p, pool) = node();
    let volume = p.create(&pool, &want("v", 64 * MIB)).unwrap();
    for name in ["one", "one/two", "one/two/three", "other"] {
        btrfs(&["subvolume", "create"], &volume.path.join(name));
    }
    fs::write(volume.path.join("one/two/file"), "x").unwrap();
    let findings = p.check().unwrap().findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].kind, FindingKind::NestedSubvolume);
    // The one in the middle can even be made read-only by its owner.
    let frozen = std::process::Command::new("btrfs")
        .args(["property", "set", "-ts"])
        .arg(volume.path.join("one/two"))
        .args(["ro", "true"])
        .status()
        .unwrap();
    assert!(frozen.success());
    p.delete("v").unwrap();
    assert!(p.settle(PATIENCE));
    assert_eq!(subvolumes(&node.pool_dir("disk0")), "");
}

#[test]
fn making_a_volume_again_is_the_same_volume() {
    let (node, _disk, p, pool) = node();
    let first = p.create(&pool, &want("v", 32 * MIB)).unwrap();
    fs::write(first.path.join("file"), "keep").unwrap();
    let again = p.create(&pool, &want("v", 32 * MIB)).unwrap();
    assert_eq!((&first.created, &first.path), (&again.created, &again.path));
    assert_eq!(fs::read_to_string(again.path.join("file")).unwrap(), "keep");
    let mut other = want("v", 32 * MIB);
    other.claim.as_mut().unwrap().uid = "another".into();
    assert!(matches!(
        p.create(&pool, &other),
        Err(Error::AlreadyExists { .. })
    ));
    assert!(matches!(
        p.create(&pool, &want("v", 33 * MIB)),
        Err(Error::AlreadyExists { .. })
    ));
    // Through the by-claim link people find the same file.
    let link = node.root().join("by-claim/default/data-v/file");
    assert_eq!(fs::read_to_string(link).unwrap(), "keep");
}

#[test]
fn what_is_promised_never_exceeds_the_capacity() {
    let (_node, _disk, p, pool) = node_with(&InitOptions {
        capacity: Some(256 * MIB),
        ..InitOptions::default()
    });
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|i| {
                let (p, pool) = (&p, &pool);
                scope.spawn(move || p.create(pool, &want(&format!("v{i}"), 64 * MIB)))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let made = results.iter().filter(|r| r.is_ok()).count();
    assert_eq!(made, 4);
    for refused in results.iter().filter_map(|r| r.as_ref().err()) {
        assert!(
            matches!(refused, Error::NoRoom { needed, room, .. } if *needed == 64 * MIB && *room < 64 * MIB),
            "{refused}"
        );
    }
    assert!(matches!(
        p.expand(&p.list()[0].id, 65 * MIB),
        Err(Error::NoRoom { .. })
    ));
    assert_eq!(p.rescan().unwrap()[0].room, 0);
}

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
fn what_is_known_to_exist_is_adopted_or_lost_and_never_made() {
    let (node, _disk, p, pool) = node();
    let mut expected = want("v", MIB);
    expected.expect_existing = true;
    assert!(matches!(
        p.create(&pool, &expected),
        Err(Error::Lost { .. })
    ));
    let made = p.create(&pool, &want("v", MIB)).unwrap();
    fs::write(made.path.join("file"), "keep").unwrap();
    drop(p);
    // A later life of the agent, from the disk alone.
    let p = Provisioner::open(node.config()).unwrap();
    let adopted = p.create(&pool, &expected).unwrap();
    assert_eq!(adopted, p.find("v").unwrap());
    assert_eq!(adopted.set.unwrap().name, "web");
    assert_eq!(
        fs::read_to_string(adopted.path.join("file")).unwrap(),
        "keep"
    );
    // The data goes behind our back.
    btrfs(&["subvolume", "delete"], &made.path);
    assert!(matches!(
        p.create(&pool, &want("v", MIB)),
        Err(Error::Lost { .. })
    ));
    assert!(matches!(p.find("v").unwrap().health, VolumeHealth::Lost(_)));
    // An empty directory in its place is not it either.
    fs::create_dir(&made.path).unwrap();
    assert!(matches!(
        p.publish(&publish(&node, "v", "pod")),
        Err(Error::Damaged { .. })
    ));
}

#[test]
fn a_damaged_record_is_reported_and_its_volume_left_alone() {
    let (node, _disk, p, pool) = node();
    let made = p.create(&pool, &want("v", 32 * MIB)).unwrap();
    fs::write(made.path.join("file"), "keep").unwrap();
    drop(p);
    let record = node.pool_dir("disk0").join("volumes/v/record.json");
    let content = fs::read_to_string(&record).unwrap();
    fs::write(&record, content.replace("data-v", "data-w")).unwrap();
    let p = Provisioner::open(node.config()).unwrap();
    assert!(matches!(
        p.find("v").unwrap().health,
        VolumeHealth::Damaged(_)
    ));
    assert!(matches!(
        p.create(&pool, &want("v", 32 * MIB)),
        Err(Error::Damaged { .. })
    ));
    // Its room stays taken.
    assert_eq!(p.rescan().unwrap()[0].reserved, 32 * MIB);
    let findings = p.check().unwrap().findings;
    assert!(
        findings
            .iter()
            .any(|f| f.kind == FindingKind::DamagedRecord && f.volume.as_deref() == Some("v")),
        "{findings:?}"
    );
    assert_eq!(fs::read_to_string(made.path.join("file")).unwrap(), "keep");
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
fn publishing_may_be_repeated_and_survives_a_restart() {
    let (node, _disk, p, pool) = node();
    let volume = p.create(&pool, &want("v", MIB)).unwrap();
    fs::write(volume.path.join("file"), "seen").unwrap();
    let staging = node
        .kubelet()
        .join("plugins/kubernetes.io/csi/v/globalmount");
    fs::create_dir_all(&staging).unwrap();
    let mut request = publish(&node, "v", "pod-1");
    request.staging = Some(staging.clone());
    assert!(matches!(p.publish(&request), Err(Error::NotStaged { .. })));
    p.stage("v", &staging).unwrap();
    p.stage("v", &staging).unwrap();
    p.publish(&request).unwrap();
    p.publish(&request).unwrap();
    assert_eq!(
        fs::read_to_string(request.target.join("file")).unwrap(),
        "seen"
    );
    let report = p.find("v").unwrap();
    assert_eq!(report.staged, std::slice::from_ref(&staging));
    assert_eq!(report.published.len(), 1);
    assert_eq!(report.published[0].pod_uid, "pod-1");
    assert!(matches!(p.delete("v"), Err(Error::Published { .. })));
    drop(p);

    let p = Provisioner::open(node.config()).unwrap();
    assert_eq!(p.find("v").unwrap(), report);
    p.publish(&request).unwrap();
    assert_eq!(p.find("v").unwrap().published.len(), 1);
    assert!(matches!(p.delete("v"), Err(Error::Published { .. })));
    p.unpublish("v", &request.target).unwrap();
    p.unpublish("v", &request.target).unwrap();
    assert!(!request.target.exists());
    // Staged still counts: kubelet has not let go yet.
    assert!(matches!(p.delete("v"), Err(Error::Published { .. })));
    p.unstage("v", &staging).unwrap();
    p.unstage("v", &staging).unwrap();
    assert!(staging.exists());
    p.delete("v").unwrap();
    assert!(p.settle(PATIENCE));
}

#[test]
fn a_second_pod_is_refused_while_the_first_ones_mount_stands() {
    let (node, _disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let first = publish(&node, "v", "pod-1");
    let second = publish(&node, "v", "pod-2");
    p.publish(&first).unwrap();
    let refused = p.publish(&second).unwrap_err();
    assert!(refused.to_string().contains("pod-1"), "{refused}");
    assert!(!second.target.exists());
    // Whoever does not ask for a single writer shares.
    let mut shared = second.clone();
    shared.single_writer = false;
    shared.readonly = true;
    p.publish(&shared).unwrap();
    let denied = fs::write(shared.target.join("file"), "x").unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::ReadOnlyFilesystem);
    fs::write(first.target.join("file"), "x").unwrap();
    p.unpublish("v", &shared.target).unwrap();
    p.unpublish("v", &first.target).unwrap();
    p.publish(&second).unwrap();
    p.unpublish("v", &second.target).unwrap();
}

#[test]
fn a_busy_mount_is_not_torn_away() {
    let (node, _disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let request = publish(&node, "v", "pod-1");
    p.publish(&request).unwrap();
    let open = fs::File::create(request.target.join("file")).unwrap();
    assert!(matches!(
        p.unpublish("v", &request.target),
        Err(Error::Busy { .. })
    ));
    assert_eq!(p.find("v").unwrap().published.len(), 1);
    drop(open);
    p.unpublish("v", &request.target).unwrap();
}

#[test]
fn a_pod_can_be_unpublished_when_its_disk_was_unmounted_lazily() {
    let (node, disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let request = publish(&node, "v", "pod-1");
    p.publish(&request).unwrap();
    disk.unmount(&node.pool_dir("disk0"));
    assert_eq!(p.rescan().unwrap()[0].health, Health::LostMount);
    assert_eq!(p.find("v").unwrap().published.len(), 1);
    p.unpublish("v", &request.target).unwrap();
    assert!(!request.target.exists());
    assert!(!disk.is_attached());
}

#[test]
fn links_in_volumes_pools_and_targets_lead_nowhere() {
    let (node, _disk, p, pool) = node();
    let outside = node.kubelet().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "keep").unwrap();

    // A pod's own links are just data.
    let volume = p.create(&pool, &want("v", MIB)).unwrap();
    symlink(&outside, volume.path.join("link")).unwrap();
    symlink("/", volume.path.join("root")).unwrap();
    p.delete("v").unwrap();
    assert!(p.settle(PATIENCE));
    assert!(outside.join("file").exists());

    // A link in the place of a target, or on the way there.
    p.create(&pool, &want("w", MIB)).unwrap();
    let request = publish(&node, "w", "pod-1");
    symlink(&outside, &request.target).unwrap();
    assert!(matches!(
        p.publish(&request),
        Err(Error::TargetConflict { .. })
    ));
    assert!(matches!(
        p.unpublish("w", &request.target),
        Err(Error::TargetConflict { .. })
    ));
    symlink(&outside, node.kubelet().join("pods/pod-2")).unwrap();
    let mut on_the_way = request.clone();
    on_the_way.target = node.kubelet().join("pods/pod-2/mount");
    assert!(p.publish(&on_the_way).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    for target in [
        node.root().join("x"),
        node.kubelet().join("pods/../../x"),
        node.kubelet(),
        "/etc/x".into(),
    ] {
        on_the_way.target = target;
        assert!(matches!(
            p.publish(&on_the_way),
            Err(Error::InvalidArgument { .. })
        ));
    }

    // A link in the place of the pool's own directories.
    let volumes = node.pool_dir("disk0").join("volumes");
    fs::rename(&volumes, node.pool_dir("disk0").join("moved")).unwrap();
    symlink(&outside, &volumes).unwrap();
    assert!(matches!(
        p.create(&pool, &want("x", MIB)),
        Err(Error::DamagedPool { .. })
    ));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // And in the place of a pool.
    symlink(&outside, node.pool_dir("linked")).unwrap();
    let reports = p.rescan().unwrap();
    assert!(
        matches!(reports[1].health, Health::Damaged(_)),
        "{reports:?}"
    );
}

#[test]
fn ids_and_claims_that_could_leave_their_directory_are_refused() {
    let (node, _disk, p, pool) = node();
    for id in ["", "..", "../v", "a/b", "A", "a~2"] {
        assert!(matches!(
            p.create(&pool, &want(id, MIB)),
            Err(Error::InvalidArgument { .. })
        ));
    }
    let mut spec = want("v", MIB);
    spec.claim.as_mut().unwrap().name = "../x".into();
    assert!(matches!(
        p.create(&pool, &spec),
        Err(Error::InvalidArgument { .. })
    ));
    assert!(p.list().is_empty());
    assert!(!node.root().join("by-claim").exists());
}

#[test]
fn every_state_that_a_crash_can_leave_is_settled_at_start() {
    let (node, _disk, p, pool) = node();
    let kept = p.create(&pool, &want("kept", 32 * MIB)).unwrap();
    fs::write(kept.path.join("file"), "keep").unwrap();
    p.create(&pool, &want("gone", 32 * MIB)).unwrap();
    p.create(&pool, &want("halfway", 32 * MIB)).unwrap();
    drop(p);
    let at = node.pool_dir("disk0");
    let making = at.join(".berth/new");

    // Create: died after the directory, after the subvolume, after the record.
    fs::create_dir(making.join("a")).unwrap();
    fs::create_dir(making.join("b")).unwrap();
    btrfs(&["subvolume", "create"], &making.join("b/data"));
    fs::create_dir(making.join("c")).unwrap();
    btrfs(&["subvolume", "create"], &making.join("c/data"));
    fs::write(making.join("c/.record.json.new"), "torn").unwrap();
    // Not ours to judge: somebody wrote into it.
    fs::create_dir(making.join("d")).unwrap();
    btrfs(&["subvolume", "create"], &making.join("d/data"));
    fs::write(making.join("d/data/file"), "x").unwrap();
    // Delete: died after the rename, and after the subvolume was removed.
    fs::rename(at.join("volumes/gone"), at.join("trash/gone")).unwrap();
    fs::rename(at.join("volumes/halfway"), at.join("trash/halfway~2")).unwrap();
    btrfs(&["subvolume", "delete"], &at.join("trash/halfway~2/data"));
    // Expand, or a limit that a loss of power undid.
    btrfs(&["qgroup", "limit", "none"], &kept.path);
    // A record that was being replaced.
    fs::write(at.join("volumes/kept/.record.json.new"), "torn").unwrap();
    // Not Berth's.
    fs::create_dir(at.join("volumes/stranger")).unwrap();
    fs::create_dir(at.join("trash/stranger")).unwrap();
    fs::write(at.join("trash/stranger/file"), "keep").unwrap();

    let p = Provisioner::open(node.config()).unwrap();
    assert!(p.settle(PATIENCE));
    let left = |part: &str| {
        let mut names: Vec<_> = fs::read_dir(at.join(part))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(left(".berth/new"), ["d"]);
    assert_eq!(left("volumes"), ["kept", "stranger"]);
    assert_eq!(left("trash"), ["stranger"]);
    assert_eq!(left("tombstones"), ["gone.json", "halfway.json"]);
    assert_eq!(p.list().len(), 1);
    assert_eq!(p.rescan().unwrap()[0].reserved, 32 * MIB);
    assert!(matches!(
        p.create(&pool, &want("gone", MIB)),
        Err(Error::Tombstoned { .. })
    ));
    let (written, _) = fill(&kept.path.join("fill"));
    assert!(written <= 32 * MIB);
    // Strangers are reported, and refused as a volume.
    let kinds: Vec<_> = p.check().unwrap().findings.iter().map(|f| f.kind).collect();
    assert_eq!(
        kinds,
        [FindingKind::Orphan, FindingKind::Orphan, FindingKind::Trash]
    );
    assert!(matches!(
        p.create(&pool, &want("stranger", MIB)),
        Err(Error::Damaged { .. })
    ));
    // An interrupted create is made by its repetition.
    p.create(&pool, &want("a", MIB)).unwrap();
}

#[test]
fn by_claim_links_are_made_again_from_the_records() {
    let (node, _disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let links = node.root().join("by-claim/default");
    let link = links.join("data-v");
    assert_eq!(
        fs::read_link(&link).unwrap(),
        Path::new("../../pools/disk0/volumes/v/data")
    );
    fs::remove_file(&link).unwrap();
    symlink("../../pools/disk0/volumes/old/data", links.join("data-old")).unwrap();
    symlink("/etc", links.join("foreign")).unwrap();
    let stale = p.check().unwrap().findings;
    assert_eq!(stale.len(), 2, "{stale:?}");
    assert!(stale.iter().all(|f| f.kind == FindingKind::StaleLink));
    assert_eq!(p.repair_links().unwrap(), 2);
    assert_eq!(p.repair_links().unwrap(), 0);
    assert!(link.join(".").exists());
    assert!(!links.join("data-old").is_symlink());
    assert!(links.join("foreign").is_symlink());
    drop(p);
    fs::remove_dir_all(node.root().join("by-claim")).unwrap();
    let _p = Provisioner::open(node.config()).unwrap();
    assert!(link.join(".").exists());
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
    let ext4 = LoopPool::format(node.root().join("ext4.img"), GIB, "ext4");
    ext4.mount(&node.pool_dir("ext4"), "");
    refused("ext4", "ext4");
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
    let ext4 = p.rescan().unwrap().remove(0);
    assert!(matches!(ext4.health, Health::Unsupported(_)), "{ext4:?}");
    // And with leave, also beside other content.
    let options = InitOptions {
        capacity: Some(128 * MIB),
        allow_foreign_content: true,
        allow_enabling_quotas: true,
    };
    let report = p.init_pool("used", &options).unwrap();
    assert_eq!(report.health, Health::Healthy);
    assert_eq!(report.capacity, 128 * MIB);
    assert_eq!(report.backends, [Backend::Btrfs]);
    assert_eq!(report.why_not.len(), 3);
    assert!(p.init_pool("used", &options).is_err());
    assert!(node.pool_dir("used").join("home").exists());
}

#[test]
fn a_disk_that_moves_to_another_place_brings_its_volumes_along() {
    let (node, disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    disk.unmount(&node.pool_dir("disk0"));
    disk.mount(&node.pool_dir("elsewhere"), "");
    let reports = p.rescan().unwrap();
    assert_eq!(reports[0].health, Health::LostMount);
    assert_eq!(reports[1].health, Health::Healthy);
    assert_eq!(reports[1].id, Some(pool.clone()));
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
