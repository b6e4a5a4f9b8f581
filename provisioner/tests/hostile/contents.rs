//! What a pod could leave in its volume.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknod};

use berth_provisioner::{Backend, FindingKind, Source, VolumeHealth};

use crate::Case;
use crate::support::{Disk, MIB, PATIENCE, fingerprint, run};

const SIZE: u64 = 128 * MIB;

/// All that can be copied.
fn leave(at: &Path, canary: &Path) {
    for (name, target) in [
        ("to-canary", canary),
        ("to-file", &canary.join("file")),
        ("to-root", Path::new("/")),
        ("up", Path::new("../../../../../../..")),
        ("loop", Path::new("loop")),
        ("dangling", Path::new("nowhere")),
    ] {
        symlink(target, at.join(name)).unwrap();
    }
    let mode = Mode::S_IRWXU;
    for (name, kind, device) in [
        ("memory", SFlag::S_IFCHR, makedev(1, 1)),
        ("disk", SFlag::S_IFBLK, makedev(7, 0)),
        ("none", SFlag::S_IFBLK, makedev(250, 77)),
        ("fifo", SFlag::S_IFIFO, 0),
        ("socket", SFlag::S_IFSOCK, 0),
    ] {
        mknod(&at.join(name), kind, mode, device).unwrap();
    }
    fs::write(at.join("setuid"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(at.join("setuid"), at.join("hard")).unwrap();
    fs::write(at.join("locked"), "x").unwrap();
    fs::set_permissions(at.join("locked"), fs::Permissions::from_mode(0o0)).unwrap();
    let hole = fs::File::create(at.join("hole")).unwrap();
    hole.set_len(64 * MIB).unwrap();

    let names = at.join("names");
    fs::create_dir(&names).unwrap();
    let mut longest = vec![b'n'; 255];
    longest[100] = b'\n';
    let odd: [&[u8]; 9] = [
        &longest,
        b"\n",
        b" ",
        b"-rf",
        b"~",
        b"%s%n",
        b"\xff\xfe",
        b"record.json",
        b"...",
    ];
    for name in odd {
        fs::write(names.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let many = at.join("many");
    fs::create_dir(&many).unwrap();
    for i in 0..10_000 {
        fs::File::create(many.join(i.to_string())).unwrap();
    }
    fs::set_permissions(&many, fs::Permissions::from_mode(0o0)).unwrap();
}

/// Deeper than any path can be written.
fn dig(at: &Path, levels: usize) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut dir: OwnedFd = open(at, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&dir, "d", Mode::S_IRWXU).unwrap();
        dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
    }
}

pub(crate) fn the_worst_is_counted_copied_and_erased(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    case.make("v", SIZE);
    let at = rig.mount("v").unwrap();
    leave(&at, &case.canary);
    case.snapshot("s").unwrap();
    case.clone_of("c", Source::Volume("v".into()), SIZE)
        .unwrap();
    case.clone_of("r", Source::Snapshot("s".into()), SIZE)
        .unwrap();
    let tree = |at: &Path| -> Vec<(std::path::PathBuf, String)> {
        fingerprint(at)
            .into_iter()
            .map(|(path, facts)| (path.strip_prefix(at).unwrap().to_owned(), facts))
            .collect()
    };
    let whole = tree(&at);
    assert!(whole.len() > 10_020);
    for id in ["c", "r"] {
        let copy = rig.mount(id).unwrap();
        assert_eq!(tree(&copy), whole, "{id}");
        rig.unmount(id);
    }
    assert!(rig.p().stats("v").unwrap().used > 0);
    assert_eq!(rig.p().check().unwrap().findings, []);

    dig(&at, 2000);
    let deep = case.snapshot("t");
    if disk.backend == Backend::Directory {
        let refused = deep.unwrap_err().to_string();
        assert!(refused.contains("nested more than"), "{refused}");
    } else {
        deep.unwrap();
        rig.p().delete_snapshot("t").unwrap();
    }
    assert_eq!(rig.p().find("v").unwrap().health, VolumeHealth::Ready);
    assert!(rig.p().stats("v").is_ok());
    rig.unmount("v");
    for id in ["v", "c", "r"] {
        rig.p().delete(id).unwrap();
    }
    rig.p().delete_snapshot("s").unwrap();
    case.ends();
}

/// What is immutable cannot be erased by somebody without the capability to change
/// that, which the agent gives away: the room stays taken, and people are told why.
pub(crate) fn immutable_files_stay_until_somebody_lets_them_go(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    case.make("v", SIZE);
    let at = rig.mount("v").unwrap();
    for (name, flag) in [("immutable", "+i"), ("append-only", "+a")] {
        fs::write(at.join(name), "x").unwrap();
        run(Command::new("chattr").arg(flag).arg(at.join(name)));
    }
    run(Command::new("chattr").arg("+i").arg(&at));
    case.snapshot("s").unwrap();
    case.clone_of("c", Source::Volume("v".into()), SIZE)
        .unwrap();
    assert!(rig.p().stats("v").is_ok());
    rig.unmount("v");
    rig.p().expand("v", SIZE + 16 * MIB).unwrap();
    rig.p().delete("v").unwrap();
    if disk.backend == Backend::Image {
        // Inside a file of ours.
        rig.p().delete("c").unwrap();
        rig.p().delete_snapshot("s").unwrap();
        return case.ends();
    }
    let trash = rig.pool_dir().join("trash/v");
    let end = Instant::now() + PATIENCE;
    let told = loop {
        let found = rig.p().check().unwrap().findings;
        let told = found.into_iter().find(|f| f.what.contains("chattr"));
        if let Some(told) = told {
            break told;
        }
        assert!(Instant::now() < end, "nobody is told");
    };
    assert_eq!(told.kind, FindingKind::Trash);
    assert!(told.path.ends_with("trash/v"), "{told:?}");
    // Others are erased all the same, and the room of this one stays taken.
    case.make("w", SIZE);
    rig.p().delete("w").unwrap();
    while rig.pool_dir().join("trash/w").exists() {
        assert!(Instant::now() < end, "one holds up the other");
    }
    assert!(rig.p().rescan().unwrap()[0].reserved >= SIZE);
    case.lives();
    let release = |at: &Path| {
        // Flags of links, devices and FIFOs cannot be read; there are none here.
        run(Command::new("chattr").args(["-R", "-i", "-a"]).arg(at));
    };
    release(&trash);
    for (id, snapshot) in [("c", false), ("s", true)] {
        let part = if snapshot { "snapshots" } else { "volumes" };
        let data = rig.pool_dir().join(part).join(id).join("data");
        if disk.backend == Backend::Btrfs && snapshot {
            run(Command::new("btrfs")
                .args(["property", "set"])
                .arg(&data)
                .args(["ro", "false"]));
        }
        release(&data);
    }
    rig.p().delete("c").unwrap();
    rig.p().delete_snapshot("s").unwrap();
    case.ends();
}
