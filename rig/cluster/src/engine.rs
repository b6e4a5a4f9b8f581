//! The Docker engine: the machine's own where it works, else a private one.
//!
//! A private engine lives in process, mount and network namespaces of its own.
//! Killing its first process ends every container, mount, bridge and firewall
//! rule in it, so nothing can be left behind, however the run ended.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::names::Subnet;
use crate::paths::{Layout, make_dir, write};
use crate::run::Run;
use crate::runtime_shim;
use crate::wait::wait_for;

/// How long an engine may take to answer after its start.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long the processes of a killed engine may take to go.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Which engine to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The one that answers on the machine; nothing of it is changed.
    Machine,
    /// One of our own, stopped when it is no longer needed.
    Private,
}

/// Decides which engine to use: the machine's, unless it does not answer or
/// could not run privileged containers.
pub(crate) fn choose(machine_answers: bool, root: bool, sys_resource: bool) -> Kind {
    if machine_answers && (sys_resource || !root) {
        Kind::Machine
    } else {
        Kind::Private
    }
}

/// Looks at this machine and decides; `$BERTH_ENGINE`, `machine` or `private`, overrules.
pub(crate) fn choose_here() -> Kind {
    match std::env::var("BERTH_ENGINE").as_deref() {
        Ok("machine") => return Kind::Machine,
        Ok("private") => return Kind::Private,
        _ => {}
    }
    let answers = Run::new("docker")
        .args(["info", "--format", "{{.ServerVersion}}"])
        .output()
        .is_ok_and(|o| o.status.success());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = nix::unistd::geteuid().is_root();
    choose(answers, root, runtime_shim::has_sys_resource(&status))
}

/// An engine that answers.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    env: Vec<(String, String)>,
}

impl Engine {
    /// The machine's own.
    pub(crate) fn machine() -> Self {
        Self { env: base_env() }
    }

    /// The private one of a layout.
    pub(crate) fn private(layout: &Layout) -> Self {
        let mut env = base_env();
        env.push((
            "DOCKER_HOST".to_owned(),
            format!("unix://{}", layout.socket().display()),
        ));
        let config = layout.docker_config();
        env.push(("DOCKER_CONFIG".to_owned(), config.display().to_string()));
        Self { env }
    }

    /// The engine of this kind for a layout.
    pub(crate) fn of(kind: Kind, layout: &Layout) -> Self {
        match kind {
            Kind::Machine => Self::machine(),
            Kind::Private => Self::private(layout),
        }
    }

    /// The environment in which `docker` and `kind` talk to this engine.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// A `docker` command.
    pub(crate) fn docker<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Run {
        Run::new("docker").args(args).envs(&self.env)
    }

    /// Whether it answers.
    pub(crate) fn answers(&self) -> bool {
        self.docker(["version", "--format", "{{.Server.Version}}"])
            .output()
            .is_ok_and(|o| o.status.success())
    }

    /// Whether it has an image.
    pub(crate) fn has_image(&self, image: &str) -> bool {
        self.docker(["image", "inspect", "--format", "{{.Id}}", image])
            .output()
            .is_ok_and(|o| o.status.success())
    }
}

/// The legacy builder needs no plugin; system programs are where root's path has them.
fn base_env() -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_default();
    vec![
        ("DOCKER_BUILDKIT".to_owned(), "0".to_owned()),
        ("PATH".to_owned(), format!("{path}:/usr/sbin:/sbin")),
    ]
}

/// A disk for a private engine to mount in its own namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PoolMount {
    /// The backing file.
    pub file: PathBuf,
    /// Where to mount it.
    pub target: PathBuf,
    /// Its filesystem.
    pub fstype: String,
}

/// What a private engine is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// Images and containers.
    pub data_root: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// Scratch directory for the start.
    pub scratch: PathBuf,
    /// The runtime that stands in for runc, where one must.
    pub shim: Option<PathBuf>,
    /// The cgroup of its containers.
    pub cgroup: String,
    /// Disks to mount before it starts.
    pub pools: Vec<PoolMount>,
    /// Its end of the link and the host's, when the host is to reach its containers.
    pub link: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// Starts a private engine for a layout and returns when it answers.
