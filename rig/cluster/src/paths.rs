//! Where things lie: the cache of what was built, outside the checkout, and the
//! state of each instance.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::names::Instance;
pub use xtask::cache;

/// The name by which this program knows that it is called as the runtime.
pub(crate) const RUNTIME_SHIM: &str = "berth-runtime-shim";

/// The directory that holds one directory per instance.
///
/// `$BERTH_STATE`, else `/var/lib/berth-cluster`.
pub(crate) fn state_root() -> PathBuf {
    std::env::var_os("BERTH_STATE")
        .filter(|v| !v.is_empty())
        .map_or_else(|| PathBuf::from("/var/lib/berth-cluster"), PathBuf::from)
}

/// The files of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of an instance below [`state_root`].
    pub(crate) fn of(instance: &Instance) -> Self {
        Self::at(state_root().join(instance.id()))
    }

    /// A layout at a directory of its own.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The instance's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The lock that a process holds while it works on the instance. It lies
    /// beside the directory, which comes and goes.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.with_extension("lock")
    }

    /// What was decided when the instance was made.
    pub(crate) fn record(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// The orders for a private engine.
    pub(crate) fn engine_orders(&self) -> PathBuf {
        self.root.join("engine.json")
    }

    /// A private engine's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("docker.sock")
    }

    /// A private engine's images and containers.
    pub(crate) fn data_root(&self) -> PathBuf {
        self.root.join("docker")
    }

    /// The Docker client's configuration, so that a person's own is neither used nor changed.
    pub(crate) fn docker_config(&self) -> PathBuf {
        self.root.join("docker-config")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// A log by its name.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// The program that stands in for the container runtime.
    pub(crate) fn runtime_shim(&self) -> PathBuf {
        self.root.join("bin").join(RUNTIME_SHIM)
    }

    /// The backing file of a worker's disk.
    pub(crate) fn disk(&self, worker: &str, disk: &str) -> PathBuf {
        self.root
            .join("disks")
            .join(worker)
            .join(format!("{disk}.img"))
    }

    /// Where a worker's disk is mounted for its container to take.
    pub(crate) fn pool(&self, worker: &str, disk: &str) -> PathBuf {
        self.root.join("pools").join(worker).join(disk)
    }
}

/// Creates a directory and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io("cannot create the directory", path))
}

/// Reads a whole text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io("cannot read", path))
}

/// Writes a whole file, creating its directory.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    std::fs::write(path, content).map_err(Error::io("cannot write", path))
}

/// Makes a file executable.
pub(crate) fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(Error::io("cannot make executable", path))
}

/// The root of the checkout that this program is run in: the nearest directory
/// upwards whose Cargo.toml is a workspace, from cargo's hint or from here.
pub fn checkout() -> Result<PathBuf> {
    let hints = [
        std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from),
        std::env::current_dir().ok(),
    ];
    for hint in hints.into_iter().flatten() {
        for dir in hint.ancestors() {
            let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
            if manifest.lines().any(|l| l.trim() == "[workspace]") {
                return Ok(dir.to_owned());
            }
        }
    }
    Err(Error::Unexpected(
        "no Cargo workspace here or above; run this in a checkout of Berth".to_owned(),
    ))
}

/// The instance that commands without `--name` mean: `$BERTH_CLUSTER`, else the checkout's own.
pub(crate) fn default_instance() -> Result<Instance> {
    match std::env::var("BERTH_CLUSTER") {
        Ok(name) if !name.is_empty() => Instance::named(&name),
        _ => Ok(Instance::of_checkout(&checkout()?)),
    }
}
