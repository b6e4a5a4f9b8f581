//! What is in a directory. Directories that others filled are read in pieces: there may be
//! tens of millions of names in one, and memory for that is nobody's to give.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::vec::IntoIter;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustix::fs::{OFlags, RawDir, openat, seek};

use crate::fs::dir::{Dir, Kind};

/// Names that are kept in memory at a time.
pub(crate) const PIECE: usize = 10_000;

/// Bytes that are asked of the kernel at a time.
const BUFFER: usize = 64 << 10;

/// The names in a directory, read a piece at a time. What is made or removed meanwhile may be
/// among them or not (readdir(3)); everything else is, once.
#[derive(Debug)]
pub(crate) struct Names {
    piece: IntoIter<OsString>,
    /// Where the next piece begins; `None` after the last one.
    next: Option<u64>,
}

impl Names {
    /// From the first one on.
    pub(crate) fn new() -> Self {
        Self {
            piece: Vec::new().into_iter(),
            next: Some(0),
        }
    }

    /// The next name in `dir`, which is the same directory each time.
    pub(crate) fn next(&mut self, dir: &Dir) -> io::Result<Option<OsString>> {
        loop {
            if let Some(name) = self.piece.next() {
                return Ok(Some(name));
            }
            let Some(from) = self.next else {
                return Ok(None);
            };
            let (piece, next) = dir.piece(from, PIECE)?;
            self.piece = piece.into_iter();
            self.next = next;
        }
    }
}

impl Dir {
    /// At most `most` names, sorted, from a place on that an earlier call returned, or from
    /// 0; and where to go on, `None` if that were all. The place is the filesystem's own
    /// (`d_off`), and good as long as the directory is.
    pub(crate) fn piece(&self, from: u64, most: usize) -> io::Result<(Vec<OsString>, Option<u64>)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(self, ".", flags, rustix::fs::Mode::empty())?;
        if from != 0 {
            seek(&dir, rustix::fs::SeekFrom::Start(from))?;
        }
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(dir, &mut buffer);
        let (mut names, mut next) = (Vec::new(), None);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
            if names.len() >= most {
                next = Some(entry.next_entry_cookie());
                break;
            }
        }
        names.sort();
        Ok((names, next))
    }

    /// Names in this directory, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = nix::dir::Dir::openat(self, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Names, as far as they are valid text, of what is a directory or a link here, or of
    /// an unknown kind. What is mounted on a directory is not asked.
    pub(crate) fn names_of_places(&self) -> io::Result<Vec<String>> {
        use nix::dir::Type;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = nix::dir::Dir::openat(self, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry?;
            if matches!(
                entry.file_type(),
                None | Some(Type::Directory | Type::Symlink)
            ) && let Ok(name) = entry.file_name().to_str()
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Names of the directories in this directory that are valid text, sorted.
    pub(crate) fn directories(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for name in self.names()? {
            if self.kind(&name)? == Some(Kind::Directory)
                && let Ok(name) = name.into_string()
            {
                found.push(name);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_in_pieces_and_as_a_whole() {
        let at = tempfile::tempdir().unwrap();
        for n in 0..1234 {
            std::fs::write(at.path().join(format!("file-{n}")), "").unwrap();
        }
        let dir = Dir::open_root(at.path()).unwrap();
        let (mut found, mut from) = (Vec::new(), Some(0));
        while let Some(place) = from {
            let (piece, next) = dir.piece(place, 100).unwrap();
            assert!(piece.len() <= 100);
            found.extend(piece);
            from = next;
        }
        found.sort();
        assert_eq!(found, dir.names().unwrap());
        assert_eq!(found.len(), 1234);
        // What was read before is removed meanwhile: nothing is left out.
        let (first, next) = dir.piece(0, 1000).unwrap();
        for name in &first {
            dir.remove_file(name).unwrap();
        }
        let (rest, end) = dir.piece(next.unwrap(), 1000).unwrap();
        assert_eq!((rest.len(), end), (234, None));
    }

    #[test]
    fn no_name_is_met_twice_or_not_at_all() {
        let at = tempfile::tempdir().unwrap();
        for n in 0..PIECE + 10 {
            std::fs::write(at.path().join(n.to_string()), "").unwrap();
        }
        let dir = Dir::open_root(at.path()).unwrap();
        let mut names = Names::new();
        let mut found = std::collections::BTreeSet::new();
        while let Some(name) = names.next(&dir).unwrap() {
            assert!(names.piece.len() < PIECE);
            assert!(found.insert(name));
        }
        assert_eq!(found.len(), PIECE + 10);
    }
}
