//! The image of a kind node, made without a registry from Go modules and Debian
//! packages, with every container image that the cluster needs inside.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::builder;
use crate::cache::{self, Key};
use crate::components::{self, Go, KUBERNETES, KUBERNETES_PROGRAMS};
use crate::debian::{self, Root};
use crate::engine::{self, Engine};
use crate::error::{Error, Result};
use crate::paths::{Layout, cache as cache_dir, make_dir, make_executable, state_root, write};
use crate::progress;
use crate::run::Run;
use crate::wait::wait_for;

const NODE_DOCKERFILE: &str = include_str!("../node-image/node.Dockerfile");
const NODE_PACKAGES: &str = include_str!("../node-image/node-packages");
const USERLAND_PACKAGES: &str = include_str!("../node-image/userland-packages");
const BERTH_PACKAGES: &str = include_str!("../../../deploy/packages");

/// Images of upstream's tests (test/utils/image/manifest.go of the same version);
/// both agnhost versions are the same program here.
const TEST_IMAGES: [&str; 3] = [
    "registry.k8s.io/e2e-test-images/agnhost:2.55",
    "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
    "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
];

/// What kind's node images are configured with, but for the stop signal, which
/// `docker import` cannot set; nodes of the rig are killed, never stopped.
const CONFIG: [&str; 2] = [
    "ENTRYPOINT [\"/usr/local/bin/entrypoint\", \"/sbin/init\"]",
    "ENV container=docker",
];

/// The images built here: (Dockerfile, its text).
const DOCKERFILES: [(&str, &str); 6] = [
    (
        "kubernetes",
        include_str!("../node-image/kubernetes.Dockerfile"),
    ),
    ("etcd", include_str!("../node-image/etcd.Dockerfile")),
    ("coredns", include_str!("../node-image/coredns.Dockerfile")),
    ("pause", include_str!("../node-image/pause.Dockerfile")),
    ("agnhost", include_str!("../node-image/agnhost.Dockerfile")),
    ("busybox", include_str!("../node-image/busybox.Dockerfile")),
];

/// The root of the node image.
pub(crate) fn node_root() -> Root {
    Root {
        name: "node-root",
        suite: debian::suite_here(),
        variant: "apt",
        packages: names(&[NODE_PACKAGES]),
    }
}

/// The root of all other images built here, Berth's own too.
pub(crate) fn userland() -> Root {
    Root {
        name: "userland-root",
        suite: debian::suite_here(),
        variant: "essential",
        packages: names(&[BERTH_PACKAGES, USERLAND_PACKAGES]),
    }
}

fn names(lists: &[&str]) -> Vec<String> {
    let all = lists.iter().flat_map(|l| debian::packages(l));
    all.map(str::to_owned).collect()
}

/// The key of everything that goes into the node image.
pub(crate) fn key(go_version: &str) -> String {
    let mut key = Key::new("node-image")
        .with(NODE_DOCKERFILE)
        .with(node_root().key())
        .with(userland().key())
        .with(TEST_IMAGES.join(" "))
        .with(CONFIG.join(" "))
        .with(components::KIND.key(go_version));
    for (name, text) in DOCKERFILES {
        key = key.with(name).with(text);
    }
    for component in components::NODE {
        key = key.with(component.key(go_version));
    }
    key.text()
}

/// The image's name.
pub(crate) fn tag(go: &Go) -> String {
    format!("berth-node:{}", key(&go.version))
}

/// Where the data root of a private engine that holds just the image is kept.
pub(crate) fn prepared(go: &Go) -> PathBuf {
    cache::entry(&cache_dir(), "node-image", &key(&go.version))
}

