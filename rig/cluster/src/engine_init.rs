//! The first process of a private engine: it makes the namespaces, mounts what
//! belongs in them, starts dockerd and buries the processes that others leave.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::engine::{Orders, PoolMount};
use crate::error::{Error, Result};
use crate::paths::{make_dir, read};
use crate::run::Run;
use crate::{loopdev, role};

/// The outer half: makes the namespaces, starts the inner half as their first
/// process, prints its process id and ends.
pub(crate) fn outer(orders: &Path) -> Result<()> {
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    unshare(namespaces).map_err(|e| Error::sys("cannot make namespaces")(e))?;
    let child = Command::new(role::SELF)
        .arg(role::ENGINE)
        .arg(orders)
        .arg(role::INNER)
        .stdin(Stdio::inherit())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Error::sys("cannot start the engine's first process")(e))?;
    println!("{}", child.id());
    Ok(())
}

/// The inner half: process 1 of the new namespaces. Returns when dockerd ended.
pub(crate) fn inner(orders: &Path) -> Result<()> {
    let orders: Orders = serde_json::from_str(&read(orders)?)
        .map_err(|e| Error::Unexpected(format!("the engine's orders are not readable: {e}")))?;
    let mut go = String::new();
    std::io::stdin()
        .read_line(&mut go)
        .map_err(|e| Error::sys("cannot read the order to start")(e))?;
    if go.trim() != "go" {
        return Err(Error::Unexpected("the starter went away".to_owned()));
    }
    nix::unistd::setsid().map_err(|e| Error::sys("cannot leave the terminal")(e))?;
    own_filesystems(&orders.scratch)?;
    network(&orders)?;
    for pool in &orders.pools {
        mount_pool(pool)?;
    }
    let dockerd = dockerd(&orders)?;
    bury(dockerd)
}

/// Gives the namespace its own /proc, /sys and /run, and hides what a person
/// configured for the machine's engine.
fn own_filesystems(scratch: &Path) -> Result<()> {
    let none: Option<&str> = None;
    let put = |fstype: &str, target: &Path, data: Option<&str>| {
        mount(Some(fstype), target, Some(fstype), MsFlags::empty(), data)
            .map_err(|e| Error::sys(format!("cannot mount {}", target.display()))(e))
    };
    let (proc, sys, cgroups) = (
        Path::new("/proc"),
        Path::new("/sys"),
        Path::new("/sys/fs/cgroup"),
    );
    // Nothing from in here shows outside; unmounts outside reach in here.
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)
        .map_err(|e| Error::sys("cannot detach from the machine's mounts")(e))?;
    put("proc", proc, None)?;
    mount(
        Some(cgroups),
        scratch,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .map_err(|e| Error::sys("cannot keep the cgroup mounts")(e))?;
    umount2(sys, MntFlags::MNT_DETACH).map_err(|e| Error::sys("cannot leave /sys")(e))?;
    put("sysfs", sys, None)?;
    mount(Some(scratch), cgroups, none, MsFlags::MS_MOVE, none)
        .map_err(|e| Error::sys("cannot move the cgroup mounts")(e))?;
    put("tmpfs", Path::new("/run"), Some("mode=755"))?;
    let config = Path::new("/etc/docker");
    if config.is_dir() {
        put("tmpfs", config, Some("mode=755"))?;
    }
    Ok(())
}

fn network(orders: &Orders) -> Result<()> {
    let ip = |args: &[&str]| Run::new("ip").args(args).stdout();
    ip(&["link", "set", "lo", "up"])?;
    if let Some((own, host)) = orders.link {
        ip(&["address", "add", &format!("{own}/30"), "dev", "eth0"])?;
        ip(&["link", "set", "eth0", "up"])?;
        ip(&["route", "add", "default", "via", &host.to_string()])?;
    }
    Ok(())
}

/// Attaches a disk and mounts it; the device lives as long as its mounts.
pub(crate) fn mount_pool(pool: &PoolMount) -> Result<()> {
    make_dir(&pool.target)?;
    let device = loopdev::attach(&pool.file)?;
    let none: Option<&str> = None;
    mount(
        Some(&device.path),
        &pool.target,
        Some(pool.fstype.as_str()),
        MsFlags::empty(),
        none,
    )
    .map_err(|e| {
        let what = format!(
            "cannot mount {} on {}",
            pool.file.display(),
            pool.target.display()
        );
        Error::sys(what)(e)
    })
}

fn dockerd(orders: &Orders) -> Result<Pid> {
    let mut args: Vec<String> = vec![
        format!("--data-root={}", orders.data_root.display()),
        format!("--host=unix://{}", orders.socket.display()),
        "--exec-root=/run/docker".into(),
        "--pidfile=/run/docker.pid".into(),
        "--bridge=none".into(),
        format!("--cgroup-parent=/{}", orders.cgroup),
        "--exec-opt=native.cgroupdriver=cgroupfs".into(),
        "--storage-driver=overlay2".into(),
        "--oom-score-adjust=0".into(),
    ];
    if let Some(shim) = &orders.shim {
        args.push(format!("--add-runtime=berth={}", shim.display()));
        args.push("--default-runtime=berth".into());
    }
    // A socket file of an engine that was killed would be taken for a living one.
    let _ = std::fs::remove_file(&orders.socket);
    let child = Command::new("dockerd")
        .args(args)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| Error::sys("cannot start dockerd")(e))?;
    let pid = i32::try_from(child.id())
        .map_err(|_| Error::Unexpected("a process id beyond the kernel's range".to_owned()))?;
    Ok(Pid::from_raw(pid))
}

/// Reaps every child of the namespace until dockerd itself has ended.
fn bury(dockerd: Pid) -> Result<()> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) if pid == dockerd => {
                return Err(Error::Unexpected("dockerd ended".to_owned()));
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(Error::sys("cannot wait for processes")(e)),
        }
    }
}
