//! Several values of one figure, and two figures beside each other.

/// The least, the middle and the greatest of repeated measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of some values; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { min, median, max })
    }

    /// As a table shows it: one figure, or the median and in brackets the ends.
    pub fn show(&self, digits: usize) -> String {
        if self.min == self.max {
            format!("{:.digits$}", self.median)
        } else {
            let Self { min, median, max } = self;
            format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
        }
    }
}

/// How many times `b` goes into `a`; a dash where that says nothing.
pub fn ratio(a: f64, b: f64) -> String {
    if a > 0.0 && b > 0.0 {
        format!("{:.1} x", a / b)
    } else {
        "-".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_few() {
        assert_eq!(Spread::of([]), None);
        let one = Spread::of([2.0]).expect("a value");
        assert_eq!(one.show(1), "2.0");
        let three = Spread::of([9.0, 1.0, 2.0]).expect("values");
        assert_eq!(three.show(1), "2.0 (1.0..9.0)");
        let four = Spread::of([4.0, 1.0, 2.0, 3.0]).expect("values");
        assert_eq!(four.median, 2.5);
    }

    #[test]
    fn nothing_is_no_multiple_of_nothing() {
        assert_eq!(ratio(24.3, 9.3), "2.6 x");
        assert_eq!(ratio(0.0, 1.0), "-");
        assert_eq!(ratio(1.0, 0.0), "-");
    }
}
