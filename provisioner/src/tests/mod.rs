//! The provisioner on a faked machine: what happens when a call fails, without
//! disks and without privileges. The real machine is in `tests/`.

mod copies;
mod erasure;
mod projects;
mod scale;
mod silence;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::sys::fake::Fake;
use crate::{
    ClaimRef, Config, Error, Health, InitOptions, PoolId, Provisioner, Publish, SnapshotSpec,
    Source, VolumeHealth, VolumeMode, VolumeSpec,
};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    fake: Fake,
    config: Config,
    _dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        fs::create_dir_all(at.join("kubelet/pods/p1")).unwrap();
        fs::create_dir_all(at.join("kubelet/pods/p2")).unwrap();
        let node = Self {
            fake: Fake::default(),
            config: Config {
                root: at.join("berth"),
                kubelet_dir: at.join("kubelet"),
                allow_root_fs: false,
                create_pools: false,
            },
            _dir: dir,
        };
        node.disk("disk0", "u", 1024 * MIB);
        node
    }

    fn disk(&self, name: &str, uuid: &str, size: u64) {
        fs::create_dir_all(self.pool(name)).unwrap();
        self.fake.disk(&self.pool(name), uuid, size);
    }

    fn pool(&self, name: &str) -> PathBuf {
        self.config.root.join("pools").join(name)
    }

    fn open(&self) -> Provisioner {
        Provisioner::open_with(self.config.clone(), Box::new(self.fake.clone())).unwrap()
    }

    fn start(&self) -> (Provisioner, PoolId) {
        let p = self.open();
        let report = p.init_pool("disk0", &InitOptions::default()).unwrap();
        (p, report.id.unwrap())
    }

    fn names(&self, part: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.pool("disk0").join(part))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn publish(&self, id: &str, pod: &str) -> Publish {
        Publish {
            id: id.into(),
            target: self.config.kubelet_dir.join("pods").join(pod).join("mount"),
            staging: None,
            mode: VolumeMode::Filesystem,
            readonly: false,
            flags: Vec::new(),
            pod_uid: pod.into(),
            pod: String::new(),
            single_writer: true,
        }
    }
}

fn want(id: &str) -> VolumeSpec {
    VolumeSpec {
        id: id.into(),
        size: 32 * MIB,
        claim: Some(ClaimRef {
            namespace: "default".into(),
            name: id.into(),
            uid: id.into(),
        }),
        set: None,
        backend: None,
        mode: VolumeMode::Filesystem,
        source: None,
        sparse: false,
        incarnation: None,
        expect_existing: false,
    }
}

#[test]
fn whatever_fails_while_a_volume_is_made_leaves_nothing() {
    for call in [
        "qgroups",
        "create_subvolume",
        "limit",
        "filesystem",
        "mount_of",
    ] {
        let node = Node::new();
        let (p, pool) = node.start();
        node.fake.fail(call, 1);
        p.create(&pool, &want("v")).expect_err(call);
        assert!(p.list().is_empty(), "{call}");
        assert!(node.names("volumes").is_empty(), "{call}");
        assert!(node.names(".berth/new").is_empty(), "{call}");
        assert_eq!(p.rescan().unwrap()[0].reserved, 0, "{call}");
        // And the same request, again, succeeds.
        p.create(&pool, &want("v")).expect(call);
        assert_eq!(p.rescan().unwrap()[0].reserved, 32 * MIB, "{call}");
    }
}

#[test]
fn what_could_not_even_be_cleaned_up_is_cleaned_up_by_the_next_call_or_start() {
    for restart in [false, true] {
        let node = Node::new();
        let (mut p, pool) = node.start();
        // The limit fails, and so does the removal of what was made.
        node.fake.fail("limit", 1);
        fs::create_dir_all(node.pool("disk0").join(".berth/new/v/data")).unwrap();
        p.create(&pool, &want("v")).unwrap_err();
        if restart {
            drop(p);
            p = node.open();
            assert!(node.names(".berth/new").is_empty());
        }
        p.create(&pool, &want("v")).unwrap();
        assert_eq!(node.names("volumes"), ["v"]);
        assert!(node.names(".berth/new").is_empty());
    }
}

#[test]
fn room_is_held_until_the_filesystem_has_freed_it() {
    let node = Node::new();
    let (p, pool) = node.start();
    p.create(&pool, &want("v")).unwrap();
    p.delete("v").unwrap();
    assert!(!p.settle(Duration::from_millis(100)));
    let report = p.rescan().unwrap().remove(0);
    assert_eq!(
        (report.reserved, report.trash, report.volumes),
        (32 * MIB, 1, 0)
    );
    // A later life of the process waits for it as well.
    drop(p);
    let p = node.open();
    assert!(!p.settle(Duration::from_millis(100)));
    assert_eq!(p.rescan().unwrap()[0].reserved, 32 * MIB);
    node.fake.free_all();
    assert!(p.settle(PATIENCE));
    assert_eq!(p.rescan().unwrap()[0].reserved, 0);
    assert!(node.names("trash").is_empty());
    assert!(node.fake.limits().is_empty());
}

