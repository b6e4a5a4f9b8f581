//! The guest's root: a tree of files, written as the cpio archive that the kernel
//! unpacks.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory(u32),
    Link(String),
    Bytes(Vec<u8>, u32),
    /// The content of a file of the host.
    Host(PathBuf, u32),
}

/// A tree of files, by absolute path.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Tree {
    /// A directory, with its parents.
    pub(crate) fn directory(&mut self, path: impl AsRef<Path>, mode: u32) {
        let path = path.as_ref();
        self.parents(path);
        self.nodes.insert(path.to_owned(), Node::Directory(mode));
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: impl AsRef<Path>, target: &str) {
        self.put(path.as_ref(), Node::Link(target.to_owned()));
    }

    /// A file with this content.
    pub(crate) fn bytes(&mut self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>, mode: u32) {
        self.put(path.as_ref(), Node::Bytes(content.into(), mode));
    }

    /// A file with the content of the host's `from`, links followed.
    pub(crate) fn host(&mut self, path: impl AsRef<Path>, from: impl Into<PathBuf>, mode: u32) {
        self.put(path.as_ref(), Node::Host(from.into(), mode));
    }

    fn put(&mut self, path: &Path, node: Node) {
        self.parents(path);
        self.nodes.insert(path.to_owned(), node);
    }

    fn parents(&mut self, path: &Path) {
        for dir in path.ancestors().skip(1) {
            self.nodes
                .entry(dir.to_owned())
                .or_insert(Node::Directory(0o755));
        }
    }

    /// Writes the archive.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        let wrong = |e| Error::io("cannot write", "the initramfs")(e);
        // Sorted by path, so a directory comes before what is in it.
        for (number, (path, node)) in (1..).zip(&self.nodes) {
            let name = path.strip_prefix("/").unwrap_or(path);
            if name.as_os_str().is_empty() {
                continue;
            }
            let name = name.to_str().ok_or_else(|| {
                Error::Unexpected(format!("{} is not UTF-8; rename it", path.display()))
            })?;
            let entry = |mode: u32| cpio::newc::Builder::new(name).ino(number).mode(mode);
            match node {
                Node::Directory(mode) => append(entry(DIRECTORY | mode), out, &[]),
                Node::Link(target) => append(entry(LINK | 0o777), out, target.as_bytes()),
                Node::Bytes(content, mode) => append(entry(REGULAR | mode), out, content),
                Node::Host(from, mode) => {
                    let content = std::fs::read(from).map_err(Error::io("cannot read", from))?;
                    append(entry(REGULAR | mode), out, &content)
                }
            }
            .map_err(wrong)?;
        }
        cpio::newc::trailer(out)
            .and_then(Write::flush)
            .map_err(wrong)
    }
}

fn append(entry: cpio::newc::Builder, out: &mut impl Write, content: &[u8]) -> io::Result<()> {
    let size = u32::try_from(content.len())
        .map_err(|_| io::Error::other("a file of 4 GiB or more does not fit"))?;
    let mut writer = entry.write(out, size);
    writer.write_all(content)?;
    writer.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;
    use std::io::Read;

    #[test]
    fn the_archive_holds_parents_first_and_every_kind_of_file() {
        let host = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(host.path(), "from the host").unwrap();
        let mut tree = Tree::default();
        tree.host("/usr/bin/tool", host.path(), 0o755);
        tree.link("/bin/sh", "busybox");
        tree.bytes("/etc/empty", "", 0o644);
        tree.directory("/tmp", 0o1777);
        let mut archive = Vec::new();
        tree.write(&mut archive).unwrap();

        let mut seen = Vec::new();
        let mut rest = archive.as_slice();
        loop {
            let mut entry = Reader::new(rest).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            let (name, mode) = (entry.entry().name().to_owned(), entry.entry().mode());
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            seen.push(format!("{name} {mode:o} {content}"));
            rest = entry.finish().unwrap();
        }
        assert_eq!(
            seen,
            [
                "bin 40755 ",
                "bin/sh 120777 busybox",
                "etc 40755 ",
                "etc/empty 100644 ",
                "tmp 41777 ",
                "usr 40755 ",
                "usr/bin 40755 ",
                "usr/bin/tool 100755 from the host",
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mut tree = Tree::default();
        tree.host("/x", "/no/such/file", 0o644);
        let error = tree.write(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }
}
