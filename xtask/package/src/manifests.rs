//! The manifests of `deploy`, rendered: one file for each way to install.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::checkout;
use crate::run::stdout;

/// What renders kustomizations, when no kubectl is there.
const KUSTOMIZE: &str = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1";

/// The files and the kustomization of each.
const RENDERED: [(&str, &str); 4] = [
    ("crds.yaml", "deploy/crds"),
    ("install.yaml", "deploy"),
    ("quick-start.yaml", "deploy/quick-start"),
    ("native-statefulsets.yaml", "deploy/native-statefulsets"),
];

/// Writes them into a directory; returns their names.
pub(crate) fn render(dir: &Path) -> Result<Vec<&'static str>> {
    let kustomize = kustomize()?;
    for (name, of) in RENDERED {
        let text = stdout(
            Command::new(&kustomize)
                .arg("build")
                .arg(checkout().join(of)),
        )?;
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(RENDERED.map(|(name, _)| name).to_vec())
}

/// kustomize of one version, built by Go if need be, so that what it writes does not
/// depend on the machine.
fn kustomize() -> Result<PathBuf> {
    let version = KUSTOMIZE.rsplit('@').next().unwrap_or_default();
    let dir = xtask::cache()
        .join("tools")
        .join(format!("kustomize-{version}"));
    let program = dir.join("kustomize");
    if !program.is_file() {
        eprintln!("building kustomize {version}");
        let status = Command::new("go")
            .args(["install", KUSTOMIZE])
            .env("GOBIN", &dir)
            .env("CGO_ENABLED", "0")
            .stdin(Stdio::null())
            .status()
            .context("cannot start go, which builds kustomize")?;
        ensure!(status.success(), "kustomize does not build");
    }
    Ok(program)
}
