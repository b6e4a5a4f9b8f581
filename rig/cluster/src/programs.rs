//! Programs for tests that are no part of a cluster, built and kept as the cluster's
//! are.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::components::{CSI_SANITY, Go, SNAPSHOT_CONTROLLER};
use crate::error::{Error, Result};
use crate::paths;
use crate::progress;
use crate::run::Run;

/// The agent of this checkout, as the tests are built.
///
/// # Errors
/// When it cannot be built.
pub fn agent() -> Result<PathBuf> {
    let checkout = paths::checkout()?;
    progress::step("building berth-agent", || cargo(&checkout, "berth-agent"))
}

/// Upstream's csi-sanity, at the version that is pinned.
///
/// # Errors
/// When it is not in the cache and cannot be built.
pub fn csi_sanity() -> Result<PathBuf> {
    Ok(CSI_SANITY.get(&Go::here()?)?.join("csi-sanity"))
}

/// Upstream's snapshot-controller, at the version that is pinned.
///
/// # Errors
/// When it is not in the cache and cannot be built.
pub fn snapshot_controller() -> Result<PathBuf> {
    let name = SNAPSHOT_CONTROLLER.name;
    Ok(SNAPSHOT_CONTROLLER.get(&Go::here()?)?.join(name))
}

/// The directory of the definitions that it works on, which a cluster's administrator
/// installs with it.
///
/// # Errors
/// When their module cannot be had.
pub fn snapshot_definitions() -> Result<PathBuf> {
    let module = "github.com/kubernetes-csi/external-snapshotter/client/v8";
    Ok(SNAPSHOT_CONTROLLER.module_dir(module)?.join("config/crd"))
}

/// Runs cargo for one package's program and returns the program's path.
fn cargo(checkout: &Path, package: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let messages = Run::new(cargo)
        .args(["build", "-q", "--bin", package])
        .arg("--message-format=json-render-diagnostics")
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
}