///
/// `link` names the host's interface and the subnet behind it.
pub(crate) fn start_private(
    layout: &Layout,
    data_root: &Path,
    cgroup: &str,
    pools: Vec<PoolMount>,
    link: Option<(&str, Subnet)>,
) -> Result<Engine> {
    crate::role::check()?;
    make_dir(data_root)?;
    make_dir(&layout.docker_config())?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let orders = Orders {
        data_root: data_root.to_owned(),
        socket: layout.socket(),
        scratch: layout.root().join("scratch"),
        shim: (!runtime_shim::has_sys_resource(&status)).then(|| layout.runtime_shim()),
        cgroup: cgroup.to_owned(),
        pools,
        link: link.map(|(_, subnet)| (subnet.engine_end(), subnet.host_end())),
    };
    make_dir(&orders.scratch)?;
    if let Some(shim) = &orders.shim {
        install_self(shim)?;
    }
    let text = serde_json::to_string_pretty(&orders)
        .map_err(|e| Error::Unexpected(format!("cannot write the engine's orders: {e}")))?;
    write(&layout.engine_orders(), text)?;

    let mut starter = spawn_init(layout)?;
    let result = bring_up(&mut starter, layout, link);
    // The starter hands over to the engine's first process and ends by itself.
    let _ = starter.wait();
    result?;
    let engine = Engine::private(layout);
    wait_for("the private Docker engine", START_PATIENCE, || {
        if engine.answers() {
            return Ok(Ok(()));
        }
        if processes_of(layout)?.is_empty() {
            let log = std::fs::read_to_string(layout.log("engine")).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(8).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            return Err(Error::Unexpected(format!(
                "the private Docker engine ended; its last words:\n{}",
                end.join("\n")
            )));
        }
        Ok(Err("no answer yet".to_owned()))
    })?;
    Ok(engine)
}

fn spawn_init(layout: &Layout) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let log = layout.log("engine");
    write(&log, "")?;
    let file = std::fs::File::create(&log).map_err(Error::io("cannot create", &log))?;
    let mut command = Run::new(crate::role::SELF)
        .arg(crate::role::ENGINE)
        .arg(layout.engine_orders())
        .envs(&base_env())
        .env(crate::role::MARK, "1")
        .into_command();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(file)
        .process_group(0)
        .spawn()
        .map_err(|e| Error::sys("cannot start the private engine")(e))
}

/// Gives the new namespace its link, then lets the engine start.
fn bring_up(starter: &mut Child, layout: &Layout, link: Option<(&str, Subnet)>) -> Result<()> {
    let mut line = String::new();
    if let Some(out) = starter.stdout.take() {
        BufReader::new(out)
            .read_line(&mut line)
            .map_err(|e| Error::sys("cannot hear the private engine")(e))?;
    }
    let first = line.trim().parse::<u32>().map_err(|_| {
        let log = std::fs::read_to_string(layout.log("engine")).unwrap_or_default();
        Error::Unexpected(format!(
            "the private engine did not start: {}{}",
            line.trim(),
            log.trim()
        ))
    })?;
    if let Some((name, subnet)) = link {
        let ip = |args: &[&str]| Run::new("ip").args(args).envs(&base_env()).stdout();
        let pid = first.to_string();
        ip(&[
            "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &pid,
        ])?;
        let address = format!("{}/30", subnet.host_end());
        ip(&["address", "add", &address, "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        let via = subnet.engine_end().to_string();
        ip(&["route", "add", &subnet.nodes(), "via", &via])?;
    }
    if let Some(mut pipe) = starter.stdin.take() {
        pipe.write_all(b"go\n")
            .map_err(|e| Error::sys("cannot give the private engine its order")(e))?;
    }
    Ok(())
}

/// Ends a layout's private engine and everything in it; none running is fine.
pub(crate) fn stop_private(layout: &Layout) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    for pid in processes_of(layout)? {
        // Already gone is as good.
        let _ = kill(pid, Signal::SIGKILL);
    }
    wait_for("the private engine to end", STOP_PATIENCE, || {
        let left = processes_of(layout)?;
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        })
    })
}

/// The engine's own processes, found by their command line.
pub(crate) fn processes_of(layout: &Layout) -> Result<Vec<nix::unistd::Pid>> {
    let orders = layout.engine_orders();
    let mut found = Vec::new();
    let dir = Path::new("/proc");
    for entry in std::fs::read_dir(dir).map_err(Error::io("cannot list", dir))? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = words.split(|b| *b == 0).skip(1);
        if words.next() == Some(crate::role::ENGINE.as_bytes())
            && words.next() == Some(orders.as_os_str().as_encoded_bytes())
        {
            found.push(nix::unistd::Pid::from_raw(pid));
        }
    }
    Ok(found)
}

/// Copies this program to `target`, for uses that outlive the next build.
fn install_self(target: &Path) -> Result<()> {
    if let Some(parent) = target.parent() {
        make_dir(parent)?;
    }
    // A new inode each time: the old one may be running.
    let _ = std::fs::remove_file(target);
    std::fs::copy(crate::role::SELF, target)
        .map_err(Error::io("cannot copy this program to", target))?;
    crate::paths::make_executable(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_engine_is_used_where_it_works() {
        assert_eq!(choose(true, true, true), Kind::Machine);
        assert_eq!(choose(true, false, false), Kind::Machine);
        assert_eq!(choose(true, true, false), Kind::Private);
        assert_eq!(choose(false, true, true), Kind::Private);
        assert_eq!(choose(false, false, true), Kind::Private);
    }
}
