//! Filesystems that go wrong under a pool that is in use: what is met is told, goes
//! on where it can, and is told no more once it is repaired.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

#[allow(dead_code, reason = "not every target has use for all of it")]
#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use berth_provisioner::{
    Backend, Error, Health, InitOptions, PoolReport, ProblemKind, VolumeHealth, VolumeReport,
    init_pool,
};
use support::{Disk, MIB, PATIENCE, Rig, run};

fn pool(rig: &Rig) -> PoolReport {
    rig.p().rescan().unwrap().remove(0)
}

fn volume(rig: &Rig, id: &str) -> VolumeReport {
    rig.p().find(id).unwrap()
}

fn of_pool(rig: &Rig) -> Vec<ProblemKind> {
    pool(rig).troubles.iter().map(|it| it.kind).collect()
}

fn of_volume(rig: &Rig, id: &str) -> Vec<ProblemKind> {
    let report = volume(rig, id);
    assert_eq!(report.health, VolumeHealth::Ready);
    report.troubles.iter().map(|it| it.kind).collect()
}

/// Has the ext4 mounted at `at` meet an error, as it would on a bad disk.
fn ext4_error(at: &Path) {
    let device = fs::metadata(at).unwrap().dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let device = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap();
    let knob = Path::new("/sys/fs/ext4")
        .join(device.file_name().unwrap())
        .join("trigger_fs_error");
    fs::write(knob, "a test's").unwrap();
}

fn remount(at: &Path, options: &str) {
    run(Command::new("mount")
        .args(["-o", &format!("remount,{options}")])
        .arg(at));
}

/// A byte that changed on the disk is an error that btrfs counts, and keeps counted
/// over restarts until somebody resets it.
#[test]
fn wrong_data_on_a_btrfs_is_told_until_it_is_reset() {
    let mut rig = Rig::new(Disk {
        fstype: "btrfs",
        backend: Backend::Btrfs,
    });
    rig.make("v");
    let at = rig.mount("v").unwrap();
    // Too long to lie in the metadata, of which btrfs keeps two copies.
    let marked = b"this block goes bad".repeat(1000);
    let file = at.join("file");
    fs::write(&file, &marked).unwrap();
    nix::unistd::syncfs(File::open(&file).unwrap()).unwrap();
    assert_eq!((pool(&rig).io_errors, of_pool(&rig)), (0, vec![]));

    rig.unmount("v");
    rig.stop();
    rig.image.unmount(&rig.pool_dir());
    let image = rig.node.root().parent().unwrap().join("disk0.img");
    let disk = File::options().read(true).write(true).open(&image).unwrap();
    // Files begin at blocks.
    let place = (0..disk.metadata().unwrap().len())
        .step_by(4096)
        .find(|at| {
            let mut start = [0; 32];
            disk.read_exact_at(&mut start, *at).unwrap();
            marked.starts_with(&start)
        });
    disk.write_all_at(b"T", place.unwrap()).unwrap();
    disk.sync_all().unwrap();
    rig.image.mount(&rig.pool_dir(), "");
    rig.restart();
    let at = rig.mount("v").unwrap();
    fs::read(at.join("file")).unwrap_err();

    assert_eq!(of_pool(&rig), [ProblemKind::IoErrors]);
    let report = pool(&rig);
    assert_eq!(report.health, Health::Healthy);
    assert!(report.io_errors > 0);
    let told = &report.troubles[0].message;
    assert!(told.contains("(corruption)"), "{told}");
    assert_eq!(of_volume(&rig, "v"), []);
    rig.restart();
    assert_eq!(of_pool(&rig), [ProblemKind::IoErrors]);
    run(Command::new("btrfs")
        .args(["device", "stats", "-z"])
        .arg(rig.pool_dir()));
    assert_eq!((pool(&rig).io_errors, of_pool(&rig)), (0, vec![]));
    rig.unmount("v");
}

/// The ext4 inside an image stops writing when it meets an error. That is the
/// volume's trouble, and nobody else's; e2fsck ends it.
#[test]
fn an_image_whose_filesystem_met_an_error() {
    let rig = Rig::new(Disk {
        fstype: "xfs",
        backend: Backend::Image,
    });
    rig.make("v");
    rig.make("n");
    let (at, neighbour) = (rig.mount("v").unwrap(), rig.mount("n").unwrap());
    fs::write(at.join("file"), "before").unwrap();
    nix::unistd::syncfs(File::open(&at).unwrap()).unwrap();
    ext4_error(&at);

    let troubles = [ProblemKind::ReadOnly, ProblemKind::IoErrors];
    support::until(|| of_volume(&rig, "v") == troubles);
    let refused = fs::write(at.join("file"), "after").unwrap_err();
    assert!(
        [libc::EROFS, libc::EIO].contains(&refused.raw_os_error().unwrap()),
        "{refused}"
    );
    assert_eq!(of_volume(&rig, "n"), []);
    fs::write(neighbour.join("file"), "still").unwrap();
    assert_eq!((pool(&rig).io_errors, of_pool(&rig)), (0, vec![]));

    rig.unmount("v");
    assert_eq!(of_volume(&rig, "v"), [], "nobody sees it while unmounted");
    let at = rig.mount("v").unwrap();
    assert_eq!(of_volume(&rig, "v"), [ProblemKind::IoErrors]);
    rig.unmount("v");
    let image = rig.home("v").join("data");
    let repaired = Command::new("e2fsck")
        .arg("-fy")
        .arg(&image)
        .status()
        .unwrap();
    // 1: errors were corrected.
    assert!(matches!(repaired.code(), Some(0 | 1)), "{repaired}");
    assert_eq!(rig.mount("v").unwrap(), at);
    assert_eq!(of_volume(&rig, "v"), []);
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "before");
    rig.unmount("v");
    rig.unmount("n");
}

