//! A container runtime for machines whose root lacks CAP_SYS_RESOURCE.
//!
//! A privileged container asks for every capability, and granting one that is
//! missing from the bounding set fails. The shim takes that capability, and what
//! only it allows, out of the bundle before the real runtime sees it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::paths;
use crate::run::Run;

const MISSING: &str = "CAP_SYS_RESOURCE";

/// CAP_SYS_RESOURCE's bit (capability.h).
const MISSING_BIT: u32 = 24;

/// Whether /proc/self/status lets this process have CAP_SYS_RESOURCE.
pub(crate) fn has_sys_resource(status: &str) -> bool {
    status
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .is_none_or(|set| set & (1 << MISSING_BIT) != 0)
}

/// Prepares the files that the arguments name, then becomes runc.
pub(crate) fn main(args: &[String]) -> Error {
    for (path, part) in files_to_prepare(args) {
        if let Err(error) = prepare(&path, part) {
            return error;
        }
    }
    Run::new("runc").args(args).exec()
}

/// Which part of a file describes the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The `process` member of a bundle's config.json.
    Member,
    /// The whole file, as `exec --process` takes it.
    Whole,
}

fn files_to_prepare(args: &[String]) -> Vec<(PathBuf, Part)> {
    let exec = args.iter().any(|a| a == "exec");
    let mut files = Vec::new();
    for (i, arg) in args.iter().enumerate() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (arg.as_str(), args.get(i + 1).map(String::as_str)),
        };
        let Some(value) = value else { continue };
        match name {
            "--bundle" | "-b" => files.push((Path::new(value).join("config.json"), Part::Member)),
            "--process" | "-p" if exec => files.push((PathBuf::from(value), Part::Whole)),
            _ => {}
        }
    }
    files
}

fn prepare(path: &Path, part: Part) -> Result<()> {
    if !path.exists() {
        // runc itself says best what is missing.
        return Ok(());
    }
    let mut config: Value = serde_json::from_str(&paths::read(path)?)
        .map_err(|e| Error::Unexpected(format!("{} is not JSON: {e}", path.display())))?;
    let process = match part {
        Part::Member => config.get_mut("process"),
        Part::Whole => Some(&mut config),
    };
    if let Some(process) = process {
        strip(process);
    }
    paths::write(path, config.to_string())
}

/// Takes the capability, and what needs it, out of a process description.
fn strip(process: &mut Value) {
    if let Some(sets) = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut)
    {
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.retain(|c| c != MISSING);
        }
    }
    if let Some(process) = process.as_object_mut() {
        process.remove("oomScoreAdj");
        process.remove("rlimits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_bounding_set_decides() {
        assert!(!has_sys_resource("Name:\tx\nCapBnd:\t000001fffeffffff\n"));
        assert!(has_sys_resource("CapBnd:\t000001ffffffffff\n"));
        assert!(has_sys_resource("no such line"));
    }

    #[test]
    fn bundles_and_processes_are_found_among_the_arguments() {
        let create = words("--root /r --log /l create --bundle /b --pid-file /p id");
        assert_eq!(
            files_to_prepare(&create),
            [(PathBuf::from("/b/config.json"), Part::Member)]
        );
        let exec = words("--root /r exec --process /tmp/p1 --detach id");
        assert_eq!(
            files_to_prepare(&exec),
            [(PathBuf::from("/tmp/p1"), Part::Whole)]
        );
        assert_eq!(files_to_prepare(&words("delete --force id")), []);
        assert_eq!(
            files_to_prepare(&words("run --bundle=/x id")),
            [(PathBuf::from("/x/config.json"), Part::Member)]
        );
    }

    #[test]
    fn only_what_needs_the_capability_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let config = serde_json::json!({"process": {
            "args": ["sh"], "oomScoreAdj": -999, "rlimits": [{"type": "RLIMIT_NOFILE"}],
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"], "ambient": null}}});
        std::fs::write(&path, config.to_string()).unwrap();
        prepare(&path, Part::Member).unwrap();
        let left: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(
            left,
            serde_json::json!({"process": {"args": ["sh"],
                "capabilities": {"bounding": ["CAP_CHOWN"], "ambient": null}}})
        );
    }
}
