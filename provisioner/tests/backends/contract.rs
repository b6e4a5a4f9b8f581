//! What a volume is for the programs in a pod, the same on every backend. Where one cannot
//! keep a line of this, README says so, and the line is not run on it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use berth_provisioner::{Backend, ClaimRef, SnapshotSpec, Source, VolumeMode, VolumeSpec};
use caps::{CapSet, Capability};

use crate::cases::{Case, Kind, MIB, fill, is_full, pattern, put};

/// Databases refuse a data directory that is not empty.
pub(crate) fn is_empty_when_new(kind: Kind) {
    let case = Case::new(kind);
    case.make("new", 32 * MIB);
    let at = case.mount("new", VolumeMode::Filesystem, false);
    let found: Vec<_> = fs::read_dir(&at).unwrap().collect();
    assert!(found.is_empty(), "{found:?}");
    case.unmount("new");
    case.p().delete("new").unwrap();
    case.is_empty();
}

/// A file that is smaller than its volume, and does not grow, never meets the limit,
/// whatever the order in which its pages are written.
pub(crate) fn a_file_is_rewritten_in_any_order(kind: Kind) {
    let case = Case::new(kind);
    case.make("pages", 64 * MIB);
    let at = case.mount("pages", VolumeMode::Filesystem, false);
    let (table, size) = (at.join("table"), 40 * MIB);
    put(&table, size);
    let file = fs::File::options().write(true).open(&table).unwrap();
    let page = &pattern()[..12 << 10];
    for phase in 0..2u64 {
        for (n, at) in (0..size - (16 << 10)).step_by(16 << 10).enumerate() {
            file.write_all_at(page, at + phase * 4096).unwrap();
            // As a database's checkpoint: what was written gets a place of its own.
            if n % 64 == 0 {
                file.sync_data().unwrap();
            }
        }
    }
    file.sync_all().unwrap();
    drop(file);
    case.unmount("pages");
}

/// On a full volume files can be overwritten, cut and deleted, and then there is room.
pub(crate) fn a_full_volume_is_emptied_as_a_disk_is(kind: Kind) {
    let case = Case::new(kind);
    case.make("full", 48 * MIB);
    let at = case.mount("full", VolumeMode::Filesystem, false);
    let small = at.join("small");
    fs::create_dir(&small).unwrap();
    for n in 0..1000 {
        fs::write(small.join(n.to_string()), [7; 64]).unwrap();
    }
    is_full(&fill(&at.join("big")).1);
    let big = fs::File::options()
        .write(true)
        .open(at.join("big"))
        .unwrap();
    big.write_all_at(&pattern()[..64 << 10], 0).unwrap();
    big.sync_all().unwrap();
    big.set_len(MIB).unwrap();
    drop(big);
    is_full(&fill(&at.join("again")).1);
    fs::remove_dir_all(&small).unwrap();
    for name in ["big", "again"] {
        fs::remove_file(at.join(name)).unwrap();
    }
    put(&at.join("after"), 32 * MIB);
    case.unmount("full");
    case.p().delete("full").unwrap();
    case.is_empty();
}

/// Empty files cost no bytes where inodes are counted apart: a volume full of them leaves
/// its neighbour's alone, and `df -i` in the pod shows where it ends.
pub(crate) fn a_neighbours_empty_files_cost_nothing(kind: Kind) {
    let case = Case::new(kind);
    case.make("many", 16 * MIB);
    case.make("few", 16 * MIB);
    let many = case.mount("many", VolumeMode::Filesystem, false);
    let few = case.mount("few", VolumeMode::Filesystem, false);
    let files = |at: &Path| {
        let stat = nix::sys::statvfs::statvfs(at).unwrap();
        (stat.files(), stat.files_free())
    };
    let before = files(&few);
    let (made, error) = fill_with_files(&many);
    is_full(&error);
    if kind.backend != Backend::Btrfs {
        let (all, free) = files(&many);
        assert!(made <= all, "{made} of {all}");
        assert_eq!(free, 0);
        assert_eq!(files(&few), before);
    }
    for n in 0..500 {
        fs::write(few.join(n.to_string()), "x").unwrap();
    }
    if kind.backend != Backend::Btrfs {
        // As on a disk: what is removed makes room.
        fs::remove_file(many.join("0/1")).unwrap();
        fs::write(many.join("0/again"), "").unwrap();
    }
    for id in ["many", "few"] {
        case.unmount(id);
        case.p().delete(id).unwrap();
    }
    case.is_empty();
}