/// A pool's own ext4 either goes on after an error or refuses writes; whichever it
/// was told to do, it is noticed.
#[test]
fn a_pool_whose_ext4_met_an_error() {
    let rig = Rig::new(Disk {
        fstype: "ext4",
        backend: Backend::Directory,
    });
    rig.make("v");
    remount(&rig.pool_dir(), "errors=continue");
    ext4_error(&rig.pool_dir());
    // It is counted a moment later.
    support::until(|| of_pool(&rig) == [ProblemKind::IoErrors]);
    assert_eq!(pool(&rig).health, Health::Healthy);
    rig.is_usable("v");

    remount(&rig.pool_dir(), "errors=remount-ro");
    ext4_error(&rig.pool_dir());
    assert_eq!(pool(&rig).health, Health::ReadOnly);
    support::until(|| pool(&rig).io_errors == 2);
    assert_eq!(of_volume(&rig, "v"), [ProblemKind::ReadOnly]);
    let refused = rig.p().create(&rig.pool, &rig.want("new", MIB));
    assert!(
        matches!(refused, Err(Error::ReadOnly { .. })),
        "{refused:?}"
    );
}

/// An xfs that met an error shuts down: it answers nothing but errors. Other pools go
/// on.
#[test]
fn a_pool_whose_xfs_shut_down() {
    let mut rig = Rig::new(Disk {
        fstype: "xfs",
        backend: Backend::Directory,
    });
    rig.make("v");
    let _other = rig.node.disk("disk1", 1024 * MIB);
    init_pool(&rig.node.config(), "disk1", &InitOptions::default()).unwrap();
    run(Command::new("xfs_io")
        .args(["-x", "-c", "shutdown -f"])
        .arg(rig.pool_dir()));
    let report = pool(&rig);
    assert!(matches!(report.health, Health::Damaged(_)), "{report:?}");
    assert!(report.message.contains("kernel's log"), "{report:?}");
    assert_eq!(rig.p().rescan().unwrap()[1].health, Health::Healthy);
    rig.stop();
    rig.restart();
    assert_eq!(rig.p().rescan().unwrap()[1].health, Health::Healthy);

    rig.stop();
    rig.image.unmount(&rig.pool_dir());
    rig.image.mount(&rig.pool_dir(), "");
    rig.restart();
    assert_eq!(pool(&rig).health, Health::Healthy);
    rig.is_usable("v");
}

/// What is full is told: a volume, a pool, and a filesystem that promised more than
/// it can keep because somebody else fills it.
#[test]
fn what_is_full_is_told_until_there_is_room() {
    let rig = Rig::new(Disk {
        fstype: "xfs",
        backend: Backend::Image,
    });
    let room = pool(&rig).room;
    let sparse = berth_provisioner::VolumeSpec {
        sparse: true,
        ..rig.want("v", room - 32 * MIB)
    };
    rig.p().create(&rig.pool, &sparse).unwrap();
    assert_eq!((of_pool(&rig), of_volume(&rig, "v")), (vec![], vec![]));
    rig.p().create(&rig.pool, &rig.want("n", 32 * MIB)).unwrap();
    assert_eq!(of_pool(&rig), [ProblemKind::Full]);

    let alien = rig.pool_dir().join("not-berths");
    let mut file = File::create(&alien).unwrap();
    for _ in 0..256 {
        file.write_all(&vec![1; MIB as usize]).unwrap();
    }
    file.sync_all().unwrap();
    assert_eq!(of_pool(&rig), [ProblemKind::SpaceShort, ProblemKind::Full]);
    fs::remove_file(&alien).unwrap();
    drop(file);
    support::until(|| of_pool(&rig) == [ProblemKind::Full]);

    let at = rig.mount("n").unwrap();
    let mut file = File::create(at.join("file")).unwrap();
    while file.write_all(&vec![1; MIB as usize / 4]).is_ok() {}
    drop(file);
    assert_eq!(of_volume(&rig, "n"), [ProblemKind::Full]);
    fs::remove_file(at.join("file")).unwrap();
    // A program that another test starts can hold the file between fork and exec.
    support::until(|| of_volume(&rig, "n").is_empty());
    rig.unmount("n");
    rig.p().delete("n").unwrap();
    assert!(rig.p().settle(PATIENCE));
    assert_eq!(of_pool(&rig), []);
}

/// What cannot be erased is told after a few tries, by the name of what hinders it.
#[test]
fn trash_that_cannot_be_erased_is_told() {
    let rig = Rig::new(Disk {
        fstype: "ext4",
        backend: Backend::Directory,
    });
    rig.make("v");
    let file = rig.home("v").join("data/kept");
    fs::write(&file, "").unwrap();
    run(Command::new("chattr").arg("+i").arg(&file));
    rig.p().delete("v").unwrap();
    support::until(|| of_pool(&rig) == [ProblemKind::TrashStuck]);
    let message = pool(&rig).troubles.remove(0).message;
    assert!(message.contains("chattr"), "{message}");
    let trashed = fs::read_dir(rig.pool_dir().join("trash")).unwrap().next();
    let file = trashed.unwrap().unwrap().path().join("data/kept");
    run(Command::new("chattr").arg("-i").arg(file));
    assert!(rig.p().settle(PATIENCE));
    assert_eq!(of_pool(&rig), []);
}
