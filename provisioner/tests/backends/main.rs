//! Every backend that this kernel has, on real filesystems, loop-backed and sparse:
//! each test of `cases` once per filesystem and backend. Project quotas need a kernel
//! that has them: see the target `project-quota`.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

mod cases;

use berth_provisioner::Backend;
use cases::Kind;

/// One module of tests per kind of disk.
macro_rules! on {
    ($name:ident, $fstype:literal, $backend:expr, $($case:ident),+ $(,)?) => {
        mod $name {
            use super::*;

            const KIND: Kind = Kind {
                fstype: $fstype,
                options: "",
                backend: $backend,
            };

            $(
                #[test]
                fn $case() {
                    cases::$case(KIND);
                }
            )+
        }
    };
}

on!(
    btrfs,
    "btrfs",
    Backend::Btrfs,
    a_full_volume_stops_and_its_neighbour_writes_on,
    a_restart_finds_everything,
    a_snapshot_is_restored,
    a_volume_is_cloned_under_load,
    a_volume_grows_under_load,
    half_a_copy_goes,
);
on!(
    image_on_ext4,
    "ext4",
    Backend::Image,
    a_full_volume_stops_and_its_neighbour_writes_on,
    a_restart_finds_everything,
    a_snapshot_is_restored,
    a_volume_is_cloned_under_load,
    a_raw_block_device,
    a_device_is_cloned_and_grows_under_load,
);
on!(
    image_on_xfs,
    "xfs",
    Backend::Image,
    a_full_volume_stops_and_its_neighbour_writes_on,
    a_restart_finds_everything,
    a_snapshot_is_restored,
    a_volume_is_cloned_under_load,
    a_raw_block_device,
    a_device_is_cloned_and_grows_under_load,
);
on!(
    image_on_btrfs,
    "btrfs",
    Backend::Image,
    a_full_volume_stops_and_its_neighbour_writes_on,
    a_raw_block_device,
    a_device_is_cloned_and_grows_under_load,
);
on!(
    directory_on_ext4,
    "ext4",
    Backend::Directory,
    a_restart_finds_everything,
    a_snapshot_is_restored,
    a_volume_is_cloned_under_load,
    half_a_copy_goes,
);
on!(
    directory_on_xfs,
    "xfs",
    Backend::Directory,
    a_restart_finds_everything,
    a_snapshot_is_restored,
);
