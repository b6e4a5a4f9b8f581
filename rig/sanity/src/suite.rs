//! One run of csi-sanity, and what its report says.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::skips::{self, Why};
use crate::spec::Spec;

/// Bytes of the volumes that are made; upstream's 10 GiB would want larger disks.
const SIZE: u64 = 64 << 20;

/// Bytes to which volumes grow.
const GROWN: u64 = 128 << 20;

/// What became of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One entry per spec, in the order in which they ran.
    pub specs: Vec<Spec>,
}

/// What to run against what.
pub(crate) struct Suite<'a> {
    pub(crate) program: &'a Path,
    pub(crate) socket: &'a Path,
    pub(crate) kubelet: &'a Path,
    /// Parameters of the volumes.
    pub(crate) parameters: &'a BTreeMap<&'static str, String>,
    pub(crate) block: bool,
    /// Where its files go: its report, its log.
    pub(crate) work: &'a Path,
}

impl Suite<'_> {
    /// Runs every spec.
    pub(crate) fn run(&self) -> Result<Report> {
        let parameters = self.work.join("parameters.json");
        // JSON is YAML.
        let text = serde_json::to_string(self.parameters)?;
        std::fs::write(&parameters, text).context("cannot write the parameters")?;
        let json = self.work.join("report.json");
        let log = File::create(self.work.join("csi-sanity.log")).context("cannot make a log")?;
        // It makes and removes these itself, but not what they lie in.
        let staging = self.parent("plugins/kubernetes.io/csi/csi.berth.dev")?;
        let mounts = self.parent("pods/sanity/volumes/kubernetes.io~csi")?;
        let access = if self.block { "block" } else { "mount" };
        let status = Command::new(self.program)
            .arg(format!("--csi.endpoint=unix://{}", self.socket.display()))
            .arg(format!("--csi.stagingdir={}/staging", staging.display()))
            .arg(format!("--csi.mountdir={}/mounts", mounts.display()))
            .arg(format!("--csi.testvolumesize={SIZE}"))
            .arg(format!("--csi.testvolumeexpandsize={GROWN}"))
            .arg(format!("--csi.testvolumeaccesstype={access}"))
            .arg(format!(
                "--csi.testvolumeparameters={}",
                parameters.display()
            ))
            .arg(format!("--ginkgo.json-report={}", json.display()))
            .args(["--ginkgo.no-color", "--ginkgo.timeout=15m"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let text = std::fs::read(&json)
            .with_context(|| format!("csi-sanity ended with {status} and without a report"))?;
        let report = parse(&serde_json::from_slice(&text).context("the report is no JSON")?)?;
        // Something outside the specs may fail, too.
        if !status.success() && report.failed().next().is_none() {
            bail!("csi-sanity ended with {status}, though no spec failed");
        }
        Ok(report)
    }

    fn parent(&self, path: &str) -> Result<PathBuf> {
        let path = self.kubelet.join(path);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

fn parse(report: &Value) -> Result<Report> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let suites = report.as_array().context("the report is no list")?;
    let mut specs = Vec::new();
    for found in suites
        .iter()
        .filter_map(|suite| suite["SpecReports"].as_array())
        .flatten()
    {
        let state = text(&found["State"]);
        // What is round the specs counts when it goes wrong.
        if found["LeafNodeType"] != "It" && state == "passed" {
            continue;
        }
        let mut name: Vec<String> = found["ContainerHierarchyTexts"]
            .as_array()
            .map(|texts| texts.iter().map(text).collect())
            .unwrap_or_default();
        name.push(text(&found["LeafNodeText"]));
        specs.push(Spec {
            name: name.join(" "),
            state,
            message: text(&found["Failure"]["Message"]),
        });
    }
    Ok(Report { specs })
}

impl Report {
    /// How many specs ended in a state.
    pub fn count(&self, state: &str) -> usize {
        self.specs.iter().filter(|spec| spec.state == state).count()
    }

    /// The specs that did not end well.
    pub fn failed(&self) -> impl Iterator<Item = &Spec> {
        self.specs
            .iter()
            .filter(|spec| !matches!(spec.state.as_str(), "passed" | "skipped" | "pending"))
    }

    /// The specs that were skipped, and why.
    pub fn skipped(&self) -> impl Iterator<Item = (Why, &Spec)> {
        self.specs
            .iter()
            .filter_map(|spec| Some((skips::why(spec)?, spec)))
    }

    /// Whether specs ran, all of them passed, and only those were skipped that may.
    pub fn is_success(&self) -> bool {
        self.count("passed") > 0
            && self.failed().next().is_none()
            && self.skipped().all(|(why, _)| why.is_allowed())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut skipped: Vec<_> = self.skipped().collect();
        skipped.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.name.cmp(&other.name)));
        writeln!(
            f,
            "{} passed, {} failed, {} skipped",
            self.count("passed"),
            self.failed().count(),
            skipped.len()
        )?;
        for (why, spec) in skipped {
            writeln!(f, "  skipped ({why}): {}", spec.name)?;
            if !why.is_allowed() {
                writeln!(f, "    {}", spec.message)?;
            }
        }
        for spec in self.failed() {
            writeln!(f, "  {}: {}", spec.state, spec.name)?;
            for line in spec.message.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(states: &[(&str, &str)]) -> Report {
        let specs: Vec<Value> = states
            .iter()
            .map(|(state, message)| {
                json!({
                    "ContainerHierarchyTexts": ["Node Service", "NodeStageVolume"],
                    "LeafNodeText": "works",
                    "LeafNodeType": "It",
                    "State": state,
                    "Failure": {"Message": message},
                })
            })
            .chain([json!({"LeafNodeType": "BeforeSuite", "State": "passed"})])
            .collect();
        parse(&json!([{ "SpecReports": specs }])).expect("a report")
    }

    #[test]
    fn success_is_all_that_ran() {
        let allowed = "ControllerModifyVolume not supported";
        assert!(report(&[("passed", ""), ("skipped", allowed), ("pending", "")]).is_success());
        for states in [
            &[][..],
            &[("skipped", allowed)],
            &[("passed", ""), ("failed", "x")],
            &[("passed", ""), ("timedout", "x")],
            &[("passed", ""), ("skipped", "CreateVolume not supported")],
        ] {
            assert!(!report(states).is_success(), "{states:?}");
        }
        assert!(parse(&json!({})).is_err());
    }

    #[test]
    fn everything_skipped_or_failed_is_printed() {
        let shown = report(&[
            ("passed", ""),
            ("failed", "line one\nline two"),
            ("skipped", "Nothing supported"),
        ])
        .to_string();
        for line in [
            "1 passed, 1 failed, 1 skipped",
            "  skipped (NOT EXPECTED): Node Service NodeStageVolume works",
            "    Nothing supported",
            "  failed: Node Service NodeStageVolume works",
            "    line two",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
    }
}
