//! What callers could send.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use berth_provisioner::{
    ClaimRef, Erasure, Error, PoolId, Publish, SnapshotSpec, Source, VolumeMode, VolumeSpec,
};

use crate::support::{Disk, MIB, fingerprint};
use crate::{Case, invalid};

pub(crate) fn names_that_could_leave_their_place_are_refused(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    let before = fingerprint(&rig.node.root());
    let long = "a".repeat(129);
    let ids = [
        "",
        ".",
        "..",
        "../n",
        "n/../n",
        "a/b",
        "/etc",
        "a\0b",
        "a\nb",
        "A",
        "n ",
        "n~2",
        "n~snapshot",
        ".hidden",
        "-rf",
        "ä",
        &long,
    ];
    for id in ids {
        invalid(rig.p().create(&rig.pool, &rig.want(id, MIB)), id);
        invalid(rig.p().delete(id), id);
        invalid(rig.p().delete_from(&rig.pool, id, &Erasure::default()), id);
        let snapshot = |id: &str, volume: &str| {
            rig.p().snapshot(&SnapshotSpec {
                id: id.into(),
                volume: volume.into(),
            })
        };
        invalid(snapshot(id, "n"), id);
        assert!(snapshot("s", id).is_err(), "{id:?}");
        assert!(rig.p().expand(id, 64 * MIB).is_err(), "{id:?}");
        assert!(rig.p().stats(id).is_err(), "{id:?}");
        assert!(rig.stage_at(id, &rig.node.staging("n")).is_err(), "{id:?}");
        for source in [Source::Volume(id.into()), Source::Snapshot(id.into())] {
            assert!(case.clone_of("c", source, 32 * MIB).is_err(), "{id:?}");
        }
        // That nothing is there is no error.
        rig.p().delete_snapshot(id).unwrap();
        rig.p().unpublish(id, &rig.node.target("pod", "n")).unwrap();
        rig.p().unstage(id, &rig.node.staging("n")).unwrap();
        assert!(rig.p().find(id).is_none() && rig.p().find_snapshot(id).is_none());
        assert!(
            PoolId::new(id).is_err()
                || rig
                    .p()
                    .create(&PoolId::new(id).unwrap(), &rig.want("c", MIB))
                    .is_err()
        );
    }
    for (namespace, name) in [
        ("..", "c"),
        ("../..", "c"),
        ("/etc", "c"),
        ("a.b", "c"),
        ("", "c"),
        ("d", ".."),
        ("d", "a/../../b"),
        ("d", "/etc/passwd"),
        ("d", "a\0"),
        ("d", "A"),
        ("d", &"a".repeat(254)),
        ("d", ""),
    ] {
        let mut want = rig.want("c", MIB);
        want.claim = Some(ClaimRef {
            namespace: namespace.into(),
            name: name.into(),
            uid: "../../uid".into(),
        });
        invalid(rig.p().create(&rig.pool, &want), name);
    }
    assert_eq!(fingerprint(&rig.node.root()), before);
    // As long as they may be.
    let longest = "a".repeat(128);
    let mut want = rig.want(&longest, 32 * MIB);
    want.claim = Some(ClaimRef {
        namespace: "d".repeat(63),
        name: "c".repeat(253),
        uid: String::new(),
    });
    rig.p().create(&rig.pool, &want).unwrap();
    rig.is_usable(&longest);
    assert_eq!(rig.p().check().unwrap().findings, []);
    rig.p()
        .snapshot(&SnapshotSpec {
            id: longest.clone(),
            volume: longest.clone(),
        })
        .unwrap();
    rig.p().delete_snapshot(&longest).unwrap();
    rig.p().delete(&longest).unwrap();
    case.ends();
}

/// Whatever made somebody ask for it.
pub(crate) fn another_namespaces_volume_is_not_copied(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    let before = fingerprint(&rig.pool_dir());
    let copy = |namespace: &str| {
        let want = rig.want("c", 64 * MIB);
        let claim = want.claim.clone().unwrap();
        rig.p().create(
            &rig.pool,
            &VolumeSpec {
                source: Some(Source::Volume("n".into())),
                claim: Some(ClaimRef {
                    namespace: namespace.into(),
                    ..claim
                }),
                ..want
            },
        )
    };
    let answer = copy("evil");
    assert!(
        matches!(&answer, Err(Error::ForeignSource { id }) if id == "n"),
        "{answer:?}"
    );
    assert_eq!(fingerprint(&rig.pool_dir()), before);
    // The same copy within the namespace of its source is an ordinary one.
    copy("default").unwrap();
    rig.p().delete("c").unwrap();
    case.ends();
}

