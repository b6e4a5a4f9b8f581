//! What the machine must have for a guest, found out before anything is made.

use berth_cluster::run::{Run, on_path};
use xtask::packages;

use crate::error::{Error, Result};
use crate::tools;

/// Programs that make and run a guest.
const PROGRAMS: [&str; 7] = [
    "qemu-system-x86_64",
    "setpriv",
    "busybox",
    "ldd",
    "dpkg-deb",
    "apt-get",
    "apt-cache",
];

/// What is asked of busybox; distributions build it with more or less.
const APPLETS: [&str; 6] = ["sh", "mount", "modprobe", "depmod", "poweroff", "usleep"];

/// The facts that the verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The machine's architecture, as Rust names it.
    pub arch: &'static str,
    /// Programs that are not there.
    pub missing: Vec<&'static str>,
    /// What busybox can be, if it is there.
    pub applets: Option<Vec<String>>,
}

/// What stands in the way: sentences, and the packages that would cure some of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// One sentence each.
    pub problems: Vec<String>,
    /// Debian packages.
    pub packages: Vec<&'static str>,
}

/// Judges the facts.
pub fn judge(facts: &Facts) -> Verdict {
    let mut verdict = Verdict::default();
    if facts.arch != "x86_64" {
        verdict.problems.push(format!(
            "this machine is {}; guests run this machine's own programs on an x86_64 kernel",
            facts.arch
        ));
    }
    for program in PROGRAMS.iter().chain(&tools::NEEDED) {
        if facts.missing.contains(program) {
            verdict.problems.push(xtask::missing(program));
            if let Some(package) = packages::of(program)
                && !verdict.packages.contains(&package)
            {
                verdict.packages.push(package);
            }
        }
    }
    if let Some(applets) = &facts.applets {
        let lacks = |applet: &&&str| !applets.iter().any(|a| a == **applet);
        let lacking: Vec<_> = APPLETS.iter().filter(lacks).copied().collect();
        if !lacking.is_empty() {
            verdict.problems.push(format!(
                "this busybox has no {} (Debian package busybox-static): run `cargo xtask setup`",
                lacking.join(", ")
            ));
            verdict.packages.push("busybox-static");
        }
    }
    verdict
}

/// Looks at this machine.
pub fn look() -> Facts {
    let missing = |program: &&'static str| !on_path(program);
    Facts {
        arch: std::env::consts::ARCH,
        missing: PROGRAMS
            .iter()
            .chain(&tools::NEEDED)
            .copied()
            .filter(missing)
            .collect(),
        applets: Run::new("busybox")
            .arg("--list")
            .stdout()
            .ok()
            .map(|list| list.lines().map(str::to_owned).collect()),
    }
}

/// Looks, and demands that nothing is missing.
pub fn ready() -> Result<()> {
    let verdict = judge(&look());
    if verdict.problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = verdict
        .problems
        .iter()
        .map(|problem| format!("  - {problem}"))
        .collect();
    Err(Error::Preflight(lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            arch: "x86_64",
            missing: Vec::new(),
            applets: Some(APPLETS.map(str::to_owned).to_vec()),
        }
    }

    #[test]
    fn a_good_machine_has_no_problems() {
        assert_eq!(judge(&good()), Verdict::default());
    }

    #[test]
    fn everything_missing_is_said_at_once_with_each_package_once() {
        let verdict = judge(&Facts {
            arch: "aarch64",
            missing: vec!["qemu-system-x86_64", "mkfs.xfs", "xfs_quota", "busybox"],
            applets: None,
        });
        assert_eq!(verdict.problems.len(), 5, "{:?}", verdict.problems);
        let expected = ["qemu-system-x86", "busybox-static", "xfsprogs"];
        assert_eq!(verdict.packages, expected);
    }

    #[test]
    fn a_small_busybox_is_not_enough() {
        let verdict = judge(&Facts {
            applets: Some(vec!["sh".to_owned(), "mount".to_owned()]),
            ..good()
        });
        let sentence = &verdict.problems[0];
        assert!(sentence.contains("modprobe, depmod"), "{sentence}");
        assert_eq!(verdict.packages, ["busybox-static"]);
    }
}
