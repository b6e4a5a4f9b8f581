//! What the machine must have, all of it found out before anything is built.

use xtask::packages;

use crate::components::{self, Go};
use crate::engine::{self, Kind};
use crate::error::{Error, Result};
use crate::node_image;
use crate::options::GIB;
use crate::paths;
use crate::run::on_path;

/// Free disk that building everything needs: Go's modules and caches, images.
const COLD_DISK: u64 = 30 * GIB;

/// Free disk that a cluster needs once everything is built.
const WARM_DISK: u64 = 6 * GIB;

/// Memory that a cluster and its tests need.
const MEMORY: u64 = 4 * GIB;

/// The oldest Go that builds every component.
const GO: (u32, u32) = (1, 26);

/// Programs that must be there.
const PROGRAMS: [&str; 9] = [
    "setpriv",
    "dockerd",
    "docker",
    "mmdebstrap",
    "mkfs.btrfs",
    "mkfs.xfs",
    "ip",
    "iptables",
    "cc",
];

/// The facts that the verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whether this is Linux.
    pub linux: bool,
    /// Whether this process is root.
    pub root: bool,
    /// Which engine would be used.
    pub engine: Kind,
    /// Go's version, if it is there.
    pub go: Option<String>,
    /// The programs of [`PROGRAMS`] that are not there.
    pub missing: Vec<&'static str>,
    /// Free bytes where the cache is.
    pub disk: u64,
    /// Bytes of memory that are available.
    pub memory: u64,
    /// Whether everything is built already.
    pub warm: bool,
}

/// What the facts mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What stands in the way, one sentence each.
    pub problems: Vec<String>,
    /// Debian packages that would cure some of it.
    pub packages: Vec<&'static str>,
    /// What will happen and how long it takes.
    pub plan: String,
}

/// Judges the facts.
pub fn judge(facts: &Facts) -> Verdict {
    let mut verdict = Verdict::default();
    let mut problem = |text: String| verdict.problems.push(text);
    if !facts.linux {
        problem("this is not Linux; the cluster's nodes are Linux containers".to_owned());
    }
    if !facts.root {
        problem(
            "the workers' pools are filesystems on loop devices, which needs root; run this with sudo"
                .to_owned(),
        );
    }
    match &facts.go {
        None => problem("Go is missing; install Go 1.26 or newer".to_owned()),
        Some(version) if go_version(version).is_none_or(|v| v < GO) => {
            problem(format!("{version} is too old; install Go 1.26 or newer"));
        }
        Some(_) => {}
    }
    for program in PROGRAMS {
        let needed = program != "dockerd" || facts.engine == Kind::Private;
        if needed && facts.missing.contains(&program) {
            problem(xtask::missing(program));
            if let Some(package) = packages::of(program)
                && !verdict.packages.contains(&package)
            {
                verdict.packages.push(package);
            }
        }
    }
    let disk = if facts.warm { WARM_DISK } else { COLD_DISK };
    if facts.disk < disk {
        verdict.problems.push(format!(
            "{} GiB of disk are free below {}, {} are needed",
            facts.disk / GIB,
            paths::cache().display(),
            disk / GIB
        ));
    }
    if facts.memory < MEMORY {
        verdict.problems.push(format!(
            "{} GiB of memory are available, {} are needed",
            facts.memory / GIB,
            MEMORY / GIB
        ));
    }
    let engine = match facts.engine {
        Kind::Machine => "the machine's Docker engine",
        Kind::Private => "a private Docker engine, stopped afterwards",
    };
    let time = if facts.warm {
        "everything is built: about 1 minute to a ready cluster"
    } else {
        "programs and images are built first: about 15 minutes on 2 cores, once"
    };
    verdict.plan = format!("{engine}; {time}");
    verdict
}

/// Looks at this machine.
pub fn look() -> Facts {
    let go = Go::here().ok();
    let warm = go.as_ref().is_some_and(|go| {
        components::NODE
            .iter()
            .chain([&components::KIND])
            .all(|c| c.is_cached(go))
            && node_image::prepared(go).is_dir()
    });
    Facts {
        linux: cfg!(target_os = "linux"),
        root: is_root(),
        engine: engine::choose_here(),
        go: go.map(|g| g.version),
        missing: PROGRAMS.into_iter().filter(|p| !on_path(p)).collect(),
        disk: free_disk(),
        memory: available_memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        warm,
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether sudo is there to become root.
pub fn has_sudo() -> bool {
    on_path("sudo")
}

/// Demands that nothing stands in the way.
pub fn require(verdict: &Verdict) -> Result<()> {
    if verdict.problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = verdict
        .problems
        .iter()
        .map(|p| format!("  - {p}"))
        .collect();
    Err(Error::Preflight(lines.join("\n")))
}

/// Major and minor of `go1.26.3`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor: String = numbers
        .next()?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Some((major, minor.parse().ok()?))
}

fn available_memory(meminfo: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"))
        .and_then(|v| v.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn free_disk() -> u64 {
    let cache = paths::cache();
    let existing = cache.ancestors().find(|d| d.exists()).unwrap_or(&cache);
    nix::sys::statvfs::statvfs(existing).map_or(0, |s| s.blocks_available() * s.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            linux: true,
            root: true,
            engine: Kind::Private,
            go: Some("go1.26.8".to_owned()),
            missing: Vec::new(),
            disk: 40 * GIB,
            memory: 8 * GIB,
            warm: false,
        }
    }

    #[test]
    fn a_good_machine_has_no_problems() {
        let verdict = judge(&good());
        assert!(verdict.problems.is_empty(), "{:?}", verdict.problems);
        assert!(verdict.plan.contains("15 minutes"));
        assert!(require(&verdict).is_ok());
    }

    #[test]
    fn everything_missing_is_said_at_once() {
        let facts = Facts {
            root: false,
            go: None,
            missing: vec!["dockerd", "docker", "mkfs.btrfs"],
            disk: GIB,
            memory: GIB,
            ..good()
        };
        let verdict = judge(&facts);
        assert_eq!(verdict.problems.len(), 7, "{:?}", verdict.problems);
        assert_eq!(verdict.packages, ["docker.io", "btrfs-progs"]);
        let text = require(&verdict).unwrap_err().to_string();
        assert!(
            text.contains("loop devices") && text.contains("Go is missing"),
            "{text}"
        );
    }

    #[test]
    fn dockerd_is_needed_only_for_a_private_engine() {
        let facts = Facts {
            engine: Kind::Machine,
            missing: vec!["dockerd"],
            ..good()
        };
        assert!(judge(&facts).problems.is_empty());
    }

    #[test]
    fn a_warm_cache_needs_less_disk() {
        let facts = Facts {
            disk: 10 * GIB,
            ..good()
        };
        assert_eq!(judge(&facts).problems.len(), 1);
        assert!(
            judge(&Facts {
                warm: true,
                ..facts
            })
            .problems
            .is_empty()
        );
    }

    #[test]
    fn setup_brings_every_program() {
        for program in PROGRAMS {
            assert!(packages::of(program).is_some(), "{program}");
        }
    }

    #[test]
    fn go_versions_are_compared_as_numbers() {
        assert_eq!(go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(go_version("go1.27rc1"), Some((1, 27)));
        let old = Facts {
            go: Some("go1.9.7".to_owned()),
            ..good()
        };
        assert_eq!(judge(&old).problems.len(), 1);
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(
            available_memory("MemTotal: 1 kB\nMemAvailable:    2048 kB\n"),
            2 << 20
        );
    }
}
