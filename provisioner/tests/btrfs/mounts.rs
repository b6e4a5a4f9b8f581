//! Mounts: for one pod at a time, repeatable, and never through a link.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use berth_provisioner::{Error, Health, Provisioner, Publish};

use crate::help::{MIB, PATIENCE, node, publish, stage, want};

#[test]
fn publishing_may_be_repeated_and_survives_a_restart() {
    let (node, _disk, p, pool) = node();
    let volume = p.create(&pool, &want("v", MIB)).unwrap();
    fs::write(volume.path.join("file"), "seen").unwrap();
    let staging = node
        .kubelet()
        .join("plugins/kubernetes.io/csi/v/globalmount");
    fs::create_dir_all(&staging).unwrap();
    let mut request = publish(&node, "v", "pod-1");
    request.staging = Some(staging.clone());
    assert!(matches!(p.publish(&request), Err(Error::NotStaged { .. })));
    p.stage(&stage("v", &staging)).unwrap();
    p.stage(&stage("v", &staging)).unwrap();
    p.publish(&request).unwrap();
    p.publish(&request).unwrap();
    assert_eq!(
        fs::read_to_string(request.target.join("file")).unwrap(),
        "seen"
    );
    let report = p.find("v").unwrap();
    assert_eq!(report.staged, std::slice::from_ref(&staging));
    assert_eq!(report.published.len(), 1);
    assert_eq!(report.published[0].pod_uid, "pod-1");
    assert!(matches!(p.delete("v"), Err(Error::Published { .. })));
    drop(p);

    let p = Provisioner::open(node.config()).unwrap();
    assert_eq!(p.find("v").unwrap(), report);
    p.publish(&request).unwrap();
    assert_eq!(p.find("v").unwrap().published.len(), 1);
    assert!(matches!(p.delete("v"), Err(Error::Published { .. })));
    p.unpublish("v", &request.target).unwrap();
    p.unpublish("v", &request.target).unwrap();
    assert!(!request.target.exists());
    // Staged still counts: kubelet has not let go yet.
    assert!(matches!(p.delete("v"), Err(Error::Published { .. })));
    p.unstage("v", &staging).unwrap();
    p.unstage("v", &staging).unwrap();
    assert!(staging.exists());
    p.delete("v").unwrap();
    assert!(p.settle(PATIENCE));
}

#[test]
fn a_second_pod_is_refused_while_the_first_ones_mount_stands() {
    let (node, _disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let first = publish(&node, "v", "pod-1");
    let second = publish(&node, "v", "pod-2");
    p.publish(&first).unwrap();
    let refused = p.publish(&second).unwrap_err();
    assert!(refused.to_string().contains("pod-1"), "{refused}");
    assert!(!second.target.exists());
    // Whoever does not ask for a single writer shares.
    let mut shared = second.clone();
    shared.single_writer = false;
    shared.readonly = true;
    p.publish(&shared).unwrap();
    let denied = fs::write(shared.target.join("file"), "x").unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::ReadOnlyFilesystem);
    fs::write(first.target.join("file"), "x").unwrap();
    p.unpublish("v", &shared.target).unwrap();
    p.unpublish("v", &first.target).unwrap();
    p.publish(&second).unwrap();
    p.unpublish("v", &second.target).unwrap();
}