/// The image to make nodes of, there once this returns.
///
/// `$BERTH_NODE_IMAGE` if it is set; with the machine's engine, kind's own image of
/// this version if it can be pulled; else the one built here.
pub(crate) fn choose(kind: engine::Kind, go: &Go) -> Result<String> {
    let wanted = std::env::var("BERTH_NODE_IMAGE")
        .ok()
        .filter(|i| !i.is_empty());
    match (kind, wanted) {
        (engine::Kind::Machine, Some(image)) => return Ok(image),
        (engine::Kind::Private, Some(_)) => {
            return Err(Error::Unexpected(
                "BERTH_NODE_IMAGE needs the machine's own Docker engine; the private one cannot pull"
                    .to_owned(),
            ));
        }
        (engine::Kind::Machine, None) => {
            let engine = Engine::machine();
            let image = format!("kindest/node:{KUBERNETES}");
            let there = engine.has_image(&tag(go));
            if !there && (engine.has_image(&image) || pull(&engine, &image)?) {
                return Ok(image);
            }
        }
        (engine::Kind::Private, None) => {}
    }
    ensure(kind, go)?;
    Ok(tag(go))
}

/// Whether the image could be pulled; no registry at hand is an answer.
fn pull(engine: &Engine, image: &str) -> Result<bool> {
    progress::step(&format!("pulling {image}"), || {
        let pulled = engine.docker(["pull", "-q", image]).output()?;
        if !pulled.status.success() {
            let why = String::from_utf8_lossy(&pulled.stderr);
            progress::say(format!("{}; building the node image instead", why.trim()));
        }
        Ok(pulled.status.success())
    })
}

/// Makes sure that the image exists: in the machine's engine, or as a prepared
/// data root from which private engines start.
fn ensure(kind: engine::Kind, go: &Go) -> Result<()> {
    let tag = tag(go);
    match kind {
        engine::Kind::Machine => {
            let engine = Engine::machine();
            if engine.has_image(&tag) {
                return Ok(());
            }
            make(&engine, &engine, go, &tag)
        }
        engine::Kind::Private => cache::get(&cache_dir(), "node-image", &key(&go.version), |dir| {
            builder::with(kind, |builder| {
                let layout = Layout::at(state_root().join(builder::PREPARE));
                builder::with_private(&layout, &dir.join("docker"), |target| {
                    make(builder, target, go, &tag)
                })
            })
        })
        .map(drop),
    }
}

/// Builds with `builder` and leaves the image in `target`.
fn make(builder: &Engine, target: &Engine, go: &Go, tag: &str) -> Result<()> {
    let scratch = builder::scratch()?;
    let base = builder::import_root(builder, &userland())?;
    let root = builder::import_root(builder, &node_root())?;
    let names = images_of_kubeadm(go)?;
    let archive = progress::step("building the cluster's images", || {
        let context = Context {
            go,
            scratch: scratch.path(),
            base: &base,
        };
        context.archive(builder, &names)
    })?;
    let staged = progress::step("building the node image", || {
        stage_node(builder, go, scratch.path(), &root, &names)
    })?;
    let container = format!("berth-bake-{}", std::process::id());
    let baked = progress::step("baking the images into the node image", || {
        bake(builder, &staged, &container, &archive)?;
        squash(builder, &container, target, tag)
    });
    // The container is of no use any more, whatever became of it.
    let _ = builder.docker(["rm", "-f", "-v", &container]).output();
    baked?;
    builder.docker(["image", "rm", &staged, &root]).stdout()?;
    builder.docker(["image", "prune", "-f"]).stdout().map(drop)
}

/// The names of the images that kubeadm expects on the nodes.
fn images_of_kubeadm(go: &Go) -> Result<Vec<String>> {
    let scratch = builder::scratch()?;
    let kubeadm = scratch.path().join("kubeadm");
    link(&KUBERNETES_PROGRAMS.get(go)?.join("kubernetes"), &kubeadm)?;
    let list = Run::new(kubeadm)
        .args([
            "config",
            "images",
            "list",
            "--kubernetes-version",
            KUBERNETES,
        ])
        .stdout()?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// Which Dockerfile makes the image of this name.
fn dockerfile_for(image: &str) -> Option<&'static str> {
    let name = image.rsplit('/').next()?.split(':').next()?;
    match name {
        "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "kube-proxy" => {
            Some("kubernetes")
        }
        other => DOCKERFILES
            .iter()
            .map(|(name, _)| *name)
            .find(|n| *n == other),
    }
}

