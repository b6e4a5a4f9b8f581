//! Events on objects, coalesced: the same words about the same object are sent
//! once in ten minutes, good news of one kind in bursts, and nothing that decides ever
//! waits for an event.
//!
//! kube's Recorder writes while its caller waits, and has no bound on what may wait:
//! with an API server that does not answer, telling people would hold up the work.

mod entry;
mod heard;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::ObjectMeta};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{entry::Entry, heard::Heard};
use crate::{
    call::{CallError, bounded},
    write::post,
};

pub use entry::Kind;

/// Events that may wait to be sent; more are dropped, since they are for people
/// and must not hold work up.
const QUEUE: usize = 1024;

/// Pauses before an event that was not written is tried again.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Who reports.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// `reportingController` of the events, `berth.dev/controller` for example.
    pub controller: &'static str,
    /// `reportingInstance`: which of its replicas.
    pub instance: String,
    /// Name that the API server records beside the fields.
    pub manager: &'static str,
}

/// Sends events in the background. Warnings have a queue of their own, so that no amount of
/// good news is in their way; whoever has much to say has an `Events` of its own.
#[derive(Clone, Debug)]
pub struct Events {
    heard: Arc<Mutex<Heard>>,
    warnings: mpsc::Sender<Entry>,
    news: mpsc::Sender<Entry>,
}

impl Events {
    /// Sends until `stop`.
    pub fn new(client: Client, reporter: Reporter, stop: CancellationToken) -> Self {
        let heard = Arc::default();
        let queue = || {
            let (queue, entries) = mpsc::channel(QUEUE);
            let sender = Sender {
                client: client.clone(),
                reporter: reporter.clone(),
                heard: Arc::clone(&heard),
            };
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = sender.send_all(entries) => {}
                    () = stop.cancelled() => {}
                }
            });
            queue
        };
        let (warnings, news) = (queue(), queue());
        Self {
            heard,
            warnings,
            news,
        }
    }

    /// Tells people something about an object. `reason` is one CamelCase word,
    /// `note` a sentence. Answers whether it is told, or need not be: `false` means that so
    /// many events wait that this one cannot, and the caller may try again later.
    pub fn publish(&self, about: ObjectReference, kind: Kind, reason: &str, note: &str) -> bool {
        self.publish_action(about, kind, "Reconcile", reason, note)
    }

    /// [`publish`](Self::publish) with another word for what was being done.
    pub fn publish_action(
        &self,
        about: ObjectReference,
        kind: Kind,
        action: &'static str,
        reason: &str,
        note: &str,
    ) -> bool {
        let entry = Entry {
            about,
            kind,
            action,
            reason: reason.to_owned(),
            note: shortened(note),
        };
        let queue = match kind {
            Kind::Warning => &self.warnings,
            Kind::Normal => &self.news,
        };
        let mut heard = lock(&self.heard);
        if !heard.admit(&entry, Instant::now()) {
            return true;
        }
        match queue.try_send(entry) {
            Ok(()) => true,
            Err(
                mpsc::error::TrySendError::Full(entry) | mpsc::error::TrySendError::Closed(entry),
            ) => {
                tracing::debug!(reason, "event not sent: too many are waiting");
                heard.forget(&entry);
                false
            }
        }
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shortened(note: &str) -> String {
    let mut end = note.len().min(LONGEST_NOTE);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}

/// What sends the events of one queue, one after the other.
struct Sender {
    client: Client,
    reporter: Reporter,
    heard: Arc<Mutex<Heard>>,
}

impl Sender {
    async fn send_all(&self, mut entries: mpsc::Receiver<Entry>) {
        while let Some(entry) = entries.recv().await {
            if let Err(error) = self.send(&entry).await {
                tracing::debug!(error = error.chain(), "event not recorded");
                lock(&self.heard).forget(&entry);
            }
        }
    }

    async fn send(&self, entry: &Entry) -> Result<(), CallError> {
        let namespace = entry.about.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let event = event(entry, &self.reporter, Timestamp::now());
        let params = post(self.reporter.manager);
        for pause in AGAIN {
            match bounded("create Event", api.create(&params, &event)).await {
                Ok(_) => return Ok(()),
                // An earlier try landed after all.
                Err(error) if error.is_already_exists() => return Ok(()),
                // It stays wrong: its namespace ends, for example.
                Err(error) if error.is_not_found() || is_refused(&error) => return Err(error),
                Err(_) => tokio::time::sleep(pause).await,
            }
        }
        bounded("create Event", api.create(&params, &event))
            .await
            .map(drop)
    }
}

fn is_refused(error: &CallError) -> bool {
    let status = error.status();
    status.is_some_and(|status| matches!(status.code, 400 | 401 | 403 | 422))
}

fn event(entry: &Entry, reporter: &Reporter, now: Timestamp) -> Event {
    let name = entry.about.name.as_deref().unwrap_or("cluster");
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(
                entry
                    .about
                    .namespace
                    .clone()
                    .unwrap_or_else(|| "default".to_owned()),
            ),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        regarding: Some(entry.about.clone()),
        action: Some(entry.action.to_owned()),
        reason: Some(entry.reason.clone()),
        note: Some(entry.note.clone()),
        type_: Some(format!("{:?}", entry.kind)),
        reporting_controller: Some(reporter.controller.to_owned()),
        reporting_instance: Some(reporter.instance.clone()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_cut_between_characters() {
        let note = "ä".repeat(LONGEST_NOTE);
        assert_eq!(shortened(&note).len(), LONGEST_NOTE);
        assert_eq!(shortened(&format!("a{note}")).len(), LONGEST_NOTE - 1);
    }
}
