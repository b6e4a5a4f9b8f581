//! A walk down and up a tree that others made. Only the innermost directories are
//! held open, so no tree exhausts the handles; those further up are opened again,
//! from the root and step by step, and must still be the same ones.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::rc::Rc;

use nix::sys::stat::fstat;

use crate::fs::dir::{Dir, Mounts};

/// Directories that are held open at the same time.
const HELD: usize = 16;

/// Deepest nesting that is followed.
pub(super) const MAX_DEPTH: usize = 1000;

/// Where something is beneath the root.
#[derive(Debug)]
pub(super) struct Place {
    above: Option<Rc<Self>>,
    name: OsString,
}

/// One directory on the way; the root has no place.
struct Level {
    dir: Option<Dir>,
    id: (u64, u64),
    place: Option<Rc<Place>>,
}

/// The way from a root down to where a walk is.
pub(super) struct Descent<'a> {
    root: &'a Dir,
    levels: Vec<Level>,
}

impl<'a> Descent<'a> {
    pub(super) fn new(root: &'a Dir) -> io::Result<Self> {
        let level = Level {
            dir: Some(root.open(".", Mounts::Stay)?),
            id: id(root)?,
            place: None,
        };
        Ok(Self {
            root,
            levels: vec![level],
        })
    }

    /// The directory where the walk is.
    pub(super) fn here(&mut self) -> io::Result<&Dir> {
        let level = self.levels.last_mut().expect("the root stays");
        let dir = match level.dir.take() {
            Some(dir) => dir,
            None => {
                let dir = walk(self.root, level.place.as_deref())?;
                if id(&dir)? != level.id {
                    return Err(io::Error::other("a directory was moved meanwhile"));
                }
                dir
            }
        };
        Ok(level.dir.insert(dir))
    }

    /// Goes down into the directory `name`.
    pub(super) fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        if self.levels.len() > MAX_DEPTH {
            return Err(io::Error::other(format!(
                "directories are nested more than {MAX_DEPTH} deep"
            )));
        }
        let dir = self.here()?.open(Path::new(name), Mounts::Stay)?;
        let level = Level {
            id: id(&dir)?,
            dir: Some(dir),
            place: Some(self.place(name)),
        };
        self.levels.push(level);
        if let Some(far) = self.levels.len().checked_sub(HELD + 1) {
            self.levels[far].dir = None;
        }
        Ok(())
    }

    /// Goes up again.
    pub(super) fn leave(&mut self) {
        self.levels.pop();
    }

    /// The place of `name` in the directory where the walk is.
    pub(super) fn place(&self, name: &OsStr) -> Rc<Place> {
        Rc::new(Place {
            above: self.levels.last().and_then(|level| level.place.clone()),
            name: name.to_owned(),
        })
    }

    /// The directory that holds a place, and the place's name there.
    pub(super) fn parent_of<'p>(&self, place: &'p Place) -> io::Result<(Dir, &'p OsStr)> {
        Ok((walk(self.root, place.above.as_deref())?, &place.name))
    }
}

fn id(dir: &Dir) -> io::Result<(u64, u64)> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn walk(root: &Dir, place: Option<&Place>) -> io::Result<Dir> {
    let mut names = Vec::new();
    let mut at = place;
    while let Some(place) = at {
        names.push(&place.name);
        at = place.above.as_deref();
    }
    let mut dir = root.open(".", Mounts::Stay)?;
    for name in names.into_iter().rev() {
        dir = dir.open(Path::new(name), Mounts::Stay)?;
    }
    Ok(dir)
}
