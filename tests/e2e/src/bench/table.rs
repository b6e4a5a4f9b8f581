//! Tables for people, as Markdown, so that one can go into a document as it is.

use std::fmt;

use super::stats::Spread;

/// Rows under a head; the first column is text, the others are numbers.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns.
    pub fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { rows: vec![head] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether there is no row under the head.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            write!(f, "|")?;
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                match column {
                    0 => write!(f, " {cell:<width$} |")?,
                    _ => write!(f, " {cell:>width$} |")?,
                }
            }
            writeln!(f)?;
            if number == 0 {
                write!(f, "|")?;
                for (column, width) in widths.iter().enumerate() {
                    let line = "-".repeat(width + 1);
                    match column {
                        0 => write!(f, "{line}-|")?,
                        _ => write!(f, "{line}:|")?,
                    }
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// A number with as many digits as say something.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The median, with the least and the largest where they differ from it.
pub fn spread(value: Option<Spread>) -> String {
    match value {
        None => "-".to_owned(),
        Some(s) if s.min == s.max => number(s.median),
        Some(s) => format!("{} ({}-{})", number(s.median), number(s.min), number(s.max)),
    }
}

/// A number, or a dash where there is none.
pub fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["what", "ms"]);
        table.row(vec!["one claim".to_owned(), "12".to_owned()]);
        table.row(vec!["ten".to_owned()]);
        let expected = "\
| what      |  ms |
|-----------|----:|
| one claim |  12 |
| ten       |     |
";
        assert_eq!(table.to_string(), expected);
        assert!(!table.is_empty() && Table::new(&["a"]).is_empty());
    }

    #[test]
    fn numbers_have_three_digits_or_so() {
        assert_eq!(number(1234.56), "1235");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(0.987), "0.99");
        let s = Spread {
            min: 1.0,
            median: 2.0,
            max: 30.0,
        };
        assert_eq!(spread(Some(s)), "2.00 (1.00-30.0)");
        assert_eq!(spread(None), "-");
    }
}
