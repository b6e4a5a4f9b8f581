//! The cases of `backends` on xfs and ext4 with project quotas, and the growth of an
//! image's filesystem: for a kernel with project quotas and a root with all its
//! capabilities. `cargo test` does not run this target by itself; the test of
//! `berth-qemu` runs it in a virtual machine.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

#[path = "../backends/cases.rs"]
mod cases;

use berth_provisioner::Backend;
use cases::Kind;

/// One module of tests per kind of disk.
macro_rules! on {
    ($name:ident, $fstype:literal, $options:literal, $backend:expr, $($case:ident),+ $(,)?) => {
        mod $name {
            use super::*;

            const KIND: Kind = Kind {
                fstype: $fstype,
                options: $options,
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
    project_quota_on_xfs,
    "xfs",
    "prjquota",
    Backend::ProjectQuota,
    a_full_volume_stops_and_its_neighbour_writes_on,
    a_restart_finds_everything,
    a_snapshot_is_restored,
    a_volume_is_cloned_under_load,
    a_volume_grows_under_load,
    half_a_copy_goes,
);
on!(
    project_quota_on_ext4,
    "ext4",
    "prjquota",
    Backend::ProjectQuota,
    a_full_volume_stops_and_its_neighbour_writes_on,
    a_restart_finds_everything,
    a_snapshot_is_restored,
    a_volume_is_cloned_under_load,
    a_volume_grows_under_load,
    half_a_copy_goes,
);
on!(
    image,
    "xfs",
    "",
    Backend::Image,
    a_snapshot_is_restored,
    a_volume_grows_under_load,
    a_raw_block_device,
);
