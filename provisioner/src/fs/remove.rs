//! Removes directory trees that others made: by handle, entering no mount,
//! following no link, a batch at a time.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::fs::dir::{Dir, Kind, Mounts};
use crate::fs::listing::PIECE;

/// Deepest nesting that removal follows by held handles; what is deeper is moved
/// up first, so that no tree can exhaust the handles.
const MAX_DEPTH: usize = 32;

impl Dir {
    /// Removes `name` and everything beneath it, entering no mount and following
    /// no link. `after_batch` runs after every 1,000 removals and says whether to
    /// go on; `false` comes back when it stopped.
    pub(crate) fn remove_tree(
        &self,
        name: &OsStr,
        after_batch: &mut dyn FnMut() -> bool,
    ) -> io::Result<bool> {
        let mut removal = Removal {
            top: self,
            removed: 0,
            moved: 0,
            aside: vec![name.to_owned()],
            after_batch,
        };
        while let Some(name) = removal.aside.pop() {
            if !removal.run(self, &name, 0)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Removal<'a> {
    top: &'a Dir,
    removed: u64,
    moved: u64,
    aside: Vec<OsString>,
    after_batch: &'a mut dyn FnMut() -> bool,
}

impl Removal<'_> {
    fn run(&mut self, parent: &Dir, name: &OsStr, depth: usize) -> io::Result<bool> {
        if parent.kind(name)? != Some(Kind::Directory) {
            parent.remove_file(name)?;
            return Ok(self.count());
        }
        if depth >= MAX_DEPTH {
            let moved = self.move_up(parent, name)?;
            self.aside.push(moved);
            return Ok(true);
        }
        let dir = parent.open(Path::new(name), Mounts::Stay)?;
        loop {
            // From the beginning each time: what was there is removed, or was moved away.
            let (children, more) = dir.piece(0, PIECE)?;
            for child in children {
                if !self.run(&dir, &child, depth + 1)? {
                    return Ok(false);
                }
            }
            if more.is_none() {
                break;
            }
        }
        drop(dir);
        parent.remove_empty(name)?;
        Ok(self.count())
    }

    /// Moves a directory beside the tree that is being removed, under a name
    /// that marks it as part of it.
    fn move_up(&mut self, parent: &Dir, name: &OsStr) -> io::Result<OsString> {
        loop {
            self.moved += 1;
            let new = OsString::from(format!(".deep.{}", self.moved));
            if self.top.kind(&new)?.is_none() {
                nix::fcntl::renameat(parent, name, self.top, new.as_os_str())?;
                return Ok(new);
            }
        }
    }

    fn count(&mut self) -> bool {
        self.removed += 1;
        !self.removed.is_multiple_of(1000) || (self.after_batch)()
    }
}

/// Whether `name` marks what [`Dir::remove_tree`] moved aside.
pub(crate) fn is_moved_aside(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".deep.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn temporary() -> (tempfile::TempDir, Dir) {
        let dir = tempfile::tempdir().unwrap();
        let handle = Dir::open_root(dir.path()).unwrap();
        (dir, handle)
    }

    #[test]
    fn a_tree_is_removed_and_what_its_links_point_to_is_not() {
        let (at, dir) = temporary();
        std::fs::create_dir(at.path().join("outside")).unwrap();
        std::fs::write(at.path().join("outside/file"), "keep").unwrap();
        let mut deep = at.path().join("tree");
        std::fs::create_dir(&deep).unwrap();
        symlink(at.path().join("outside"), deep.join("link")).unwrap();
        for _ in 0..(3 * MAX_DEPTH) {
            deep.push("d");
            std::fs::create_dir(&deep).unwrap();
            std::fs::write(deep.join("f"), "x").unwrap();
        }
        assert!(dir.remove_tree(OsStr::new("tree"), &mut || true).unwrap());
        assert_eq!(dir.names().unwrap(), ["outside"]);
        assert!(at.path().join("outside/file").exists());
    }

    #[test]
    fn a_directory_with_more_names_than_are_read_at_once_is_removed() {
        let (at, dir) = temporary();
        let tree = at.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        for i in 0..PIECE + 1 {
            std::fs::write(tree.join(i.to_string()), "").unwrap();
        }
        assert!(dir.remove_tree(OsStr::new("tree"), &mut || true).unwrap());
        assert!(!tree.exists());
    }

    #[test]
    fn removal_stops_when_told() {
        let (at, dir) = temporary();
        std::fs::create_dir(at.path().join("tree")).unwrap();
        for i in 0..1500 {
            std::fs::write(at.path().join(format!("tree/{i}")), "").unwrap();
        }
        assert!(!dir.remove_tree(OsStr::new("tree"), &mut || false).unwrap());
        assert_eq!(
            std::fs::read_dir(at.path().join("tree")).unwrap().count(),
            500
        );
        assert!(dir.remove_tree(OsStr::new("tree"), &mut || true).unwrap());
    }
}
