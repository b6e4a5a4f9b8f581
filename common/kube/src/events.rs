//! Events on objects, coalesced: the same words about the same object are sent
//! once in ten minutes, good news of one kind in bursts, and nothing that decides ever
//! waits for an event.
//!
//! kube's Recorder writes while its caller waits, and has no bound on what may wait:
//! with an API server that does not answer, telling people would hold up the work.

use std::{
    collections::BTreeMap,
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

use crate::{call::bounded, write::post};

/// How long the same words about the same object are not repeated.
const QUIET: Duration = Duration::from_secs(600);

/// Events that may wait to be sent; more are dropped, since they are for people
/// and must not hold work up.
const QUEUE: usize = 1024;

/// Good news with one reason about one object that is told at once, and after how long one
/// more may be: what client-go grants an object (`EventSourceObjectSpamFilter`). A set of
/// many pods would otherwise cost an event for each pod, as many writes as the pods
/// themselves, of which nobody reads so many. Warnings are never held back.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);

/// Longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Something was done.
    Normal,
    /// Something cannot be done, or not yet.
    Warning,
}

impl Kind {
    /// What a notice is that does, or does not, need attention.
    pub fn of(warning: bool) -> Self {
        if warning { Self::Warning } else { Self::Normal }
    }
}

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

struct Entry {
    about: ObjectReference,
    kind: Kind,
    action: &'static str,
    reason: String,
    note: String,
}

/// Sends events in the background.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Entry>,
}

impl Events {
    /// Sends until `stop`.
    pub fn new(client: Client, reporter: Reporter, stop: CancellationToken) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            tokio::select! {
                () = send_all(client, reporter, entries) => {}
                () = stop.cancelled() => {}
            }
        });
        Self { queue }
    }

    /// Tells people something about an object. `reason` is one CamelCase word,
    /// `note` a sentence.
    pub fn publish(&self, about: ObjectReference, kind: Kind, reason: &str, note: &str) {
        self.publish_action(about, kind, "Reconcile", reason, note);
    }

    /// [`publish`](Self::publish) with another word for what was being done.
    pub fn publish_action(
        &self,
        about: ObjectReference,
        kind: Kind,
        action: &'static str,
        reason: &str,
        note: &str,
    ) {
        let entry = Entry {
            about,
            kind,
            action,
            reason: reason.to_owned(),
            note: shortened(note),
        };
        if self.queue.try_send(entry).is_err() {
            tracing::debug!(reason, "event dropped: too many are waiting");
        }
    }
}

fn shortened(note: &str) -> String {
    let mut end = note.len().min(LONGEST_NOTE);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}

type Said = (String, String, String, String);

fn said(entry: &Entry) -> Said {
    (
        entry.about.uid.clone().unwrap_or_default(),
        entry.about.name.clone().unwrap_or_default(),
        entry.reason.clone(),
        entry.note.clone(),
    )
}

/// Whether `key` was not said within [`QUIET`] before `now`; remembers it.
fn is_news(heard: &mut BTreeMap<Said, Instant>, key: Said, now: Instant) -> bool {
    heard.retain(|_, at| now.duration_since(*at) < QUIET);
    heard.insert(key.clone(), now).is_none_or(|at| {
        // Repetition must not prolong the silence.
        heard.insert(key, at);
        false
    })
}

/// How much more good news may be told, by object and reason.
#[derive(Default)]
struct Bursts {
    left: BTreeMap<(String, String), Burst>,
    pruned: Option<Instant>,
}

struct Burst {
    left: u32,
    /// The moment up to which `left` was refilled.
    refilled: Instant,
}

impl Bursts {
    /// Whether one more may be told `now`; counts it.
    fn admit(&mut self, entry: &Entry, now: Instant) -> bool {
        if entry.kind == Kind::Warning {
            return true;
        }
        // What was quiet for so long has its whole burst again, and need not be remembered.
        let full = REFILL * BURST;
        let pruned = *self.pruned.get_or_insert(now);
        if now.duration_since(pruned) > REFILL {
            self.left
                .retain(|_, burst| now.duration_since(burst.refilled) < full);
            self.pruned = Some(now);
        }
        let (uid, _, reason, _) = said(entry);
        let burst = self.left.entry((uid, reason)).or_insert(Burst {
            left: BURST,
            refilled: now,
        });
        while burst.left < BURST && now.duration_since(burst.refilled) >= REFILL {
            burst.left += 1;
            burst.refilled += REFILL;
        }
        if burst.left == BURST {
            burst.refilled = now;
        }
        let admitted = burst.left > 0;
        burst.left = burst.left.saturating_sub(1);
        admitted
    }
}

async fn send_all(client: Client, reporter: Reporter, mut entries: mpsc::Receiver<Entry>) {
    let (mut heard, mut bursts) = (BTreeMap::new(), Bursts::default());
    while let Some(entry) = entries.recv().await {
        if !bursts.admit(&entry, Instant::now()) {
            tracing::debug!(reason = entry.reason, "event not sent: many like it were");
            continue;
        }
        if !is_news(&mut heard, said(&entry), Instant::now()) {
            continue;
        }
        let namespace = entry.about.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(client.clone(), namespace);
        let event = event(&entry, &reporter, Timestamp::now());
        let params = post(reporter.manager);
        if let Err(error) = bounded("create Event", api.create(&params, &event)).await {
            tracing::debug!(error = error.chain(), "event not recorded");
        }
    }
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
    fn the_same_words_are_news_once() {
        let start = Instant::now();
        let mut heard = BTreeMap::new();
        let key = |note: &str| {
            (
                "uid".to_owned(),
                "web".to_owned(),
                "NoRoom".to_owned(),
                note.to_owned(),
            )
        };
        assert!(is_news(&mut heard, key("a"), start));
        assert!(is_news(&mut heard, key("b"), start));
        assert!(!is_news(&mut heard, key("a"), start + QUIET / 2));
        assert!(is_news(&mut heard, key("a"), start + QUIET));
    }

    #[test]
    fn good_news_of_one_kind_comes_in_bursts() {
        let entry = |uid: &str, kind: Kind, reason: &str| Entry {
            about: ObjectReference {
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            },
            kind,
            action: "Reconcile",
            reason: reason.to_owned(),
            note: String::new(),
        };
        let mut now = Instant::now();
        let mut bursts = Bursts::default();
        let mut told = |uid: &str, kind: Kind, reason: &str, now: Instant| {
            let entry = entry(uid, kind, reason);
            (0..100).filter(|_| bursts.admit(&entry, now)).count()
        };
        let burst = BURST as usize;
        assert_eq!(told("a", Kind::Normal, "Created", now), burst);
        assert_eq!(told("a", Kind::Normal, "Created", now), 0);
        assert_eq!(told("a", Kind::Normal, "Deleted", now), burst);
        assert_eq!(told("b", Kind::Normal, "Created", now), burst);
        assert_eq!(told("a", Kind::Warning, "Created", now), 100);
        now += REFILL * 3 / 2;
        assert_eq!(told("a", Kind::Normal, "Created", now), 1);
        now += REFILL / 2;
        assert_eq!(told("a", Kind::Normal, "Created", now), 1);
        now += REFILL * BURST * 2;
        assert_eq!(told("a", Kind::Normal, "Created", now), burst);
    }

    #[test]
    fn long_notes_are_cut_between_characters() {
        let note = "ä".repeat(LONGEST_NOTE);
        assert_eq!(shortened(&note).len(), LONGEST_NOTE);
        assert_eq!(shortened(&format!("a{note}")).len(), LONGEST_NOTE - 1);
    }
}
