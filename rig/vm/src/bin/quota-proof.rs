//! Runs in a guest: shows on real disks that its kernel limits directories by
//! project, on xfs and on ext4, with the filesystems' own tools.
//!
//! ext4 lets whoever has CAP_SYS_RESOURCE pass any limit, so the writers work
//! without it, as containers do. xfs makes no such difference.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_qemu::suite::Filesystem;
use caps::{CapSet, Capability};
use nix::sys::statvfs::statvfs;

const MIB: u64 = 1 << 20;

/// The limit of the one directory, in MiB.
const LIMIT: u64 = 32;

fn main() -> Result<()> {
    caps::drop(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE)?;
    prove(Filesystem::Xfs, "/dev/vda")?;
    prove(Filesystem::Ext4, "/dev/vdb")
}

fn prove(filesystem: Filesystem, device: &str) -> Result<()> {
    let name = filesystem.name();
    let mount = format!("/mnt/{name}");
    sh(&format!("set -e\n{}", filesystem.setup(device, &mount)))?;
    let (limited, free) = (format!("{mount}/limited"), format!("{mount}/free"));
    fs::create_dir(&limited)?;
    fs::create_dir(&free)?;
    // -f: xfs_quota speaks the general quota calls on other filesystems too.
    let quota = |command: &str| sh(&format!("xfs_quota -f -x -c '{command}' {mount}"));
    quota(&format!("project -s -p {limited} 42"))?;
    quota(&format!("limit -p bhard={LIMIT}m 42"))?;

    let shown = statvfs(limited.as_str())?;
    let shown = shown.blocks() * shown.fragment_size() / MIB;
    let (written, stopped) = fill(&Path::new(&limited).join("file"), 4 * LIMIT * MIB)?;
    let (beside, unstopped) = fill(&Path::new(&free).join("file"), 2 * LIMIT * MIB)?;
    let stopped = stopped.context("the limited writer was not stopped")?;
    ensure!(
        unstopped.is_none(),
        "the neighbour was stopped by {unstopped:?}"
    );
    // Rounded up: the directory's own blocks count for its project too.
    println!(
        "{name}: statfs {shown} MiB, {stopped:?} within {} MiB, neighbour {} MiB",
        written.div_ceil(MIB),
        beside / MIB
    );
    Ok(())
}

/// Writes until `most` bytes are on the disk or the filesystem refuses.
fn fill(path: &Path, most: u64) -> Result<(u64, Option<nix::errno::Errno>)> {
    let mut file = File::create(path)?;
    let block = vec![7; MIB as usize];
    let mut written = 0;
    while written < most {
        match file
            .write(&block)
            .and_then(|n| file.sync_data().map(|()| n))
        {
            Ok(size) => written += size as u64,
            Err(error) => {
                let errno = error.raw_os_error().context("an error of the system")?;
                return Ok((written, Some(nix::errno::Errno::from_raw(errno))));
            }
        }
    }
    Ok((written, None))
}

fn sh(script: &str) -> Result<()> {
    let output = Command::new("sh").args(["-c", script]).output()?;
    ensure!(
        output.status.success(),
        "{script}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
