//! Copies of images that are in use, on the faked machine: nobody waits for long, and no
//! copy is torn.

use std::fs;
use std::time::Duration;

use super::{Node, want};
use crate::locks::lock;
use crate::{Error, PoolId, Provisioner, SnapshotSpec, Stage, VolumeMode, VolumeSpec};

/// A staged image.
fn staged(reflinks: bool, mode: VolumeMode) -> (Node, Provisioner, PoolId) {
    let node = Node::new();
    node.fake.make_images(reflinks);
    let (p, pool) = node.start();
    let want = VolumeSpec { mode, ..want("v") };
    p.create(&pool, &want).unwrap();
    stage(&node, &p, mode);
    node.fake.asked();
    (node, p, pool)
}

fn stage(node: &Node, p: &Provisioner, mode: VolumeMode) {
    let staging = node.config.kubelet_dir.join("plugins/v/globalmount");
    fs::create_dir_all(&staging).unwrap();
    p.stage(&Stage {
        id: "v".into(),
        staging,
        mode,
    })
    .unwrap();
}

fn snapshot(p: &Provisioner, id: &str) -> Result<(), Error> {
    let want = SnapshotSpec {
        id: id.into(),
        volume: "v".into(),
    };
    p.snapshot(&want).map(drop)
}

fn refused(answer: Result<(), Error>) -> String {
    match answer {
        Err(Error::NotCopied { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn set(p: &Provisioner, pool: &PoolId, bound: Duration, worth: u64) {
    let mut state = lock(&p.store.state);
    let state = state.pools.get_mut(pool).unwrap();
    (state.patience.bound, state.patience.worth) = (bound, worth);
}

/// Nothing is frozen, marked, or half made.
fn is_clean(node: &Node) {
    assert!(node.fake.frozen().is_empty());
    assert!(node.names(".berth/new").is_empty());
    assert!(node.names("snapshots").is_empty());
    let marks = node.pool("disk0").join(".berth/frozen");
    assert_eq!(fs::read_dir(marks).map_or(0, Iterator::count), 0);
}

#[test]
fn a_copy_that_cannot_be_done_in_time_is_refused_before_anything_is_frozen() {
    let (node, p, pool) = staged(false, VolumeMode::Filesystem);
    set(&p, &pool, Duration::from_secs(10), 1);
    let why = refused(snapshot(&p, "s"));
    assert!(why.contains("more than can be copied"), "{why}");
    assert!(!node.fake.asked().contains_key("freeze"));
    is_clean(&node);
    // A small one is copied as before, and whatever can be shared.
    set(&p, &pool, Duration::from_secs(10), 1 << 20);
    snapshot(&p, "s").unwrap();
    assert_eq!(node.fake.asked()["freeze"], 1);
    let (node, p, pool) = staged(true, VolumeMode::Filesystem);
    set(&p, &pool, Duration::from_secs(10), 1);
    snapshot(&p, "s").unwrap();
    let asked = node.fake.asked();
    assert_eq!((asked["freeze"], asked["thaw"]), (1, 1));
}

#[test]
fn writers_go_on_when_the_bound_is_over_and_wait_for_no_second_try() {
    let (node, p, pool) = staged(false, VolumeMode::Filesystem);
    set(&p, &pool, Duration::ZERO, 1 << 20);
    // Thawed beside the copy, wherever that hangs.
    node.fake.hold_reflinks();
    let why = refused(snapshot(&p, "s"));
    assert!(why.contains("they go on"), "{why}");
    is_clean(&node);
    node.fake.asked();
    let why = refused(snapshot(&p, "s"));
    assert!(why.contains("more than can be copied"), "{why}");
    assert!(!node.fake.asked().contains_key("freeze"));
}

#[test]
fn a_device_that_is_in_use_is_copied_at_once_or_not() {
    let (node, p, _) = staged(false, VolumeMode::Block);
    let why = refused(snapshot(&p, "s"));
    assert!(why.contains("its device is in use"), "{why}");
    is_clean(&node);
    let (_node, p, _) = staged(true, VolumeMode::Block);
    snapshot(&p, "s").unwrap();
}

#[test]
fn the_next_agent_thaws_what_the_last_one_froze_and_nothing_else() {
    for ours in [true, false] {
        let (node, p, _) = staged(true, VolumeMode::Filesystem);
        drop(p);
        let number = node.fake.loop_numbers()[0];
        node.fake.freeze_loop(number);
        let marks = node.pool("disk0").join(".berth/frozen");
        fs::create_dir_all(&marks).unwrap();
        if ours {
            fs::write(marks.join("v"), "").unwrap();
        }
        let p = node.open();
        assert_eq!(node.fake.frozen().is_empty(), ours);
        assert_eq!(fs::read_dir(&marks).unwrap().count(), 0);
        assert!(p.check().unwrap().findings.is_empty());
        if !ours {
            // A hook of a backup has it: it is no failure of ours.
            let told = snapshot(&p, "s").unwrap_err().to_string();
            assert!(told.contains("frozen already"), "{told}");
            assert_eq!(node.fake.frozen(), [number]);
        }
    }
}

#[test]
fn a_device_is_detached_also_where_its_staging_path_is_gone() {
    let (node, p, _) = staged(false, VolumeMode::Block);
    assert_eq!(node.fake.loop_numbers().len(), 1);
    fs::remove_dir_all(node.config.kubelet_dir.join("plugins")).unwrap();
    let staging = node.config.kubelet_dir.join("plugins/v/globalmount");
    p.unstage("v", &staging).unwrap();
    assert!(node.fake.loop_numbers().is_empty());
    p.unstage("v", &staging).unwrap();
}
