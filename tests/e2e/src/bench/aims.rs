//! What was aimed at, beside what was measured.

use super::table::{Table, number};

/// Which side of the aim is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The value should be at least the aim.
    AtLeast,
    /// The value should be at most the aim.
    AtMost,
}

/// An aim, and what was measured; `None` where that part was not run.
#[derive(Clone, Debug)]
pub struct Aim {
    /// What it is about, with its unit.
    pub title: String,
    /// The side.
    pub side: Side,
    /// The aim.
    pub aim: f64,
    /// What was measured.
    pub measured: Option<f64>,
}

impl Aim {
    /// Whether it is met; `None` where nothing was measured.
    pub fn met(&self) -> Option<bool> {
        self.measured.map(|value| match self.side {
            Side::AtLeast => value >= self.aim,
            Side::AtMost => value <= self.aim,
        })
    }
}

/// The table of the aims that were measured.
pub fn table(aims: &[Aim]) -> Table {
    let mut table = Table::new(&["aim", "wanted", "measured", ""]);
    for aim in aims {
        let (Some(value), Some(met)) = (aim.measured, aim.met()) else {
            continue;
        };
        let side = match aim.side {
            Side::AtLeast => ">=",
            Side::AtMost => "<=",
        };
        table.row(vec![
            aim.title.clone(),
            format!("{side} {}", number(aim.aim)),
            number(value),
            if met { "met" } else { "missed" }.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_has_a_side() {
        let aim = |side, measured| Aim {
            title: "x".to_owned(),
            side,
            aim: 5.0,
            measured,
        };
        assert_eq!(aim(Side::AtLeast, Some(5.0)).met(), Some(true));
        assert_eq!(aim(Side::AtLeast, Some(4.9)).met(), Some(false));
        assert_eq!(aim(Side::AtMost, Some(4.9)).met(), Some(true));
        assert_eq!(aim(Side::AtMost, None).met(), None);
        let aims = [aim(Side::AtMost, None), aim(Side::AtLeast, Some(4.0))];
        let text = table(&aims).to_string();
        assert_eq!(text.matches(">= 5.00").count(), 1, "{text}");
        assert!(text.contains("missed") && !text.contains("<="));
    }
}
