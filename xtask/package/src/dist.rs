//! Everything that a release consists of, in one directory.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::archive::hex;
use crate::programs::{self, Programs};
use crate::{Arch, VERSION, image, manifests, run, sbom};

/// Makes the directory anew: for each architecture an image archive and a bill of
/// materials, the manifests, and SHA256SUMS over all of them.
///
/// # Errors
/// Whatever cannot be built; nothing is left out without being said.
pub fn make(dir: &Path, arches: &[Arch]) -> Result<()> {
    if dir.exists() {
        // Only what this made before is removed.
        ensure!(
            dir.join("SHA256SUMS").is_file() || fs::read_dir(dir)?.next().is_none(),
            "{} holds something that this did not make; name another directory",
            dir.display()
        );
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut names = Vec::new();
    for arch in arches {
        println!("{arch}: building the programs");
        let programs = programs::build(*arch, false)?;
        println!("{arch}: {}", proof(*arch, &programs)?);
        let archive = format!("berth-{VERSION}-linux-{arch}.tar");
        let contents = image::write(*arch, &programs, &dir.join(&archive))?;
        let bill = format!("berth-{VERSION}-linux-{arch}.cdx.json");
        let text = sbom::document(*arch, &contents.packages)?;
        fs::write(dir.join(&bill), text).with_context(|| format!("cannot write {bill}"))?;
        names.extend([archive, bill]);
    }
    names.extend(manifests::render(dir)?.into_iter().map(str::to_owned));
    names.sort();
    let mut sums = String::new();
    for name in &names {
        let bytes = fs::read(dir.join(name)).with_context(|| format!("cannot read {name}"))?;
        writeln!(sums, "{}  {name}", hex(&bytes))?;
        println!(
            "{:>9} kB  {}",
            bytes.len().div_ceil(1000),
            dir.join(name).display()
        );
    }
    fs::write(dir.join("SHA256SUMS"), sums).context("cannot write SHA256SUMS")
}

/// What is known of programs: those of another architecture run emulated, where the
/// emulator is there.
fn proof(arch: Arch, programs: &Programs) -> Result<String> {
    let emulator = format!("qemu-{}-static", arch.rust());
    let mut lines = Vec::new();
    for program in programs.all() {
        let mut command = if Arch::here()? == arch {
            Command::new(program)
        } else {
            let there = Command::new(&emulator).arg("--version").output().is_ok();
            if !there {
                return Ok(format!("built; not run, since there is no {emulator}"));
            }
            let mut command = Command::new(&emulator);
            command.arg(program);
            command
        };
        lines.push(run::stdout(command.arg("--version"))?.trim().to_owned());
    }
    Ok(format!("built, and each answers: {}", lines.join("; ")))
}
