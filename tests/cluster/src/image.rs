//! Berth's own image, from deploy/Dockerfile, as an archive that any cluster loads.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::engine::{self, Kind};
use crate::error::{Error, Result};
use crate::node_image;
use crate::paths::{self, make_dir};
use crate::run::Run;
use crate::{builder, progress};

/// The image's name; its tag is the workspace's version.
pub fn tag() -> String {
    format!("berth:{}", env!("CARGO_PKG_VERSION"))
}

/// Builds both programs and the image, and writes the archive to `output`.
///
/// `base` replaces the Dockerfile's base image; the machine's engine pulls it. A
/// private engine cannot pull and uses a Debian root of the same packages.
pub fn build(output: &Path, base: Option<&str>) -> Result<()> {
    let programs = builder::scratch()?;
    self::programs(programs.path())?;
    archive(programs.path(), output, base)
}

/// Builds both programs and puts stripped copies into a directory.
pub fn programs(dir: &Path) -> Result<()> {
    let checkout = paths::checkout()?;
    // The agent also runs on the node itself, whatever C library that has.
    // `cargo rustc` wants its package named; `cargo build` without one resolves the
    // features of the whole workspace, as every other command does.
    let agent = [
        "-p",
        "berth-agent",
        "--",
        "-C",
        "target-feature=+crt-static",
    ];
    let built = [
        progress::step("building berth-controller", || {
            cargo(&checkout, "build", "berth-controller", &[])
        })?,
        progress::step("building berth-agent", || {
            cargo(&checkout, "rustc", "berth-agent", &agent)
        })?,
    ];
    make_dir(dir)?;
    for program in built {
        let name = program
            .file_name()
            .ok_or_else(|| Error::Unexpected(format!("{} has no name", program.display())))?;
        Run::new("strip")
            .arg("-o")
            .arg(dir.join(name))
            .arg(&program)
            .stdout()?;
    }
    Ok(())
}

/// Makes the image of programs that [`programs`] built and writes the archive.
pub fn archive(programs: &Path, output: &Path, base: Option<&str>) -> Result<()> {
    let checkout = paths::checkout()?;
    let deploy = checkout.join("deploy");
    let context = builder::scratch()?;
    for (from, name) in [
        (deploy.join("Dockerfile"), "Dockerfile"),
        (deploy.join("packages"), "packages"),
        (programs.join("berth-agent"), "berth-agent"),
        (programs.join("berth-controller"), "berth-controller"),
    ] {
        std::fs::copy(&from, context.path().join(name)).map_err(Error::io("cannot copy", &from))?;
    }
    let kind = engine::choose_here();
    if kind == Kind::Private && base.is_some() {
        return Err(Error::Unexpected(
            "another base needs the machine's own Docker engine; the private one cannot pull"
                .to_owned(),
        ));
    }
    if let Some(parent) = output.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_dir(parent)?;
    }
    progress::step("building the image", || {
        builder::with(kind, |engine| {
            let base = match (base, kind) {
                (Some(base), _) => Some(base.to_owned()),
                (None, Kind::Machine) => None,
                (None, Kind::Private) => {
                    Some(builder::import_root(engine, &node_image::userland())?)
                }
            };
            let args: Vec<_> = base.iter().map(|b| ("BASE", b.as_str())).collect();
            // Only a pulled base lacks packages, which a mirror then provides.
            let network = if kind == Kind::Machine {
                "default"
            } else {
                "none"
            };
            builder::build_on(engine, network, &args)
                .args(["-t", &tag()])
                .arg(context.path())
                .stdout()?;
            engine
                .docker(["save", "-o"])
                .arg(output)
                .arg(tag())
                .stdout()?;
            engine.docker(["image", "prune", "-f"]).stdout().map(drop)
        })
    })
}

/// Runs cargo for one package's program and returns the program's path.
pub(crate) fn cargo(
    checkout: &Path,
    command: &str,
    package: &str,
    rest: &[&str],
) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let messages = Run::new(cargo)
        .args([command, "-q", "--bin", package])
        .arg("--message-format=json-render-diagnostics")
        .args(rest)
        .dir(checkout)
        .stdout()?;
    executable(&messages, package)
        .ok_or_else(|| Error::Unexpected(format!("cargo does not say where it put {package}")))
}

/// The program named `name` in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|m| m["reason"] == "compiler-artifact" && m["target"]["name"] == name)
        .find_map(|m| m["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"dep"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"berth-agent"},"executable":"/t/debug/berth-agent"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages, "berth-agent"),
            Some("/t/debug/berth-agent".into())
        );
        assert_eq!(executable(messages, "berth-controller"), None);
    }

    #[test]
    fn the_tag_is_the_version() {
        assert!(tag().starts_with("berth:0."));
    }
}
