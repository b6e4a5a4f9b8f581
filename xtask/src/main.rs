//! `cargo xtask`: the repository's commands. It compiles in a second or two from
//! nothing, so that a newcomer sees at once what happens; everything heavy is in other
//! packages that it has cargo build and run, with cargo's own progress on the terminal.

mod outcome;
mod plan;
mod setup;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use outcome::{Failure, Outcome, done};

const USAGE: &str = "\
usage: cargo xtask <command> [arguments]

  setup      install the Debian packages that tests and rig need; nothing to do is quick
  test       setup, then every test: `cargo test` with the arguments
  demo       setup, then the demo: also `cargo demo`
  cluster    a cluster to work with: also `cargo cluster`
  image      build Berth's image: also `cargo image`
  dist       image archives, manifests, checksums and a bill of materials in dist/
  house      circles of files, sizes and other numbers of each package
";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<_> = args.collect();
    let outcome = match command.to_str() {
        Some("setup") => setup::run(setup::For::Tests),
        Some("test") => setup::run(setup::For::Tests).and_then(|()| cargo(&["test"], &rest)),
        Some("demo") => demo(&rest),
        Some("cluster") => cluster(&rest),
        Some("image") => setup::run(setup::For::Tests).and_then(|()| package("image", &rest)),
        Some("dist") => setup::run(setup::For::Dist).and_then(|()| package("dist", &rest)),
        Some("house") => cargo(
            &["run", "-q", "-p", "berth-house", "--bin", "house", "--"],
            &rest,
        ),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(Failure::Told(USAGE.to_owned())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(Failure::Told(text)) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Says what will happen, compiles all that can be seen compiling, and goes.
fn demo(args: &[OsString]) -> Outcome {
    let asks = |flag: &str| {
        args.iter().any(|arg| {
            arg.to_str()
                .is_some_and(|arg| arg.split('=').next() == Some(flag))
        })
    };
    if !["--help", "-h", "--version", "-V"].into_iter().any(asks) {
        // A cluster that is there has its image already.
        let own = !asks("--kubeconfig");
        println!(
            "{}",
            plan::demo(&plan::Found::here(), own, asks("--quick-start"))
        );
        if own {
            setup::run(setup::For::Tests)?;
            eprintln!("Compiling the demo, then the programs that it runs.");
            cargo(&["build", "--bin", "demo", "--bin", "package"], &[])?;
            package("programs", &[])?;
        } else {
            cargo(&["build", "--bin", "demo"], &[])?;
        }
    }
    cargo(&["run", "-q", "--bin", "demo", "--"], args)
}

fn cluster(args: &[OsString]) -> Outcome {
    if args.iter().any(|arg| arg == "up" || arg == "build") {
        setup::run(setup::For::Tests)?;
    }
    cargo(&["run", "-q", "--bin", "berth-cluster", "--"], args)
}

fn package(command: &str, args: &[OsString]) -> Outcome {
    cargo(&["run", "-q", "--bin", "package", "--", command], args)
}

/// Runs cargo, which talks to the terminal itself.
fn cargo(command: &[&str], args: &[OsString]) -> Outcome {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    xtask::forget_package(&mut cargo);
    done(cargo.args(command).args(args).status(), "cargo")
}
