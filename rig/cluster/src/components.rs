//! The Go programs that the cluster is made of. Each component is a small module
//! of its own, since they need different versions of the same dependencies.

use std::path::{Path, PathBuf};

use crate::cache::{self, Key};
use crate::error::{Error, Result};
use crate::paths;
use crate::run::Run;

/// The version of Kubernetes that the cluster runs: the `k8s.io/kubernetes`
/// requirement of the component's go.mod.
pub(crate) const KUBERNETES: &str = "v1.36.3";

/// A component: its module's files and what is built from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Component {
    /// Its name and cache entry.
    pub name: &'static str,
    files: &'static [(&'static str, &'static str)],
    builds: &'static [Build],
    /// A package whose tests are compiled into one program.
    test: Option<Build>,
    version_flags: bool,
}

/// One package and the program made of it.
#[derive(Debug, Clone, Copy)]
struct Build {
    package: &'static str,
    program: &'static str,
}

const fn build(package: &'static str, program: &'static str) -> Build {
    Build { package, program }
}

macro_rules! files {
    ($dir:literal, $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../components/", $dir, "/", $file)))),+]
    };
}

/// Every Kubernetes program in one binary, and the image of upstream's tests.
pub(crate) const KUBERNETES_PROGRAMS: Component = Component {
    name: "kubernetes",
    files: files!("kubernetes", "go.mod", "go.sum", "main.go", "tools.go"),
    builds: &[
        build(".", "kubernetes"),
        build("k8s.io/kubernetes/test/images/agnhost", "agnhost"),
    ],
    test: None,
    version_flags: true,
};

/// Upstream's end-to-end tests.
pub(crate) const E2E: Component = Component {
    name: "e2e",
    files: files!("kubernetes", "go.mod", "go.sum", "main.go", "tools.go"),
    builds: &[],
    test: Some(build("k8s.io/kubernetes/test/e2e", "e2e.test")),
    version_flags: false,
};

/// kind itself.
pub(crate) const KIND: Component = Component {
    name: "kind",
    files: files!("kind", "go.mod", "go.sum", "tools.go"),
    builds: &[build("sigs.k8s.io/kind", "kind")],
    test: None,
    version_flags: false,
};

