//! Where volumes are mounted: places below kubelet's directory, reached by
//! handle.

use std::path::{Path, PathBuf};

use crate::dir::Dir;
use crate::error::{Doing, Error};
use crate::provisioner::Inner;
use crate::types::Config;

/// Where a mount is to be, or is.
pub(crate) struct Place {
    pub(crate) parent: Dir,
    pub(crate) name: String,
    /// As the mount table shows it.
    pub(crate) real: PathBuf,
    /// As the caller says it.
    pub(crate) said: PathBuf,
}

impl Place {
    /// An error for something else that is there.
    pub(crate) fn conflict(&self, why: impl Into<String>) -> Error {
        Error::TargetConflict {
            target: self.said.clone(),
            why: why.into(),
        }
    }
}

impl Inner {
    /// A place that something is to be mounted at.
    pub(crate) fn place(&self, path: &Path) -> Result<Place, Error> {
        let (base, relative) = below_kubelet(&self.config, path)?;
        place_in(&base, &relative, path)?.ok_or_else(|| Error::TargetConflict {
            target: path.to_owned(),
            why: "the directory that it should be made in does not exist".into(),
        })
    }

    /// `None` when the directory that it would be in is gone.
    pub(crate) fn place_if_there(&self, path: &Path) -> Result<Option<Place>, Error> {
        let (base, relative) = below_kubelet(&self.config, path)?;
        place_in(&base, &relative, path)
    }
}

/// The directory of kubelet, opened, and what of `path` lies beneath it.
fn below_kubelet(config: &Config, path: &Path) -> Result<(Dir, PathBuf), Error> {
    let base = Dir::open_root(&config.kubelet_dir).doing("opening", &config.kubelet_dir)?;
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

fn place_in(base: &Dir, relative: &Path, said: &Path) -> Result<Option<Place>, Error> {
    let name = relative
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| {
            Error::invalid(
                "target",
                said.display().to_string(),
                "its last part must be valid text",
            )
        })?;
    let parent = relative.parent().filter(|p| !p.as_os_str().is_empty());
    let opened = base.open_place(parent.unwrap_or(Path::new(".")));
    let parent = match opened {
        Ok(parent) => parent,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).doing("opening the directory of", said),
    };
    Ok(Some(Place {
        parent,
        name: name.to_owned(),
        real: base.path().join(relative),
        said: said.to_owned(),
    }))
}
