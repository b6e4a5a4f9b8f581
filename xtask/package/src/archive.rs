//! An image as one file, in the form of `docker save`, which docker, podman, containerd,
//! kind and k3s load. The same files make the same bytes, whenever and wherever.

use std::fs::File;
use std::io::{Cursor, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::Arch;
use crate::files::{Content, Files};

/// An image to write.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its name and tag.
    pub tag: &'a str,
    /// Its architecture.
    pub arch: Arch,
    /// What its programs find in their environment.
    pub env: &'a [&'a str],
    /// Its files, a layer each, the one that changes least first.
    pub layers: &'a [Files],
}

impl Image<'_> {
    /// Writes the archive.
    ///
    /// # Errors
    /// Files that cannot be read, an archive that cannot be written.
    pub fn write(&self, output: &Path) -> Result<()> {
        let layers = self.layers.iter().map(layer).collect::<Result<Vec<_>>>()?;
        let digests: Vec<_> = layers.iter().map(|layer| hex(layer)).collect();
        let ids: Vec<_> = digests.iter().map(|d| format!("sha256:{d}")).collect();
        let config = serde_json::to_vec(&json!({
            "architecture": self.arch.name(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Env": self.env, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": ids},
            "history": ids.iter().map(|_| json!({
                "created": "1970-01-01T00:00:00Z", "created_by": "cargo image",
            })).collect::<Vec<_>>(),
        }))?;
        let config_name = format!("{}.json", hex(&config));
        let names: Vec<_> = digests.iter().map(|d| format!("{d}/layer.tar")).collect();
        let manifest = serde_json::to_vec(&json!([
            {"Config": config_name, "RepoTags": [self.tag], "Layers": names},
        ]))?;
        let file =
            File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
        let mut tar = Builder::new(file);
        for (name, layer) in names.iter().zip(&layers) {
            add(&mut tar, name, 0o644, layer)?;
        }
        add(&mut tar, &config_name, 0o644, &config)?;
        add(&mut tar, "manifest.json", 0o644, &manifest)?;
        tar.into_inner()
            .and_then(|mut file| file.flush())
            .with_context(|| format!("cannot write {}", output.display()))
    }
}

/// The bytes of a layer.
fn layer(files: &Files) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Cursor::new(Vec::new()));
    let mut made = std::collections::BTreeSet::new();
    for (path, content) in files {
        for (end, _) in path.match_indices('/') {
            let dir = &path[..=end];
            if made.insert(dir) {
                let mut header = header(EntryType::Directory, 0o755, 0);
                tar.append_data(&mut header, dir, std::io::empty())?;
            }
        }
        match content {
            Content::Link(to) => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                tar.append_link(&mut header, path, to)?;
            }
            Content::Copy(from, runs) => {
                let bytes = std::fs::read(from)
                    .with_context(|| format!("cannot read {}", from.display()))?;
                add(&mut tar, path, if *runs { 0o755 } else { 0o644 }, &bytes)?;
            }
        }
    }
    Ok(tar.into_inner()?.into_inner())
}

fn add(tar: &mut Builder<impl Write>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

/// The header of an entry that belongs to root and was always there.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The SHA-256 of bytes, in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use serde_json::Value;

    use super::*;

    fn read(archive: &[u8]) -> BTreeMap<String, (EntryType, Vec<u8>)> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().unwrap();
        entries
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (path, (entry.header().entry_type(), bytes))
            })
            .collect()
    }

    #[test]
    fn an_archive_says_what_is_in_it_and_is_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "bytes").unwrap();
        let files = Files::from([
            ("usr/bin/p".to_owned(), Content::Copy(program, true)),
            ("usr/bin/q".to_owned(), Content::Link("p".to_owned())),
        ]);
        let image = Image {
            tag: "x:1",
            arch: Arch::Arm64,
            env: &["PATH=/usr/bin"],
            layers: &[files],
        };
        let (one, two) = (dir.path().join("1"), dir.path().join("2"));
        image.write(&one).unwrap();
        image.write(&two).unwrap();
        let bytes = std::fs::read(&one).unwrap();
        assert_eq!(bytes, std::fs::read(&two).unwrap());

        let archive = read(&bytes);
        let json = |name: &str| serde_json::from_slice::<Value>(&archive[name].1).unwrap();
        let manifest = &json("manifest.json")[0];
        assert_eq!(manifest["RepoTags"], json!(["x:1"]));
        let config = json(manifest["Config"].as_str().unwrap());
        assert_eq!(config["architecture"], "arm64");
        let layer = &archive[manifest["Layers"][0].as_str().unwrap()].1;
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", hex(layer))
        );
        let layer = read(layer);
        assert_eq!(layer["usr/bin/p"], (EntryType::Regular, b"bytes".to_vec()));
        assert_eq!(layer["usr/bin/q"].0, EntryType::Symlink);
        assert_eq!(layer["usr/bin/"].0, EntryType::Directory);
    }
}
