//! `cargo xtask setup`: the only place that installs anything on the machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use xtask::packages;

use crate::outcome::{Failure, Outcome, done};

/// Which command the machine is to be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// The tests, the rig and the demo.
    Tests,
    /// Those, and packages for every architecture.
    Dist,
}

/// Installs what is missing.
pub(crate) fn run(command: For) -> Outcome {
    let missing: Vec<_> = packages::all()
        .filter(|package| match package.only {
            None => true,
            // Whoever calls any other command is told what it lacks.
            Some(only) => command == For::Dist && only == "dist",
        })
        .filter(|package| !is_there(package.program))
        .map(|package| package.name)
        .collect();
    let stale = missing.is_empty() && !has_kernel() && !has_fresh_lists();
    if !missing.is_empty() {
        println!(
            "Installing Debian packages, half a minute or so: {}",
            missing.join(" ")
        );
    }
    if !missing.is_empty() || stale {
        if find("apt-get").is_none() {
            return Err(Failure::Told(format!(
                "this is no Debian; install what it calls {}",
                missing.join(" ")
            )));
        }
        apt(&["update", "-q"])?;
    }
    if !missing.is_empty() {
        let install = ["install", "-q", "-y", "--no-install-recommends"];
        apt(&[&install[..], &missing].concat())?;
    }
    if command == For::Dist {
        ["x86_64", "aarch64"].into_iter().for_each(add_target);
    }
    Ok(())
}

/// Has rustup bring Rust's standard library for an architecture. Where that fails,
/// packaging says what it leaves out.
fn add_target(arch: &str) {
    let target = format!("{arch}-unknown-linux-gnu");
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let there = sysroot.is_ok_and(|out| {
        let sysroot = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        Path::new(&sysroot)
            .join("lib/rustlib")
            .join(&target)
            .is_dir()
    });
    if there || find("rustup").is_none() {
        return;
    }
    println!("Adding the Rust target {target}");
    let added = Command::new("rustup")
        .args(["target", "add", &target])
        .status();
    if !added.is_ok_and(|status| status.success()) {
        println!("rustup could not add {target}");
    }
}

/// Runs apt-get as root, its own words on the terminal.
fn apt(args: &[&str]) -> Outcome {
    let root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    let mut command = match (root, find("sudo")) {
        (true, _) => Command::new("apt-get"),
        (false, Some(sudo)) => {
            let mut command = Command::new(sudo);
            command.arg("apt-get");
            command
        }
        (false, None) => {
            return Err(Failure::Told(format!(
                "installing needs root; run as root: apt-get {}",
                args.join(" ")
            )));
        }
    };
    command
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    // What it prints is long, and of interest only when it fails.
    let output = command
        .output()
        .map_err(|e| Failure::Told(format!("cannot start apt-get: {e}")))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    done(Ok(output.status), "apt-get")
}

/// Whether a program, or an applet of one, is there.
fn is_there(program: &str) -> bool {
    match program.split_once(':') {
        None => find(program).is_some(),
        Some((program, applet)) => find(program).is_some_and(|path| {
            let list = Command::new(path).arg("--list").output();
            list.is_ok_and(|out| {
                String::from_utf8_lossy(&out.stdout)
                    .lines()
                    .any(|line| line == applet)
            })
        }),
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Whether the guests' kernel is in the cache.
fn has_kernel() -> bool {
    fs::read_dir(xtask::cache()).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("vm-kernel-")
        })
    })
}

/// Whether apt has lists of packages, from which the kernel is fetched, of today.
fn has_fresh_lists() -> bool {
    const DAY: u64 = 24 * 60 * 60;
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let age = entry
                .metadata()
                .and_then(|m| m.modified())
                .map(|m| m.elapsed());
            name.to_string_lossy().contains("_Packages")
                && age.is_ok_and(|age| age.is_ok_and(|age| age.as_secs() < DAY))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_applets_are_found() {
        assert!(is_there("sh") && !is_there("no-such-program"));
        assert!(!is_there("sh:no-such-applet") && !is_there("no-such-program:sh"));
    }
}
