//! The table.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use berth_provisioner::FindingKind::{
    DamagedData, DamagedRecord, Limit, MissingData, MissingRecord, Orphan, StaleLink, Trash,
};

use crate::Fate::{Healed, Refused, Snapshot, Stays};
use crate::envelope::rewrite;
use crate::support::{MIB, Rig, run};
use crate::{BTRFS, DIRECTORY, IMAGE, Row, replace, try_all};

/// A macro, so that a row is a line.
macro_rules! rows {
    ($disk:expr; $($damage:literal: $apply:expr => $kind:ident at $at:expr, $fate:ident;)+) => {
        [$(Row {
            damage: $damage,
            disk: $disk,
            apply: $apply,
            kind: $kind,
            at: $at,
            fate: $fate,
        },)+]
    };
}

/// The longest name that a directory holds.
macro_rules! long {
    () => {
        "sssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss"
    };
}

fn record(rig: &Rig) -> std::path::PathBuf {
    rig.home("v").join("record.json")
}

fn data(rig: &Rig) -> std::path::PathBuf {
    rig.home("v").join("data")
}

fn fifo(path: &std::path::Path) {
    mknod(path, SFlag::S_IFIFO, Mode::S_IRWXU, 0).unwrap();
}

fn no_subvolume(rig: &Rig, of: &str) {
    run(Command::new("btrfs")
        .args(["subvolume", "delete", "-c"])
        .arg(rig.pool_dir().join(of).join("data")));
}

#[test]
fn records() {
    try_all(&rows! { BTRFS;
        "an empty record": |r| replace(&record(r), b"")
            => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "a record that was cut": |r| {
            let whole = fs::read(record(r)).unwrap();
            replace(&record(r), &whole[..whole.len() / 2]);
        } => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "a flipped bit": |r| {
            let mut whole = fs::read_to_string(record(r)).unwrap();
            let at = whole.find("\"size\": ").unwrap() + 8;
            let digit = whole.as_bytes()[at];
            whole.replace_range(at..=at, &char::from(digit ^ 1).to_string());
            replace(&record(r), whole.as_bytes());
        } => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "a record of a newer program": |r| rewrite(&record(r), |file| file["version"] = 99.into())
            => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "a record of another kind":
            |r| rewrite(&record(r), |file| file["kind"] = "berth-snapshot".into())
            => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "another volume's record": |r| {
            fs::copy(r.home("n").join("record.json"), record(r)).unwrap();
        } => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "a record of another pool's volume":
            |r| rewrite(&record(r), |file| file["body"]["pool"] = "disk9-0123456789ab".into())
            => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "a record that names its neighbour's subvolume": |r| {
            let neighbour = fs::read(r.home("n").join("record.json")).unwrap();
            let neighbour: serde_json::Value = serde_json::from_slice(&neighbour).unwrap();
            rewrite(&record(r), |file| {
                file["body"]["subvolume"] = neighbour["body"]["subvolume"].clone();
                file["body"]["enforced"] = (512 * MIB).into();
            });
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a link in the place of a record": |r| {
            fs::remove_file(record(r)).unwrap();
            symlink(r.home("n").join("record.json"), record(r)).unwrap();
        } => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "a FIFO in the place of a record": |r| {
            fs::remove_file(record(r)).unwrap();
            fifo(&record(r));
        } => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "a record that is too long": |r| replace(&record(r), &vec![b' '; MIB as usize])
            => DamagedRecord at "pools/disk0/volumes/v", Refused;
        "no record": |r| fs::remove_file(record(r)).unwrap()
            => MissingRecord at "pools/disk0/volumes/v", Refused;
    });
}

