//! Upstream's own tests, unmodified, run on the cluster, several side by side.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
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
    /// Everything it printed; empty for a spec that was only listed.
    pub log: PathBuf,
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
                writeln!(f, "         log: {}", spec.log.display())?;
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

/// Which of upstream's specs to run, and how.
#[derive(Debug, Clone)]
pub struct Choice {
    /// A regular expression that the specs' names match.
    pub focus: String,
    /// Specs whose names contain one of these are left out.
    pub without: Vec<String>,
    /// How many run side by side.
    pub processes: usize,
    /// Where each spec's log and report go; `None` is below the cluster's own logs.
    pub logs: Option<PathBuf>,
    /// More arguments for upstream's program.
    pub arguments: Vec<String>,
}

impl Choice {
    /// Specs by name, four side by side.
    pub fn of(focus: impl Into<String>) -> Self {
        Self {
            focus: focus.into(),
            without: Vec::new(),
            processes: 4,
            logs: None,
            arguments: Vec::new(),
        }
    }
}

/// Runs the chosen specs, each in a process of its own so that none waits for
/// another's end; those that take nodes away run alone at the end.
///
/// A spec runs once: one that fails is not tried again.
///
/// # Errors
/// When no spec is chosen, or upstream's program does not run. A failed spec is
/// no error; [`Report::is_success`] tells.
pub fn run(cluster: &Cluster, choice: &Choice) -> Result<Report> {
    let go = Go::here()?;
    let logs = choice.logs.clone();
    let suite = Suite {
        cluster,
        program: E2E.get(&go)?.join("e2e.test"),
        repository: KUBERNETES_PROGRAMS.module_dir("k8s.io/kubernetes")?,
        logs: logs.unwrap_or_else(|| cluster.log_dir().join("conformance")),
        arguments: &choice.arguments,
    };
    make_dir(&suite.logs)?;
    let begun = Instant::now();
    let listed = suite.run("list", &choice.focus, true)?;
    let names = listed.into_iter().map(|s| s.name);
    let names: Vec<_> = names
        .filter(|name| !choice.without.iter().any(|w| name.contains(w)))
        .collect();
    if names.is_empty() {
        let focus = &choice.focus;
        return Err(Error::Unexpected(format!(
            "no spec of upstream matches {focus}"
        )));
    }
    let (alone, mut together): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|n| needs_all_nodes(n));
    slow_first(&mut together);
    let processes = choice.processes.clamp(1, together.len().max(1));
    let count = together.len();
    let after = alone.len();
    progress::say(format!(
        "{count} specs in {processes} processes, {after} alone afterwards"
    ));
    let mut specs = side_by_side(&suite, together, processes)?;
    for (n, name) in alone.iter().enumerate() {
        specs.extend(suite.spec(&format!("alone-{n:02}"), name)?);
    }
    Ok(Report {
        specs,
        time: begun.elapsed(),
    })
}

/// Lets `processes` threads take specs off a queue until it is empty.
fn side_by_side(suite: &Suite<'_>, names: Vec<String>, processes: usize) -> Result<Vec<Spec>> {
    let queue = Mutex::new(names.into_iter().enumerate());
    let take = || {
        // The lock is only held for a step of the iterator, which cannot panic.
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.next()
    };
    let work = || {
        let mut specs = Vec::new();
        while let Some((n, name)) = take() {
            specs.extend(suite.spec(&format!("spec-{n:02}"), &name)?);
        }
        Ok::<_, Error>(specs)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..processes).map(|_| scope.spawn(work)).collect();
        let mut specs = Vec::new();
        for thread in threads {
            let result = thread.join().map_err(|_| {
                Error::Unexpected("a thread that ran upstream's tests panicked".to_owned())
            })?;
            specs.extend(result?);
        }
        Ok(specs)
    })
}

struct Suite<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
    repository: PathBuf,
    logs: PathBuf,
    arguments: &'a [String],
}

impl Suite<'_> {
    /// Runs one spec and says what became of it.
    fn spec(&self, file: &str, name: &str) -> Result<Vec<Spec>> {
        let mut specs = self.run(file, &exactly(name), false)?;
        for spec in &mut specs {
            spec.log = self.logs.join(format!("{file}.log"));
            let seconds = spec.time.as_secs();
            progress::say(format!("{} after {seconds} s: {}", spec.state, spec.name));
        }
        Ok(specs)
    }

    fn run(&self, file: &str, focus: &str, dry: bool) -> Result<Vec<Spec>> {
        let report = self.logs.join(format!("{file}.json"));
        // What an earlier run left must not be taken for this one's.
        if let Err(e) = std::fs::remove_file(&report)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Error::io("cannot remove", &report)(e));
        }
        let ended = Run::new(&self.program)
            .arg(format!(
                "-kubeconfig={}",
                self.cluster.kubeconfig().display()
            ))
            .args([
                "-provider=skeleton",
                "-ginkgo.no-color",
                "-ginkgo.timeout=2h",
                "-ginkgo.flake-attempts=1",
            ])
            .arg(format!("-num-nodes={}", self.cluster.workers().len()))
            .arg(format!(
                "-kubectl-path={}",
                self.cluster.kubectl_path().display()
            ))
            .arg(format!("-repo-root={}", self.repository.display()))
            .args(self.arguments)
            .arg(format!("-ginkgo.focus={focus}"))
            .arg(format!("-ginkgo.dry-run={dry}"))
            .arg(format!("-ginkgo.json-report={}", report.display()))
            .logged(&self.logs.join(format!("{file}.log")));
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

/// Specs that upstream calls slow begin first, so that none is still at its
/// beginning when all others have ended.
fn slow_first(names: &mut [String]) {
    names.sort_by_key(|name| !name.contains("[Slow]"));
}

/// The regular expression that matches exactly this name.
fn exactly(name: &str) -> String {
    format!("{}$", quote(name))
}

/// A regular expression that matches just this text.
pub fn quote(name: &str) -> String {
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
        failure: match report["Failure"]["Location"]["FileName"].as_str() {
            Some(file) if !failure.is_empty() => {
                let line = &report["Failure"]["Location"]["LineNumber"];
                format!("{failure}\n{file}:{line}")
            }
            _ => failure.to_owned(),
        },
        log: PathBuf::new(),
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
    fn slow_specs_begin_first() {
        let mut names = ["a", "b [Slow]", "c", "d [Slow]"].map(str::to_owned);
        slow_first(&mut names);
        assert_eq!(names, ["b [Slow]", "d [Slow]", "a", "c"]);
    }

    #[test]
    fn names_are_matched_literally() {
        assert_eq!(exactly("[a] b (c) d.e"), r"\[a\] b \(c\) d\.e$");
        assert!(needs_all_nodes(
            "x when pod is pending due to missing PVC y"
        ));
    }

    #[test]
    fn a_run_of_nothing_is_no_success() {
        assert!(!Report::default().is_success());
    }
}
