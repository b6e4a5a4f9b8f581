//! The program `berth-controller`.

use std::process::ExitCode;

use berth_controller::cli;
use clap::Parser;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("berth-controller: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::main(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-controller: {error:#}");
            // Without waiting for tasks: after a lost lease another may lead already.
            std::process::exit(1)
        }
    }
}
