//! Objects of one kind as a loop knows them: what the watch said, and what own writes
//! answered, whichever is newer.
//!
//! kube's reflector store is not enough for three reasons. It has no lookup by a
//! prefix of names, which is how a set finds its pods. It cannot take in the answer to
//! an own write, so a loop would decide twice on a state that it has itself changed.
//! And it does not say what changed, in particular what a new list after a broken
//! watch no longer has.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    marker::PhantomData,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use kube::{Resource, runtime::watcher::Event};
use tokio::sync::watch;

use crate::write::version;

/// Namespace (empty for cluster-scoped objects) and name.
pub type Key = (String, String);

/// One object's change: as it was, and as it is.
pub type Change<T> = (Option<Arc<T>>, Option<Arc<T>>);

/// What is kept of the objects of one kind.
pub trait Kind: 'static {
    /// The whole object, as the API server sends it.
    type Source: Resource;

    /// What is kept of it.
    type Kept;

    /// Whether [`Cache::put`] is used: only then must deletions be remembered.
    const TAKES_ANSWERS: bool;

    /// Cuts an object down.
    fn keep(source: Self::Source) -> Self::Kept;

    /// Namespace (empty for cluster-scoped objects) and name.
    fn key(kept: &Self::Kept) -> (&str, &str);

    /// The UID; empty only for what never came from an API server.
    fn uid(kept: &Self::Kept) -> &str;

    /// The resourceVersion, as [`version`] reads it.
    fn version(kept: &Self::Kept) -> u64;
}

/// Objects that are kept whole.
pub struct Whole<K>(PhantomData<fn() -> K>);

impl<K: Resource + 'static> Kind for Whole<K> {
    type Source = K;
    type Kept = K;
    const TAKES_ANSWERS: bool = true;

    fn keep(source: K) -> K {
        source
    }

    fn key(kept: &K) -> (&str, &str) {
        let meta = kept.meta();
        (
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }

    fn uid(kept: &K) -> &str {
        kept.meta().uid.as_deref().unwrap_or_default()
    }

    fn version(kept: &K) -> u64 {
        version(kept.meta().resource_version.as_deref())
    }
}

/// A [`Cache`] of whole objects.
pub type WholeCache<K> = Cache<Whole<K>>;

/// How long a deletion is remembered. The answer to a write that the API server did
/// before it cannot come later: a task makes a few calls, each bounded by
/// [`CALL_TIMEOUT`](crate::call::CALL_TIMEOUT).
const REMEMBERED: Duration = Duration::from_secs(300);

struct Entry<T> {
    object: Arc<T>,
    /// It is the answer to an own write, and the watch has not shown it yet.
    own: bool,
}

type Objects<T> = BTreeMap<String, BTreeMap<String, Entry<T>>>;

/// One kind's objects, by namespace and name.
pub struct Cache<K: Kind> {
    objects: Objects<K::Kept>,
    /// The list that is being read after a watch began anew, and its highest version.
    listing: Option<(Objects<K::Kept>, u64)>,
    /// UIDs of what was deleted, and in the order in which that was heard.
    gone: BTreeSet<String>,
    heard: VecDeque<(Instant, String)>,
    len: usize,
    ready: bool,
    seen: u64,
}

impl<K: Kind> Default for Cache<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listing: None,
            gone: BTreeSet::new(),
            heard: VecDeque::new(),
            len: 0,
            ready: false,
            seen: 0,
        }
    }
}

