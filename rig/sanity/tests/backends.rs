//! csi-sanity on each backend. Needs root and loop devices.

use berth_provisioner::Backend;
use berth_sanity::outside::{Filesystem, Outside};

fn passes(filesystem: Filesystem, backend: Backend, block: bool) {
    let sanity = Outside {
        filesystem,
        backend,
        block,
    };
    let verdict = sanity.run().expect("it runs");
    println!("{verdict}");
    assert!(verdict.is_success(), "{verdict}");
}

#[test]
fn btrfs_subvolumes() {
    passes(Filesystem::Btrfs, Backend::Btrfs, false);
}

#[test]
fn image_files_as_devices_on_ext4() {
    passes(Filesystem::Ext4, Backend::Image, true);
}

#[test]
fn image_files_as_devices_on_btrfs() {
    passes(Filesystem::Btrfs, Backend::Image, true);
}

#[test]
fn directories_on_xfs() {
    passes(Filesystem::Xfs, Backend::Directory, false);
}
