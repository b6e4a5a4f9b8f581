//! What somebody with a shell on the host could do to a volume in no pod.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::fcntl::{FallocateFlags, fallocate};

use berth_provisioner::{Backend, Erasure, Error, Source, VolumeHealth};

use crate::Case;
use crate::support::{Disk, MIB, PATIENCE, Rig, run, umount};

pub(crate) fn a_mount_inside_stays(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    case.make("v", 64 * MIB);
    case.snapshot("s").unwrap();
    let data = rig.home("v").join("data");
    let (source, at) = match disk.backend {
        Backend::Image => (case.canary.join("file"), data.clone()),
        _ => {
            fs::create_dir(data.join("inside")).unwrap();
            (case.canary.clone(), data.join("inside"))
        }
    };
    run(Command::new("mount").arg("--bind").arg(&source).arg(&at));
    let refused = rig.p().delete("v").unwrap_err();
    assert!(matches!(refused, Error::Published { .. }), "{refused}");
    let real = at.canonicalize().unwrap();
    assert!(
        refused.to_string().contains(&*real.to_string_lossy()),
        "{refused}"
    );
    match disk.backend {
        // What is mounted is no part of it.
        Backend::Btrfs => {
            case.snapshot("t").unwrap();
            rig.p().delete_snapshot("t").unwrap();
            case.clone_of("c", Source::Volume("v".into()), 64 * MIB)
                .unwrap();
            assert_eq!(
                fs::read_dir(rig.home("c").join("data/inside"))
                    .unwrap()
                    .count(),
                0
            );
            rig.p().delete("c").unwrap();
        }
        Backend::Directory => {
            for refused in [
                case.snapshot("t").unwrap_err(),
                case.clone_of("c", Source::Volume("v".into()), 64 * MIB)
                    .unwrap_err(),
            ] {
                assert!(refused.to_string().contains("unmount it"), "{refused}");
            }
        }
        _ => {
            assert!(case.snapshot("t").is_err());
            assert!(rig.mount("v").is_err());
        }
    }
    case.lives();
    umount(&at);

    // In a snapshot too.
    let kept = rig.pool_dir().join("snapshots/s");
    run(Command::new("mount")
        .arg("--bind")
        .arg(&case.canary)
        .arg(&kept));
    assert!(rig.p().delete_snapshot("s").is_err());
    umount(&kept);
    rig.is_usable("v");
    rig.p().delete_snapshot("s").unwrap();
    rig.p().delete("v").unwrap();
    case.ends();
}

/// Takes all the room that the pool's filesystem has.
pub(crate) fn hog(rig: &Rig) -> PathBuf {
    let hog = rig.pool_dir().join("hog");
    let file = fs::File::create(&hog).unwrap();
    let (mut step, mut taken) = (256 * MIB, 0);
    while step >= 4096 {
        let (from, more) = (i64::try_from(taken).unwrap(), i64::try_from(step).unwrap());
        match fallocate(&file, FallocateFlags::empty(), from, more) {
            Ok(()) => taken += step,
            Err(_) => step /= 2,
        }
    }
    file.sync_all().unwrap();
    let free = nix::sys::statvfs::statvfs(&rig.pool_dir()).unwrap();
    assert!(free.blocks_available() * free.fragment_size() < 2 * MIB);
    hog
}

/// To delete is what makes room again.
pub(crate) fn a_volume_on_a_full_disk_is_deleted(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    case.make("v", 64 * MIB);
    rig.put("v", |at| {
        fs::write(at.join("file"), vec![7; 8 * MIB as usize]).unwrap();
    });
    let hog = hog(rig);
    let end = Instant::now() + PATIENCE;
    while let Err(e) = rig.p().delete_from(&rig.pool, "v", &Erasure::default()) {
        assert!(Instant::now() < end, "{e}");
    }
    assert!(rig.p().settle(PATIENCE));
    assert!(!rig.home("v").exists());
    let again = rig.p().create(&rig.pool, &rig.want("v", MIB));
    assert!(
        matches!(again, Err(Error::Tombstoned { .. } | Error::NoRoom { .. })),
        "{again:?}"
    );
    fs::remove_file(hog).unwrap();
    let again = rig.p().create(&rig.pool, &rig.want("v", MIB));
    assert!(matches!(again, Err(Error::Tombstoned { .. })), "{again:?}");
    case.ends();
}

