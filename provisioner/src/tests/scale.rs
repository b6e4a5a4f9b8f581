//! What a look at many volumes asks of the machine: counted, on the faked one.

use std::collections::BTreeMap;
use std::fs;

use super::{MIB, Node, want};
use crate::{Provisioner, Stage, VolumeMode};
use berth_model::ProblemKind;

type Asked = BTreeMap<&'static str, usize>;

/// A node with so many staged images.
fn images(count: usize) -> (Node, Provisioner) {
    let node = Node::new();
    node.fake.make_images(true);
    node.fake.change(&node.pool("disk0"), |disk| {
        (disk.size, disk.free) = (1 << 40, 1 << 40);
    });
    let (p, pool) = node.start();
    for n in 0..count {
        let id = format!("v{n}");
        p.create(&pool, &want(&id)).unwrap();
        let staging = node
            .config
            .kubelet_dir
            .join("plugins")
            .join(&id)
            .join("globalmount");
        fs::create_dir_all(&staging).unwrap();
        p.stage(&Stage {
            id,
            staging,
            mode: VolumeMode::Filesystem,
        })
        .unwrap();
    }
    // What is asked once and remembered.
    p.list();
    node.fake.asked();
    (node, p)
}

fn asked(count: usize, look: impl Fn(&Provisioner)) -> Asked {
    let (node, p) = images(count);
    // Its trash is empty, and its worker idle.
    node.fake.asked();
    look(&p);
    node.fake.asked()
}

#[test]
fn a_report_of_all_volumes_reads_the_mounts_and_the_loop_devices_once() {
    let list = |p: &Provisioner| {
        let reports = p.list();
        assert!(
            reports
                .iter()
                .all(|it| it.staged.len() == 1 && it.used.is_some())
        );
        assert!(reports.iter().all(|it| it.troubles.is_empty()));
    };
    for count in [1, 10, 100] {
        let asked = asked(count, list);
        assert_eq!((asked["mounts"], asked["loops"]), (1, 1), "{asked:?}");
        assert_eq!(asked["mount_of"], 1, "{asked:?}");
        // How full each is, and nothing else.
        assert_eq!(asked["space"], count, "{asked:?}");
        assert!(asked.values().sum::<usize>() <= 10 + count, "{asked:?}");
    }
}

#[test]
fn a_look_at_one_volume_asks_the_same_however_many_there_are() {
    let find = |p: &Provisioner| assert!(p.find("v0").is_some());
    let (one, many) = (asked(1, find), asked(100, find));
    assert_eq!(one, many);
    assert_eq!((many["mounts"], many["mount_of"], many["loops"]), (1, 1, 1));
}

#[test]
fn an_unmount_asks_for_its_own_loop_device_only() {
    let (node, p) = images(10);
    let staging = node.config.kubelet_dir.join("plugins/v3/globalmount");
    p.unstage("v3", &staging).unwrap();
    let asked = node.fake.asked();
    assert_eq!(asked["loop_at"], 1, "{asked:?}");
    assert!(!asked.contains_key("loops"), "{asked:?}");
}

#[test]
fn the_links_of_all_volumes_are_compared_with_one_mount_table() {
    let (node, p) = images(30);
    p.check().unwrap();
    let of_links = node.fake.asked()["mounts"];
    let (node, p) = images(1);
    p.check().unwrap();
    assert_eq!(node.fake.asked()["mounts"], of_links);
}

#[test]
fn an_image_that_filled_itself_is_looked_at_again_when_it_grows() {
    let (_node, p) = images(1);
    assert!(p.find("v0").unwrap().troubles.is_empty());
    // Nobody may resize a mounted ext4 on this machine.
    let _ = p.expand("v0", 64 * MIB);
    let kinds = |p: &Provisioner| -> Vec<ProblemKind> {
        let troubles = p.find("v0").unwrap().troubles;
        troubles.into_iter().map(|it| it.kind).collect()
    };
    assert_eq!(kinds(&p), [ProblemKind::NotGrown]);
    assert_eq!(kinds(&p), [ProblemKind::NotGrown]);
}

#[test]
fn a_start_lists_the_loop_devices_once_for_all_images() {
    let start = |count| {
        let (node, p) = images(count);
        drop(p);
        node.fake.asked();
        drop(node.open());
        node.fake.asked()
    };
    let (one, many) = (start(1), start(50));
    assert_eq!((one["resize_loop"], many["resize_loop"]), (1, 50));
    for call in ["loops", "mounts", "mount_of"] {
        assert_eq!(one[call], many[call], "{call}: {one:?} {many:?}");
    }
}
