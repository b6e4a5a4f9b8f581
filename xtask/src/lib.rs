//! What the repository's commands share with the packages that they run: where built
//! things are kept, and which Debian packages are needed. No dependencies.

pub mod packages;

use std::env;
use std::path::PathBuf;

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
