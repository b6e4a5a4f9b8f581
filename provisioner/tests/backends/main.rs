//! Every backend that this kernel has, on real filesystems, loop-backed and sparse:
//! each test of `cases` once per filesystem and backend. Project quotas need a kernel
//! that has them: see the target `project-quota`.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

mod cases;
mod contract;
mod disks;
mod load;
#[macro_use]
mod on;

use berth_provisioner::Backend;
use cases::Kind;

on!(
    btrfs,
    "btrfs",
    "",
    Backend::Btrfs,
    contract::is_empty_when_new,
    contract::a_neighbours_empty_files_cost_nothing,
    contract::files_are_seen_by_claim,
    contract::nested_subvolumes_are_not_copied,
    cases::a_full_volume_stops_and_its_neighbour_writes_on,
    cases::a_restart_finds_everything,
    disks::a_read_only_disk_can_be_read,
    cases::a_snapshot_is_restored,
    load::a_volume_is_cloned_under_load,
    load::a_volume_grows_under_load,
    cases::half_a_copy_goes,
);
on!(
    image_on_ext4,
    "ext4",
    "",
    Backend::Image,
    contract::is_empty_when_new,
    contract::a_neighbours_empty_files_cost_nothing,
    contract::files_are_seen_by_claim,
    contract::a_file_is_rewritten_in_any_order,
    contract::a_full_volume_is_emptied_as_a_disk_is,
    contract::what_is_allocated_cannot_be_taken,
    contract::growth_is_seen_at_the_next_mount,
    cases::a_full_volume_stops_and_its_neighbour_writes_on,
    cases::a_restart_finds_everything,
    disks::a_read_only_disk_can_be_read,
    disks::what_is_written_is_not_kept_free_as_well,
    cases::a_snapshot_is_restored,
    load::a_volume_is_cloned_under_load,
    cases::a_raw_block_device,
    load::a_device_is_cloned_and_grows_under_load,
    load::a_copy_that_takes_long_is_refused,
);
on!(
    image_on_xfs,
    "xfs",
    "",
    Backend::Image,
    contract::is_empty_when_new,
    contract::a_neighbours_empty_files_cost_nothing,
    contract::files_are_seen_by_claim,
    contract::a_file_is_rewritten_in_any_order,
    contract::a_full_volume_is_emptied_as_a_disk_is,
    contract::what_is_allocated_cannot_be_taken,
    contract::growth_is_seen_at_the_next_mount,
    cases::a_full_volume_stops_and_its_neighbour_writes_on,
    cases::a_restart_finds_everything,
    disks::a_read_only_disk_can_be_read,
    disks::what_is_written_is_not_kept_free_as_well,
    cases::a_snapshot_is_restored,
    load::a_volume_is_cloned_under_load,
    cases::a_raw_block_device,
    load::a_device_is_cloned_and_grows_under_load,
);
on!(
    image_on_btrfs,
    "btrfs",
    "",
    Backend::Image,
    contract::is_empty_when_new,
    contract::a_neighbours_empty_files_cost_nothing,
    contract::files_are_seen_by_claim,
    contract::a_file_is_rewritten_in_any_order,
    contract::a_full_volume_is_emptied_as_a_disk_is,
    contract::what_is_allocated_cannot_be_taken,
    contract::growth_is_seen_at_the_next_mount,
    cases::a_full_volume_stops_and_its_neighbour_writes_on,
    disks::what_is_written_is_not_kept_free_as_well,
    cases::a_raw_block_device,
    load::a_device_is_cloned_and_grows_under_load,
);
on!(
    directory_on_ext4,
    "ext4",
    "",
    Backend::Directory,
    contract::is_empty_when_new,
    contract::files_are_seen_by_claim,
    cases::a_restart_finds_everything,
    disks::a_read_only_disk_can_be_read,
    cases::a_snapshot_is_restored,
    load::a_volume_is_cloned_under_load,
    cases::half_a_copy_goes,
);
on!(
    directory_on_xfs,
    "xfs",
    "",
    Backend::Directory,
    cases::a_restart_finds_everything,
    disks::a_read_only_disk_can_be_read,
    cases::a_snapshot_is_restored,
);
