//! Nodes, as far as decisions need them.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// A Node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Since when its condition Ready is not True: kubelet stopped, or nobody hears of it.
    /// `None` while it is ready.
    pub silent: Option<Timestamp>,
}
