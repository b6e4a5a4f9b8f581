//! Upstream's own tests, run on the cluster, several processes side by side.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Cluster;
use crate::components::{E2E, Go, KUBERNETES_PROGRAMS};
use crate::error::{Error, Result};
use crate::paths::{make_dir, read};
use crate::progress;
use crate::run::Run;

/// The StatefulSet specs that every conforming cluster passes.
pub const FOCUS: &str = r"\[sig-apps\] StatefulSet.*\[Conformance\]";

/// What became of one spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its whole name.
    pub name: String,
    /// `passed`, `failed`, `skipped` or another state of ginkgo's.
    pub state: String,
    /// How long it ran.
    pub time: Duration,
    /// Why it failed.
    pub failure: String,
}

/// What became of all specs in focus.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// One entry per spec, in the order in which they ended up.
    pub specs: Vec<Spec>,
    /// How long everything took.
    pub time: Duration,
}

impl Report {
    /// Whether something ran and everything that ran passed.
    pub fn is_success(&self) -> bool {
        self.count("passed") > 0 && self.count("passed") + self.count("skipped") == self.specs.len()
    }

    /// How many specs ended in a state.
    pub fn count(&self, state: &str) -> usize {
        self.specs.iter().filter(|s| s.state == state).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for spec in &self.specs {
            writeln!(
                f,
                "{:<8} {:>6.1} s  {}",
                spec.state,
                spec.time.as_secs_f32(),
                spec.name
            )?;
            if !spec.failure.is_empty() {
                writeln!(f, "         {}", spec.failure.replace('\n', "\n         "))?;
            }
        }
        let failed = self.specs.len() - self.count("passed") - self.count("skipped");
        let (passed, skipped) = (self.count("passed"), self.count("skipped"));
        let seconds = self.time.as_secs();
        writeln!(
            f,
            "{passed} passed, {failed} failed, {skipped} skipped in {seconds} s"
        )
    }
}

/// Runs the specs that `focus` matches, in up to `processes` processes at once.
pub fn run(cluster: &Cluster, focus: &str, processes: usize) -> Result<Report> {
    let go = Go::here()?;
    let suite = Suite {
        cluster,
        program: E2E.get(&go)?.join("e2e.test"),
        repository: KUBERNETES_PROGRAMS.module_dir("k8s.io/kubernetes")?,
        logs: cluster.log_dir().join("conformance"),
    };
    make_dir(&suite.logs)?;
    let begun = Instant::now();
    let all = suite.run("list", focus, true)?;
    let names: Vec<String> = all.into_iter().map(|s| s.name).collect();
    if names.is_empty() {
        return Err(Error::Unexpected(format!(
            "no spec of upstream matches {focus}"
        )));
    }
    let (alone, together): (Vec<_>, Vec<_>) = names.into_iter().partition(|n| needs_all_nodes(n));
    progress::say(format!(
        "{} specs in {} processes, {} alone afterwards",
        together.len(),
        processes.clamp(1, together.len().max(1)),
        alone.len()
    ));
    let groups = share(&together, processes);
    let mut specs = std::thread::scope(|scope| {
        let running: Vec<_> = groups
            .iter()
            .enumerate()
            .map(|(n, group)| {
                let suite = &suite;
                scope.spawn(move || suite.run(&format!("process-{n}"), &exactly(group), false))
            })
            .collect();
        let mut specs = Vec::new();
        for process in running {
            let result = process.join().map_err(|_| {
                Error::Unexpected("a thread that ran upstream's tests panicked".to_owned())
            })?;
            specs.extend(result?);
        }
        Ok::<_, Error>(specs)
    })?;
    if !alone.is_empty() {
        specs.extend(suite.run("alone", &exactly(&alone), false)?);
    }
    Ok(Report {
        specs,
        time: begun.elapsed(),
    })
}

struct Suite<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
    repository: PathBuf,
    logs: PathBuf,
}

impl Suite<'_> {
    fn run(&self, name: &str, focus: &str, dry: bool) -> Result<Vec<Spec>> {
        let report = self.logs.join(format!("{name}.json"));
        let ended = Run::new(&self.program)
            .arg(format!(
                "-kubeconfig={}",
                self.cluster.kubeconfig().display()
            ))
            .args([
                "-provider=skeleton",
                "-ginkgo.no-color",
                "-ginkgo.timeout=2h",
            ])
            .arg(format!("-num-nodes={}", self.cluster.workers().len()))
            .arg(format!(
                "-kubectl-path={}",
                self.cluster.kubectl_path().display()
            ))
            .arg(format!("-repo-root={}", self.repository.display()))
            .arg(format!("-ginkgo.focus={focus}"))
            .arg(format!("-ginkgo.dry-run={dry}"))
            .arg(format!("-ginkgo.json-report={}", report.display()))
            .logged(&self.logs.join(format!("{name}.log")));
        match parse(&report) {
            // A failed spec fails the process as well; the report says it better.
            Ok(specs) if !specs.is_empty() => Ok(specs),
            other => ended.and(other),
        }
    }
}

