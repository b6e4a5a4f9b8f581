//! The commands, each a thin layer over the library.

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_cluster::parse_size;
use berth_qemu::suite::{Filesystem, Suite};
use berth_qemu::{Outcome, Vm, preflight};
use clap::{Args, Parser, Subcommand};

/// Programs and tests on another kernel: Debian's, in a small qemu guest that boots
/// in seconds and leaves nothing behind.
///
/// The kernel comes from Debian's packages and is kept in ~/.cache/berth (or
/// $BERTH_CACHE). The guest is emulated: neither KVM nor root is needed.
#[derive(Debug, Parser)]
#[command(name = "cargo vm", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    /// Say what this machine lacks.
    Preflight,
    /// Run a program in a guest; its exit code becomes this one's.
    Run(Run),
    /// Run the provisioner's integration tests in a guest per filesystem.
    Test(Test),
}

#[derive(Debug, Args)]
struct Run {
    /// An empty disk, such as 4GiB: /dev/vda, /dev/vdb and so on.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    disk: Vec<u64>,
    /// A file that is a further disk and keeps what the guest syncs.
    #[arg(long, value_name = "FILE")]
    disk_file: Vec<PathBuf>,
    /// Memory, beside what the initramfs takes.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u64,
    /// A file to bring along with its libraries, by default to where it is here.
    #[arg(long, value_name = "HOSTFILE[:PATH]")]
    copy: Vec<String>,
    /// A variable of the program's environment.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A further kernel module to load.
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// End the guest after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Leave initramfs, disks and the kernel's messages in this directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The program, a file of this machine if there is a slash in it, else one of
    /// the guest's, and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<String>,
}

#[derive(Debug, Args)]
struct Test {
    /// Only this filesystem; may be given more than once.
    #[arg(long, value_name = "NAME", default_values = ["xfs", "ext4"], value_parser = Filesystem::parse)]
    filesystem: Vec<Filesystem>,
    /// Only this test target; may be given more than once.
    #[arg(long, value_name = "TARGET")]
    test: Vec<String>,
    /// Memory of a guest, beside what the initramfs takes.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u64,
    /// End a guest after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    timeout: u64,
    /// Arguments for the tests, after `--`: a filter, `--nocapture`.
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Cmd::Preflight => {
            preflight::ready()?;
            println!("this machine can run guests");
            Ok(ExitCode::SUCCESS)
        }
        Cmd::Run(args) => run_program(args),
        Cmd::Test(args) => run_tests(args),
    }
}

fn run_program(args: &Run) -> Result<ExitCode> {
    let (program, rest) = args.program.split_first().context("no program is named")?;
    let mut vm = Vm::new(program, rest);
    vm.memory(args.memory)
        .limit(Duration::from_secs(args.timeout));
    for bytes in &args.disk {
        vm.disk(*bytes);
    }
    for file in &args.disk_file {
        vm.disk_file(file);
    }
    for copy in &args.copy {
        let (from, to) = match copy.split_once(':') {
            Some((from, to)) => (PathBuf::from(from), PathBuf::from(to)),
            None => {
                let path = std::path::absolute(copy).with_context(|| format!("--copy {copy}"))?;
                (path.clone(), path)
            }
        };
        vm.copy(from, to);
    }
    for variable in &args.env {
        let (name, value) = variable
            .split_once('=')
            .with_context(|| format!("--env {variable} is not NAME=VALUE"))?;
        vm.env(name, value);
    }
    for module in &args.module {
        vm.module(module);
    }
    if let Some(dir) = &args.keep {
        vm.keep(dir);
    }
    Ok(report(&vm.run(&mut stdout())?))
}

fn run_tests(args: &Test) -> Result<ExitCode> {
    let suite = Suite::build("berth-provisioner", &args.test)?;
    let mut code = ExitCode::SUCCESS;
    for filesystem in &args.filesystem {
        let mut vm = suite.vm(*filesystem, &args.args);
        vm.memory(args.memory)
            .limit(Duration::from_secs(args.timeout));
        let outcome = vm.run(&mut stdout())?;
        if !outcome.success() {
            code = report(&outcome);
        }
    }
    Ok(code)
}

/// Says what helps after a failure, and passes the code on.
fn report(outcome: &Outcome) -> ExitCode {
    if !outcome.success() {
        eprintln!("{}", outcome.trace());
    }
    ExitCode::from(outcome.code)
}
