//! The image of a kind node, made without a registry from Go modules and Debian
//! packages, with every container image that the cluster needs inside.

use std::path::PathBuf;

use crate::builder;
use crate::cache::{self, Key};
use crate::components::{self, Go, KUBERNETES};
use crate::engine::{self, Engine};
use crate::error::{Error, Result};
use crate::node_recipe::{CONFIG, DOCKERFILES, NODE_DOCKERFILE, TEST_IMAGES, node_root, userland};
use crate::paths::{Layout, cache as cache_dir, state_root};
use crate::progress;

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
