//! The tables: the sides beside each other, and what the first one's figure is as a multiple
//! of each other's.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use crate::{
    case::Case,
    contender::{Limits, Side},
    measure::Figures,
    stats::{Spread, ratio},
};

/// One measurement, and of what.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The case's name.
    pub case: String,
    /// Limits of the control plane.
    pub limits: &'static str,
    /// The contender.
    pub side: &'static str,
    /// What it came to.
    pub figures: Figures,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub struct Report {
    measured: BTreeMap<(Limits, Case), BTreeMap<Side, Vec<Figures>>>,
}

/// One figure of the table: its name, digits behind the point, and where it is from.
type Column = (&'static str, usize, fn(Case, &Figures) -> Option<f64>);

const COLUMNS: [Column; 7] = [
    ("seconds", 1, |_, f| Some(f.seconds)),
    ("until told, s", 1, |_, f| f.told),
    ("writes", 0, |_, f| Some(f.writes.own() as f64)),
    ("of them events", 0, |_, f| Some(f.writes.events() as f64)),
    ("CPU s", 2, |_, f| Some(f.cpu)),
    ("peak RSS, MiB", 0, |_, f| Some(f.peak)),
    ("most down", 0, |_, f| f.most_down.map(|n| n as f64)),
];

impl Report {
    /// Takes in one measurement.
    pub fn add(&mut self, limits: Limits, case: Case, side: Side, figures: Figures) {
        let sides = self.measured.entry((limits, case)).or_default();
        sides.entry(side).or_default().push(figures);
    }

    /// Every measurement by itself, for a file.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for ((limits, case), sides) in &self.measured {
            for (side, figures) in sides {
                rows.extend(figures.iter().map(|figures| Row {
                    case: case.to_string(),
                    limits: limits.name(),
                    side: side.name(),
                    figures: figures.clone(),
                }));
            }
        }
        rows
    }

    /// The table for people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        let mut header = vec!["limits", "case", "side"];
        header.extend(COLUMNS.iter().map(|(name, ..)| *name));
        table.set_header(header);
        for ((limits, case), sides) in &self.measured {
            let mut first: Option<Vec<Option<Spread>>> = None;
            for (side, figures) in sides {
                let spreads: Vec<Option<Spread>> = COLUMNS
                    .iter()
                    .map(|(_, _, of)| Spread::of(figures.iter().filter_map(|f| of(*case, f))))
                    .collect();
                let cells = spreads
                    .iter()
                    .zip(&COLUMNS)
                    .map(|(spread, (_, digits, _))| {
                        spread.map_or_else(|| "-".to_owned(), |s| s.show(*digits))
                    });
                let name = [limits.name(), &case.to_string(), side.name()].map(str::to_owned);
                table.add_row(name.into_iter().chain(cells).collect::<Vec<_>>());
                match &first {
                    None => first = Some(spreads),
                    Some(first) => {
                        table.add_row(ratios(first, &spreads));
                    }
                }
            }
        }
        for column in 3..3 + COLUMNS.len() {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// Who wrote what, a line for each side of each case.
    pub fn writes(&self) -> String {
        let mut text = String::new();
        for ((limits, case), sides) in &self.measured {
            for (side, figures) in sides {
                let Some(figures) = figures.last() else {
                    continue;
                };
                let writes = &figures.writes;
                let list = |counts: &BTreeMap<String, u64>| {
                    let counts = counts.iter().map(|(what, n)| format!("{n} {what}"));
                    counts.collect::<Vec<_>>().join(", ")
                };
                text += &format!("{case} ({}), {}: ", limits.name(), side.name());
                text += &list(&writes.contender);
                text += &format!("; lease {}", writes.lease);
                if !writes.refused.is_empty() {
                    text += &format!("; refused: {}", list(&writes.refused));
                }
                text += &format!("; others' writes {}", writes.others);
                let others = figures.others.iter();
                let others = others.map(|(name, cpu)| format!("{name} {cpu:.1}"));
                let others = others.collect::<Vec<_>>().join(", ");
                let (before, after) = figures.memory;
                text += &format!(
                    "; CPU s of others: {others}; RSS {before:.1} -> {after:.1} MiB; load {:.1}\n",
                    figures.load
                );
            }
        }
        text
    }

    /// What was aimed at, beside what was measured. Nothing is asserted.
    pub fn aims(&self) -> String {
        let mut text = String::new();
        for ((limits, case), sides) in &self.measured {
            let median = |side: Side, of: fn(&Figures) -> f64| {
                Some(Spread::of(sides.get(&side)?.iter().map(of))?.median)
            };
            for side in [Side::Berth, Side::Native] {
                let Some(seconds) = median(side, |f| f.seconds) else {
                    continue;
                };
                let upstream = median(Side::Upstream, |f| f.seconds);
                let peak = median(side, |f| f.peak).unwrap_or_default();
                for aim in aims(*limits, *case, seconds, upstream, peak) {
                    text += &format!("{case} ({}), {}: {aim}\n", limits.name(), side.name());
                }
                if let Case::Idle { .. } = case {
                    let writes = median(side, |f| f.writes.own() as f64).unwrap_or_default();
                    text += &format!(
                        "{case} ({}), {}: {writes} writes but the lease's, aimed at 0\n",
                        limits.name(),
                        side.name()
                    );
                }
            }
        }
        text
    }
}