/// The nodes' container runtime.
pub(crate) const CONTAINERD: Component = Component {
    name: "containerd",
    files: files!("containerd", "go.mod", "go.sum", "tools.go"),
    builds: &[
        build(
            "github.com/containerd/containerd/v2/cmd/containerd",
            "containerd",
        ),
        build(
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "containerd-shim-runc-v2",
        ),
        build("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
    ],
    test: None,
    version_flags: false,
};

/// The pods' network plugins.
pub(crate) const CNI: Component = Component {
    name: "cni",
    files: files!("cni", "go.mod", "go.sum", "tools.go"),
    builds: &[
        build(
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
            "host-local",
        ),
        build(
            "github.com/containernetworking/plugins/plugins/main/loopback",
            "loopback",
        ),
        build(
            "github.com/containernetworking/plugins/plugins/main/ptp",
            "ptp",
        ),
        build(
            "github.com/containernetworking/plugins/plugins/meta/portmap",
            "portmap",
        ),
    ],
    test: None,
    version_flags: false,
};

/// The runtime's client, which kubeadm wants.
pub(crate) const CRICTL: Component = Component {
    name: "crictl",
    files: files!("crictl", "go.mod", "go.sum", "tools.go"),
    builds: &[build("sigs.k8s.io/cri-tools/cmd/crictl", "crictl")],
    test: None,
    version_flags: false,
};

/// The cluster's store.
pub(crate) const ETCD: Component = Component {
    name: "etcd",
    files: files!("etcd", "go.mod", "go.sum", "tools.go"),
    builds: &[build("go.etcd.io/etcd/server/v3", "etcd")],
    test: None,
    version_flags: false,
};

/// The cluster's name service.
pub(crate) const COREDNS: Component = Component {
    name: "coredns",
    files: files!("coredns", "go.mod", "go.sum", "tools.go"),
    builds: &[build("github.com/coredns/coredns", "coredns")],
    test: None,
    version_flags: false,
};

/// Upstream's test of CSI drivers.
pub(crate) const CSI_SANITY: Component = Component {
    name: "csi-sanity",
    files: files!("csi-sanity", "go.mod", "go.sum", "tools.go"),
    builds: &[build(
        "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
        "csi-sanity",
    )],
    test: None,
    version_flags: false,
};

/// Nodes that exist in the API only, for measuring controllers at scale.
pub(crate) const KWOK: Component = Component {
    name: "kwok",
    files: files!("kwok", "go.mod", "go.sum", "tools.go"),
    builds: &[build("sigs.k8s.io/kwok/cmd/kwok", "kwok")],
    test: None,
    version_flags: false,
};

/// Upstream's half of snapshots, which all drivers share.
pub(crate) const SNAPSHOT_CONTROLLER: Component = Component {
    name: "snapshot-controller",
    files: files!("snapshot-controller", "go.mod", "go.sum", "tools.go"),
    builds: &[build(
        "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
        "snapshot-controller",
    )],
    test: None,
    version_flags: false,
};

/// The provisioner that Berth is measured beside.
pub(crate) const LOCAL_PATH: Component = Component {
    name: "local-path",
    files: files!("local-path", "go.mod", "go.sum", "tools.go"),
    builds: &[build(
        "github.com/rancher/local-path-provisioner",
        "local-path-provisioner",
    )],
    test: None,
    version_flags: false,
};

/// What the node image holds.
pub(crate) const NODE: [Component; 6] =
    [KUBERNETES_PROGRAMS, CONTAINERD, CNI, CRICTL, ETCD, COREDNS];

impl Component {
    /// The directory of its programs, built if need be.
    pub(crate) fn get(&self, go: &Go) -> Result<PathBuf> {
        cache::get(&go.cache, self.name, &self.key(&go.version), |dir| {
            self.fill(go, dir)
        })
    }

    /// Whether it is in the cache.
    pub(crate) fn is_cached(&self, go: &Go) -> bool {
        cache::entry(&go.cache, self.name, &self.key(&go.version)).is_dir()
    }

    /// The key of its cache entry for a Go version.
    pub(crate) fn key(&self, go_version: &str) -> String {
        let mut key = Key::new(self.name)
            .with(go_version)
            .with(self.linker_flags());
        for (name, text) in self.files {
            key = key.with(name).with(text);
        }
        for Build { package, program } in self.builds.iter().chain(&self.test) {
            key = key.with(package).with(program);
        }
        key.text()
    }

    /// The directory of a module in Go's module cache, as this component pins it.
    pub(crate) fn module_dir(&self, module: &str) -> Result<PathBuf> {
        let source = tempfile::tempdir().map_err(Error::io("cannot make", "a directory"))?;
        self.write_files(source.path())?;
        let go_list = Run::new("go")
            .args(["mod", "download", "-json", module])
            .dir(source.path());
        let answer: serde_json::Value = serde_json::from_str(&go_list.stdout()?)
            .map_err(|e| Error::Unexpected(format!("go mod download {module}: {e}")))?;
        answer["Dir"]
            .as_str()
            .map(PathBuf::from)
            .ok_or_else(|| Error::Unexpected(format!("go does not say where {module} lies")))
    }

    fn write_files(&self, dir: &Path) -> Result<()> {
        for (name, text) in self.files {
            paths::write(&dir.join(name), text)?;
        }
        Ok(())
    }

    fn linker_flags(&self) -> String {
        let mut flags = "-s -w".to_owned();
        if self.version_flags {
            let package = "k8s.io/component-base/version";
            let numbers = KUBERNETES.trim_start_matches('v');
            let mut numbers = numbers.split('.');
            let major = numbers.next().unwrap_or_default();
            let minor = numbers.next().unwrap_or_default();
            // A build of the module has no commit; the programs want forty digits.
            let commit = "0".repeat(40);
            flags += &format!(
                " -X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor={major} \
                 -X {package}.gitMinor={minor} -X {package}.gitCommit={commit} \
                 -X {package}.gitTreeState=clean"
            );
        }
        flags
    }

    fn fill(&self, go: &Go, dir: &Path) -> Result<()> {
        let source = go.cache.join(format!("{}.source", self.name));
        cache::remove(&source)?;
        self.write_files(&source)?;
        for Build { package, program } in self.builds {
            // The version belongs into Kubernetes' own programs, the module's main.
            let flags = if *package == "." {
                self.linker_flags()
            } else {
                "-s -w".to_owned()
            };
            let target = dir.join(program);
            go.command(&source)
                .args(["build", "-trimpath", "-ldflags", &flags, "-o"])
                .arg(&target)
                .arg(package)
                .stdout()?;
        }
        if let Some(Build { package, program }) = self.test {
            go.command(&source)
                .args(["test", "-c", "-trimpath", "-ldflags", "-s -w", "-o"])
                .arg(dir.join(program))
                .arg(package)
                .stdout()?;
        }
        cache::remove(&source)
    }
}

/// The Go toolchain and where its products go.
#[derive(Debug, Clone)]
pub(crate) struct Go {
    /// What `go env GOVERSION` says.
    pub version: String,
    /// The cache directory.
    pub cache: PathBuf,
}

impl Go {
    /// The toolchain on the path, with the cache of [`paths::cache`].
    pub(crate) fn here() -> Result<Self> {
        let version = Run::new("go").args(["env", "GOVERSION"]).stdout()?;
        Ok(Self {
            version: version.trim().to_owned(),
            cache: paths::cache(),
        })
    }

    fn command(&self, dir: &Path) -> Run {
        Run::new("go")
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-buildvcs=false")
            .dir(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_the_toolchain_and_the_files() {
        assert_ne!(KIND.key("go1.26.0"), KIND.key("go1.26.1"));
        assert_ne!(KUBERNETES_PROGRAMS.key("go1.26.0"), E2E.key("go1.26.0"));
        let other = Component {
            files: &[("go.mod", "module x")],
            ..KIND
        };
        assert_ne!(KIND.key("go1.26.0"), other.key("go1.26.0"));
    }

    #[test]
    fn the_version_is_the_modules() {
        let (_, go_mod) = KUBERNETES_PROGRAMS.files[0];
        assert!(go_mod.contains(&format!("k8s.io/kubernetes {KUBERNETES}")));
        let flags = KUBERNETES_PROGRAMS.linker_flags();
        assert!(
            flags.contains("gitMajor=1 ") && flags.contains("gitMinor=36 "),
            "{flags}"
        );
        assert_eq!(KIND.linker_flags(), "-s -w");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = NODE
            .iter()
            .chain([
                &KIND,
                &E2E,
                &CSI_SANITY,
                &SNAPSHOT_CONTROLLER,
                &LOCAL_PATH,
                &KWOK,
            ])
            .map(|c| c.name)
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NODE.len() + 6);
    }
}