struct Context<'a> {
    go: &'a Go,
    scratch: &'a Path,
    base: &'a str,
}

impl Context<'_> {
    /// Builds every image and saves them all into one archive.
    fn archive(&self, engine: &Engine, names: &[String]) -> Result<PathBuf> {
        let wanted: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .chain(TEST_IMAGES)
            .collect();
        for (dockerfile, text) in DOCKERFILES {
            let tags: Vec<&&str> = wanted
                .iter()
                .filter(|image| dockerfile_for(image) == Some(dockerfile))
                .collect();
            let dir = self.scratch.join(dockerfile);
            write(&dir.join("Dockerfile"), text)?;
            self.add_files(dockerfile, &dir)?;
            let mut build = builder::build(engine, &[("BASE", self.base)]);
            for tag in tags {
                build = build.args(["-t", tag]);
            }
            build.arg(&dir).stdout()?;
        }
        if let Some(unknown) = wanted.iter().find(|i| dockerfile_for(i).is_none()) {
            return Err(Error::Unexpected(format!(
                "nothing here makes the image {unknown}"
            )));
        }
        let archive = self.scratch.join("images.tar");
        engine
            .docker(["save", "-o"])
            .arg(&archive)
            .args(&wanted)
            .stdout()?;
        let mut remove = vec!["image", "rm"];
        remove.extend(&wanted);
        engine.docker(remove).stdout()?;
        Ok(archive)
    }

    fn add_files(&self, dockerfile: &str, dir: &Path) -> Result<()> {
        let program = |component: components::Component, name: &str| {
            link(&component.get(self.go)?.join(name), &dir.join(name))
        };
        match dockerfile {
            "kubernetes" => program(KUBERNETES_PROGRAMS, "kubernetes"),
            "etcd" => program(components::ETCD, "etcd"),
            "coredns" => program(components::COREDNS, "coredns"),
            "agnhost" => {
                program(KUBERNETES_PROGRAMS, "agnhost")?;
                let module = KUBERNETES_PROGRAMS.module_dir("k8s.io/kubernetes")?;
                for name in ["localhost.crt", "localhost.key"] {
                    let from = module.join("test/images/agnhost/porter").join(name);
                    copy(&from, &dir.join(name))?;
                }
                Ok(())
            }
            "pause" => {
                let module = KUBERNETES_PROGRAMS.module_dir("k8s.io/kubernetes")?;
                Run::new("cc")
                    .args(["-Os", "-static", "-DVERSION=rig", "-o"])
                    .arg(dir.join("pause"))
                    .arg(module.join("build/pause/linux/pause.c"))
                    .stdout()
                    .map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// Builds the node image without the container images.
fn stage_node(
    engine: &Engine,
    go: &Go,
    scratch: &Path,
    root: &str,
    names: &[String],
) -> Result<String> {
    let dir = scratch.join("node");
    let (bin, cni) = (dir.join("bin"), dir.join("cni"));
    make_dir(&bin)?;
    make_dir(&cni)?;
    let kind = components::KIND.module_dir("sigs.k8s.io/kind")?;
    // The module cache is read-only; the copy is not.
    Run::new("cp")
        .args(["-r", "--no-preserve=mode"])
        .arg(kind.join("images/base/files"))
        .arg(dir.join("files"))
        .stdout()?;
    for (component, programs) in [
        (KUBERNETES_PROGRAMS, &["kubernetes"][..]),
        (
            components::CONTAINERD,
            &["containerd", "containerd-shim-runc-v2", "ctr"],
        ),
        (components::CRICTL, &["crictl"]),
    ] {
        let from = component.get(go)?;
        for program in programs {
            link(&from.join(program), &bin.join(program))?;
        }
    }
    let from = components::CNI.get(go)?;
    for program in ["host-local", "loopback", "ptp", "portmap"] {
        link(&from.join(program), &cni.join(program))?;
    }
    write(&dir.join("Dockerfile"), NODE_DOCKERFILE)?;
    let pause = names
        .iter()
        .find(|n| dockerfile_for(n) == Some("pause"))
        .ok_or_else(|| Error::Unexpected("kubeadm names no pause image".to_owned()))?;
    let staged = "berth-node-staged:latest";
    builder::build(
        engine,
        &[("BASE", root), ("KUBERNETES", KUBERNETES), ("PAUSE", pause)],
    )
    .args(["-t", staged])
    .arg(&dir)
    .stdout()?;
    Ok(staged.to_owned())
}

/// Imports the archive into the containerd of a container of the staged image.
fn bake(engine: &Engine, staged: &str, container: &str, archive: &Path) -> Result<()> {
    engine
        .docker([
            "run",
            "-d",
            "--privileged",
            "--network=none",
            "--name",
            container,
        ])
        .args(["--entrypoint", "sleep", staged, "infinity"])
        .stdout()?;
    engine
        .docker(["exec", "-d", container, "containerd", "--log-level=warn"])
        .stdout()?;
    wait_for(
        "containerd in the node image",
        Duration::from_secs(60),
        || {
            let answer = engine
                .docker(["exec", container, "ctr", "version"])
                .output()?;
            Ok(if answer.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&answer.stderr).trim().to_owned())
            })
        },
    )?;
    // Unpacking is left to the nodes: here an overlay would lie on an overlay.
    engine
        .docker([
            "exec", "-i", container, "ctr", "-n", "k8s.io", "images", "import",
        ])
        .args(["--no-unpack", "-"])
        .stdin_file(archive)?
        .stdout()?;
    engine
        .docker(["exec", container, "pkill", "-x", "containerd"])
        .stdout()?;
    engine
        .docker([
            "exec",
            container,
            "sh",
            "-c",
            "while pgrep -x containerd; do sleep 0.1; done",
        ])
        .stdout()?;
    engine
        .docker(["exec", container, "rm", "-rf", "/run/containerd"])
        .stdout()?;
    engine.docker(["kill", container]).stdout().map(drop)
}

