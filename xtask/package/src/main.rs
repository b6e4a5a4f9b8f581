//! The program behind `cargo image` and `cargo xtask dist`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use berth_package::{Arch, dist, image, listing, programs};
use clap::{Parser, Subcommand};

/// What users install.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    /// Build both programs for release, and print where they are.
    Programs,
    /// Build Berth's image and write the archive that `kind load image-archive`,
    /// `k3s ctr images import` and `docker load` take.
    Image {
        /// Where to write it.
        #[arg(short, long, default_value = "target/berth-image.tar")]
        output: PathBuf,
        /// Also write the list of its files here.
        #[arg(long, value_name = "FILE")]
        doc: Option<PathBuf>,
        /// Fail if this list of its files is stale.
        #[arg(long, value_name = "FILE")]
        check: Option<PathBuf>,
    },
    /// Make everything that a release consists of: images, manifests, bills of
    /// materials, checksums.
    Dist {
        /// Where to put it.
        #[arg(short, long, default_value = "dist")]
        output: PathBuf,
        /// Only this architecture; may be given more than once.
        #[arg(long, value_enum)]
        arch: Vec<Arch>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Cmd) -> Result<()> {
    match command {
        Cmd::Programs => {
            for program in programs::build(Arch::here()?, false)?.all() {
                println!("{}", program.display());
            }
        }
        Cmd::Image { output, doc, check } => {
            let contents = image::build(&output, false)?;
            let bytes = fs::metadata(&output)?.len();
            println!("{} ({:.1} MB)", output.display(), bytes as f64 / 1e6);
            if let Some(doc) = doc {
                let text = listing::page(Arch::here()?, &contents)?;
                fs::write(&doc, text).with_context(|| format!("cannot write {}", doc.display()))?;
            }
            if let Some(page) = check {
                let text = fs::read_to_string(&page)
                    .with_context(|| format!("cannot read {}", page.display()))?;
                listing::check(&text, &contents)?;
            }
        }
        Cmd::Dist { output, arch } => {
            let arches = if arch.is_empty() {
                Arch::ALL.to_vec()
            } else {
                arch
            };
            dist::make(&output, &arches)?;
        }
    }
    Ok(())
}
