//! How long things take, as both programs measure it.

use std::{fmt::Debug, hash::Hash};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Upper bounds in seconds: from a bind mount to a slow disk that deletes.
const BUCKETS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Histograms of seconds, one for each set of labels; cheap to clone.
#[derive(Clone, Debug)]
pub struct Timings<L>(Family<L, Histogram, fn() -> Histogram>);

impl<L> Timings<L>
where
    L: Clone + Debug + Eq + Hash + EncodeLabelSet + Send + Sync + 'static,
{
    /// Makes and registers it; `_seconds` is appended to the name.
    pub fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family: Family<L, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        Self(family)
    }

    /// Records that it took this many seconds.
    pub fn took(&self, labels: &L, seconds: f64) {
        self.0.get_or_create(labels).observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_counted_by_label() {
        let mut registry = Registry::default();
        let timings = Timings::register(&mut registry, "work", "Seconds of work");
        timings.took(&[("kind", "quick")], 0.002);
        timings.took(&[("kind", "slow")], 60.0);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        for line in [
            "work_seconds_bucket{le=\"0.001\",kind=\"quick\"} 0",
            "work_seconds_bucket{le=\"0.003\",kind=\"quick\"} 1",
            "work_seconds_bucket{le=\"30.0\",kind=\"slow\"} 0",
            "work_seconds_count{kind=\"slow\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
