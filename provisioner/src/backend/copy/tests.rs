//! Real trees on real filesystems.

use super::*;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sys::Linux;
use crate::sys::host::Images;
use crate::testing::{LoopPool, TestNode};

const MIB: u64 = 1 << 20;

/// A node with one mounted filesystem, and two directories on it.
fn place(fstype: &str) -> (TestNode, PathBuf) {
    let node = TestNode::new();
    let at = node.pool_dir("disk");
    let size = if fstype == "xfs" { 320 * MIB } else { 64 * MIB };
    LoopPool::format(node.root().join("disk.img"), size, fstype, false).mount(&at, "");
    for name in ["from", "to"] {
        std::fs::create_dir(at.join(name)).unwrap();
    }
    (node, at)
}

fn open(at: &Path, name: &str) -> Dir {
    Dir::open_root(&at.join(name)).unwrap()
}

fn handle(path: &Path) -> OwnedFd {
    let parent = Dir::open_root(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap();
    parent.open_entry(name, Mounts::Stay).unwrap()
}

/// Puts every kind of entry into a directory.
fn fill(at: &Path) {
    std::fs::create_dir_all(at.join("dir/sub")).unwrap();
    std::fs::write(at.join("dir/sub/file"), "content").unwrap();
    std::fs::write(at.join("empty"), "").unwrap();
    let sparse = File::create(at.join("sparse")).unwrap();
    sparse.write_all_at(&[1; 8192], 0).unwrap();
    sparse.write_all_at(b"middle", 20 * MIB).unwrap();
    sparse.set_len(40 * MIB).unwrap();
    std::fs::hard_link(at.join("dir/sub/file"), at.join("name")).unwrap();
    std::fs::hard_link(at.join("dir/sub/file"), at.join("dir/name")).unwrap();
    symlink("/etc/passwd", at.join("link")).unwrap();
    symlink("nowhere", at.join("dir/dangling")).unwrap();
    let root = Dir::open_root(at).unwrap();
    let mode = Mode::from_bits_truncate(0o640);
    mknodat(&root, "fifo", SFlag::S_IFIFO, mode, 0).unwrap();
    let null = nix::sys::stat::makedev(1, 3);
    mknodat(&root, "null", SFlag::S_IFCHR, mode, null).unwrap();
    drop(UnixListener::bind(at.join("socket")).unwrap());
    for (name, mode) in [("name", 0o4751), ("dir", 0o3770), ("fifo", 0o622)] {
        std::os::unix::fs::chown(at.join(name), Some(1234), Some(4321)).unwrap();
        std::fs::set_permissions(at.join(name), Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::lchown(at.join("link"), Some(77), Some(88)).unwrap();
    // A file capability (version 2, cap_net_raw, effective).
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    for (path, name, value) in [
        ("name", c"user.berth", &b"value"[..]),
        ("name", c"trusted.berth", b""),
        ("dir", c"user.berth", b"of a directory"),
        ("fifo", c"trusted.berth", b"of a FIFO"),
        ("sparse", c"security.capability", &capability),
    ] {
        set_attribute(&handle(&at.join(path)), name, value).unwrap();
    }
    std::fs::set_permissions(at, Permissions::from_mode(0o2775)).unwrap();
    std::os::unix::fs::chown(at, Some(5), Some(6)).unwrap();
    // Of long ago, the innermost first.
    let old = TimeSpec::new(1_000_000_000, 123_456_789);
    let flag = UtimensatFlags::NoFollowSymlink;
    for path in [
        "dir/sub/file",
        "dir/sub",
        "dir",
        "link",
        "fifo",
        "null",
        "socket",
        "sparse",
        ".",
    ] {
        utimensat(&root, path, &old, &old, flag).unwrap();
    }
}

/// Everything that can be seen of a tree.
fn picture(at: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![at.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let mut line = format!(
            "{} {:o} {}:{} {} {}.{}",
            path.strip_prefix(at).unwrap().display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        if kind.is_symlink() {
            line += &format!(" -> {}", std::fs::read_link(&path).unwrap().display());
        } else {
            let handle = handle(&path.canonicalize().unwrap());
            for name in attributes(&handle).unwrap() {
                let value = attribute(&handle, &name).unwrap();
                line += &format!(" {name:?}={value:?}");
            }
        }
        if kind.is_file() {
            let content = std::fs::read(&path).unwrap();
            let sum = content.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            line += &format!(" {} bytes {sum} x{}", content.len(), meta.nlink());
        }
        if kind.is_dir() {
            let inside = std::fs::read_dir(&path).unwrap();
            todo.extend(inside.map(|entry| entry.unwrap().path()));
        }
        lines.push(line);
    }
    lines.sort();
    lines
}

fn copies_everything(fstype: &str) {
    let (_node, at) = place(fstype);
    fill(&at.join("from"));
    let before = picture(&at.join("from"));
    assert_eq!(before.len(), 13, "{before:#?}");
    let (from, to) = (open(&at, "from"), open(&at, "to"));
    assert!(copy_tree(&Linux, &from, &to, &mut || true).unwrap());
    assert_eq!(picture(&at.join("to")), before);
    // The copy's files are not the source's.
    let inode = |path: &str| std::fs::metadata(at.join(path)).unwrap().ino();
    assert_eq!(inode("to/name"), inode("to/dir/sub/file"));
    assert_eq!(inode("to/name"), inode("to/dir/name"));
    assert_ne!(inode("to/name"), inode("from/name"));
    let sparse = std::fs::metadata(at.join("to/sparse")).unwrap();
    assert!(sparse.blocks() * SECTOR < MIB, "holes were filled");
    let fifo = std::fs::metadata(at.join("to/fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());
    let used = used_by(&to).unwrap();
    assert!((8192 + 4096..MIB).contains(&used), "{used}");
}

#[test]
fn every_kind_of_entry_is_copied_on_ext4() {
    copies_everything("ext4");
}

#[test]
fn every_kind_of_entry_is_copied_on_xfs() {
    copies_everything("xfs");
}

#[test]
fn blocks_are_shared_on_xfs() {
    let (_node, at) = place("xfs");
    // More than half of the disk: two copies that share nothing have no room.
    let size = 180 * MIB;
    let mut file = File::create(at.join("from/large")).unwrap();
    for _ in 0..size / MIB {
        io::Write::write_all(&mut file, &vec![7; MIB as usize]).unwrap();
    }
    file.sync_all().unwrap();
    let (from, to) = (open(&at, "from"), open(&at, "to"));
    assert!(copy_tree(&Linux, &from, &to, &mut || true).unwrap());
    let copied = std::fs::metadata(at.join("to/large")).unwrap();
    assert_eq!(copied.len(), size);
}

#[test]
fn deep_trees_are_copied_with_few_handles_and_too_deep_ones_are_refused() {
    let (_node, at) = place("ext4");
    let build = |depth: usize| {
        let mut dir = open(&at, "from");
        for i in 0..depth {
            dir.make("d", 0o755).unwrap();
            if i % 100 == 0 {
                let _ = dir.create_file("after", 0o600);
            }
            dir = dir.open("d", Mounts::Stay).unwrap();
        }
        dir.create_file("bottom", 0o600).unwrap();
        // A second name, at the top.
        let top = open(&at, "from");
        let _ = top.remove_file("top");
        linkat(&dir, "bottom", &top, "top", AtFlags::empty()).unwrap();
    };
    build(500);
    let (from, to) = (open(&at, "from"), open(&at, "to"));
    assert!(copy_tree(&Linux, &from, &to, &mut || true).unwrap());
    let top = std::fs::metadata(at.join("to/top")).unwrap();
    assert_eq!(top.nlink(), 2);
    assert_eq!(used_by(&to).unwrap(), used_by(&from).unwrap());

    build(descent::MAX_DEPTH + 1);
    std::fs::create_dir(at.join("other")).unwrap();
    for refused in [
        used_by(&from).map(|_| ()),
        copy_tree(&Linux, &from, &open(&at, "other"), &mut || true).map(|_| ()),
    ] {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("nested more than"), "{text}");
    }
}

#[test]
fn a_mount_inside_is_refused_and_a_copy_stops_when_told() {
    let (_node, at) = place("ext4");
    std::fs::create_dir(at.join("from/inside")).unwrap();
    for i in 0..1500 {
        File::create(at.join(format!("from/{i}"))).unwrap();
    }
    let (from, to) = (open(&at, "from"), open(&at, "to"));
    assert!(!copy_tree(&Linux, &from, &to, &mut || false).unwrap());
    assert_eq!(
        std::fs::metadata(at.join("to")).unwrap().mode() & 0o777,
        0o700
    );
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(at.join("from/inside"))
        .status();
    assert!(mounted.unwrap().success());
    std::fs::create_dir(at.join("other")).unwrap();
    let refused = copy_tree(&Linux, &from, &open(&at, "other"), &mut || true).unwrap_err();
    assert!(refused.to_string().contains("inside"), "{refused}");
    assert!(used_by(&from).is_err());
}

#[test]
fn a_copied_image_stays_allocated_if_it_was_and_is_not_shortened() {
    let (_node, at) = place("ext4");
    let from = File::create_new(at.join("from/image")).unwrap();
    from.set_len(8 * MIB).unwrap();
    from.write_all_at(b"middle", 3 * MIB).unwrap();
    let from = File::open(at.join("from/image")).unwrap();
    for (name, size, sparse) in [("full", 8 * MIB, false), ("sparse", 9 * MIB, true)] {
        let to = open(&at, "to").create_file(name, 0o600).unwrap();
        Linux.allocate(&to, size, sparse).unwrap();
        assert!(copy_file(&from, &to, &mut || true).unwrap());
        let stat = to.metadata().unwrap();
        assert_eq!(stat.len(), size);
        assert_eq!(stat.blocks() * SECTOR >= size, !sparse, "{name}");
        let mut content = [0; 7];
        to.read_exact_at(&mut content, 3 * MIB).unwrap();
        assert_eq!(&content, b"middle\0");
    }
    assert!((6..=MIB).contains(&data_in(&from).unwrap()));
    let to = open(&at, "to").create_file("half", 0o600).unwrap();
    assert!(!copy_file(&from, &to, &mut || false).unwrap());
}