#[test]
fn what_a_pod_left_mounted_inside_goes_with_its_last_user() {
    let (node, _disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let [first, second] = ["pod-1", "pod-2"].map(|pod| publish(&node, "v", pod));
    let shared = |request: &Publish| {
        let mut request = request.clone();
        request.single_writer = false;
        p.publish(&request)
    };
    shared(&first).unwrap();
    shared(&second).unwrap();
    // As a pod with Bidirectional propagation, which ends without unmounting.
    let inside = first.target.join("sub");
    fs::create_dir(&inside).unwrap();
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
    for _ in 0..2 {
        nix::mount::mount(none, &inside, Some("tmpfs"), flags, none).unwrap();
    }
    fs::write(inside.join("file"), "in use").unwrap();
    // It may be the other pod's.
    let refused = p.unpublish("v", &first.target).unwrap_err();
    assert!(matches!(refused, Error::Busy { .. }), "{refused}");
    assert_eq!(fs::read_to_string(inside.join("file")).unwrap(), "in use");
    p.unpublish("v", &second.target).unwrap();
    p.unpublish("v", &first.target).unwrap();
    assert!(!first.target.exists());
    p.delete("v").unwrap();
    assert!(p.settle(PATIENCE));
}

#[test]
fn a_busy_mount_is_not_torn_away() {
    let (node, _disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let request = publish(&node, "v", "pod-1");
    p.publish(&request).unwrap();
    let open = fs::File::create(request.target.join("file")).unwrap();
    assert!(matches!(
        p.unpublish("v", &request.target),
        Err(Error::Busy { .. })
    ));
    assert_eq!(p.find("v").unwrap().published.len(), 1);
    drop(open);
    p.unpublish("v", &request.target).unwrap();
}

#[test]
fn a_pod_can_be_unpublished_when_its_disk_was_unmounted_lazily() {
    let (node, disk, p, pool) = node();
    p.create(&pool, &want("v", MIB)).unwrap();
    let request = publish(&node, "v", "pod-1");
    p.publish(&request).unwrap();
    disk.unmount(&node.pool_dir("disk0"));
    assert_eq!(p.rescan().unwrap()[0].health, Health::LostMount);
    assert_eq!(p.find("v").unwrap().published.len(), 1);
    p.unpublish("v", &request.target).unwrap();
    assert!(!request.target.exists());
    assert!(!disk.is_attached());
}

#[test]
fn links_in_volumes_pools_and_targets_lead_nowhere() {
    let (node, _disk, p, pool) = node();
    let outside = node.kubelet().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "keep").unwrap();

    // A pod's own links are just data.
    let volume = p.create(&pool, &want("v", MIB)).unwrap();
    symlink(&outside, volume.path.join("link")).unwrap();
    symlink("/", volume.path.join("root")).unwrap();
    p.delete("v").unwrap();
    assert!(p.settle(PATIENCE));
    assert!(outside.join("file").exists());

    // A link in the place of a target, or on the way there.
    p.create(&pool, &want("w", MIB)).unwrap();
    let request = publish(&node, "w", "pod-1");
    symlink(&outside, &request.target).unwrap();
    assert!(matches!(
        p.publish(&request),
        Err(Error::TargetConflict { .. })
    ));
    assert!(matches!(
        p.unpublish("w", &request.target),
        Err(Error::TargetConflict { .. })
    ));
    symlink(&outside, node.kubelet().join("pods/pod-2")).unwrap();
    let mut on_the_way = request.clone();
    on_the_way.target = node.kubelet().join("pods/pod-2/mount");
    assert!(p.publish(&on_the_way).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    for target in [
        node.root().join("x"),
        node.kubelet().join("pods/../../x"),
        node.kubelet(),
        "/etc/x".into(),
    ] {
        on_the_way.target = target;
        assert!(matches!(
            p.publish(&on_the_way),
            Err(Error::InvalidArgument { .. })
        ));
    }

    // A link in the place of the pool's own directories.
    let volumes = node.pool_dir("disk0").join("volumes");
    fs::rename(&volumes, node.pool_dir("disk0").join("moved")).unwrap();
    symlink(&outside, &volumes).unwrap();
    assert!(matches!(
        p.create(&pool, &want("x", MIB)),
        Err(Error::DamagedPool { .. })
    ));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // And in the place of a pool.
    symlink(&outside, node.pool_dir("linked")).unwrap();
    let reports = p.rescan().unwrap();
    assert!(
        matches!(reports[1].health, Health::Damaged(_)),
        "{reports:?}"
    );
}