/// Makes empty files until the filesystem refuses; how many went in. Without
/// CAP_SYS_RESOURCE, as containers are.
fn fill_with_files(at: &Path) -> (u64, std::io::Error) {
    let make = || {
        caps::drop(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap();
        for n in 0..400_000u64 {
            let dir = at.join((n / 1000).to_string());
            let made = match n % 1000 {
                0 => fs::create_dir(&dir),
                n => fs::write(dir.join(n.to_string()), ""),
            };
            if let Err(e) = made {
                return (n, e);
            }
        }
        panic!("no limit was met");
    };
    std::thread::scope(|scope| scope.spawn(make).join().unwrap())
}

/// Whoever fills the pool's filesystem takes nothing of what a volume was given, also
/// where that would write each page anew.
pub(crate) fn what_is_allocated_cannot_be_taken(kind: Kind) {
    let case = Case::new(kind);
    case.make("mine", 256 * MIB);
    let at = case.mount("mine", VolumeMode::Filesystem, false);
    let stranger = case.disk().join("stranger");
    is_full(&fill(&stranger).1);
    for _ in 0..3 {
        put(&at.join("table"), 192 * MIB);
        let file = fs::File::options()
            .write(true)
            .open(at.join("table"))
            .unwrap();
        for at in (0..192 * MIB).step_by(2 << 20) {
            file.write_all_at(&pattern(), at).unwrap();
        }
        file.sync_all().unwrap();
    }
    let written = fs::read(at.join("table")).unwrap();
    assert!(written.chunks(MIB as usize).all(|chunk| chunk == pattern()));
    fs::remove_file(&stranger).unwrap();
    case.unmount("mine");
    case.p().delete("mine").unwrap();
    case.is_empty();
}

/// People look at a claim's files on the node, by its name, while it is in use.
pub(crate) fn files_are_seen_by_claim(kind: Kind) {
    let case = Case::new(kind);
    let claim = |name: &str| ClaimRef {
        namespace: "shop".into(),
        name: name.into(),
        uid: name.into(),
    };
    let want = VolumeSpec {
        claim: Some(claim("data-web-0")),
        ..case.want("v", 32 * MIB)
    };
    case.p().create(&case.pool, &want).unwrap();
    let at = case.mount("v", VolumeMode::Filesystem, false);
    fs::write(at.join("file"), "seen").unwrap();
    let links = case.root().join("by-claim/shop");
    let seen = |name: &str| fs::read_to_string(links.join(name).join("file")).ok();
    assert_eq!(seen("data-web-0").as_deref(), Some("seen"));
    assert_eq!(case.p().repair_links().unwrap(), 0);
    // Under another name, too, and after a restart.
    case.p().assign("v", claim("new"), None).unwrap();
    assert_eq!(seen("new").as_deref(), Some("seen"));
    assert!(!links.join("data-web-0").is_symlink());
    let findings = case.p().check().unwrap().findings;
    assert!(findings.is_empty(), "{findings:?}");
    case.unmount("v");
    assert!(fs::metadata(links.join("new")).is_ok());
    case.p().delete("v").unwrap();
    assert!(!links.exists());
    case.is_empty();
}

/// What grew while nobody used it has its size for the next who does, also on a machine
/// where nobody may resize a mounted ext4.
pub(crate) fn growth_is_seen_at_the_next_mount(kind: Kind) {
    let case = Case::new(kind);
    case.make("v", 32 * MIB);
    let at = case.mount("v", VolumeMode::Filesystem, false);
    put(&at.join("kept"), 8 * MIB);
    case.unmount("v");
    case.p().expand("v", 96 * MIB).unwrap();
    let at = case.mount("v", VolumeMode::Filesystem, false);
    let stat = nix::sys::statvfs::statvfs(&at).unwrap();
    let total = stat.blocks() * stat.fragment_size();
    assert!((72 * MIB..=96 * MIB).contains(&total), "{total}");
    put(&at.join("more"), 48 * MIB);
    let kept = fs::read(at.join("kept")).unwrap();
    assert!(kept.chunks(MIB as usize).all(|chunk| chunk == pattern()));
    assert!(case.p().find("v").unwrap().troubles.is_empty());
    case.unmount("v");
    case.p().delete("v").unwrap();
    case.is_empty();
}

/// btrfs leaves subvolumes inside a subvolume out of a snapshot, and says nothing: a copy
/// without them would be no copy.
pub(crate) fn nested_subvolumes_are_not_copied(kind: Kind) {
    let case = Case::new(kind);
    case.make("outer", 64 * MIB);
    let at = case.mount("outer", VolumeMode::Filesystem, false);
    let inner = at.join("inner");
    btrfs("create", &inner);
    fs::write(inner.join("file"), "data").unwrap();
    let want = SnapshotSpec {
        id: "snap".into(),
        volume: "outer".into(),
    };
    let told = case.p().snapshot(&want).unwrap_err().to_string();
    assert!(told.contains("subvolumes were made inside"), "{told}");
    let copied = case.make_from("copy", 64 * MIB, Source::Volume("outer".into()));
    assert!(copied.is_err());
    btrfs("delete", &inner);
    case.p().snapshot(&want).unwrap();
    case.p().delete_snapshot("snap").unwrap();
    case.unmount("outer");
    case.p().delete("outer").unwrap();
    case.is_empty();
}

fn btrfs(what: &str, path: &Path) {
    let mut command = Command::new("btrfs");
    let output = command
        .args(["subvolume", what])
        .arg(path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
