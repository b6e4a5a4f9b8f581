//! Berth's image: which files it has.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use crate::archive::Image;
use crate::files::{Content, Files};
use crate::programs::{self, Programs};
use crate::userland::{self, Package};
use crate::{Arch, VERSION, checkout};

/// Where programs of the image look for others.
const ENV: [&str; 1] = ["PATH=/usr/local/bin:/usr/sbin:/usr/bin"];

/// The image's name; its tag is the workspace's version.
pub fn tag() -> String {
    format!("berth:{VERSION}")
}

/// The files of an image, and the Debian packages that some of them come from.
#[derive(Debug)]
pub struct Contents {
    /// What Debian brings, then what is Berth's.
    pub layers: [Files; 2],
    /// Where the first layer comes from.
    pub packages: BTreeSet<Package>,
}

/// What the image of an architecture holds.
///
/// # Errors
/// Packages that cannot be fetched, or that lack what is needed.
pub fn contents(arch: Arch, programs: &Programs) -> Result<Contents> {
    let userland = userland::get(arch)?;
    let copy = |path: &Path| Content::Copy(path.to_owned(), false);
    let mut own = Files::from([
        (
            "usr/share/doc/berth/LICENSE".to_owned(),
            copy(&checkout().join("LICENSE")),
        ),
        (
            "usr/share/doc/berth/NOTICE".to_owned(),
            copy(&checkout().join("NOTICE")),
        ),
    ]);
    for (name, program) in ["berth-agent", "berth-controller"]
        .into_iter()
        .zip(programs.all())
    {
        let path = format!("usr/local/bin/{name}");
        own.insert(path, Content::Copy(program.to_owned(), true));
    }
    own.insert(
        "usr/local/bin/ls".to_owned(),
        Content::Link("berth-agent".to_owned()),
    );
    Ok(Contents {
        layers: [userland.files, own],
        packages: userland.packages,
    })
}

/// Builds the programs and writes the image of this machine's architecture; cargo shows
/// its progress unless it is to be `quiet`.
///
/// # Errors
/// Programs that do not build, packages that cannot be fetched.
pub fn build(output: &Path, quiet: bool) -> Result<Contents> {
    let arch = Arch::here()?;
    let programs = programs::build(arch, quiet)?;
    write(arch, &programs, output)
}

/// Writes the image of programs that are built.
///
/// # Errors
/// Packages that cannot be fetched, an archive that cannot be written.
pub fn write(arch: Arch, programs: &Programs, output: &Path) -> Result<Contents> {
    let contents = contents(arch, programs)?;
    if let Some(parent) = output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    Image {
        tag: &tag(),
        arch,
        env: &ENV,
        layers: &contents.layers,
    }
    .write(output)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_the_version() {
        assert!(tag().starts_with("berth:0."));
    }
}
