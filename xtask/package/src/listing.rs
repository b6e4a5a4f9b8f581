//! docs/image.md: what is in the image, for people. `cargo image --doc` writes it.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::Arch;
use crate::files::{Content, size};
use crate::image::Contents;

const HEADER: &str = "# What is in Berth's image

Written by `cargo image --doc docs/image.md`; CI fails when a file came or went.
Berth's programs are linked statically; how large they are changes with each commit, and
`cargo image` says it. There is no shell, and nothing that installs anything: `mkfs.ext4` and `resize2fs`,
which the agent runs for image volumes, is all beside them.
";

/// Where Berth's own programs are.
const OWN: &str = "usr/local/bin/";

/// The page.
///
/// # Errors
/// A file that is gone.
pub fn page(arch: Arch, contents: &Contents) -> Result<String> {
    let mut rows = String::new();
    let mut total = 0;
    let mut files = 0;
    for (path, content) in contents.layers.iter().flatten() {
        let bytes = size(content)?;
        files += 1;
        let what = match content {
            _ if path.starts_with(OWN) => "–".to_owned(),
            Content::Copy(..) => {
                total += bytes;
                format!("{} kB", bytes.div_ceil(1000))
            }
            Content::Link(to) => format!("-> {to}"),
        };
        writeln!(rows, "| `/{path}` | {what} |")?;
    }
    let packages: Vec<_> = contents
        .packages
        .iter()
        .map(|package| format!("{} {}", package.name, package.version))
        .collect();
    Ok(format!(
        "{HEADER}\n{files} files, on {arch}, {:.1} MB without those programs:\n\n| file | size |\n|---|---:|\n{rows}\n\
         From Debian's packages: {}.\n",
        total as f64 / 1e6,
        packages.join(", ")
    ))
}

/// Demands that a page lists the files that are in the image.
///
/// # Errors
/// A sentence that names what came or went.
pub fn check(page: &str, contents: &Contents) -> Result<()> {
    let listed: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `/")?.split_once('`'))
        .map(|(path, _)| path)
        .collect();
    let there: Vec<_> = contents
        .layers
        .iter()
        .flatten()
        .map(|(path, _)| path)
        .collect();
    let came: Vec<_> = there
        .iter()
        .filter(|p| !listed.contains(&p.as_str()))
        .collect();
    let went: Vec<_> = listed
        .iter()
        .filter(|p| !there.iter().any(|t| t == *p))
        .collect();
    ensure!(
        came.is_empty() && went.is_empty(),
        "the page is stale: not listed {came:?}, not in the image {went:?}; \
         run `cargo image --doc docs/image.md`"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;

    #[test]
    fn a_page_is_stale_when_a_file_came_or_went() {
        let contents = |paths: &[&str]| Contents {
            layers: [
                paths
                    .iter()
                    .map(|path| ((*path).to_owned(), Content::Link("x".to_owned())))
                    .collect(),
                Files::new(),
            ],
            packages: Default::default(),
        };
        let text = page(Arch::Amd64, &contents(&["a", "b"])).unwrap();
        assert!(check(&text, &contents(&["a", "b"])).is_ok());
        for other in [&["a"][..], &["a", "b", "c"], &["a", "c"]] {
            assert!(check(&text, &contents(other)).is_err(), "{other:?}");
        }
    }
}