/// Moves a container's files into one layer of an image in another engine.
fn squash(from: &Engine, container: &str, to: &Engine, tag: &str) -> Result<()> {
    let mut export = from
        .docker(["export", container])
        .into_command()
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Error::sys("cannot start docker export")(e))?;
    let mut import = to.docker(["import"]);
    for change in CONFIG {
        import = import.args(["-c", change]);
    }
    let mut import = import.args(["-", tag]).into_command();
    if let Some(pipe) = export.stdout.take() {
        import.stdin(pipe);
    }
    let imported = import
        .output()
        .map_err(|e| Error::sys("cannot start docker import")(e))?;
    // The reader is gone now; without this the writer would wait for it.
    drop(import);
    let exported = export
        .wait()
        .map_err(|e| Error::sys("cannot wait for docker export")(e))?;
    if imported.status.success() && exported.success() {
        return Ok(());
    }
    Err(Error::Unexpected(format!(
        "docker export ended with {exported}, docker import with {}: {}",
        imported.status,
        String::from_utf8_lossy(&imported.stderr).trim()
    )))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .map(drop)
        .map_err(Error::io("cannot copy", from))
}

/// A second name for a built program, or a copy where the filesystem differs.
fn link(from: &Path, to: &Path) -> Result<()> {
    if std::fs::hard_link(from, to).is_err() {
        copy(from, to)?;
        make_executable(to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_its_dockerfile() {
        for image in TEST_IMAGES {
            assert!(dockerfile_for(image).is_some(), "{image}");
        }
        assert_eq!(
            dockerfile_for("registry.k8s.io/kube-proxy:v1"),
            Some("kubernetes")
        );
        assert_eq!(
            dockerfile_for("registry.k8s.io/coredns/coredns:v1"),
            Some("coredns")
        );
        assert_eq!(dockerfile_for("registry.k8s.io/unknown:v1"), None);
    }

    #[test]
    fn berths_packages_are_in_the_userland() {
        let all = userland().packages;
        assert!(all.contains(&"btrfs-progs".to_owned()) && all.contains(&"busybox".to_owned()));
    }
}
