//! A package's integration tests, built here and run in a guest for each filesystem.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use berth_cluster::run::Run;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::guest::quote;
use crate::vm::Vm;

/// The size of the disk that tests work on, in bytes; sparse.
const DISK: u64 = 32 << 30;

/// Where tests are in the guest.
const TESTS: &str = "/.berth/tests";

/// A filesystem that tests judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// xfs with project quotas.
    Xfs,
    /// ext4 with project quotas.
    Ext4,
    /// btrfs.
    Btrfs,
}

impl Filesystem {
    /// The filesystem of that name.
    ///
    /// # Errors
    /// A sentence that names the ones there are.
    pub fn parse(name: &str) -> std::result::Result<Self, String> {
        match name {
            "xfs" => Ok(Self::Xfs),
            "ext4" => Ok(Self::Ext4),
            "btrfs" => Ok(Self::Btrfs),
            _ => Err("the filesystems are xfs, ext4 and btrfs".to_owned()),
        }
    }

    /// Its name, as mount knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
            Self::Btrfs => "btrfs",
        }
    }

    /// The commands that make it on `device` and mount it at `dir`.
    pub fn setup(self, device: &str, dir: &str) -> String {
        let (mkfs, options) = match self {
            Self::Xfs => ("mkfs.xfs -q", "-o prjquota"),
            Self::Ext4 => (
                "mkfs.ext4 -q -O quota,project -E quotatype=prjquota",
                "-o prjquota",
            ),
            Self::Btrfs => ("mkfs.btrfs -q", ""),
        };
        format!("{mkfs} {device}\nmkdir -p {dir}\nmount {options} {device} {dir}\n")
    }
}

/// Test executables, by target.
#[derive(Debug)]
pub struct Suite {
    package: String,
    tests: Vec<(String, PathBuf)>,
}

/// What is read of cargo's messages.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Suite {
    /// Builds the integration tests of `package`: all, or those in `only`.
    ///
    /// # Errors
    /// A build that fails, or a target that is not there.
    pub fn build(package: &str, only: &[String]) -> Result<Self> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        xtask::forget_package(&mut cargo);
        cargo
            .args(["test", "--no-run", "--package", package])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(berth_cluster::checkout()?)
            .stderr(Stdio::inherit());
        if only.is_empty() {
            cargo.args(["--test", "*"]);
        }
        for test in only {
            cargo.args(["--test", test]);
        }
        let output = cargo
            .output()
            .map_err(Error::io("cannot start", cargo.get_program()))?;
        if !output.status.success() {
            return Err(Error::Unexpected(format!(
                "the tests of {package} do not build; the compiler's words are above"
            )));
        }
        let tests = executables(&String::from_utf8_lossy(&output.stdout));
        if tests.is_empty() {
            return Err(Error::Unexpected(format!(
                "{package} has no integration tests to run in a guest"
            )));
        }
        Ok(Self {
            package: package.to_owned(),
            tests,
        })
    }

    /// The names of all cases, by the targets' own lists: what a run must show.
    ///
    /// # Errors
    /// A target that does not list them.
    pub fn cases(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (_, file) in &self.tests {
            let list = Run::new(file).args(["--list", "--format=terse"]).stdout()?;
            found.extend(cases(&list));
        }
        Ok(found)
    }

    /// A guest that runs all of them on a disk with `filesystem`; its code is 0 if
    /// each succeeded.
    pub fn vm(&self, filesystem: Filesystem, args: &[String]) -> Vm {
        let name = filesystem.name();
        let mut script = format!("set -e\n{}", filesystem.setup("/dev/vda", "/scratch"));
        script += "set +e\nfailed=0\n";
        let args: String = args.iter().map(|a| format!(" {}", quote(a))).collect();
        for (test, _) in &self.tests {
            script += &format!(
                "echo \"=== {} {test} on {name}, Linux $(uname -r)\"\n{TESTS}/{test}{args} || failed=101\n",
                self.package
            );
        }
        script += "exit $failed\n";
        let mut vm = Vm::new("sh", ["-c".to_owned(), script]);
        vm.disk(DISK)
            .env("BERTH_TEST_FILESYSTEM", name)
            .env("TMPDIR", "/scratch")
            .env("RUST_BACKTRACE", "1");
        for (test, file) in &self.tests {
            vm.copy(file, format!("{TESTS}/{test}"));
        }
        vm
    }
}

/// Test executables' own lists: the cases' names.
fn cases(list: &str) -> Vec<String> {
    list.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

/// Integration tests among cargo's messages.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter_map(|message| Some((message.target?, message.executable?)))
        .filter(|(target, _)| target.kind == ["test"])
        .map(|(target, file)| (target.name, file))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_told_from_benchmarks() {
        let list = "a::b: test\nc: test\nd: benchmark\n";
        assert_eq!(cases(list), ["a::b", "c"]);
    }

    #[test]
    fn integration_tests_are_told_from_libraries_and_programs() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"a","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"a","kind":["bin"]},"executable":"/t/a"}
{"reason":"compiler-artifact","target":{"name":"disks","kind":["test"]},"executable":"/t/disks-1"}
{"reason":"build-finished","success":true}
"#;
        let expected = [("disks".to_owned(), PathBuf::from("/t/disks-1"))];
        assert_eq!(executables(messages), expected);
    }
}