#[test]
fn erasing_goes_on_after_errors() {
    for call in [
        "destroy_subvolume",
        "subvolume_exists",
        "commit",
        "subvolume_id",
    ] {
        let node = Node::new();
        let (p, pool) = node.start();
        p.create(&pool, &want("v")).unwrap();
        node.fake.fail(call, 1);
        p.delete("v").expect(call);
        // Freed as soon as it was removed, whenever that is.
        let mut settled = false;
        for _ in 0..600 {
            node.fake.free_all();
            settled = p.settle(Duration::from_millis(100));
            if settled {
                break;
            }
        }
        assert!(settled, "{call}");
        assert!(node.names("trash").is_empty(), "{call}");
    }
}

#[test]
fn a_delete_that_died_before_its_tombstone_is_finished_at_start() {
    let node = Node::new();
    let (p, pool) = node.start();
    p.create(&pool, &want("v")).unwrap();
    drop(p);
    let at = node.pool("disk0");
    fs::rename(at.join("volumes/v"), at.join("trash/v")).unwrap();
    let p = node.open();
    assert_eq!(node.names("tombstones"), ["v.json"]);
    assert!(matches!(
        p.create(&pool, &want("v")),
        Err(Error::Tombstoned { .. })
    ));
    assert!(!node.config.root.join("by-claim/default/v").is_symlink());
    // A tombstone that cannot be read is one all the same.
    fs::write(at.join("tombstones/v.json"), "torn").unwrap();
    assert!(matches!(
        p.create(&pool, &want("v")),
        Err(Error::Tombstoned { .. })
    ));
    p.delete("v").unwrap();
}

#[test]
fn one_id_is_one_volume_in_all_pools() {
    let node = Node::new();
    let (p, pool) = node.start();
    node.disk("disk1", "u2", 1024 * MIB);
    let other = p.init_pool("disk1", &InitOptions::default()).unwrap();
    p.create(&pool, &want("v")).unwrap();
    assert!(matches!(
        p.create(&other.id.unwrap(), &want("v")),
        Err(Error::AlreadyExists { .. })
    ));
}

#[test]
fn pools_that_share_a_filesystem_share_its_room() {
    let node = Node::new();
    let (p, pool) = node.start();
    node.disk("disk1", "u", 1024 * MIB);
    let other = p
        .init_pool("disk1", &InitOptions::default())
        .unwrap()
        .id
        .unwrap();
    let mut big = want("a");
    big.size = 700 * MIB;
    p.create(&pool, &big).unwrap();
    big.id = "b".into();
    assert!(matches!(
        p.create(&other, &big),
        Err(Error::NoRoom { room, .. }) if room == 324 * MIB
    ));
}

#[test]
fn without_quotas_nothing_is_made_and_the_report_says_why() {
    let node = Node::new();
    let (p, pool) = node.start();
    node.fake.switch_quotas_off();
    let report = p.rescan().unwrap().remove(0);
    assert_eq!(report.health, Health::Healthy);
    assert_eq!(report.backends, [crate::Backend::Directory]);
    assert!(report.message.contains("quotas"), "{}", report.message);
    assert_eq!(report.room, 0);
    assert!(matches!(
        p.create(&pool, &want("v")),
        Err(Error::Unsupported { .. })
    ));
    assert_eq!(report.why_not.len(), 3);
}

#[test]
fn a_growth_whose_limit_fails_is_finished_by_its_repetition_or_the_next_start() {
    let node = Node::new();
    let (p, pool) = node.start();
    p.create(&pool, &want("v")).unwrap();
    node.fake.fail("limit", 1);
    p.expand("v", 64 * MIB).unwrap_err();
    assert_eq!(node.fake.limits(), [Some(32 * MIB)]);
    // The promise stands: it was recorded.
    assert_eq!(p.rescan().unwrap()[0].reserved, 64 * MIB);
    p.expand("v", 64 * MIB).unwrap();
    assert_eq!(node.fake.limits(), [Some(64 * MIB)]);
    // And a volume never shrinks.
    assert_eq!(p.expand("v", MIB).unwrap().size, 64 * MIB);
    node.fake.fail("limit", 1);
    p.expand("v", 96 * MIB).unwrap_err();
    drop(p);
    let _p = node.open();
    assert_eq!(node.fake.limits(), [Some(96 * MIB)]);
}

