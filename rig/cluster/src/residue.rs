//! What instances have on this machine, one sorted line for each thing, so that
//! two looks can be compared and an empty look means that nothing is left.

use std::path::Path;

use berth_linux::mountinfo;

use crate::error::{Error, Result};
use crate::paths::state_root;
use crate::run::Run;
use crate::{engine, role};

/// Everything of every instance, or of one: state, containers, networks, mounts,
/// loop devices, links, routes, cgroups, processes.
pub fn lines(instance: Option<&str>) -> Result<Vec<String>> {
    let mut lines = all()?;
    if let Some(id) = instance {
        lines.retain(|line| belongs(line, id));
    }
    Ok(lines)
}

/// Whether a line is about the instance: it has the id as a whole word after one
/// of the prefixes that every name of an instance carries.
fn belongs(line: &str, id: &str) -> bool {
    let root = format!("{}/", state_root().display());
    let prefixes = ["state ", "berth-", "bh-", root.as_str()];
    prefixes.iter().any(|prefix| {
        line.match_indices(prefix).any(|(at, _)| {
            let rest = line[at + prefix.len()..].strip_prefix(id);
            rest.is_some_and(|r| !r.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
    })
}

fn all() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    lines.extend(
        names_in(&state_root())?
            .into_iter()
            .map(|n| format!("state {n}")),
    );
    lines.extend(containers()?);
    let mounts = mountinfo::own().map_err(|e| Error::sys("cannot read the mounts")(e))?;
    let ours = mounts.iter().filter(|m| m.point.starts_with(state_root()));
    lines.extend(ours.map(|m| format!("mount {}", m.point.display())));
    lines.extend(loop_devices()?);
    let links = names_in(Path::new("/sys/class/net"))?;
    lines.extend(
        links
            .iter()
            .filter(|n| n.starts_with("bh-"))
            .map(|n| format!("link {n}")),
    );
    let routes = Run::new("ip")
        .args(["-4", "route", "show", "table", "all"])
        .stdout()?;
    lines.extend(routes_of_links(&routes));
    lines.extend(cgroups()?);
    lines.extend(processes()?);
    lines.sort();
    Ok(lines)
}

/// The instances that have a directory, also those that a killed run left.
pub fn instances() -> Result<Vec<String>> {
    let root = state_root();
    let names = names_in(&root)?;
    let instances = names
        .into_iter()
        .filter(|n| !n.starts_with('+') && root.join(n).is_dir());
    Ok(instances.collect())
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let listing = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("cannot list", dir))?,
    };
    let names = listing
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned());
    // Locks of builders stay; they are empty files that say nothing is held.
    let mut names: Vec<_> = names.filter(|n| !n.ends_with(".lock")).collect();
    names.sort();
    Ok(names)
}

fn containers() -> Result<Vec<String>> {
    let format = "{{.Names}}\t{{.Label \"io.x-k8s.kind.cluster\"}}";
    let machine = engine::Engine::machine();
    let listing = machine.docker(["ps", "-a", "--format", format]).output()?;
    // An engine that does not answer runs nothing; private ones show as processes.
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    let ours = text
        .lines()
        .filter_map(|l| l.split_once('\t'))
        .filter(|(_, c)| c.starts_with("berth-"));
    let mut lines: Vec<_> = ours.map(|(name, _)| format!("container {name}")).collect();
    let networks = machine
        .docker(["network", "ls", "--format", "{{.Name}}"])
        .output()?;
    let text = String::from_utf8_lossy(&networks.stdout).into_owned();
    lines.extend(
        text.lines()
            .filter(|n| n.starts_with("berth-"))
            .map(|n| format!("network {n}")),
    );
    Ok(lines)
}

/// Devices whose backing file the kernel names below our state, for reading by
/// people; what is detached is found by device and inode instead.
fn loop_devices() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for name in names_in(Path::new("/sys/block"))? {
        let file = Path::new("/sys/block")
            .join(&name)
            .join("loop/backing_file");
        let backing = std::fs::read_to_string(file).unwrap_or_default();
        if Path::new(backing.trim()).starts_with(state_root()) {
            lines.push(format!("loop {name} {}", backing.trim()));
        }
    }
    Ok(lines)
}

fn routes_of_links(routes: &str) -> Vec<String> {
    let ours = routes.lines().filter(|l| l.contains(" dev bh-"));
    ours.map(|l| format!("route {}", l.trim())).collect()
}

fn cgroups() -> Result<Vec<String>> {
    let root = Path::new("/sys/fs/cgroup");
    let mut lines = Vec::new();
    let mut dirs = vec![root.to_owned()];
    if !root.join("cgroup.controllers").exists() {
        dirs.extend(
            names_in(root)?
                .iter()
                .map(|n| root.join(n))
                .filter(|p| p.is_dir()),
        );
    }
    for dir in dirs {
        let ours = names_in(&dir)?
            .into_iter()
            .filter(|n| n.starts_with("berth-"));
        lines.extend(ours.map(|n| format!("cgroup {}", dir.join(n).display())));
    }
    Ok(lines)
}

fn processes() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for pid in names_in(Path::new("/proc"))? {
        let dir = Path::new("/proc").join(&pid);
        let cgroup = std::fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
        let words = std::fs::read(dir.join("cmdline")).unwrap_or_default();
        let engine = words.split(|b| *b == 0).nth(1) == Some(role::ENGINE.as_bytes());
        if engine || cgroup.contains("/berth-") {
            let line = String::from_utf8_lossy(&words).replace('\0', " ");
            let short: String = line.trim().chars().take(100).collect();
            let of = cgroup_name(&cgroup).unwrap_or("engine");
            lines.push(format!("process {of} {short}"));
        }
    }
    Ok(lines)
}

/// The rig's cgroup in the content of /proc/PID/cgroup.
fn cgroup_name(cgroup: &str) -> Option<&str> {
    let from = cgroup.find("/berth-")? + 1;
    cgroup[from..].split(['/', '\n']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_by_instance() {
        assert!(belongs("cgroup /sys/fs/cgroup/cpu/berth-ab", "ab"));
        assert!(belongs(
            "route 10.64.0.0/25 via 10.64.0.254 dev bh-ab",
            "ab"
        ));
        assert!(belongs("container berth-ab-worker2", "ab"));
        assert!(belongs("state ab", "ab"));
        assert!(!belongs("cgroup /sys/fs/cgroup/cpu/berth-abc", "ab"));
        assert!(!belongs("state b", "ab"));
    }

    #[test]
    fn a_process_is_named_by_its_cgroup() {
        let text = "9:cpu:/berth-x/0123\n8:pids:/berth-x/0123\n";
        assert_eq!(cgroup_name(text), Some("berth-x"));
        assert_eq!(cgroup_name("0::/user.slice\n"), None);
    }

    #[test]
    fn only_routes_of_our_links_count() {
        let text = "default via 192.0.2.1 dev eth0\n10.64.3.0/25 via 10.64.3.254 dev bh-x \n";
        assert_eq!(
            routes_of_links(text),
            ["route 10.64.3.0/25 via 10.64.3.254 dev bh-x"]
        );
    }
}
