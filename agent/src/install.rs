//! Keeps a copy of the agent on the host, so that people on the node have the
//! command line tool of the version that runs, also when the cluster is down.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Why the copy could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy the program to {}", path.display())]
pub struct InstallError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Copies `program` to `<root>/bin/berth-agent`, unless the same content is
/// there already. The copy appears in one step, so nobody executes half of it.
/// Returns whether it was made.
///
/// # Errors
/// [`InstallError`] when a file cannot be read or written.
pub fn copy_to_host(program: &Path, root: &Path) -> Result<bool, InstallError> {
    let directory = root.join("bin");
    let path = directory.join("berth-agent");
    let failed = |source| InstallError {
        path: path.clone(),
        source,
    };
    if same(program, &path).map_err(failed)? {
        return Ok(false);
    }
    fs::create_dir_all(&directory).map_err(failed)?;
    let hidden = directory.join(".berth-agent.new");
    fs::copy(program, &hidden).map_err(failed)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    fs::File::open(&hidden)
        .and_then(|file| file.sync_all())
        .map_err(failed)?;
    fs::rename(&hidden, &path).map_err(failed)?;
    Ok(true)
}

/// Compares sizes first, then content, in pieces: the program is large and the
/// agent's memory small.
fn same(a: &Path, b: &Path) -> io::Result<bool> {
    use io::Read;
    let mut b = match fs::File::open(b) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let mut a = fs::File::open(a)?;
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = ([0u8; 1 << 14], [0u8; 1 << 14]);
    loop {
        let count = a.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        b.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_once_and_when_it_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("program");
        let root = directory.path().join("root");
        let copy = root.join("bin/berth-agent");
        let write = |content: &[u8]| {
            io::Write::write_all(&mut fs::File::create(&program).expect("makes it"), content)
                .expect("writes");
        };
        let content = |path: &Path| fs::read(path).expect("reads");

        write(&vec![7; 100_000]);
        assert!(copy_to_host(&program, &root).expect("copies"));
        assert_eq!(content(&copy), vec![7; 100_000]);
        let mode = fs::metadata(&copy).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(!copy_to_host(&program, &root).expect("compares"));

        // Of the same length, and different at the very end only.
        let mut changed = vec![7; 100_000];
        changed[99_999] = 8;
        write(&changed);
        assert!(copy_to_host(&program, &root).expect("copies"));
        assert_eq!(content(&copy), changed);
    }
}
