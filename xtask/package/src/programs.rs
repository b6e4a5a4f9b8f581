//! The two programs, built for release, and the agent as tests build it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Arch;
use crate::run::stdout;

/// Where both programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The agent.
    pub agent: PathBuf,
    /// The controller.
    pub controller: PathBuf,
}

impl Programs {
    /// Both, the agent first.
    pub fn all(&self) -> [&Path; 2] {
        [&self.agent, &self.controller]
    }
}

/// Builds both programs; cargo shows its progress unless it is to be `quiet`.
///
/// They are linked statically, also against the C library: the agent runs on nodes
/// themselves too, whatever those have, and the image needs not be as new as the machine
/// that it was made on. Names are looked up without plugins, in /etc/hosts and by DNS.
///
/// # Errors
/// When they do not build, or not for `arch` on this machine.
pub fn build(arch: Arch, quiet: bool) -> Result<Programs> {
    let mut cargo = cargo_build(&["berth-agent", "berth-controller"]);
    cargo.arg("--release");
    if quiet {
        cargo.arg("--quiet");
    }
    let target = arch.target();
    ensure!(
        has_target(&target)?,
        "this Rust cannot build for {arch}: run `rustup target add {target}`"
    );
    // With a target named, build scripts are not linked like that.
    let name = target.replace('-', "_");
    let upper = name.to_uppercase();
    cargo.args(["--target", &target]).env(
        format!("CARGO_TARGET_{upper}_RUSTFLAGS"),
        "-Ctarget-feature=+crt-static",
    );
    if Arch::here()? != arch {
        let compiler = format!("{}-linux-gnu-gcc", arch.rust());
        cargo
            .env(format!("CC_{name}"), &compiler)
            .env(format!("CARGO_TARGET_{upper}_LINKER"), &compiler);
    }
    let messages = run(&mut cargo).with_context(|| format!("cannot build for {arch}"))?;
    Ok(Programs {
        agent: executable(&messages, "berth-agent")?,
        controller: executable(&messages, "berth-controller")?,
    })
}

/// Builds the agent as tests are built, quietly: what they compiled serves here too.
///
/// # Errors
/// When it does not build.
pub fn debug_agent() -> Result<PathBuf> {
    let messages = run(cargo_build(&["berth-agent"]).arg("--quiet"))?;
    executable(&messages, "berth-agent")
}

/// `cargo build` of these programs, which says where it puts them.
fn cargo_build(programs: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    xtask::forget_package(&mut cargo);
    cargo.arg("build");
    for program in programs {
        cargo.args(["--bin", program]);
    }
    cargo
        .arg("--message-format=json-render-diagnostics")
        .current_dir(crate::checkout())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    cargo
}

/// Runs cargo; returns its messages.
fn run(cargo: &mut Command) -> Result<String> {
    let output = cargo.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo failed");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether programs can be built for a target.
fn has_target(target: &str) -> Result<bool> {
    let sysroot = stdout(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(target)
        .join("lib")
        .is_dir())
}

/// The program named `name` in cargo's messages.
fn executable(messages: &str, name: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|m| m["reason"] == "compiler-artifact" && m["target"]["name"] == name)
        .find_map(|m| m["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo does not say where it put {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"dep"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"berth-agent"},"executable":"/t/debug/berth-agent"}
{"reason":"build-finished","success":true}"#;
        let agent = executable(messages, "berth-agent").expect("it is there");
        assert_eq!(agent, Path::new("/t/debug/berth-agent"));
        assert!(executable(messages, "berth-controller").is_err());
    }
}
