//! `berth-agent ls`, which the image has as `ls` too: it holds no shell and no tools, and
//! people want to look at by-claim links and files where the disks are.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

/// Prints the names in each directory, sorted, one a line; a link that is named is
/// followed. Control characters are shown, not sent: names in volumes are anybody's.
pub(super) fn list(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    for path in paths {
        if paths.len() > 1 {
            println!("{}:", path.display());
        }
        let names = names(path).with_context(|| format!("cannot list {}", path.display()))?;
        for name in names {
            println!("{}", name.to_string_lossy().escape_debug());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn names(path: &Path) -> io::Result<Vec<OsString>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.as_os_str().to_owned()]);
    }
    let mut names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_links_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = dir.path().join("real");
        fs::create_dir(&real).expect("made");
        for name in ["b", "a"] {
            fs::write(real.join(name), "").expect("written");
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        assert_eq!(names(&link).expect("read"), ["a", "b"]);
        let file = real.join("a");
        assert_eq!(names(&file).expect("read"), [file.as_os_str()]);
        assert!(names(&dir.path().join("none")).is_err());
    }
}
