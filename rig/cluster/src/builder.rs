//! An engine for building images: the machine's own, or a private one whose
//! data root lies in the cache, so that bases and layers are there the next time.

use std::path::Path;

use tempfile::TempDir;

use crate::cache;
use crate::debian::Root;
use crate::engine::{self, Engine};
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::paths::{Layout, cache as cache_dir, make_dir, state_root};
use crate::progress;
use crate::run::Run;
use crate::teardown;

/// The state directory of the engine that builds; no instance can have such a name.
const BUILDER: &str = "+builder";

/// The state directory of the engine that holds just the finished node image.
pub(crate) const PREPARE: &str = "+prepare";

/// Runs `work` with a building engine; a private one is stopped afterwards.
pub(crate) fn with<T>(kind: engine::Kind, work: impl FnOnce(&Engine) -> Result<T>) -> Result<T> {
    match kind {
        engine::Kind::Machine => work(&Engine::machine()),
        engine::Kind::Private => {
            let layout = Layout::at(state_root().join(BUILDER));
            with_private(&layout, &cache_dir().join("builder/docker"), work)
        }
    }
}

/// Runs `work` with a private engine on a data root; it is stopped afterwards.
pub(crate) fn with_private<T>(
    layout: &Layout,
    data_root: &Path,
    work: impl FnOnce(&Engine) -> Result<T>,
) -> Result<T> {
    let _lock = Lock::take(&layout.lock(), |holder| {
        progress::say(format!("waiting for {holder}, which builds images"));
    })?;
    // What a killed run may have left; the lock says that nobody uses it.
    remove(layout)?;
    let result = engine::start_private(layout, data_root, &cgroup(layout), Vec::new(), None)
        .and_then(|engine| work(&engine));
    let removed = remove(layout);
    let value = result?;
    removed?;
    Ok(value)
}

/// Removes the builders that killed runs left, but none that somebody uses.
pub(crate) fn clean_up() -> Result<()> {
    for name in [BUILDER, PREPARE] {
        let layout = Layout::at(state_root().join(name));
        if layout.root().exists()
            && let Ok(_lock) = Lock::try_take(&layout.lock())?
        {
            remove(&layout)?;
        }
    }
    Ok(())
}

fn remove(layout: &Layout) -> Result<()> {
    teardown::private_engine(layout)?;
    teardown::cgroups(&cgroup(layout))?;
    cache::remove(layout.root())
}

/// The cgroup of a builder's containers.
fn cgroup(layout: &Layout) -> String {
    let name = layout.root().file_name().unwrap_or_default();
    format!("berth{}", name.to_string_lossy().replace('+', "-"))
}

/// A `docker build` command without a network; the caller adds tags and the context.
pub(crate) fn build(engine: &Engine, args: &[(&str, &str)]) -> Run {
    let mut run = engine.docker(["build", "-q", "--force-rm", "--network", "none"]);
    for (name, value) in args {
        run = run.arg("--build-arg").arg(format!("{name}={value}"));
    }
    run
}

/// The name of the image that is a Debian root, imported if need be.
pub(crate) fn import_root(engine: &Engine, root: &Root) -> Result<String> {
    let tag = format!("berth-{}:{}", root.name, root.key());
    if !engine.has_image(&tag) {
        let tar = root.get()?;
        progress::step(&format!("importing {}", root.name), || {
            engine.docker(["import"]).arg(&tar).arg(&tag).stdout()
        })?;
    }
    Ok(tag)
}

/// A scratch directory in the cache, on the filesystem where built programs lie.
///
/// Those of killed runs are removed: a directory's name tells its process.
pub(crate) fn scratch() -> Result<TempDir> {
    let dir = cache_dir();
    make_dir(&dir)?;
    for entry in std::fs::read_dir(&dir)
        .map_err(Error::io("cannot list", &dir))?
        .flatten()
    {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|n| n.strip_prefix("scratch-")?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            cache::remove(&entry.path())?;
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("scratch-{}-", std::process::id()))
        .tempdir_in(&dir)
        .map_err(Error::io("cannot make a directory in", dir))
}
