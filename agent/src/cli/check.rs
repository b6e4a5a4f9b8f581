//! `berth-agent check`.

use std::process::ExitCode;

use berth_provisioner::CheckReport;

use super::common::Common;

pub(super) fn check(common: &Common) -> anyhow::Result<ExitCode> {
    let report = common.inspect()?.check()?;
    common.print(&report, show)?;
    Ok(match report.findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}

fn show(report: &CheckReport) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&format!(
            "{}: {}\n    {}\n",
            finding.path.display(),
            finding.what,
            finding.advice
        ));
    }
    text.push_str(&match report.findings.len() {
        0 => format!("{} checked, all is as it should be\n", report.checked),
        1 => format!(
            "{} checked, 1 finding; nothing was changed\n",
            report.checked
        ),
        n => format!(
            "{} checked, {n} findings; nothing was changed\n",
            report.checked
        ),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_provisioner::{Finding, FindingKind};

    #[test]
    fn says_what_to_do() {
        let orphan = Finding {
            kind: FindingKind::Orphan,
            pool: None,
            volume: None,
            path: "/var/lib/berth/pools/disk0/volumes/notes".into(),
            what: "Berth did not make this".to_owned(),
            advice: "move it elsewhere if it is yours".to_owned(),
        };
        let found = CheckReport {
            checked: 12,
            findings: vec![orphan],
        };
        let clean = CheckReport {
            checked: 12,
            findings: Vec::new(),
        };
        expect_test::expect![[r#"
            /var/lib/berth/pools/disk0/volumes/notes: Berth did not make this
                move it elsewhere if it is yours
            12 checked, 1 finding; nothing was changed
        "#]]
        .assert_eq(&show(&found));
        expect_test::expect![[r#"
            12 checked, all is as it should be
        "#]]
        .assert_eq(&show(&clean));
    }
}