pub(crate) fn paths_outside_kubelets_directory_are_refused(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    let kubelet = rig.node.kubelet();
    let staging = rig.stage("n", VolumeMode::Filesystem).unwrap();
    // Led astray: links on the way, and in the place itself.
    symlink(&case.canary, kubelet.join("pods/link")).unwrap();
    symlink("/", kubelet.join("pods/up")).unwrap();
    let at_target = rig.node.target("astray", "n");
    symlink(&case.canary, &at_target).unwrap();
    let pods = fingerprint(&kubelet.join("pods"));
    let root = fingerprint(&rig.node.root());

    let outside: Vec<PathBuf> = vec![
        rig.node.root().join("x"),
        kubelet.clone(),
        kubelet.join("pods/../../x"),
        kubelet.join(".."),
        "/".into(),
        "/etc".into(),
        "".into(),
        "relative".into(),
        PathBuf::from(format!("{}-other/x", kubelet.display())),
    ];
    let astray: Vec<PathBuf> = vec![
        kubelet.join("pods/link/mount"),
        kubelet.join("pods/link/sub"),
        kubelet.join("pods/up/etc/x"),
        at_target,
        kubelet.join("pods/a\0b"),
        kubelet.join("a".repeat(300)),
        kubelet.join("x/".repeat(3000)),
        case.canary.join("file"),
        case.canary.join("file/x"),
        kubelet.join("none/such/mount"),
    ];
    let publish = |target: &Path, staging: Option<&Path>| {
        rig.p().publish(&Publish {
            id: "n".into(),
            target: target.into(),
            staging: staging.map(Path::to_owned),
            mode: VolumeMode::Filesystem,
            readonly: false,
            flags: Vec::new(),
            pod_uid: "pod".into(),
            pod: String::new(),
            single_writer: false,
        })
    };
    for path in &outside {
        let of = path.display().to_string();
        invalid(publish(path, Some(&staging)), &of);
        invalid(rig.stage_at("n", path), &of);
        invalid(rig.p().unpublish("n", path), &of);
        invalid(rig.p().unstage("n", path), &of);
        invalid(publish(&rig.node.target("pod", "n"), Some(path)), &of);
    }
    for path in &astray {
        let of = path.display();
        assert!(publish(path, Some(&staging)).is_err(), "{of}");
        assert!(rig.stage_at("n", path).is_err(), "{of}");
        let elsewhere = publish(&rig.node.target("pod", "n"), Some(path));
        assert!(elsewhere.is_err(), "{of}");
        // Where nothing is, nothing has to be taken off; else it is refused.
        for answer in [rig.p().unpublish("n", path), rig.p().unstage("n", path)] {
            assert!(
                !matches!(answer, Err(Error::Published { .. })),
                "{of}: {answer:?}"
            );
        }
    }
    let left = fingerprint(&kubelet.join("pods"));
    assert!(left.keys().eq(pods.keys()), "{left:?}");
    assert_eq!(fingerprint(&rig.node.root()), root);
    rig.p().unstage("n", &staging).unwrap();
    case.ends();
}

pub(crate) fn sizes_that_no_disk_has_are_refused(disk: Disk) {
    let case = Case::new(disk);
    let rig = &case.rig;
    let before = fingerprint(&rig.pool_dir());
    for size in [0, 1 << 63, u64::MAX] {
        invalid(rig.p().create(&rig.pool, &rig.want("v", size)), "size");
        invalid(rig.p().expand("n", size), "size");
    }
    for size in [(1 << 63) - 1, 1 << 62, 1 << 50] {
        let made = rig.p().create(&rig.pool, &rig.want("v", size));
        assert!(matches!(made, Err(Error::NoRoom { .. })), "{made:?}");
        let grown = rig.p().expand("n", size);
        assert!(matches!(grown, Err(Error::NoRoom { .. })), "{grown:?}");
    }
    // A shrink changes nothing.
    assert_eq!(rig.p().expand("n", 1).unwrap().size, 32 * MIB);
    assert_eq!(fingerprint(&rig.pool_dir()), before);
    case.ends();
}
