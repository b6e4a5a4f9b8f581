//! From a change to the sets that it concerns.

use std::{collections::BTreeMap, sync::Arc};

use berth_kube::{SharedCache, cache::Kind, watch};
use futures::{Stream, StreamExt, channel::mpsc::UnboundedSender};
use kube::{
    Api, ResourceExt,
    runtime::{
        reflector::{ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};
use tokio::{sync::broadcast::error::RecvError, task::JoinSet};

use super::{
    cache::{Versioned, news},
    context::Context,
    object::SetObject,
};

/// The sets of one kind, and the queue of those that want a round.
pub(super) struct Queue<K: SetObject> {
    pub(super) sets: Store<K>,
    pub(super) requests: UnboundedSender<ObjectRef<K>>,
}

/// Who can be asked for a round of a set, whatever its kind.
pub(super) trait Ask: Send + Sync {
    /// Asks for a round of the set of that name, if there is one.
    fn ask(&self, namespace: &str, set: &str);

    /// Asks for a round of every set.
    fn ask_all(&self);
}

impl<K: SetObject> Ask for Queue<K> {
    fn ask(&self, namespace: &str, set: &str) {
        let set = ObjectRef::new(set).within(namespace);
        if self.sets.get(&set).is_some() {
            // The receiver is gone only when the loop is ending.
            let _ = self.requests.unbounded_send(set);
        }
    }

    fn ask_all(&self) {
        for set in self.sets.state() {
            let _ = self.requests.unbounded_send(ObjectRef::from_obj(&*set));
        }
    }
}

/// The kinds that Berth runs.
pub(super) type Kinds = Arc<Vec<Box<dyn Ask>>>;

/// Starts a watch per kind of what belongs to sets. Each ends at shutdown.
pub(super) fn spawn(tasks: &mut JoinSet<()>, context: &Arc<Context>, kinds: &Kinds) {
    let ask = |map: fn(&str) -> Vec<String>| {
        let kinds = kinds.clone();
        move |namespace: &str, name: &str| {
            for set in map(name) {
                kinds.iter().for_each(|kind| kind.ask(namespace, &set));
            }
        }
    };
    tasks.spawn(feed(context.clone(), |s| &s.caches.pods, ask(parent)));
    tasks.spawn(feed(
        context.clone(),
        |s| &s.caches.claims,
        ask(claim_parents),
    ));
    tasks.spawn(feed(context.clone(), |s| &s.caches.revisions, ask(parent)));
    tasks.spawn(watch_waits(
        context.clone(),
        kinds.clone(),
        ask(claim_parents),
    ));
}

fn events<K>(context: &Context) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let stop = context.ctx.shutdown.clone();
    let api = Api::<K>::all(context.ctx.client.clone());
    watch::events(api, watch::config()).take_until(stop.cancelled_owned())
}

async fn feed<K: Kind>(
    context: Arc<Context>,
    cache: fn(&Context) -> &SharedCache<K>,
    ask: impl Fn(&str, &str),
) where
    K::Kept: Versioned,
    K::Source: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let mut events = std::pin::pin!(events::<K::Source>(&context));
    while let Some(event) = events.next().await {
        for changed in news(cache(&context).take(event)) {
            let (namespace, name) = K::key(&changed);
            ask(namespace, name);
        }
    }
}

/// Watches the sets of one kind.
///
/// A round reads its set from the store, which shows a list only when it is whole. So
/// after a list nothing is asked for before that; then, for what is new or changed,
/// and what the list no longer has is forgotten.
pub(super) async fn watch_sets<K: SetObject>(
    context: Arc<Context>,
    sets: Store<K>,
    mut writer: Writer<K>,
    requests: UnboundedSender<ObjectRef<K>>,
) {
    let mut events = std::pin::pin!(events::<K>(&context));
    while let Some(mut event) = events.next().await {
        if let Event::Apply(set) | Event::InitApply(set) = &mut event {
            let namespace = set.namespace().unwrap_or_default();
            let uid = set.uid().unwrap_or_default();
            context
                .competing
                .note(K::KIND, &namespace, &set.name_any(), &uid, set.competing());
            // Not read beyond this, and as large as the rest of the object.
            set.managed_fields_mut().clear();
        }
        let before = match event {
            Event::InitDone => by_name(&sets),
            _ => BTreeMap::new(),
        };
        writer.apply_watcher_event(&event);
        match event {
            Event::Apply(set) => ask(&requests, &set),
            Event::Delete(set) => forget(&context, &set),
            Event::InitDone => relisted(&context, &sets, before, &requests),
            Event::Init | Event::InitApply(_) => {}
        }
    }
}

type ByName<K> = BTreeMap<(Option<String>, String), Arc<K>>;

fn by_name<K: SetObject>(sets: &Store<K>) -> ByName<K> {
    let sets = sets.state().into_iter();
    sets.map(|set| ((set.namespace(), set.name_any()), set))
        .collect()
}

/// Asks for a round of what a new list shows for the first time or changed, and
/// forgets what it no longer has.
fn relisted<K: SetObject>(
    context: &Context,
    sets: &Store<K>,
    mut before: ByName<K>,
    requests: &UnboundedSender<ObjectRef<K>>,
) {
    for (name, set) in by_name(sets) {
        let seen = |set: &K| (set.uid(), set.resource_version());
        if before
            .remove(&name)
            .is_none_or(|old| seen(&old) != seen(&set))
        {
            ask(requests, &set);
        }
    }
    for gone in before.values() {
        forget(context, &**gone);
    }
}

fn ask<K: SetObject>(requests: &UnboundedSender<ObjectRef<K>>, set: &K) {
    // The receiver is gone only when the loop is ending.
    let _ = requests.unbounded_send(ObjectRef::from_obj(set));
}

