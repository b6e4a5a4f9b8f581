//! What the repository's commands share with the packages that they run: where built
//! things are kept, and which Debian packages are needed. No dependencies.

pub mod packages;

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The directory for everything that was built and can be built again.
///
/// `$BERTH_CACHE`, else `$XDG_CACHE_HOME/berth`, else `~/.cache/berth`.
pub fn cache() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    set("BERTH_CACHE")
        .map(PathBuf::from)
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("berth")))
        .or_else(|| set("HOME").map(|dir| PathBuf::from(dir).join(".cache/berth")))
        .unwrap_or_else(|| PathBuf::from("/var/cache/berth"))
}

/// What a check says of a program that is not there.
pub fn missing(program: &str) -> String {
    match packages::of(program) {
        Some(package) => {
            format!("{program} is missing (Debian package {package}): run `cargo xtask setup`")
        }
        None => format!("{program} is missing"),
    }
}

/// Keeps what cargo says of this program's own package from a cargo that it starts. Build
/// scripts that ask for those variables, as ring's does, would run again for each program
/// that has a build started, and everything above them be compiled anew.
pub fn forget_package(cargo: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
}
