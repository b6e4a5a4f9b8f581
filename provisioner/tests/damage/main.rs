//! What `check` finds on a damaged pool: one table, damage by damage. Neither the
//! check nor a restart changes what is damaged, sound volumes go on, and what is
//! damaged is neither mounted nor made anew.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

mod envelope;
mod pools;
#[allow(dead_code, reason = "not every target has use for all of it")]
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::path::{Path, PathBuf};

use berth_provisioner::{
    Backend, Error, Finding, FindingKind, Provisioner, SnapshotSpec, Source, VolumeSpec,
};
use support::{Disk, MIB, PATIENCE, Rig, fingerprint};

const BTRFS: Disk = Disk {
    fstype: "btrfs",
    backend: Backend::Btrfs,
};
const IMAGE: Disk = Disk {
    fstype: "xfs",
    backend: Backend::Image,
};
const DIRECTORY: Disk = Disk {
    fstype: "ext4",
    backend: Backend::Directory,
};

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The victim is refused, and stays as it is.
    Refused,
    /// The victim goes on, and so does the damage.
    Stays,
    /// The victim goes on, and a restart repairs the damage.
    Healed,
    /// The snapshot is refused, its volume goes on.
    Snapshot,
}

/// One line of the table.
struct Row {
    damage: &'static str,
    disk: Disk,
    /// Done to the disk while no agent runs.
    apply: fn(&Rig),
    kind: FindingKind,
    /// Where it is found, beneath Berth's root.
    at: &'static str,
    fate: Fate,
}

/// A victim `v` with a snapshot `s`, a neighbour `n`, and `gone`, which was deleted.
fn prepared(disk: Disk) -> Rig {
    let mut rig = Rig::new(disk);
    for id in ["v", "n", "gone"] {
        rig.make(id);
    }
    rig.put("v", |at| std::fs::write(at.join("file"), "keep").unwrap());
    rig.p()
        .snapshot(&SnapshotSpec {
            id: "s".into(),
            volume: "v".into(),
        })
        .unwrap();
    rig.p().delete("gone").unwrap();
    assert!(rig.p().settle(PATIENCE));
    assert_eq!(rig.p().check().unwrap().findings, []);
    rig.stop();
    rig
}

fn findings(rig: &Rig) -> Vec<Finding> {
    let found = Provisioner::inspect(rig.node.config())
        .unwrap()
        .check()
        .unwrap()
        .findings;
    for finding in &found {
        assert!(
            !finding.what.is_empty() && !finding.advice.is_empty(),
            "{finding:?}"
        );
    }
    found
}

fn places(found: &[Finding]) -> Vec<(FindingKind, PathBuf)> {
    found.iter().map(|f| (f.kind, f.path.clone())).collect()
}

fn try_it(row: &Row) {
    let mut rig = prepared(row.disk);
    (row.apply)(&rig);
    let root = rig.node.root().canonicalize().unwrap();
    let expected = [(row.kind, root.join(row.at))];
    let before = fingerprint(&rig.pool_dir());

    let found = findings(&rig);
    assert_eq!(places(&found), expected, "{}: {found:#?}", row.damage);
    rig.restart();
    let healed = rig.p().check().unwrap().findings;
    if row.fate == Fate::Healed {
        assert_eq!(healed, [], "{}", row.damage);
    } else {
        assert_eq!(places(&healed), expected, "{}: {healed:#?}", row.damage);
        assert_eq!(fingerprint(&rig.pool_dir()), before, "{}", row.damage);
    }

    rig.is_usable("n");
    match row.fate {
        Fate::Refused => refused(&rig, row),
        Fate::Snapshot => {
            rig.is_usable("v");
            let restored = restore(&rig, Source::Snapshot("s".into()));
            assert!(restored.is_err(), "{}", row.damage);
        }
        Fate::Stays | Fate::Healed => {
            rig.is_usable("v");
            restore(&rig, Source::Snapshot("s".into())).unwrap();
            rig.is_usable("r");
        }
    }
    // What was erased is not made again, whatever is in its tombstone.
    let again = rig.p().create(&rig.pool, &rig.want("gone", MIB));
    assert!(
        matches!(again, Err(Error::Tombstoned { .. })),
        "{}: {again:?}",
        row.damage
    );
}

fn restore(rig: &Rig, source: Source) -> Result<(), Error> {
    let want = VolumeSpec {
        source: Some(source),
        ..rig.want("r", 32 * MIB)
    };
    rig.p().create(&rig.pool, &want).map(drop)
}

/// Nothing is made of a victim, nor in its place.
fn refused(rig: &Rig, row: &Row) {
    let before = fingerprint(&rig.home("v"));
    let said = [
        rig.mount("v").map(drop),
        rig.p()
            .create(&rig.pool, &rig.want("v", 32 * MIB))
            .map(drop),
        rig.p().expand("v", 64 * MIB).map(drop),
        rig.p()
            .snapshot(&SnapshotSpec {
                id: "t".into(),
                volume: "v".into(),
            })
            .map(drop),
        restore(rig, Source::Volume("v".into())),
    ];
    for answer in said {
        assert!(
            matches!(
                answer,
                Err(Error::Damaged { .. } | Error::Lost { .. } | Error::Io { .. })
            ),
            "{}: {answer:?}",
            row.damage
        );
    }
    assert_eq!(fingerprint(&rig.home("v")), before, "{}", row.damage);
    assert!(!rig.node.target("pod", "v").exists(), "{}", row.damage);
}

/// The rows of one kind of disk, each on a disk of its own.
fn try_all(rows: &[Row]) {
    for row in rows {
        eprintln!("{} on {}", row.damage, row.disk.backend);
        try_it(row);
    }
}

fn replace(path: &Path, with: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, with).unwrap();
}
