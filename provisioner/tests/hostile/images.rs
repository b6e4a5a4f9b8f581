//! Images that were crafted, damaged, taken or starved.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_provisioner::testing::LoopPool;
use berth_provisioner::{Error, Source, VolumeHealth, VolumeMode, VolumeSpec};

use crate::Case;
use crate::host::hog;
use crate::support::{Disk, MIB, run, umount};

/// An ext4 whose superblock is sound and whose rest is not.
fn broken_ext4(at: PathBuf) -> Vec<u8> {
    LoopPool::format(at.clone(), 32 * MIB, "ext4", false);
    let mut bytes = fs::read(&at).unwrap();
    fs::remove_file(at).unwrap();
    bytes[4096..MIB as usize].fill(0xa5);
    bytes
}

pub(crate) fn a_damaged_filesystem_on_a_raw_device_is_the_pods_own(disk: Disk) {
    let mut case = Case::new(disk);
    let bytes = broken_ext4(case.rig.node.root().join("broken"));
    let rig = &mut case.rig;
    let want = |id: &str, source| VolumeSpec {
        mode: VolumeMode::Block,
        source,
        ..rig.want(id, 32 * MIB)
    };
    let (v, c) = (want("v", None), want("c", Some(Source::Volume("v".into()))));
    rig.p().create(&rig.pool, &v).unwrap();
    let device = rig.mount_as("v", VolumeMode::Block).unwrap();
    let file = fs::File::options().write(true).open(&device).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    // It cannot be had as a directory tree, by no way.
    let wrong = rig.stage("v", VolumeMode::Filesystem);
    assert!(
        matches!(wrong, Err(Error::InvalidArgument { .. })),
        "{wrong:?}"
    );
    let mut tree = c.clone();
    tree.mode = VolumeMode::Filesystem;
    let answer = rig.p().create(&rig.pool, &tree);
    assert!(matches!(answer, Err(Error::InvalidArgument { .. })));
    rig.p().create(&rig.pool, &c).unwrap();
    rig.restart();
    rig.p().expand("v", 64 * MIB).unwrap();
    rig.unmount("v");
    let copy = rig.mount_as("c", VolumeMode::Block).unwrap();
    let mut there = vec![0; bytes.len()];
    fs::File::open(&copy)
        .unwrap()
        .read_exact_at(&mut there, 0)
        .unwrap();
    assert!(there == bytes, "the pod's bytes are its own");
    rig.unmount("c");
    // What was cut off is lost, also to somebody who starts anew.
    let image = rig.home("c").join("data");
    let cut = fs::File::options().write(true).open(&image).unwrap();
    cut.set_len(16 * MIB).unwrap();
    rig.restart();
    let refused = rig.mount_as("c", VolumeMode::Block).unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    assert_eq!(fs::metadata(&image).unwrap().len(), 16 * MIB);
    drop(cut);
    for id in ["v", "c"] {
        rig.p().delete(id).unwrap();
    }
    case.ends();
}

pub(crate) fn a_damaged_image_is_neither_mounted_nor_formatted(disk: Disk) {
    let mut case = Case::new(disk);
    let broken = broken_ext4(case.rig.node.root().join("broken"));
    let rig = &mut case.rig;
    rig.make("v");
    rig.put("v", |at| fs::write(at.join("kept"), "keep").unwrap());
    let path = rig.home("v").join("data");
    let whole = fs::read(&path).unwrap();
    let cases: [(&str, bool, Vec<u8>); 5] = [
        ("nothing but zeros", true, vec![0; whole.len()]),
        ("no superblock", true, {
            let mut bytes = whole.clone();
            bytes[1024..2048].fill(0);
            bytes
        }),
        ("more blocks than the file has", true, {
            let mut bytes = whole.clone();
            bytes[1024 + 4..1024 + 8].copy_from_slice(&u32::MAX.to_le_bytes());
            bytes
        }),
        ("another filesystem", true, {
            let other = rig.node.root().join("other");
            LoopPool::format(other.clone(), 128 * MIB, "btrfs", false);
            let mut bytes = fs::read(&other).unwrap();
            fs::remove_file(&other).unwrap();
            bytes.truncate(whole.len());
            bytes
        }),
        ("a superblock alone", false, broken),
    ];
    for (damage, told, bytes) in cases {
        fs::write(&path, &bytes).unwrap();
        for again in [false, true] {
            if again {
                rig.restart();
            }
            let refused = rig.mount("v").unwrap_err();
            if told {
                assert!(
                    matches!(refused, Error::Damaged { .. }),
                    "{damage}: {refused}"
                );
                assert!(matches!(
                    rig.p().find("v").unwrap().health,
                    VolumeHealth::Damaged(_)
                ));
            } else {
                // Only the kernel notices; it is said what can be done.
                assert!(
                    refused.to_string().contains("e2fsck"),
                    "{damage}: {refused}"
                );
            }
            let again = rig.p().create(&rig.pool, &rig.want("v", 32 * MIB));
            assert!(again.is_err() == told, "{damage}: {again:?}");
            assert!(
                fs::read(&path).unwrap() == bytes,
                "{damage}: it was changed"
            );
            assert!(attached(&path).is_empty(), "{damage}: a device is left");
        }
    }
    fs::write(&path, &whole).unwrap();
    let at = rig.mount("v").unwrap();
    assert_eq!(fs::read_to_string(at.join("kept")).unwrap(), "keep");
    rig.unmount("v");
    rig.p().delete("v").unwrap();
    case.ends();
}

