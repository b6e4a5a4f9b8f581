//! The command line of the cluster rig.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    berth_cluster::take_role();
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
