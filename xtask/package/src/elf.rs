//! What a program needs beside itself, read from its headers, so that programs of other
//! architectures can be looked at too.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::run::stdout;

/// What a program or library needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The path of its loader.
    pub(crate) loader: Option<String>,
    /// The names of its libraries.
    pub(crate) libraries: Vec<String>,
}

/// What `file` needs.
pub(crate) fn needs(file: &Path) -> Result<Needs> {
    let mut command = Command::new("readelf");
    Ok(parse(&stdout(
        command
            .args(["-W", "-l", "-d"])
            .arg(file)
            .env("LC_ALL", "C"),
    )?))
}

fn parse(text: &str) -> Needs {
    let mut needs = Needs::default();
    for line in text.lines() {
        let bracketed = || {
            line.split_once('[')?
                .1
                .split_once(']')
                .map(|(inner, _)| inner)
        };
        if line.contains("(NEEDED)") {
            needs.libraries.extend(bracketed().map(str::to_owned));
        } else if line.contains("[Requesting program interpreter: ") {
            needs.loader = bracketed()
                .and_then(|inner| inner.split_once(": "))
                .map(|(_, path)| path.to_owned());
        }
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_and_libraries_are_read() {
        let text = "      [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]\n\
             \x200x0000000000000001 (NEEDED)             Shared library: [libext2fs.so.2]\n\
             \x200x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n\
             \x200x000000000000000e (SONAME)             Library soname: [libx.so.1]\n";
        let needs = parse(text);
        assert_eq!(needs.loader.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(needs.libraries, ["libext2fs.so.2", "libc.so.6"]);
        assert_eq!(
            parse("There is no dynamic section in this file."),
            Needs::default()
        );
    }
}