/// Specs that take nodes away from all others.
fn needs_all_nodes(name: &str) -> bool {
    ["[Serial]", "[Disruptive]", "missing PVC"]
        .iter()
        .any(|mark| name.contains(mark))
}

/// Deals the specs out to at most `processes` groups.
fn share(names: &[String], processes: usize) -> Vec<Vec<String>> {
    let count = processes.clamp(1, names.len().max(1));
    let mut groups = vec![Vec::new(); count];
    for (n, name) in names.iter().enumerate() {
        groups[n % count].push(name.clone());
    }
    groups.retain(|g| !g.is_empty());
    groups
}

/// The regular expression that matches exactly these names.
fn exactly(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|n| quote(n)).collect();
    format!("({})$", quoted.join("|"))
}

fn quote(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The specs of a ginkgo report that were in focus.
fn parse(report: &Path) -> Result<Vec<Spec>> {
    let suites: Value = serde_json::from_str(&read(report)?)
        .map_err(|e| Error::Unexpected(format!("{} is not JSON: {e}", report.display())))?;
    let suites = suites.as_array().into_iter().flatten();
    let specs = suites.flat_map(|s| s["SpecReports"].as_array().into_iter().flatten());
    Ok(specs.filter_map(spec).collect())
}

fn spec(report: &Value) -> Option<Spec> {
    let state = report["State"].as_str()?;
    let failure = report["Failure"]["Message"].as_str().unwrap_or_default();
    // Specs out of focus are reported as skipped for no reason; suite nodes only matter when they fail.
    let is_spec = report["LeafNodeType"] == "It";
    if (is_spec && state == "skipped" && failure.is_empty()) || (!is_spec && state == "passed") {
        return None;
    }
    let mut words: Vec<&str> = report["ContainerHierarchyTexts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    words.push(
        report["LeafNodeText"]
            .as_str()
            .filter(|t| !t.is_empty())
            .or(report["LeafNodeType"].as_str())?,
    );
    Some(Spec {
        name: words.join(" "),
        state: state.to_owned(),
        time: Duration::from_nanos(report["RunTime"].as_u64().unwrap_or_default()),
        failure: failure.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn specs_out_of_focus_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.json");
        let it = |name: &str, state: &str, failure: &str| {
            json!({"ContainerHierarchyTexts": ["[sig-apps] A"], "LeafNodeText": name, "LeafNodeType": "It",
                   "State": state, "RunTime": 1_500_000_000u64, "Failure": {"Message": failure}})
        };
        let suite = json!({"LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "passed"});
        let broken = json!({"LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "failed",
                            "Failure": {"Message": "no nodes"}});
        let reports = [
            it("x", "passed", ""),
            it("y", "skipped", ""),
            it("z", "skipped", "needs a cloud"),
            suite,
            broken,
        ];
        std::fs::write(&file, json!([{"SpecReports": reports}]).to_string()).unwrap();
        let specs = parse(&file).unwrap();
        let names: Vec<_> = specs
            .iter()
            .map(|s| (s.name.as_str(), s.state.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                ("[sig-apps] A x", "passed"),
                ("[sig-apps] A z", "skipped"),
                ("SynchronizedBeforeSuite", "failed")
            ]
        );
        let report = Report {
            specs,
            time: Duration::from_secs(3),
        };
        assert!(!report.is_success());
        assert!(
            report
                .to_string()
                .ends_with("1 passed, 1 failed, 1 skipped in 3 s\n")
        );
    }

    #[test]
    fn every_spec_is_in_one_group() {
        let names: Vec<String> = (0..5).map(|n| format!("s{n}")).collect();
        let groups = share(&names, 2);
        assert_eq!(groups, [vec!["s0", "s2", "s4"], vec!["s1", "s3"]]);
        assert_eq!(share(&names[..1], 4).len(), 1);
        assert!(share(&[], 4).is_empty());
    }

    #[test]
    fn names_are_matched_literally() {
        assert_eq!(
            exactly(&["[a] b (c)".to_owned(), "d.e".to_owned()]),
            r"(\[a\] b \(c\)|d\.e)$"
        );
        assert!(needs_all_nodes(
            "x when pod is pending due to missing PVC y"
        ));
    }

    #[test]
    fn a_run_of_nothing_is_no_success() {
        assert!(!Report::default().is_success());
    }
}
