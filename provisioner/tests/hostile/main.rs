//! Whatever a caller could send, a pod could leave behind, or somebody with a shell
//! on the host could do: nothing outside the volume is touched, its neighbour goes
//! on, nothing hangs, and errors say what to do.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

mod contents;
mod host;
mod images;
mod names;
#[allow(dead_code, reason = "not every target has use for all of it")]
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use berth_provisioner::{Backend, Error, SnapshotSpec, Source, VolumeSpec};
use support::{Disk, PATIENCE, Rig, fingerprint};

/// A rig with a neighbour `n`, and things around that nobody may touch.
struct Case {
    rig: Rig,
    canary: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Case {
    fn new(disk: Disk) -> Self {
        let rig = Rig::new(disk);
        rig.make("n");
        rig.put("n", |at| fs::write(at.join("kept"), "keep").unwrap());
        let canary = rig.node.kubelet().join("canary");
        fs::create_dir_all(canary.join("sub")).unwrap();
        fs::write(canary.join("file"), "keep").unwrap();
        fs::write(canary.join("sub/file"), "keep").unwrap();
        let before = fingerprint(&canary);
        Self {
            rig,
            canary,
            before,
        }
    }

    fn make(&self, id: &str, size: u64) {
        let want = self.rig.want(id, size);
        self.rig.p().create(&self.rig.pool, &want).unwrap();
    }

    fn snapshot(&self, id: &str) -> Result<(), Error> {
        let want = SnapshotSpec {
            id: id.into(),
            volume: "v".into(),
        };
        self.rig.p().snapshot(&want).map(drop)
    }

    fn clone_of(&self, id: &str, source: Source, size: u64) -> Result<(), Error> {
        let want = VolumeSpec {
            source: Some(source),
            ..self.rig.want(id, size)
        };
        self.rig.p().create(&self.rig.pool, &want).map(drop)
    }

    /// The canaries live, the neighbour is as it was and goes on, and the pool holds
    /// nothing but it.
    fn ends(self) {
        assert!(self.rig.p().settle(PATIENCE), "the trash is not emptied");
        self.lives();
        self.rig.p().delete("n").unwrap();
        assert!(self.rig.p().settle(PATIENCE));
        let findings = self.rig.p().check().unwrap().findings;
        assert_eq!(findings, []);
        for part in ["volumes", "snapshots", "trash", ".berth/new"] {
            let at = self.rig.pool_dir().join(part);
            assert_eq!(fs::read_dir(at).unwrap().count(), 0, "{part}");
        }
        let pool = self.rig.p().rescan().unwrap().remove(0);
        assert_eq!((pool.reserved, pool.volumes, pool.snapshots), (0, 0, 0));
    }

    fn lives(&self) {
        assert_eq!(fingerprint(&self.canary), self.before);
        let at = self.rig.mount("n").unwrap();
        assert_eq!(fs::read_to_string(at.join("kept")).unwrap(), "keep");
        self.rig.unmount("n");
        self.rig.is_usable("n");
    }
}

/// Whether something is refused because the caller's request is wrong.
fn invalid<T: std::fmt::Debug>(answer: Result<T, Error>, of: &str) {
    assert!(
        matches!(answer, Err(Error::InvalidArgument { .. })),
        "{of:?}: {answer:?}"
    );
}

/// One module of tests per kind of disk.
macro_rules! on {
    ($name:ident, $fstype:literal, $backend:expr, $($module:ident::$case:ident),+ $(,)?) => {
        mod $name {
            use super::*;

            const DISK: Disk = Disk {
                fstype: $fstype,
                backend: $backend,
            };

            $(
                #[test]
                fn $case() {
                    $module::$case(DISK);
                }
            )+
        }
    };
}

on!(
    btrfs,
    "btrfs",
    Backend::Btrfs,
    contents::the_worst_is_counted_copied_and_erased,
    contents::immutable_files_stay_until_somebody_lets_them_go,
    host::a_mount_inside_stays,
    host::a_volume_on_a_full_disk_is_deleted,
    host::what_was_put_in_the_place_of_data_is_not_used,
    host::what_was_put_in_the_place_of_a_volume_is_not_used,
    names::another_namespaces_volume_is_not_copied,
    names::names_that_could_leave_their_place_are_refused,
    names::paths_outside_kubelets_directory_are_refused,
    names::sizes_that_no_disk_has_are_refused,
);
on!(
    image,
    "xfs",
    Backend::Image,
    contents::the_worst_is_counted_copied_and_erased,
    contents::immutable_files_stay_until_somebody_lets_them_go,
    host::a_mount_inside_stays,
    host::a_volume_on_a_full_disk_is_deleted,
    host::what_was_put_in_the_place_of_data_is_not_used,
    host::what_was_put_in_the_place_of_a_volume_is_not_used,
    images::a_damaged_filesystem_on_a_raw_device_is_the_pods_own,
    images::a_damaged_image_is_neither_mounted_nor_formatted,
    images::an_image_that_somebody_else_has_attached_is_not_deleted,
    images::a_sparse_image_on_a_full_disk_harms_nobody_else,
    images::what_a_pod_froze_is_told,
    names::another_namespaces_volume_is_not_copied,
    names::names_that_could_leave_their_place_are_refused,
    names::paths_outside_kubelets_directory_are_refused,
    names::sizes_that_no_disk_has_are_refused,
);
on!(
    directory,
    "ext4",
    Backend::Directory,
    contents::the_worst_is_counted_copied_and_erased,
    contents::immutable_files_stay_until_somebody_lets_them_go,
    host::a_mount_inside_stays,
    host::a_volume_on_a_full_disk_is_deleted,
    host::what_was_put_in_the_place_of_data_is_not_used,
    host::what_was_put_in_the_place_of_a_volume_is_not_used,
    names::another_namespaces_volume_is_not_copied,
    names::names_that_could_leave_their_place_are_refused,
    names::paths_outside_kubelets_directory_are_refused,
    names::sizes_that_no_disk_has_are_refused,
);