impl<K: Kind> Cache<K> {
    /// Whether the first list is complete.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The highest resourceVersion that the watch has shown *in these objects*: what a
    /// list says counts when the list is whole.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The object of a name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K::Kept>> {
        Some(&find(&self.objects, namespace, name)?.object)
    }

    /// Every object, in the order of namespaces and names.
    pub fn values(&self) -> impl Iterator<Item = &Arc<K::Kept>> {
        let all = self.objects.values().flat_map(BTreeMap::values);
        all.map(|entry| &entry.object)
    }

    /// Objects of a namespace whose name begins with `prefix`, in the order of names.
    pub fn with_prefix<'a>(
        &'a self,
        namespace: &str,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Arc<K::Kept>> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let objects = self.objects.get(namespace).into_iter();
        objects
            .flat_map(move |objects| objects.range::<str, _>(from))
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(_, entry)| &entry.object)
    }

    /// Takes in what the watch says; returns what changed. After a list that is
    /// everything: events may have been missed.
    pub fn take(&mut self, event: Event<K::Source>) -> Vec<Change<K::Kept>> {
        match event {
            Event::Init => {
                self.listing = Some((BTreeMap::new(), 0));
                Vec::new()
            }
            Event::InitApply(source) => {
                let object = K::keep(source);
                let (listing, highest) = self.listing.get_or_insert_default();
                *highest = (*highest).max(K::version(&object));
                insert::<K>(listing, Arc::new(object), false);
                Vec::new()
            }
            Event::InitDone => self.replace(),
            Event::Apply(source) => {
                let object = K::keep(source);
                self.seen = self.seen.max(K::version(&object));
                // Whatever was heard before: it is there.
                self.gone.remove(K::uid(&object));
                let known = self.entry(&object);
                if known.is_some_and(|known| known.own && is_newer::<K>(&known.object, &object)) {
                    return Vec::new();
                }
                vec![self.insert(object, false)]
            }
            Event::Delete(source) => {
                let object = K::keep(source);
                self.seen = self.seen.max(K::version(&object));
                self.remember(K::uid(&object));
                let known = self.entry(&object).map(|known| known.object.clone());
                match known {
                    // A namesake that we made since then stays.
                    Some(known) if K::uid(&known) != K::uid(&object) => Vec::new(),
                    Some(known) => {
                        self.remove(&known);
                        vec![(Some(known), None)]
                    }
                    None => vec![(Some(Arc::new(object)), None)],
                }
            }
        }
    }

    /// Takes in the answer to an own write; nothing where something newer is known, or
    /// that the object was deleted since.
    pub fn put(&mut self, object: K::Kept) -> Option<Change<K::Kept>> {
        debug_assert!(K::TAKES_ANSWERS, "deletions are not remembered");
        let known = self.entry(&object);
        let newer = known.is_some_and(|known| is_newer::<K>(&known.object, &object));
        if newer || self.gone.contains(K::uid(&object)) {
            return None;
        }
        let shown = known.is_some_and(|known| {
            !known.own
                && K::uid(&known.object) == K::uid(&object)
                && K::version(&known.object) == K::version(&object)
        });
        Some(self.insert(object, !shown))
    }

    fn replace(&mut self) -> Vec<Change<K::Kept>> {
        self.ready = true;
        let (mut listed, highest) = self.listing.take().unwrap_or_default();
        self.seen = self.seen.max(highest);
        let mut changes = Vec::new();
        let mut before: BTreeMap<Key, Arc<K::Kept>> = BTreeMap::new();
        for entry in std::mem::take(&mut self.objects)
            .into_values()
            .flat_map(BTreeMap::into_values)
        {
            let (namespace, name) = K::key(&entry.object);
            match find(&listed, namespace, name) {
                Some(new) if entry.own && is_newer::<K>(&entry.object, &new.object) => {
                    insert::<K>(&mut listed, entry.object.clone(), true);
                }
                Some(_) => {}
                None => {
                    self.remember(K::uid(&entry.object));
                    changes.push((Some(entry.object), None));
                    continue;
                }
            }
            before.insert((namespace.to_owned(), name.to_owned()), entry.object);
        }
        self.objects = listed;
        self.len = 0;
        for entry in self.objects.values().flat_map(BTreeMap::values) {
            self.len += 1;
            let (namespace, name) = K::key(&entry.object);
            let old = before.remove(&(namespace.to_owned(), name.to_owned()));
            changes.push((old, Some(entry.object.clone())));
        }
        changes
    }

    fn entry(&self, object: &K::Kept) -> Option<&Entry<K::Kept>> {
        let (namespace, name) = K::key(object);
        find(&self.objects, namespace, name)
    }

    fn insert(&mut self, object: K::Kept, own: bool) -> Change<K::Kept> {
        let new = Arc::new(object);
        let old = insert::<K>(&mut self.objects, new.clone(), own);
        self.len += usize::from(old.is_none());
        (old, Some(new))
    }

    fn remove(&mut self, object: &K::Kept) {
        let (namespace, name) = K::key(object);
        if let Some(objects) = self.objects.get_mut(namespace) {
            self.len -= usize::from(objects.remove(name).is_some());
            if objects.is_empty() {
                self.objects.remove(namespace);
            }
        }
    }

    fn remember(&mut self, uid: &str) {
        if K::TAKES_ANSWERS && !uid.is_empty() {
            let now = Instant::now();
            while let Some((at, uid)) = self.heard.front()
                && now.duration_since(*at) > REMEMBERED
            {
                self.gone.remove(uid);
                self.heard.pop_front();
            }
            self.gone.insert(uid.to_owned());
            self.heard.push_back((now, uid.to_owned()));
        }
    }
}

fn find<'a, T>(objects: &'a Objects<T>, namespace: &str, name: &str) -> Option<&'a Entry<T>> {
    objects.get(namespace)?.get(name)
}

fn insert<K: Kind>(
    objects: &mut Objects<K::Kept>,
    object: Arc<K::Kept>,
    own: bool,
) -> Option<Arc<K::Kept>> {
    let (namespace, name) = K::key(&object);
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let entry = Entry { object, own };
    let old = objects.entry(namespace).or_default().insert(name, entry);
    old.map(|old| old.object)
}

/// Whether `known` is the same object as `other`, seen later.
fn is_newer<K: Kind>(known: &K::Kept, other: &K::Kept) -> bool {
    K::uid(known) == K::uid(other) && K::version(known) > K::version(other)
}

/// A [`Cache`] that one task feeds and many read.
pub struct SharedCache<K: Kind> {
    cache: RwLock<Cache<K>>,
    ready: watch::Sender<bool>,
}

impl<K: Kind> Default for SharedCache<K> {
    fn default() -> Self {
        Self {
            cache: RwLock::default(),
            ready: watch::Sender::new(false),
        }
    }
}