fn forget<K: SetObject>(context: &Context, set: &K) {
    let namespace = set.namespace().unwrap_or_default();
    context.states.forget(K::KIND, &namespace, &set.name_any());
    context
        .competing
        .forget(K::KIND, &namespace, &set.name_any());
}

/// The storage loop says why claims wait.
async fn watch_waits(context: Arc<Context>, kinds: Kinds, ask: impl Fn(&str, &str)) {
    let mut changes = context.ctx.waits.subscribe();
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = context.ctx.shutdown.cancelled() => return,
        };
        match change {
            Ok((namespace, claim)) => ask(&namespace, &claim),
            Err(RecvError::Lagged(_)) => kinds.iter().for_each(|kind| kind.ask_all()),
            Err(RecvError::Closed) => return,
        }
    }
}

/// The set of a pod or revision: what stands before the last `-`.
fn parent(name: &str) -> Vec<String> {
    let parent = name.rsplit_once('-');
    parent.map(|(set, _)| set.to_owned()).into_iter().collect()
}

/// The sets that a claim may belong to: templates and sets may both have `-` in
/// their names, so `a-b-c-0` may be of `b-c` or of `c`.
fn claim_parents(name: &str) -> Vec<String> {
    let Some((stem, _)) = name.rsplit_once('-') else {
        return Vec::new();
    };
    stem.match_indices('-')
        .map(|(at, _)| stem[at + 1..].to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use berth_api::OrdinalSet;
    use futures::FutureExt;
    use kube::runtime::reflector;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn names_lead_to_sets() {
        assert_eq!(parent("my-web-12"), ["my-web"]);
        assert!(parent("web").is_empty());
        assert_eq!(claim_parents("data-my-web-0"), ["my-web", "web"]);
        assert!(claim_parents("data-0").is_empty());
    }

    /// What rounds found: the set that was asked for, and its version in the store.
    type Rounds = Arc<Mutex<Vec<(String, Option<String>)>>>;

    fn set(name: &str, version: &str) -> Value {
        json!({
            "apiVersion": "berth.dev/v1alpha1",
            "kind": "OrdinalSet",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": version},
            "spec": {"selector": {}, "template": {}},
        })
    }

    fn list(version: &str, more: &str, sets: &[Value]) -> Value {
        json!({
            "apiVersion": "berth.dev/v1alpha1",
            "kind": "OrdinalSetList",
            "metadata": {"resourceVersion": version, "continue": more},
            "items": sets,
        })
    }

    fn context(client: kube::Client) -> Arc<Context> {
        let shutdown = tokio_util::sync::CancellationToken::new();
        let reporter = berth_kube::events::Reporter {
            controller: "test",
            instance: "test".to_owned(),
            manager: "test",
        };
        let mut registry = berth_telemetry::registry();
        let ctx = crate::context::Ctx {
            client: client.clone(),
            namespace: "berth-system".to_owned(),
            deployment: "berth-controller".to_owned(),
            identity: "test".to_owned(),
            events: berth_kube::events::Events::new(client, reporter, shutdown.clone()),
            metrics: Arc::new(crate::metrics::Metrics::register(&mut registry)),
            shutdown,
            waits: crate::context::ClaimWaits::default(),
        };
        Arc::new(Context::new(Arc::new(ctx)))
    }

    /// The watch ends with 410, and the new list comes in two pages: `a` changed and `b`
    /// was made meanwhile. Rounds run whenever something is asked for, also between the
    /// pages, and read the store as it is then.
    #[tokio::test]
    async fn a_new_list_loses_no_set() {
        let (sets, writer) = reflector::store::<OrdinalSet>();
        let (requests, asked) = futures::channel::mpsc::unbounded::<ObjectRef<OrdinalSet>>();
        let (asked, rounds) = (Arc::new(Mutex::new(asked)), Rounds::default());
        let (store, found) = (sets.clone(), rounds.clone());
        let run_rounds = move || {
            let mut asked = asked.lock().expect("no panic");
            while let Some(Some(set)) = asked.next().now_or_never() {
                let version = store.get(&set).and_then(|set| set.resource_version());
                found.lock().expect("no panic").push((set.name, version));
            }
        };
        let (done, watched_again) = tokio::sync::oneshot::channel();
        let (mut done, mut calls) = (Some(done), 0);
        let between_pages = run_rounds.clone();
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            calls += 1;
            let query = request.uri().query().unwrap_or_default().to_owned();
            assert_eq!(
                query.contains("watch=true"),
                [2, 5].contains(&calls),
                "{query}"
            );
            let answer = match calls {
                1 => Some(list("1", "", &[set("a", "1")])),
                2 => Some(json!({"type": "ERROR", "object": {
                    "kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "code": 410, "reason": "Expired", "message": "too old resource version",
                }})),
                3 => Some(list("12", "more", &[set("a", "11")])),
                4 => {
                    between_pages();
                    Some(list("12", "", &[set("b", "12")]))
                }
                _ => {
                    done.take().map(|done| done.send(()));
                    None
                }
            };
            async move {
                match answer {
                    Some(body) => {
                        let body = kube::client::Body::from(format!("{body}\n").into_bytes());
                        Ok::<_, std::convert::Infallible>(http::Response::new(body))
                    }
                    None => std::future::pending().await,
                }
            }
        });
        let context = context(kube::Client::new(server, "default"));
        let watch = tokio::spawn(watch_sets(context, sets, writer, requests));
        watched_again.await.expect("the server lives");
        run_rounds();
        let found = rounds.lock().expect("no panic").clone();
        let read = |name: &str, version: &str| (name.to_owned(), Some(version.to_owned()));
        assert_eq!(found, [read("a", "1"), read("a", "11"), read("b", "12")]);
        watch.abort();
    }
}
