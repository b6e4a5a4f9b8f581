//! What the programs run and need beside themselves: `mkfs.ext4` for image volumes,
//! with its libraries, as Debian builds it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::Arch;
use crate::elf;
use crate::files::{Content, Files};
use crate::run::stdout;

/// The Debian release, and the packages of its that the image takes files of.
pub(crate) const SUITE: &str = "bookworm";
const LIST: &str = include_str!("../../../deploy/packages");

/// Lists the files of each package that is unpacked, before the packages are removed.
const LISTS: &str = ".packages";
const UNPACK: &str = r#"mkdir "$1/.packages"
for deb in "$1"/var/cache/apt/archives/*.deb; do
    label="$(dpkg-deb --show --showformat='${Package}=${Version}' "$deb")"
    dpkg-deb --fsys-tarfile "$deb" | tar -t > "$1/.packages/$label"
done"#;

/// Programs that the agent runs, and the name by which each is also called.
const PROGRAMS: [(&str, &[&str]); 2] = [("mke2fs", &["mkfs.ext4"]), ("resize2fs", &[])];

/// A Debian package that files of the image come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The files and the packages that they come from.
#[derive(Debug)]
pub(crate) struct Userland {
    pub(crate) files: Files,
    pub(crate) packages: BTreeSet<Package>,
}

/// The userland of an architecture.
pub(crate) fn get(arch: Arch) -> Result<Userland> {
    let root = root(arch)?;
    let mut files = Files::new();
    let mut needed = Vec::new();
    for (program, also) in PROGRAMS {
        let at = find(&root, program, &["usr/sbin", "sbin"])?;
        needed.push(at.clone());
        files.insert(format!("usr/sbin/{program}"), Content::Copy(at, true));
        for name in also {
            files.insert(
                format!("usr/sbin/{name}"),
                Content::Link(program.to_owned()),
            );
        }
    }
    let configuration = root.join("etc/mke2fs.conf");
    files.insert(
        "etc/mke2fs.conf".to_owned(),
        Content::Copy(configuration, false),
    );
    add_libraries(&root, arch, needed, &mut files)?;
    let packages = owners(&root, &files)?;
    for Package { name, .. } in &packages {
        let file = root.join("usr/share/doc").join(name).join("copyright");
        if file.is_file() {
            let path = format!("usr/share/doc/{name}/copyright");
            files.insert(path, Content::Copy(file, false));
        }
    }
    Ok(Userland { files, packages })
}

/// Adds all that the files in `needed` need.
fn add_libraries(
    root: &Path,
    arch: Arch,
    mut needed: Vec<PathBuf>,
    files: &mut Files,
) -> Result<()> {
    let triplet = format!("{}-linux-gnu", arch.rust());
    let dirs = [
        format!("lib/{triplet}"),
        format!("usr/lib/{triplet}"),
        "lib".to_owned(),
    ];
    let dirs: Vec<_> = dirs.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    while let Some(file) = needed.pop() {
        let needs = elf::needs(&file)?;
        if let Some(loader) = needs.loader {
            let name = loader.rsplit('/').next().unwrap_or_default();
            let at = find(root, name, &dirs)?;
            files.insert(
                loader.trim_start_matches('/').to_owned(),
                Content::Copy(at, true),
            );
            seen.insert(name.to_owned());
        }
        for name in needs.libraries {
            // The loader is a library of libc's too; it is there under its own path.
            if name.starts_with("ld-linux") || !seen.insert(name.clone()) {
                continue;
            }
            let at = find(root, &name, &dirs)?;
            needed.push(at.clone());
            files.insert(format!("lib/{triplet}/{name}"), Content::Copy(at, false));
        }
    }
    Ok(())
}

/// The file `name` in one of `dirs`, behind its links, which stay below `root`.
fn find(root: &Path, name: &str, dirs: &[&str]) -> Result<PathBuf> {
    for dir in dirs {
        let mut path = root.join(dir).join(name);
        while let Ok(to) = fs::read_link(&path) {
            path = match to.strip_prefix("/") {
                Ok(inner) => root.join(inner),
                Err(_) => path.parent().unwrap_or(root).join(to),
            };
        }
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is in none of the packages of deploy/packages, nor of those that they need")
}

/// The packages that the copied files come from, by the lists that [`root`] made.
fn owners(root: &Path, files: &Files) -> Result<BTreeSet<Package>> {
    let wanted: BTreeSet<_> = files
        .values()
        .filter_map(|content| match content {
            Content::Copy(from, _) => from.strip_prefix(root).ok(),
            Content::Link(_) => None,
        })
        .collect();
    let dir = root.join(LISTS);
    let mut owners = BTreeSet::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        let list = fs::read_to_string(entry.path())?;
        let owns = list
            .lines()
            .filter_map(|line| line.strip_prefix("./"))
            .any(|path| wanted.contains(Path::new(path)));
        let label = entry.file_name();
        if owns && let Some((name, version)) = label.to_string_lossy().split_once('=') {
            owners.insert(Package {
                name: name.to_owned(),
                version: version.to_owned(),
            });
        }
    }
    Ok(owners)
}

/// The packages of an architecture and what they depend on, unpacked. Kept in the cache.
///
/// Nothing of them runs, so another architecture is as good as this machine's.
fn root(arch: Arch) -> Result<PathBuf> {
    let mut key = Sha256::new();
    for part in [SUITE, LIST, UNPACK] {
        key.update(part);
    }
    let key: String = key.finalize()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let cache = xtask::cache();
    let done = cache.join(format!("image-{arch}-{key}"));
    if done.is_dir() {
        return Ok(done);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let partial = tempfile::Builder::new()
        .prefix(&format!("scratch-{}-", std::process::id()))
        .tempdir_in(&cache)
        .with_context(|| format!("cannot make a directory in {}", cache.display()))?;
    let packages: Vec<_> = packages().collect();
    eprintln!("fetching the image's Debian packages for {arch}");
    stdout(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=extract"])
            .arg(format!("--architectures={arch}"))
            .arg(format!("--include={}", packages.join(",")))
            .arg(format!("--extract-hook={UNPACK}"))
            .arg(SUITE)
            .arg(partial.path().join("root")),
    )?;
    match fs::rename(partial.path().join("root"), &done) {
        // Another run was quicker.
        Err(_) if done.is_dir() => Ok(done),
        renamed => renamed
            .map(|()| done.clone())
            .with_context(|| format!("cannot put {} in place", done.display())),
    }
}

/// The names in deploy/packages.
fn packages() -> impl Iterator<Item = &'static str> {
    LIST.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}
