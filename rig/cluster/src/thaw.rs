//! Ends what was frozen by a run that was killed.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::loopdev;
use crate::paths::{self, Layout};
use crate::run::Run;

/// Where freezes are written down: a file each, with the path of the disk's backing file.
pub(crate) fn notes(layout: &Layout) -> PathBuf {
    layout.root().join("frozen")
}

/// Thaws what a killed run left frozen: its filesystem is mounted once more for that.
pub(crate) fn thaw_all(layout: &Layout) -> Result<()> {
    let listing = match std::fs::read_dir(notes(layout)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listing => listing.map_err(Error::io("cannot list", &notes(layout)))?,
    };
    for note in listing.flatten() {
        let file = paths::read(&note.path())?;
        if let Some(device) = loopdev::of_file(Path::new(&file))? {
            thaw(layout, &device)?;
        }
        std::fs::remove_file(note.path()).map_err(Error::io("cannot remove", &note.path()))?;
    }
    Ok(())
}

fn thaw(layout: &Layout, device: &Path) -> Result<()> {
    let at = layout.root().join("thaw");
    paths::make_dir(&at)?;
    Run::new("mount").arg(device).arg(&at).stdout()?;
    // It fails where the note was written and the freeze was not made.
    let _ = Run::new("fsfreeze").arg("-u").arg(&at).output()?;
    Run::new("umount").arg(&at).stdout().map(drop)
}
