//! What has to be true before the agent is of use, and what it still waits for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Shared by the health endpoint and CSI's Probe; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    pools: AtomicBool,
    registered: AtomicBool,
    reported: AtomicBool,
}

impl Readiness {
    /// The pools are open: CSI calls can be served.
    pub fn set_pools_open(&self) {
        self.0.pools.store(true, Ordering::Relaxed);
    }

    /// Kubelet has registered the plugin, or has not.
    pub fn set_registered(&self, registered: bool) {
        self.0.registered.store(registered, Ordering::Relaxed);
    }

    /// The pools have been written to the API once.
    pub fn set_reported(&self) {
        self.0.reported.store(true, Ordering::Relaxed);
    }

    /// Whether CSI calls can be served.
    pub fn pools_are_open(&self) -> bool {
        self.0.pools.load(Ordering::Relaxed)
    }

    /// Whether pods with volumes can start on this node.
    ///
    /// # Errors
    /// What is waited for.
    pub fn check(&self) -> Result<(), String> {
        let waits = [
            (&self.0.pools, "the pools are being opened"),
            (&self.0.registered, "kubelet has not registered the plugin"),
            (
                &self.0.reported,
                "the pools are not yet written to the API server",
            ),
        ];
        match waits.iter().find(|(flag, _)| !flag.load(Ordering::Relaxed)) {
            None => Ok(()),
            Some((_, wait)) => Err((*wait).to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_waited_for() {
        let readiness = Readiness::default();
        let mut seen = Vec::new();
        for step in [
            Readiness::set_pools_open as fn(&Readiness),
            |r| r.set_registered(true),
            Readiness::set_reported,
        ] {
            seen.push(readiness.check().expect_err("not ready"));
            step(&readiness);
        }
        assert_eq!(readiness.check(), Ok(()));
        seen.dedup();
        assert_eq!(seen.len(), 3, "{seen:?}");
        readiness.set_registered(false);
        assert!(readiness.check().is_err());
    }
}