fn aims(limits: Limits, case: Case, seconds: f64, upstream: Option<f64>, peak: f64) -> Vec<String> {
    let mut aims = Vec::new();
    let wall = case.pods() as f64 / 50.0;
    match case {
        Case::Parallel(_) | Case::Sets { .. } if limits == Limits::Default => {
            aims.push(format!(
                "{seconds:.1} s; the scheduler alone needs {wall:.1} s (50 pods a second)"
            ));
        }
        Case::Rolling {
            by, ordered: false, ..
        } if limits == Limits::Default && by > 1 => {
            let aim = wall * 1.3;
            aims.push(format!("{seconds:.1} s, aimed at {aim:.1} s"));
        }
        _ => {}
    }
    let creates = matches!(
        case,
        Case::Parallel(_) | Case::Rolling { .. } | Case::Sets { .. }
    );
    if let Some(upstream) = upstream.filter(|_| creates && limits == Limits::Raised) {
        let times = ratio(upstream, seconds);
        aims.push(format!("{times} as fast as upstream, aimed at 5 x"));
    }
    if case.pods() >= 5000 {
        aims.push(format!("{peak:.0} MiB, aimed at 40 MiB for 5000 pods"));
    }
    aims
}

/// What the first side's figures are as multiples of another's.
fn ratios(first: &[Option<Spread>], other: &[Option<Spread>]) -> Vec<String> {
    let times = first.iter().zip(other).map(|pair| match pair {
        (Some(a), Some(b)) => ratio(a.median, b.median),
        _ => "-".to_owned(),
    });
    let name = ["", "", "upstream / this"].map(str::to_owned);
    name.into_iter().chain(times).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Writes;

    fn figures(seconds: f64, peak: f64) -> Figures {
        Figures {
            seconds,
            told: None,
            writes: Writes::default(),
            cpu: 1.0,
            peak,
            memory: (1.0, 2.0),
            most_down: None,
            others: Vec::new(),
            load: 0.0,
        }
    }

    #[test]
    fn a_side_is_shown_beside_the_first() {
        let mut report = Report::default();
        let case = Case::Parallel(500);
        report.add(Limits::Default, case, Side::Berth, figures(9.3, 30.0));
        report.add(Limits::Default, case, Side::Upstream, figures(24.3, 90.0));
        report.add(Limits::Default, case, Side::Upstream, figures(26.0, 90.0));
        let text = report.table().to_string();
        let lines: Vec<&str> = text.lines().filter(|l| l.contains("24.3..26.0")).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert!(text.contains("2.7 x") && text.contains("3.0 x"), "{text}");
        assert_eq!(report.rows().len(), 3);
        let aims = report.aims();
        assert!(aims.contains("the scheduler alone needs 10.0 s"), "{aims}");
    }
}
