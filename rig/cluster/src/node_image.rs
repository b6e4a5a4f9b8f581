//! The image of a kind node, made without a registry from Go modules and Debian
//! packages, with every container image that the cluster needs inside.

use std::path::PathBuf;

use crate::builder;
use crate::cache::{self, Key};
use crate::components::{self, Go, KUBERNETES};
use crate::debian::{self, Root};
use crate::engine::{self, Engine};
use crate::error::{Error, Result};
use crate::paths::{Layout, cache as cache_dir, state_root};
use crate::progress;

pub(crate) const NODE_DOCKERFILE: &str = include_str!("../node-image/node.Dockerfile");
const NODE_PACKAGES: &str = include_str!("../node-image/node-packages");
const USERLAND_PACKAGES: &str = include_str!("../node-image/userland-packages");

/// Images of upstream's tests (test/utils/image/manifest.go of the same version);
/// both agnhost versions are the same program here.
pub(crate) const TEST_IMAGES: [&str; 3] = [
    "registry.k8s.io/e2e-test-images/agnhost:2.55",
    "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
    "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
];

/// What kind's node images are configured with, but for the stop signal, which
/// `docker import` cannot set; nodes of the rig are killed, never stopped.
pub(crate) const CONFIG: [&str; 2] = [
    "ENTRYPOINT [\"/usr/local/bin/entrypoint\", \"/sbin/init\"]",
    "ENV container=docker",
];

/// The images built here: (Dockerfile, its text).
pub(crate) const DOCKERFILES: [(&str, &str); 6] = [
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
        packages: names(NODE_PACKAGES),
    }
}

/// The root of all other images built here.
pub(crate) fn userland() -> Root {
    Root {
        name: "userland-root",
        suite: debian::suite_here(),
        variant: "essential",
        packages: names(USERLAND_PACKAGES),
    }
}

fn names(list: &str) -> Vec<String> {
    let all = debian::packages(list).into_iter();
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
            crate::node_build::make(&engine, &engine, go, &tag)
        }
        engine::Kind::Private => cache::get(&cache_dir(), "node-image", &key(&go.version), |dir| {
            builder::with(kind, |builder| {
                let layout = Layout::at(state_root().join(builder::PREPARE));
                builder::with_private(&layout, &dir.join("docker"), |target| {
                    crate::node_build::make(builder, target, go, &tag)
                })
            })
        })
        .map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_for_filesystems_and_a_shell_are_in_the_userland() {
        let all = userland().packages;
        assert!(all.contains(&"btrfs-progs".to_owned()) && all.contains(&"busybox".to_owned()));
    }
}
