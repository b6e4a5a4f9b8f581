//! Collects what a check finds.

use std::path::PathBuf;

use crate::types::{CheckReport, Finding, FindingKind, PoolId};

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    report: CheckReport,
}

impl Findings {
    /// Counts one thing that was examined.
    pub(super) fn count(&mut self) {
        self.report.checked += 1;
    }

    /// Adds a finding.
    pub(super) fn add(
        &mut self,
        kind: FindingKind,
        pool: Option<&PoolId>,
        volume: Option<&str>,
        path: PathBuf,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.report.findings.push(Finding {
            kind,
            pool: pool.cloned(),
            volume: volume.map(str::to_owned),
            path,
            what: what.into(),
            advice: advice.into(),
        });
    }

    /// Adds something that Berth did not make.
    pub(super) fn orphan(&mut self, pool: &PoolId, path: PathBuf) {
        self.add(
            FindingKind::Orphan,
            Some(pool),
            None,
            path,
            "Berth did not make this",
            "move it away if it is yours; Berth never removes it",
        );
    }

    /// The report, its findings sorted by kind and path.
    pub(super) fn into_report(mut self) -> CheckReport {
        self.report
            .findings
            .sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
        self.report
    }
}
