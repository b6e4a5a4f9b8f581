//! The circles that are there for now. The list may only shrink.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::circles::Circle;

const HEADER: &str =
    "# Circles of files that are there for now, a line each: package, files below src.
# Only ever remove lines; UPDATE=1 cargo test -p berth-house does.
";

/// The circles of each package that may be there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Allowed(BTreeMap<String, Vec<Circle>>);

impl Allowed {
    /// Reads the list.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace().map(str::to_owned);
            if let Some(package) = words.next() {
                list.add(&package, Circle(words.collect()));
            }
        }
        list
    }

    /// Adds a circle.
    pub fn add(&mut self, package: &str, circle: Circle) {
        self.0.entry(package.to_owned()).or_default().push(circle);
    }

    /// The list as text.
    pub fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        for (package, circles) in &self.0 {
            for circle in circles {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{package} {circle}");
            }
        }
        text
    }

    /// What the circles that are there do against this list, a sentence each.
    pub fn judge(&self, there: &Self) -> Vec<String> {
        let missing = |list: &Self, package: &str, circle: &Circle| {
            !list.0.get(package).is_some_and(|all| all.contains(circle))
        };
        let mut problems = Vec::new();
        for (package, circle) in there.all() {
            if missing(self, package, circle) {
                problems.push(format!(
                    "{package}: these files import one another in a circle: {circle}"
                ));
            }
        }
        for (package, circle) in self.all() {
            if missing(there, package, circle) {
                problems.push(format!(
                    "{package}: this circle is gone or smaller, so take it off the list: {circle}"
                ));
            }
        }
        problems
    }

    /// What would make the list larger: circles that are no part of one that is listed.
    pub fn growth(&self, there: &Self) -> Vec<String> {
        there
            .all()
            .filter(|(package, circle)| {
                let listed = self.0.get(*package).into_iter().flatten();
                !listed.into_iter().any(|old| circle.0.is_subset(&old.0))
            })
            .map(|(package, circle)| format!("{package}: a new circle: {circle}"))
            .collect()
    }

    fn all(&self) -> impl Iterator<Item = (&str, &Circle)> {
        self.0
            .iter()
            .flat_map(|(package, circles)| circles.iter().map(|c| (package.as_str(), c)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_fails_for_what_is_new_and_for_what_is_gone() {
        let list = Allowed::parse("# comment\np a.rs b.rs c.rs\n");
        assert!(list.judge(&list).is_empty());
        assert_eq!(list.judge(&Allowed::default()).len(), 1);
        let smaller = Allowed::parse("p a.rs b.rs");
        assert_eq!(list.judge(&smaller).len(), 2);
        assert!(list.growth(&smaller).is_empty());
        for larger in ["p a.rs d.rs", "q a.rs b.rs"] {
            assert_eq!(list.growth(&Allowed::parse(larger)).len(), 1);
        }
        assert_eq!(Allowed::parse(&list.text()), list);
    }
}
