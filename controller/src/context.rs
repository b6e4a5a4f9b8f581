//! What every loop of the controller shares: the client, the recorder of
//! events, metrics, and the shutdown signal.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use berth_kube::events::Events;
use berth_plan::volumes::ClaimWait;
use kube::Client;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

pub use berth_kube::call::{CallError, bounded};

/// Name that the API server records beside every field that Berth writes.
pub const FIELD_MANAGER: &str = "berth-controller";

/// Shared by every loop; cheap to clone.
#[derive(Clone)]
pub struct Ctx {
    /// Client for everything but the lease. It retries 429 and 5xx by itself.
    pub client: Client,
    /// Namespace of the controller's own objects.
    pub namespace: String,
    /// Deployment that owns the objects which must go with it.
    pub deployment: String,
    /// This replica's name, as events show it.
    pub identity: String,
    /// Where events go; each loop has its own, so that none is in another's way.
    pub events: Events,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the process is told to stop.
    pub shutdown: CancellationToken,
    /// Why claims wait, told by the storage loop to whoever explains a set.
    pub waits: ClaimWaits,
}

/// Why claims wait for their volume. Only the storage loop writes.
#[derive(Clone)]
pub struct ClaimWaits {
    waits: Arc<RwLock<BTreeMap<(String, String), ClaimWait>>>,
    changed: broadcast::Sender<(String, String)>,
}

impl Default for ClaimWaits {
    fn default() -> Self {
        Self {
            waits: Arc::default(),
            changed: broadcast::channel(1024).0,
        }
    }
}

impl ClaimWaits {
    /// Why the claim `namespace/name` waits, if it does.
    pub fn get(&self, namespace: &str, name: &str) -> Option<ClaimWait> {
        let waits = self.waits.read().unwrap_or_else(|e| e.into_inner());
        waits.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Receives the namespace and name of each claim whose wait changed.
    pub fn subscribe(&self) -> broadcast::Receiver<(String, String)> {
        self.changed.subscribe()
    }

    /// Sets why a claim waits; `None` ends the wait.
    pub fn set(&self, namespace: &str, name: &str, why: Option<ClaimWait>) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut waits = self.waits.write().unwrap_or_else(|e| e.into_inner());
        if waits.get(&key) == why.as_ref() {
            return;
        }
        match why {
            Some(why) => waits.insert(key.clone(), why),
            None => waits.remove(&key),
        };
        drop(waits);
        // Nobody listening is fine: the wait stays for the next reader.
        let _ = self.changed.send(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_tell_of_changes_only() {
        let waits = ClaimWaits::default();
        let mut changes = waits.subscribe();
        waits.set("a", "data-web-0", Some("full".into()));
        waits.set("a", "data-web-0", Some("full".into()));
        waits.set("a", "data-web-1", None);
        assert_eq!(waits.get("a", "data-web-0"), Some("full".into()));
        waits.set("a", "data-web-0", None);
        assert_eq!(waits.get("a", "data-web-0"), None);
        let key = ("a".to_owned(), "data-web-0".to_owned());
        assert_eq!(changes.try_recv(), Ok(key.clone()));
        assert_eq!(changes.try_recv(), Ok(key));
        assert!(changes.try_recv().is_err());
    }
}