/// Everything that could use a volume's data refuses it.
fn refused(case: &Case) {
    let rig = &case.rig;
    for answer in [
        rig.mount("v").map(drop),
        case.snapshot("s"),
        case.clone_of("c", Source::Volume("v".into()), 64 * MIB),
        rig.p().expand("v", 96 * MIB).map(drop),
        rig.p()
            .create(&rig.pool, &rig.want("v", 64 * MIB))
            .map(drop),
    ] {
        assert!(
            matches!(answer, Err(Error::Damaged { .. } | Error::Lost { .. })),
            "{answer:?}"
        );
    }
    assert_ne!(rig.p().find("v").unwrap().health, VolumeHealth::Ready);
    assert!(!rig.p().check().unwrap().findings.is_empty());
    // Whatever they answer: they read nothing of it.
    let _ = rig.p().stats("v");
    let _ = rig.p().repair_links();
    let pool = rig.p().rescan().unwrap().remove(0);
    assert_eq!(pool.message, "");
    case.lives();
}

pub(crate) fn what_was_put_in_the_place_of_data_is_not_used(disk: Disk) {
    type Put = fn(&Path, &Path, &Path);
    let tricks: [(&str, Put); 5] = [
        ("a link to the canary", |at, canary, _| {
            symlink(canary, at).unwrap();
        }),
        ("a link to the neighbour", |at, _, neighbour| {
            symlink(neighbour, at).unwrap();
        }),
        ("a link to a device", |at, _, _| {
            symlink("/dev/full", at).unwrap()
        }),
        ("nothing", |_, _, _| {}),
        ("a FIFO", |at, _, _| {
            run(Command::new("mkfifo").arg(at));
        }),
    ];
    for (trick, put) in tricks {
        eprintln!("{trick}");
        let case = Case::new(disk);
        let rig = &case.rig;
        case.make("v", 64 * MIB);
        let data = rig.home("v").join("data");
        let aside = rig.home("v").join("aside");
        fs::rename(&data, &aside).unwrap();
        put(&data, &case.canary, &rig.home("n").join("data"));
        refused(&case);
        // Put back, it is what it was; and it can be deleted as it is.
        if fs::symlink_metadata(&data).is_ok() {
            fs::remove_file(&data).unwrap();
        }
        fs::rename(&aside, &data).unwrap();
        rig.is_usable("v");
        fs::rename(&data, &aside).unwrap();
        put(&data, &case.canary, &rig.home("n").join("data"));
        rig.p().delete("v").unwrap();
        case.ends();
    }
}

pub(crate) fn what_was_put_in_the_place_of_a_volume_is_not_used(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    case.make("v", 64 * MIB);
    let aside = rig.pool_dir().join("aside");
    for target in [rig.home("n"), case.canary.clone(), "/".into()] {
        fs::rename(rig.home("v"), &aside).unwrap();
        symlink(&target, rig.home("v")).unwrap();
        refused(&case);
        // What is there is not Berth's to erase.
        let answer = rig.p().delete("v");
        assert!(matches!(answer, Err(Error::Damaged { .. })), "{answer:?}");
        assert!(rig.home("v").is_symlink());
        fs::remove_file(rig.home("v")).unwrap();
        fs::rename(&aside, rig.home("v")).unwrap();
        rig.is_usable("v");
    }
    // A record that leads elsewhere is none, for a running agent and the next.
    let record = rig.home("v").join("record.json");
    let whole = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    symlink(rig.home("n").join("record.json"), &record).unwrap();
    rig.p().expand("v", 96 * MIB).unwrap();
    assert!(!record.is_symlink());
    fs::write(&record, whole).unwrap();
    let neighbour = fs::read_to_string(rig.home("n").join("record.json")).unwrap();
    assert!(neighbour.contains("\"id\": \"n\""), "{neighbour}");
    rig.p().delete("v").unwrap();
    case.ends();
}
