//! Taking an instance away, all of it, whatever state a killed run left it in.
//! Every step is content with finding nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_linux::mountinfo;
use nix::mount::{MntFlags, umount2};

use crate::cache;
use crate::engine::{self, Engine};
use crate::error::{Error, Result};
use crate::loopdev;
use crate::names::Instance;
use crate::paths::Layout;
use crate::run::Run;
use crate::thaw;
use crate::wait::wait_for;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Removes an instance whose lock the caller holds.
pub(crate) fn instance(instance: &Instance) -> Result<()> {
    let layout = Layout::of(instance);
    // Nothing that waits for a frozen disk can be ended.
    thaw::thaw_all(&layout)?;
    // Containers first, in whichever engine: they hold mounts of the disks.
    engine::stop_private(&layout)?;
    machine_engine(instance)?;
    link(&instance.link())?;
    cgroups(&instance.cgroup())?;
    mounts_below(layout.root())?;
    disks(&layout.root().join("disks"))?;
    if layout.root().exists() {
        // Of volumes in the nodes' own filesystem.
        loopdev::detach_all(&loopdev::files_below(layout.root())?)?;
    }
    cache::remove(layout.root())
}

/// Ends a private engine and takes away what it used of the machine.
pub(crate) fn private_engine(layout: &Layout) -> Result<()> {
    engine::stop_private(layout)?;
    mounts_below(layout.root())?;
    disks(&layout.root().join("disks"))
}

/// Removes an instance's containers and network from the machine's own engine.
fn machine_engine(instance: &Instance) -> Result<()> {
    let engine = Engine::machine();
    if !engine.answers() {
        return Ok(());
    }
    let label = format!("label=io.x-k8s.kind.cluster={}", instance.cluster());
    let ids = engine
        .docker(["ps", "-a", "-q", "--filter", &label])
        .stdout()?;
    for id in ids.split_whitespace() {
        engine.docker(["rm", "-f", "-v", id]).stdout()?;
    }
    let name = format!("name=^{}$", instance.network());
    let networks = engine
        .docker(["network", "ls", "-q", "--filter", &name])
        .stdout()?;
    for id in networks.split_whitespace() {
        engine.docker(["network", "rm", id]).stdout()?;
    }
    Ok(())
}

/// Removes the host's end of an engine's link, and its route with it.
fn link(name: &str) -> Result<()> {
    let path = Path::new("/sys/class/net").join(name);
    if path.exists() {
        // It goes by itself once the engine's namespace is gone, perhaps just now.
        let _ = Run::new("ip").args(["link", "delete", name]).output()?;
    }
    wait_for(
        &format!("the link {name} to go"),
        Duration::from_secs(30),
        || {
            Ok(if path.exists() {
                Err("still there".to_owned())
            } else {
                Ok(())
            })
        },
    )
}

/// Removes the cgroup `name` of every hierarchy, with all below it.
pub(crate) fn cgroups(name: &str) -> Result<()> {
    for path in cgroup_paths(name)? {
        wait_for(
            &format!("{} to empty", path.display()),
            Duration::from_secs(30),
            || Ok(remove_cgroup(&path).map_err(|e| e.to_string())),
        )?;
    }
    Ok(())
}

/// Where the cgroup `name` exists: in the one hierarchy of version 2 or in each of version 1.
pub(crate) fn cgroup_paths(name: &str) -> Result<Vec<PathBuf>> {
    let root = Path::new(CGROUPS);
    let mut candidates = vec![root.join(name)];
    if !root.join("cgroup.controllers").exists() && root.is_dir() {
        let listing = std::fs::read_dir(root).map_err(Error::io("cannot list", root))?;
        candidates.extend(listing.flatten().map(|e| e.path().join(name)));
    }
    candidates.retain(|p| p.is_dir());
    candidates.sort();
    Ok(candidates)
}

fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    let listing = match std::fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in listing {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Unmounts everything at or below a directory, the last mounted first.
pub(crate) fn mounts_below(dir: &Path) -> Result<()> {
    let mounts = mountinfo::own().map_err(|e| Error::sys("cannot read the mounts")(e))?;
    for mount in mounts.iter().rev().filter(|m| m.point.starts_with(dir)) {
        umount2(&mount.point, MntFlags::MNT_DETACH)
            .map_err(|e| Error::sys(format!("cannot unmount {}", mount.point.display()))(e))?;
    }
    Ok(())
}

/// Detaches the loop devices of every backing file below a directory.
fn disks(dir: &Path) -> Result<()> {
    let mut files = Vec::new();
    let workers = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for worker in workers {
        for disk in std::fs::read_dir(worker.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            files.push(loopdev::identity(&disk.path())?);
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    loopdev::detach_all(&files)
}