#[test]
fn subvolumes() {
    try_all(&rows! { BTRFS;
        "no data": |r| no_subvolume(r, "volumes/v")
            => MissingData at "pools/disk0/volumes/v/data", Refused;
        "a directory in the place of the subvolume": |r| {
            no_subvolume(r, "volumes/v");
            fs::create_dir(data(r)).unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "another subvolume in its place": |r| {
            no_subvolume(r, "volumes/v");
            run(Command::new("btrfs").args(["subvolume", "create"]).arg(data(r)));
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a file in the place of the subvolume": |r| {
            no_subvolume(r, "volumes/v");
            fs::write(data(r), "").unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a link to the neighbour in the place of the subvolume": |r| {
            no_subvolume(r, "volumes/v");
            symlink(r.home("n").join("data"), data(r)).unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a lost limit": |r| {
            run(Command::new("btrfs").args(["qgroup", "limit", "none"]).arg(data(r)));
        } => Limit at "pools/disk0/volumes/v/data", Healed;
        "a raised limit": |r| {
            run(Command::new("btrfs").args(["qgroup", "limit", "900M"]).arg(data(r)));
        } => Limit at "pools/disk0/volumes/v/data", Healed;
    });
}

#[test]
fn directories() {
    try_all(&rows! { DIRECTORY;
        "no data": |r| fs::remove_dir_all(data(r)).unwrap()
            => MissingData at "pools/disk0/volumes/v/data", Refused;
        "a file in the place of the directory": |r| {
            fs::remove_dir_all(data(r)).unwrap();
            fs::write(data(r), "").unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a link in the place of the directory": |r| {
            fs::remove_dir_all(data(r)).unwrap();
            symlink("/etc", data(r)).unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a torn record": |r| replace(&record(r), b"{")
            => DamagedRecord at "pools/disk0/volumes/v", Refused;
    });
}

#[test]
fn images() {
    fn image(r: &Rig) -> fs::File {
        fs::File::options()
            .read(true)
            .write(true)
            .open(data(r))
            .unwrap()
    }
    try_all(&rows! { IMAGE;
        "no image": |r| fs::remove_file(data(r)).unwrap()
            => MissingData at "pools/disk0/volumes/v/data", Refused;
        "an image that is too short": |r| image(r).set_len(20 * MIB).unwrap()
            => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "an empty image": |r| image(r).set_len(0).unwrap()
            => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "no ext4 in the image": |r| image(r).write_all_at(&[0; 4096], 0).unwrap()
            => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "an ext4 that ends beyond its image": |r| {
            image(r).write_all_at(&u32::MAX.to_le_bytes(), 1024 + 4).unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "blocks that no ext4 has": |r| {
            image(r).write_all_at(&[0xff; 4], 1024 + 0x18).unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a growth that a crash cut short": |r| rewrite(&record(r), |file| {
            let body = &mut file["body"];
            body["growingFrom"] = body["enforced"].clone();
            body["enforced"] = (48 * MIB).into();
            body["size"] = (48 * MIB).into();
        }) => Limit at "pools/disk0/volumes/v/data", Healed;
        "a FIFO in the place of an image": |r| {
            fs::remove_file(data(r)).unwrap();
            fifo(&data(r));
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a device in the place of an image": |r| {
            fs::remove_file(data(r)).unwrap();
            mknod(&data(r), SFlag::S_IFBLK, Mode::S_IRWXU, makedev(7, 0)).unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a directory in the place of an image": |r| {
            fs::remove_file(data(r)).unwrap();
            fs::create_dir(data(r)).unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
        "a link in the place of an image": |r| {
            fs::remove_file(data(r)).unwrap();
            symlink(r.home("n").join("data"), data(r)).unwrap();
        } => DamagedData at "pools/disk0/volumes/v/data", Refused;
    });
}

#[test]
fn snapshots() {
    fn snapshot(r: &Rig) -> std::path::PathBuf {
        r.pool_dir().join("snapshots/s")
    }
    try_all(&rows! { BTRFS;
        "a snapshot without data": |r| no_subvolume(r, "snapshots/s")
            => MissingData at "pools/disk0/snapshots/s", Snapshot;
        "a snapshot with a torn record": |r| replace(&snapshot(r).join("record.json"), b"{")
            => DamagedRecord at "pools/disk0/snapshots/s", Snapshot;
        "a snapshot without a record": |r| fs::remove_file(snapshot(r).join("record.json")).unwrap()
            => MissingRecord at "pools/disk0/snapshots/s", Snapshot;
        "a snapshot with a directory for data": |r| {
            no_subvolume(r, "snapshots/s");
            fs::create_dir(snapshot(r).join("data")).unwrap();
        } => DamagedData at "pools/disk0/snapshots/s", Snapshot;
    });
    try_all(&rows! { IMAGE;
        "a snapshot that is too short": |r| {
            let image = fs::File::options().write(true).open(snapshot(r).join("data")).unwrap();
            image.set_len(20 * MIB).unwrap();
        } => DamagedData at "pools/disk0/snapshots/s", Snapshot;
    });
}

#[test]
fn strangers() {
    fn put(r: &Rig, path: &str) {
        let path = r.pool_dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
    try_all(&rows! { BTRFS;
        "a file in the pool": |r| put(r, "photo")
            => Orphan at "pools/disk0/photo", Stays;
        "a directory among the volumes": |r| put(r, "volumes/stray/photo")
            => Orphan at "pools/disk0/volumes/stray", Stays;
        "a file among the volumes": |r| put(r, "volumes/stray")
            => Orphan at "pools/disk0/volumes/stray", Stays;
        "a name that is no id among the volumes": |r| put(r, "volumes/Stray/data/photo")
            => Orphan at "pools/disk0/volumes/Stray", Stays;
        "a file beside a volume's data": |r| put(r, "volumes/v/photo")
            => Orphan at "pools/disk0/volumes/v/photo", Stays;
        "a directory among the snapshots": |r| put(r, "snapshots/stray/photo")
            => Orphan at "pools/disk0/snapshots/stray", Stays;
        "a directory in the trash": |r| put(r, "trash/stray/photo")
            => Orphan at "pools/disk0/trash/stray", Stays;
        "a file in the trash": |r| put(r, "trash/stray")
            => Orphan at "pools/disk0/trash/stray", Stays;
        "a name in the trash that no tombstone could have": |r| {
            put(r, concat!("trash/", long!(), "/photo"));
        } => Orphan at concat!("pools/disk0/trash/", long!()), Stays;
        "another volume's record in the trash": |r| {
            put(r, "trash/stray/photo");
            let trash = r.pool_dir().join("trash/stray/record.json");
            fs::copy(r.home("v").join("record.json"), trash).unwrap();
        } => Orphan at "pools/disk0/trash/stray", Stays;
        "a file among the tombstones": |r| put(r, "tombstones/photo")
            => Orphan at "pools/disk0/tombstones/photo", Stays;
        "a tombstone with garbage": |r| put(r, "tombstones/gone.json")
            => DamagedRecord at "pools/disk0/tombstones/gone.json", Stays;
        "a file beside the identity": |r| put(r, ".berth/photo")
            => Orphan at "pools/disk0/.berth/photo", Stays;
        "a file among what is in the making": |r| put(r, ".berth/new/photo")
            => Orphan at "pools/disk0/.berth/new/photo", Stays;
        "something in the making that holds data": |r| put(r, ".berth/new/x/data/photo")
            => Trash at "pools/disk0/.berth/new/x", Stays;
        "something empty in the making": |r| fs::create_dir(r.pool_dir().join(".berth/new/x")).unwrap()
            => Trash at "pools/disk0/.berth/new/x", Healed;
    });
}

#[test]
fn links() {
    fn link(r: &Rig, name: &str) -> std::path::PathBuf {
        r.node.root().join("by-claim/default").join(name)
    }
    try_all(&rows! { DIRECTORY;
        "no link": |r| fs::remove_file(link(r, "data-v")).unwrap()
            => StaleLink at "by-claim/default/data-v", Healed;
        "a link to another volume": |r| {
            fs::remove_file(link(r, "data-v")).unwrap();
            symlink("../../pools/disk0/volumes/n/data", link(r, "data-v")).unwrap();
        } => StaleLink at "by-claim/default/data-v", Healed;
        "a link to somewhere else": |r| {
            fs::remove_file(link(r, "data-v")).unwrap();
            symlink("/etc", link(r, "data-v")).unwrap();
        } => StaleLink at "by-claim/default/data-v", Healed;
        "a link to a volume that is gone": |r| {
            symlink("../../pools/disk0/volumes/old/data", link(r, "data-old")).unwrap();
        } => StaleLink at "by-claim/default/data-old", Stays;
        "a file in the place of a link": |r| replace(&link(r, "data-v"), b"mine")
            => StaleLink at "by-claim/default/data-v", Stays;
    });
}
