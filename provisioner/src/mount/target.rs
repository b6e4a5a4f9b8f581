//! Mount targets: paths below kubelet's directory, reached by handle.

use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext};
use crate::fs::dir::Dir;
use crate::types::Config;

/// The path of a mount that exists or is to be made.
pub(crate) struct MountTarget {
    pub(crate) parent: Dir,
    pub(crate) name: String,
    /// The path as the mount table shows it.
    pub(crate) real: PathBuf,
    /// The path as the caller gave it.
    pub(crate) requested: PathBuf,
}

impl MountTarget {
    /// The error for something else at the target.
    pub(crate) fn conflict(&self, why: impl Into<String>) -> Error {
        Error::TargetConflict {
            target: self.requested.clone(),
            why: why.into(),
        }
    }
}

/// The target for a new mount.
pub(crate) fn resolve(config: &Config, path: &Path) -> Result<MountTarget, Error> {
    let (base, relative) = below_kubelet(config, path)?;
    target_in(&base, &relative, path)?.ok_or_else(|| Error::TargetConflict {
        target: path.to_owned(),
        why: "the directory that it should be made in does not exist".into(),
    })
}

/// The target of an earlier mount; `None` when its parent directory is gone.
pub(crate) fn find(config: &Config, path: &Path) -> Result<Option<MountTarget>, Error> {
    let (base, relative) = below_kubelet(config, path)?;
    target_in(&base, &relative, path)
}

/// The directory of kubelet, opened, and what of `path` lies beneath it.
fn below_kubelet(config: &Config, path: &Path) -> Result<(Dir, PathBuf), Error> {
    let base = Dir::open_root(&config.kubelet_dir).context("opening", &config.kubelet_dir)?;
    let relative = path
        .strip_prefix(&config.kubelet_dir)
        .or_else(|_| path.strip_prefix(base.path()))
        .ok()
        .filter(|rest| {
            rest.components().count() > 0
                && rest
                    .components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)))
        })
        .map(Path::to_owned)
        .ok_or_else(|| {
            Error::invalid(
                "target",
                path.display().to_string(),
                format!("must lie below {}", config.kubelet_dir.display()),
            )
        })?;
    Ok((base, relative))
}

fn target_in(base: &Dir, relative: &Path, requested: &Path) -> Result<Option<MountTarget>, Error> {
    let name = relative
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| {
            Error::invalid(
                "target",
                requested.display().to_string(),
                "its last part must be valid text",
            )
        })?;
    let parent = relative.parent().filter(|p| !p.as_os_str().is_empty());
    let opened = base.open_place(parent.unwrap_or(Path::new(".")));
    let parent = match opened {
        Ok(parent) => parent,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context("opening the directory of", requested),
    };
    Ok(Some(MountTarget {
        parent,
        name: name.to_owned(),
        real: base.path().join(relative),
        requested: requested.to_owned(),
    }))
}
