//! The cases of `backends` on xfs and ext4 with project quotas, and the growth of an
//! image's filesystem: for a kernel with project quotas and a root with all its
//! capabilities. `cargo test` does not run this target by itself; the test of
//! `berth-qemu` runs it in a virtual machine.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

#[path = "../backends/cases.rs"]
mod cases;
#[path = "../backends/contract.rs"]
mod contract;
#[path = "../backends/disks.rs"]
mod disks;
#[path = "../backends/load.rs"]
mod load;
#[macro_use]
#[path = "../backends/on.rs"]
mod on;

use berth_provisioner::Backend;
use cases::Kind;

on!(
    project_quota_on_xfs,
    "xfs",
    "prjquota",
    Backend::ProjectQuota,
    contract::is_empty_when_new,
    contract::a_neighbours_empty_files_cost_nothing,
    contract::files_are_seen_by_claim,
    contract::a_file_is_rewritten_in_any_order,
    contract::a_full_volume_is_emptied_as_a_disk_is,
    cases::a_full_volume_stops_and_its_neighbour_writes_on,
    cases::a_restart_finds_everything,
    disks::a_read_only_disk_can_be_read,
    disks::what_is_written_is_not_kept_free_as_well,
    cases::a_snapshot_is_restored,
    load::a_volume_is_cloned_under_load,
    load::a_volume_grows_under_load,
    cases::half_a_copy_goes,
);
on!(
    project_quota_on_ext4,
    "ext4",
    "prjquota",
    Backend::ProjectQuota,
    contract::is_empty_when_new,
    contract::a_neighbours_empty_files_cost_nothing,
    contract::files_are_seen_by_claim,
    contract::a_file_is_rewritten_in_any_order,
    contract::a_full_volume_is_emptied_as_a_disk_is,
    cases::a_full_volume_stops_and_its_neighbour_writes_on,
    cases::a_restart_finds_everything,
    disks::a_read_only_disk_can_be_read,
    disks::what_is_written_is_not_kept_free_as_well,
    cases::a_snapshot_is_restored,
    load::a_volume_is_cloned_under_load,
    load::a_volume_grows_under_load,
    cases::half_a_copy_goes,
);
on!(
    image,
    "xfs",
    "",
    Backend::Image,
    cases::a_snapshot_is_restored,
    load::a_volume_grows_under_load,
    cases::a_raw_block_device,
    load::a_device_is_cloned_and_grows_under_load,
);
