//! The steps by which the node image is built: the cluster's images, the node's
//! root, and the former baked into the latter.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::builder;
use crate::components::{self, Go, KUBERNETES, KUBERNETES_PROGRAMS};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::node_recipe::{CONFIG, DOCKERFILES, NODE_DOCKERFILE, TEST_IMAGES, node_root, userland};
use crate::paths::{make_dir, make_executable, write};
use crate::progress;
use crate::run::Run;
use crate::wait::wait_for;

/// Builds with `builder` and leaves the image in `target`.
pub(crate) fn make(builder: &Engine, target: &Engine, go: &Go, tag: &str) -> Result<()> {
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
}
