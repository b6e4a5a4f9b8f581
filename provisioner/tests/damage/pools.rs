//! Damage of a pool as a whole, and mounts that nobody knows.

use std::fs;
use std::path::Path;
use std::process::Command;

use berth_provisioner::testing::LoopPool;
use berth_provisioner::{Error, FindingKind, Health, Provisioner};

use crate::support::{MIB, PATIENCE, Rig, fingerprint, run, umount};
use crate::{BTRFS, DIRECTORY, IMAGE, findings, places, prepared, replace};

/// The pool is refused as a whole, and nothing is written to it.
fn refused(rig: &mut Rig, expected: fn(&Health) -> bool) {
    let before = fingerprint(&rig.pool_dir());
    let found = findings(rig);
    let at = rig.pool_dir().canonicalize().unwrap();
    let pools: Vec<_> = found
        .iter()
        .filter(|f| f.kind == FindingKind::Pool)
        .collect();
    assert_eq!(pools.len(), 1, "{found:#?}");
    assert_eq!(pools[0].path.canonicalize().unwrap(), at);
    rig.restart();
    let report = rig.p().rescan().unwrap().remove(0);
    assert!(expected(&report.health), "{report:?}");
    for id in ["v", "n", "new"] {
        assert!(rig.p().create(&rig.pool, &rig.want(id, MIB)).is_err());
        assert!(rig.mount(id).is_err());
    }
    assert_eq!(fingerprint(&rig.pool_dir()), before);
    rig.stop();
}

#[test]
fn a_torn_identity() {
    let mut rig = prepared(BTRFS);
    let identity = rig.pool_dir().join(".berth/pool.json");
    let whole = fs::read(&identity).unwrap();
    for damage in [&b""[..], &whole[..whole.len() / 2], b"{}"] {
        replace(&identity, damage);
        refused(&mut rig, |health| matches!(health, Health::Damaged(_)));
    }
    replace(&identity, &whole);
    rig.restart();
    rig.is_usable("v");
}

#[test]
fn a_pool_without_one_of_its_directories() {
    for part in ["volumes", "trash", "tombstones"] {
        let mut rig = prepared(BTRFS);
        let at = rig.pool_dir().join(part);
        // A running agent notices as well as one that starts.
        rig.restart();
        fs::rename(&at, rig.pool_dir().join("aside")).unwrap();
        fs::write(&at, "").unwrap();
        let found = rig.p().check().unwrap().findings;
        assert!(
            found
                .iter()
                .any(|f| f.kind == FindingKind::Pool && f.path.ends_with(part)),
            "{part}: {found:#?}"
        );
        rig.stop();
        refused(&mut rig, |health| matches!(health, Health::Damaged(_)));
        fs::remove_file(&at).unwrap();
        fs::rename(rig.pool_dir().join("aside"), &at).unwrap();
        rig.restart();
        rig.is_usable("v");
    }
}

#[test]
fn a_pool_that_was_copied_to_another_disk() {
    for disk in [BTRFS, IMAGE, DIRECTORY] {
        let mut rig = prepared(disk);
        let at = rig.pool_dir();
        let kept = rig.node.root().join("kept");
        fs::create_dir(&kept).unwrap();
        run(Command::new("cp").arg("-a").arg(at.join(".")).arg(&kept));
        rig.image.unmount(&at);
        let _other = rig.node.disk_of("disk0", 1024 * MIB, disk.fstype, "");
        run(Command::new("cp").arg("-a").arg(kept.join(".")).arg(&at));
        refused(&mut rig, |health| *health == Health::LostMount);
    }
}

#[test]
fn a_check_makes_nothing_that_an_old_pool_lacks() {
    let mut rig = prepared(BTRFS);
    rig.restart();
    rig.p().delete_snapshot("s").unwrap();
    assert!(rig.p().settle(PATIENCE));
    rig.stop();
    let snapshots = rig.pool_dir().join("snapshots");
    fs::remove_dir(&snapshots).unwrap();
    assert_eq!(findings(&rig), []);
    assert!(!snapshots.exists());
}

#[test]
fn mounts_below_kubelets_directory_that_no_record_knows() {
    let mut rig = prepared(IMAGE);
    let ghosts = [("tree", false), ("image", true)];
    for (name, is_image) in ghosts {
        // As left by an agent whose records were lost.
        let source = rig.pool_dir().join("photo");
        let target = rig.node.target("pod", name);
        fs::create_dir(&target).unwrap();
        if is_image {
            LoopPool::format(source.clone(), 64 * MIB, "ext4", false).mount(&target, "");
        } else {
            fs::create_dir(&source).unwrap();
            bind(&source, &target);
        }
        let target = target.canonicalize().unwrap();
        let expected = [
            (FindingKind::Orphan, source.canonicalize().unwrap()),
            (FindingKind::UnknownMount, target.clone()),
        ];
        assert_eq!(places(&findings(&rig)), expected, "{name}");
        rig.restart();
        assert_eq!(places(&rig.p().check().unwrap().findings), expected);
        // Those of volumes are known, also when the record was lost.
        rig.mount("v").unwrap();
        assert_eq!(places(&rig.p().check().unwrap().findings), expected);
        rig.unmount("v");
        rig.is_usable("n");
        rig.stop();
        umount(&target);
        if is_image {
            fs::remove_file(&source).unwrap();
        } else {
            fs::remove_dir(&source).unwrap();
        }
    }
}

#[test]
fn a_mounted_volume_whose_record_is_torn_stays_mounted() {
    for disk in [BTRFS, IMAGE] {
        let mut rig = prepared(disk);
        rig.restart();
        let at = rig.mount("v").unwrap();
        let record = rig.home("v").join("record.json");
        let whole = fs::read(&record).unwrap();
        replace(&record, b"torn");
        rig.restart();
        let found = Provisioner::inspect(rig.node.config())
            .unwrap()
            .check()
            .unwrap()
            .findings;
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].kind, FindingKind::DamagedRecord);
        // It is a pod's: neither deleted beneath it, nor torn away.
        let refused = rig.p().delete("v").unwrap_err();
        assert!(matches!(refused, Error::Published { .. }), "{refused}");
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "keep");
        assert!(rig.home("v").join("data").exists());
        rig.unmount("v");
        replace(&record, &whole);
        rig.restart();
        rig.is_usable("v");
    }
}

fn bind(source: &Path, target: &Path) {
    run(Command::new("mount").arg("--bind").arg(source).arg(target));
}