#[test]
fn a_mount_that_fails_leaves_no_directory() {
    let node = Node::new();
    let (p, pool) = node.start();
    p.create(&pool, &want("v")).unwrap();
    let request = node.publish("v", "p1");
    node.fake.fail("bind", 1);
    p.publish(&request).unwrap_err();
    assert!(!request.target.exists());
    p.publish(&request).unwrap();
    assert!(matches!(p.delete("v"), Err(Error::Published { .. })));
    assert!(matches!(
        p.publish(&node.publish("v", "p2")),
        Err(Error::Published { .. })
    ));
    // What is mounted over it by somebody else is not taken off.
    node.disk_over(&request.target);
    assert!(matches!(
        p.unpublish("v", &request.target),
        Err(Error::TargetConflict { .. })
    ));
    assert!(matches!(
        p.publish(&request),
        Err(Error::TargetConflict { .. })
    ));
}

impl Node {
    fn disk_over(&self, at: &std::path::Path) {
        self.fake.disk(at, "other", MIB);
    }
}

#[test]
fn a_filesystem_that_turns_read_only_is_noticed_at_once() {
    let node = Node::new();
    let (p, pool) = node.start();
    p.create(&pool, &want("v")).unwrap();
    node.fake
        .change(&node.pool("disk0"), |fs| fs.read_only = true);
    assert!(matches!(
        p.create(&pool, &want("w")),
        Err(Error::ReadOnly { .. })
    ));
    node.fake
        .change(&node.pool("disk0"), |fs| fs.uuid = Some("another".into()));
    assert!(matches!(
        p.create(&pool, &want("w")),
        Err(Error::LostMount { .. })
    ));
    assert_eq!(p.rescan().unwrap()[0].health, Health::LostMount);
}

#[test]
fn an_interrupted_initialisation_can_be_repeated() {
    let node = Node::new();
    let p = node.open();
    node.fake.fail("commit", 1);
    for part in ["volumes", "trash"] {
        fs::create_dir(node.pool("disk0").join(part)).unwrap();
    }
    p.init_pool("disk0", &InitOptions::default()).unwrap_err();
    // Its identity was written already; the next look takes it up.
    assert_eq!(p.rescan().unwrap()[0].health, Health::Healthy);
}

#[test]
fn volumes_that_ask_for_one_another_do_not_wait_for_one_another() {
    let node = Node::new();
    let (p, pool) = node.start();
    let from = |id: &str, source: Source| VolumeSpec {
        source: Some(source),
        ..want(id)
    };
    let snapshot = SnapshotSpec {
        id: "s".into(),
        volume: "a".into(),
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let _ = p.create(&pool, &from("a", Source::Volume("b".into())));
                    let _ = p.create(&pool, &from("a", Source::Snapshot("s".into())));
                }
            });
            scope.spawn(|| {
                for _ in 0..200 {
                    let _ = p.create(&pool, &from("b", Source::Volume("a".into())));
                    let _ = p.snapshot(&snapshot);
                }
            });
        }
    });
    // Each came to its end, and there is nothing that any could be made of.
    assert!(p.list().is_empty() && p.list_snapshots().is_empty());
}

#[test]
fn who_uses_a_volume_is_known_after_a_restart() {
    let node = Node::new();
    let (p, pool) = node.start();
    p.create(&pool, &want("v")).unwrap();
    let request = |uid: &str, pod: &str| {
        let request = Publish {
            pod: pod.into(),
            single_writer: false,
            ..node.publish("v", uid)
        };
        fs::create_dir_all(request.target.parent().unwrap()).unwrap();
        request
    };
    let (first, second) = (request("u1", "shop/db-0"), request("u2", "shop/backup"));
    p.publish(&first).unwrap();
    p.publish(&second).unwrap();
    let pods = |p: &Provisioner| {
        let mut pods: Vec<_> = p.find("v").unwrap().published;
        pods.sort_by(|a, b| a.pod.cmp(&b.pod));
        pods.into_iter().map(|at| at.pod).collect::<Vec<_>>()
    };
    assert_eq!(pods(&p), ["shop/backup", "shop/db-0"]);
    drop(p);
    let p = node.open();
    assert_eq!(pods(&p), ["shop/backup", "shop/db-0"]);
    p.unpublish("v", &second.target).unwrap();
    assert_eq!(pods(&p), ["shop/db-0"]);
    let files = || {
        fs::read_dir(node.config.root.join("published"))
            .unwrap()
            .count()
    };
    assert_eq!(files(), 1);
    // What a node forgot when it started anew is forgotten here too.
    drop(p);
    node.fake.unmount_below(&node.config.kubelet_dir);
    let p = node.open();
    assert!(pods(&p).is_empty());
    assert_eq!(files(), 0);
}

#[test]
fn what_cannot_be_cleaned_up_of_earlier_mounts_keeps_no_agent_from_starting() {
    let node = Node::new();
    drop(node.start());
    let stale = node.config.root.join("published/0123");
    fs::create_dir_all(stale.join("not-a-file")).unwrap();
    let p = node.open();
    assert!(stale.exists());
    assert_eq!(p.rescan().unwrap()[0].health, Health::Healthy);
}
