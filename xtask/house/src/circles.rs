//! Circles of files: each depends on each other one, directly or by way of others.

use std::collections::BTreeSet;
use std::fmt;

use crate::files::Source;
use crate::imports;

/// The files of a circle, by their paths below `src`, sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Circle(pub BTreeSet<String>);

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self.0.iter().map(String::as_str).collect();
        write!(f, "{}", files.join(" "))
    }
}

/// The circles of a package, each as large as can be.
pub(crate) fn of(source: &Source) -> Vec<Circle> {
    let names = source.names();
    let mut circles: Vec<_> = components(&imports::of(source))
        .into_iter()
        .filter(|files| files.len() > 1)
        .map(|files| Circle(files.iter().map(|f| names[f].to_owned()).collect()))
        .collect();
    circles.sort();
    circles
}

/// The strongly connected components of a graph.
fn components(edges: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let reached: Vec<_> = (0..edges.len()).map(|from| reach(edges, from)).collect();
    let mut done: BTreeSet<usize> = BTreeSet::new();
    let mut found = Vec::new();
    for one in 0..edges.len() {
        if !done.contains(&one) {
            let component: BTreeSet<_> = reached[one]
                .iter()
                .copied()
                .filter(|other| reached[*other].contains(&one))
                .collect();
            done.extend(&component);
            found.push(component);
        }
    }
    found
}

/// What can be reached from a node, itself among it.
fn reach(edges: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::from([from]);
    let mut next = vec![from];
    while let Some(node) = next.pop() {
        next.extend(edges[node].iter().filter(|to| seen.insert(**to)));
    }
    seen
}