/// Loop devices of a file.
fn attached(image: &Path) -> String {
    run(Command::new("losetup").arg("--associated").arg(image))
}

pub(crate) fn an_image_that_somebody_else_has_attached_is_not_deleted(disk: Disk) {
    let mut case = Case::new(disk);
    let rig = &mut case.rig;
    rig.make("v");
    let image = rig.home("v").join("data");
    let device = run(Command::new("losetup")
        .args(["--find", "--show"])
        .arg(&image));
    let held = fs::File::open(&device).unwrap();
    for again in [false, true] {
        if again {
            rig.restart();
        }
        let refused = rig.p().delete("v").unwrap_err();
        assert!(matches!(refused, Error::Published { .. }), "{refused}");
        assert!(refused.to_string().contains(&device), "{refused}");
        assert!(image.exists());
    }
    drop(held);
    // Mounted by somebody, it is told where.
    rig.is_usable("v");
    let elsewhere = rig.node.root().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(&image)
        .arg(&elsewhere));
    let refused = rig.p().delete("v").unwrap_err().to_string();
    assert!(refused.contains("elsewhere"), "{refused}");
    umount(&elsewhere);
    rig.p().delete("v").unwrap();
    case.ends();
}

pub(crate) fn a_sparse_image_on_a_full_disk_harms_nobody_else(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    let want = VolumeSpec {
        sparse: true,
        ..rig.want("v", 256 * MIB)
    };
    rig.p().create(&rig.pool, &want).unwrap();
    rig.put("v", |at| fs::write(at.join("kept"), "keep").unwrap());
    // Somebody takes what was promised.
    let at = rig.mount("v").unwrap();
    let neighbour = rig.mount("n").unwrap();
    let hog = hog(rig);
    // Its writes fail, one way or the other; the calls return.
    let wrote = fs::File::create(at.join("more"))
        .and_then(|file| {
            file.write_all_at(&vec![7; 64 * MIB as usize], 0)
                .map(|()| file)
        })
        .and_then(|file| file.sync_all());
    assert!(wrote.is_err(), "the disk is full");
    let _ = rig.p().stats("v");
    let _ = case.snapshot("s");
    let _ = rig.p().delete_snapshot("s");
    assert!(rig.p().rescan().unwrap()[0].room < MIB);
    // What was allocated stays so.
    let file = fs::File::create(neighbour.join("more")).unwrap();
    file.write_all_at(&vec![7; 8 * MIB as usize], 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    rig.unmount("n");
    rig.unmount("v");
    // With room again, it is what it was.
    fs::remove_file(&hog).unwrap();
    let at = rig.mount("v").unwrap();
    assert_eq!(fs::read_to_string(at.join("kept")).unwrap(), "keep");
    fs::write(at.join("goes on"), "x").unwrap();
    rig.unmount("v");
    rig.p().delete("v").unwrap();
    case.ends();
}

pub(crate) fn what_a_pod_froze_is_told(disk: Disk) {
    let mut case = Case::new(disk);
    let rig = &case.rig;
    rig.make("v");
    let at = rig.mount("v").unwrap();
    run(Command::new("fsfreeze").arg("--freeze").arg(&at));
    let answer = case.snapshot("s");
    let thawed = Command::new("fsfreeze").arg("--unfreeze").arg(&at).status();
    let refused = answer.unwrap_err().to_string();
    assert!(refused.contains("frozen already"), "{refused}");
    // It was the pod that froze it, so it was still frozen.
    assert!(thawed.unwrap().success());
    // So it stays for a new agent: a backup may rely on it.
    run(Command::new("fsfreeze").arg("--freeze").arg(&at));
    case.rig.restart();
    let thawed = Command::new("fsfreeze").arg("--unfreeze").arg(&at).status();
    assert!(thawed.unwrap().success());
    fs::write(at.join("file"), "x").unwrap();
    case.snapshot("s").unwrap();
    case.rig.unmount("v");
    case.rig.p().delete("v").unwrap();
    case.rig.p().delete_snapshot("s").unwrap();
    case.ends();
}
