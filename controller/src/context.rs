//! What every loop of the controller shares: the client, the recorder of
//! events, metrics, and the word to stop.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, RwLock},
    time::Duration,
};

use berth_plan::volumes::ClaimWait;
use kube::Client;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{events::Events, metrics::Metrics};

/// Longest time that one call to the API server may take. What takes longer is
/// *unknown*, not failed: it may still land.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Name that the API server records beside every field that Berth writes.
pub const FIELD_MANAGER: &str = "berth-controller";

/// Shared by every loop; cheap to clone behind its [`Arc`].
pub struct Ctx {
    /// Client for everything but the lease. It retries 429 and 5xx by itself.
    pub client: Client,
    /// Namespace of the controller's own objects.
    pub namespace: String,
    /// Deployment that owns the objects which must go with it.
    pub deployment: String,
    /// This replica's name, as events show it.
    pub identity: String,
    /// Where events go.
    pub events: Events,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the process is told to stop.
    pub shutdown: CancellationToken,
    /// Why claims wait, told by the storage loop to whoever explains a set.
    pub waits: ClaimWaits,
}

/// A call to the API server that gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server answered with an error, or could not be reached.
    #[error("{call}: the API server did not do it")]
    Api {
        /// What was asked for, with the object's name.
        call: String,
        /// What the client reports.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer within [`CALL_TIMEOUT`]. The write may still land.
    #[error("{call}: no answer within {} s; it may still take effect", CALL_TIMEOUT.as_secs())]
    Unknown {
        /// What was asked for, with the object's name.
        call: String,
    },
}

impl CallError {
    /// The API server's status, where it sent one.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Unknown { .. } => None,
        }
    }

    /// The object is not there, or the kind is not installed.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    /// The object changed since it was read, or another has its UID.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    /// An object of that name is there already.
    pub fn is_already_exists(&self) -> bool {
        self.status()
            .is_some_and(kube::core::Status::is_already_exists)
    }

    /// The error with its cause, for a log line or an event.
    pub fn chain(&self) -> String {
        match self {
            Self::Api { call, source } => match source.as_ref() {
                kube::Error::Api(status) => format!("{call}: {}", status.message),
                other => format!("{call}: {other}"),
            },
            Self::Unknown { .. } => self.to_string(),
        }
    }
}

/// Runs one call to the API server under [`CALL_TIMEOUT`]; `call` says what it
/// is, for the error.
///
/// # Errors
/// [`CallError`], which keeps an answer apart from silence.
pub async fn bounded<T>(
    call: impl Into<String>,
    work: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(CallError::Api {
            call: call.into(),
            source: Box::new(source),
        }),
        Err(_) => Err(CallError::Unknown { call: call.into() }),
    }
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
