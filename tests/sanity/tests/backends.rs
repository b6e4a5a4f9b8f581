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
