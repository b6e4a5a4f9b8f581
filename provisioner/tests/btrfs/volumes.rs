//! Volumes: limits, room, deletion, adoption, what a crash leaves.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use berth_provisioner::{ClaimRef, Error, FindingKind, InitOptions, Provisioner, VolumeHealth};

use crate::help::{MIB, PATIENCE, btrfs, commit, fill, node, node_with, publish, subvolumes, want};

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
fn a_volume_is_known_by_the_claim_that_it_was_given_to() {
    let (node, _disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    p.create(&pool, &want("w", MIB)).unwrap();
    let links = node.root().join("by-claim");
    let claim = |namespace: &str, name: &str| ClaimRef {
        namespace: namespace.into(),
        name: name.into(),
        uid: "9".into(),
    };
    for _ in 0..2 {
        let report = p.assign("v", claim("shop", "new"), None).unwrap();
        assert_eq!(report.claim, Some(claim("shop", "new")));
        assert!(links.join("shop/new/.").exists());
        assert!(!links.join("default/data-v").is_symlink());
        assert!(links.join("default/data-w/.").exists());
    }
    // The last of a namespace takes its directory along.
    p.assign("w", claim("shop", "other"), None).unwrap();
    assert!(!links.join("default").exists());
    for hostile in ["..", "a/b", ""] {
        assert!(p.assign("v", claim(hostile, "x"), None).is_err());
        assert!(p.assign("v", claim("shop", hostile), None).is_err());
    }
    drop(p);
    let p = Provisioner::open(node.config()).unwrap();
    assert_eq!(p.find("v").unwrap().claim, Some(claim("shop", "new")));
    assert!(p.check().unwrap().findings.is_empty());
}
