//! Finds the commit that is being built, for [`version`](src/lib.rs).
//!
//! `BERTH_COMMIT` wins, for builds without a repository (an image build, a
//! source archive). Otherwise git is asked, but only where this workspace is
//! the repository: inside somebody else's checkout its commit would be a lie.

use std::{path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BERTH_COMMIT");
    // Set by .cargo/config.toml: another checkout has another HEAD, also where
    // both share a target directory.
    println!("cargo::rerun-if-env-changed=BERTH_CHECKOUT");
    let commit = std::env::var("BERTH_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(from_git)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=BERTH_COMMIT={commit}");
}

fn from_git() -> Option<String> {
    let workspace = here()?.join("../..").canonicalize().ok()?;
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != workspace {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    watch("HEAD");
    watch("packed-refs");
    if let Some(branch) = git(&["symbolic-ref", "-q", "HEAD"]) {
        watch(&branch);
    }
    Some(commit)
}

/// Runs this script again when the file changes, and not otherwise: cargo takes
/// a file that is missing as changed each time, so a branch that is packed is
/// watched by the nearest directory where its file would appear.
fn watch(name: &str) {
    let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", name]) else {
        return;
    };
    let path = PathBuf::from(path);
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    } else if name.starts_with("refs/")
        && let Some(directory) = path.ancestors().skip(1).find(|parent| parent.exists())
    {
        println!("cargo::rerun-if-changed={}", directory.display());
    }
}

/// The package that is built now; this program may have been compiled for the
/// same package of another checkout.
fn here() -> Option<PathBuf> {
    std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(here()?)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
