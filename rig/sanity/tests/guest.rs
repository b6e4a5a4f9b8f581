//! csi-sanity on what the machine's own kernel may lack, in a guest: project quotas
//! of xfs and ext4, and the growth of an image's filesystem, for which a container
//! has no capability. The disk is the guest's own, not one on a loop device.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_cluster::programs;
use berth_provisioner::Backend;
use berth_qemu::{Vm, suite::Filesystem};

/// Bytes of the disk, which is sparse.
const DISK: u64 = 16 << 30;

/// Where Berth's root, and the programs, are in the guest.
const ROOT: &str = "/var/lib/berth";
const AGENT: &str = "/usr/bin/berth-agent";
const CSI_SANITY: &str = "/usr/bin/csi-sanity";

/// Longest time of two rounds on a processor that is emulated.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// An emulated processor takes a real one: two guests at once are no faster.
static ONE_GUEST: Mutex<()> = Mutex::new(());

fn passes(filesystem: Filesystem, backend: Backend) {
    let _one = ONE_GUEST.lock().unwrap_or_else(PoisonError::into_inner);
    let mount = filesystem.setup("/dev/vda", &format!("{ROOT}/pools/disk0"));
    let script = format!(
        "set -e\n{mount}exec \"$@\" inside --agent {AGENT} --csi-sanity {CSI_SANITY} \
         --root {ROOT} --backend {backend}"
    );
    let sanity = "/usr/bin/sanity";
    let mut vm = Vm::new("sh", ["-c", &script, "sh", sanity]);
    vm.disk(DISK)
        .memory(2048)
        .limit(LIMIT)
        .copy(env!("CARGO_BIN_EXE_sanity"), sanity)
        .copy(berth_package::programs::debug_agent().unwrap(), AGENT)
        .copy(programs::csi_sanity().unwrap(), CSI_SANITY);
    let mut output = Vec::new();
    let outcome = vm.run(&mut output).unwrap();
    let text = String::from_utf8_lossy(&output);
    println!("{text}");
    assert!(outcome.success(), "{text}\n{}", outcome.trace());
    for round in ["round 1: ", "round 2: "] {
        let line = text.lines().find(|line| line.starts_with(round)).unwrap();
        assert!(line.contains(" passed, 0 failed, "), "{text}");
    }
}

#[test]
fn project_quota_on_xfs() {
    passes(Filesystem::Xfs, Backend::ProjectQuota);
}

#[test]
fn project_quota_on_ext4() {
    passes(Filesystem::Ext4, Backend::ProjectQuota);
}

#[test]
fn image_files_on_xfs() {
    passes(Filesystem::Xfs, Backend::Image);
}