impl<K: Kind> SharedCache<K> {
    /// See [`Cache::take`].
    pub fn take(&self, event: Event<K::Source>) -> Vec<Change<K::Kept>> {
        let done = matches!(event, Event::InitDone);
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        let changes = cache.take(event);
        drop(cache);
        if done {
            self.ready.send_replace(true);
        }
        changes
    }

    /// See [`Cache::get`].
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K::Kept>> {
        self.read().get(namespace, name).cloned()
    }

    /// See [`Cache::with_prefix`].
    pub fn with_prefix(&self, namespace: &str, prefix: &str) -> Vec<Arc<K::Kept>> {
        self.read()
            .with_prefix(namespace, prefix)
            .cloned()
            .collect()
    }

    /// See [`Cache::seen`].
    pub fn seen(&self) -> u64 {
        self.read().seen()
    }

    /// Waits until the first list is complete.
    pub async fn ready(&self) {
        let mut ready = self.ready.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Cache<K>> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{ResourceExt, api::ObjectMeta};

    fn object(name: &str, uid: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                uid: Some(uid.to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn version(cache: &WholeCache<ConfigMap>, name: &str) -> Option<String> {
        cache.get("", name)?.resource_version()
    }

    #[test]
    fn own_answers_are_not_undone_by_older_events() {
        let mut cache = WholeCache::default();
        cache.take(Event::Apply(object("a", "u", "9")));
        assert!(cache.put(object("a", "u", "12")).is_some());
        assert!(cache.take(Event::Apply(object("a", "u", "10"))).is_empty());
        assert_eq!(version(&cache, "a").as_deref(), Some("12"));
        // Another object of that name is newer, whatever its number.
        cache.put(object("a", "v", "1"));
        assert!(cache.take(Event::Delete(object("a", "u", "13"))).is_empty());
        assert_eq!(version(&cache, "a").as_deref(), Some("1"));
    }

    #[test]
    fn a_list_tells_of_what_is_gone() {
        let mut cache = WholeCache::default();
        cache.put(object("a", "u", "1"));
        cache.put(object("b", "v", "7"));
        assert!(!cache.is_ready());
        cache.take(Event::Init);
        cache.take(Event::InitApply(object("b", "v", "2")));
        let changes = cache.take(Event::InitDone);
        assert!(cache.is_ready());
        let gone: Vec<_> = changes.iter().filter(|(_, new)| new.is_none()).collect();
        assert_eq!((gone.len(), changes.len()), (1, 2));
        assert_eq!(version(&cache, "a"), None);
        assert_eq!(version(&cache, "b").as_deref(), Some("7"));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn an_answer_does_not_bring_back_what_was_deleted() {
        let mut cache = WholeCache::default();
        cache.take(Event::Apply(object("a", "u", "9")));
        cache.take(Event::Delete(object("a", "u", "12")));
        // The answer to a write at version 10 comes after the news of the deletion.
        assert!(cache.put(object("a", "u", "10")).is_none());
        assert_eq!(version(&cache, "a"), None);
        // A new object of that name is another one.
        assert!(cache.put(object("a", "v", "14")).is_some());
        // So it is when a list no longer has the object.
        cache.take(Event::Init);
        cache.take(Event::InitDone);
        assert!(cache.put(object("a", "v", "15")).is_none());
        // What the watch shows is there.
        cache.take(Event::Apply(object("a", "v", "15")));
        assert!(cache.put(object("a", "v", "16")).is_some());
    }

    #[test]
    fn a_list_counts_as_seen_when_it_is_whole() {
        let mut cache = WholeCache::<ConfigMap>::default();
        cache.take(Event::Apply(object("a", "u", "3")));
        cache.take(Event::Init);
        cache.take(Event::InitApply(object("a", "u", "8")));
        assert_eq!(
            (cache.seen(), version(&cache, "a").as_deref()),
            (3, Some("3"))
        );
        cache.take(Event::InitDone);
        assert_eq!(
            (cache.seen(), version(&cache, "a").as_deref()),
            (8, Some("8"))
        );
    }

    #[test]
    fn after_a_restore_a_list_is_believed() {
        // The API server's database came from a backup: versions are lower now.
        let mut cache = WholeCache::<ConfigMap>::default();
        cache.take(Event::Apply(object("a", "u", "90")));
        cache.take(Event::Init);
        cache.take(Event::InitApply(object("a", "u", "40")));
        cache.take(Event::InitDone);
        assert_eq!(version(&cache, "a").as_deref(), Some("40"));
    }

    #[test]
    fn a_prefix_finds_its_names_only() {
        let mut cache = WholeCache::default();
        for name in ["web-0", "web-1", "web-10", "webby-0", "a-0"] {
            cache.take(Event::Apply(object(name, name, "1")));
        }
        let names: Vec<_> = cache
            .with_prefix("", "web-")
            .map(|o| o.name_any())
            .collect();
        assert_eq!(names, ["web-0", "web-1", "web-10"]);
        assert_eq!(cache.with_prefix("other", "web-").count(), 0);
        assert_eq!((cache.len(), cache.values().count()), (5, 5));
    }
}
