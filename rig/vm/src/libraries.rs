//! The shared libraries of programs, as the machine's own loader finds them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use berth_cluster::run::Run;

use crate::error::{Error, Result};

/// The libraries and loaders of all `programs`. Static programs and scripts need none.
pub(crate) fn of(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    if programs.is_empty() {
        return Ok(BTreeSet::new());
    }
    // Its exit code is 1 as soon as one of the files is not dynamic.
    let output = Run::new("ldd").args(programs).output()?;
    parse(&String::from_utf8_lossy(&output.stdout)).map_err(|library| {
        Error::Unexpected(format!(
            "the library {library} is not found on this machine, and a program for the guest needs it; install it"
        ))
    })
}

/// The paths in ldd's output; the error is a library that was not found.
fn parse(text: &str) -> std::result::Result<BTreeSet<PathBuf>, String> {
    let mut found = BTreeSet::new();
    // A line that is not indented names the program that follows.
    for line in text.lines().filter(|l| l.starts_with(char::is_whitespace)) {
        let (name, path) = match line.trim().split_once(" => ") {
            Some((name, path)) => (name, path),
            None => ("", line.trim()),
        };
        if path.starts_with("not found") {
            return Err(name.to_owned());
        }
        // The kernel's own library has no path.
        if path.starts_with('/') {
            let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
            found.insert(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_every_form_of_line() {
        let text = "/usr/sbin/mkfs.xfs:\n\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x3)\n/bin/busybox:\n\tnot a dynamic executable\n\
                    /usr/bin/mount:\n\tlibc.so.6 => /lib/x/libc.so.6 (0x4)\n\tstatically linked\n";
        let found = parse(text).unwrap();
        let expected = ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from).into());
    }

    #[test]
    fn a_missing_library_is_named() {
        assert_eq!(
            parse("\tlibx.so.1 => not found\n"),
            Err("libx.so.1".to_owned())
        );
    }

    #[test]
    fn this_very_program_has_a_c_library() {
        let own = of(&[std::env::current_exe().unwrap()]).unwrap();
        assert!(own.iter().any(|l| l.ends_with("libc.so.6")), "{own:?}");
    }
}
