//! Objects of one kind as the loop knows them: what the watch said, and what our
//! own writes answered, whichever is newer.
//!
//! Own answers are taken in at once, so the loop never decides twice on a state
//! that it has itself changed.

use std::{collections::BTreeMap, sync::Arc};

use kube::{Resource, ResourceExt, runtime::watcher::Event};

/// Namespace (empty for cluster-scoped objects) and name.
pub(super) type Key = (String, String);

/// One kind's objects, in the order of their keys.
pub(super) struct Cache<K> {
    objects: BTreeMap<Key, Arc<K>>,
    listing: Option<BTreeMap<Key, Arc<K>>>,
    ready: bool,
}

/// One object's change: as it was, and as it is.
pub(super) type Change<K> = (Option<Arc<K>>, Option<Arc<K>>);

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listing: None,
            ready: false,
        }
    }
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether `old` is the same object as `new`, seen later.
fn is_newer<K: Resource>(old: &K, new: &K) -> bool {
    let version = |object: &K| object.resource_version()?.parse::<u64>().ok();
    old.uid() == new.uid() && version(old) > version(new)
}

impl<K: Resource + Clone> Cache<K> {
    /// Whether the first list is complete.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Takes in what the watch says; returns what changed.
    pub(super) fn take(&mut self, event: Event<K>) -> Vec<Change<K>> {
        match event {
            Event::Apply(object) => self.put(object).into_iter().collect(),
            Event::Delete(object) => {
                let key = key(&object);
                // A namesake that we made since then stays.
                if self
                    .objects
                    .get(&key)
                    .is_some_and(|o| o.uid() != object.uid())
                {
                    return Vec::new();
                }
                let old = self.objects.remove(&key);
                vec![(old, None)]
            }
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let listing = self.listing.get_or_insert_default();
                listing.insert(key(&object), Arc::new(object));
                Vec::new()
            }
            Event::InitDone => {
                self.ready = true;
                self.replace()
            }
        }
    }

    fn replace(&mut self) -> Vec<Change<K>> {
        let mut changes = Vec::new();
        let mut listed = self.listing.take().unwrap_or_default();
        for (key, old) in std::mem::take(&mut self.objects) {
            match listed.get(&key) {
                Some(new) if is_newer(&*old, &**new) => {
                    listed.insert(key, old);
                }
                Some(_) => {}
                None => changes.push((Some(old), None)),
            }
        }
        // Everything is looked at again after a list: events may have been missed.
        changes.extend(listed.values().map(|o| (Some(o.clone()), Some(o.clone()))));
        self.objects = listed;
        changes
    }

    /// Takes in one object, from the watch or from the answer to a write.
    pub(super) fn put(&mut self, object: K) -> Option<Change<K>> {
        let key = key(&object);
        if let Some(old) = self.objects.get(&key)
            && is_newer(&**old, &object)
        {
            return None;
        }
        let new = Arc::new(object);
        let old = self.objects.insert(key, new.clone());
        Some((old, Some(new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

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

    fn version(cache: &Cache<ConfigMap>, name: &str) -> Option<String> {
        cache.get("", name)?.resource_version()
    }

    #[test]
    fn own_answers_are_not_undone_by_older_events() {
        let mut cache = Cache::default();
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
        let mut cache = Cache::default();
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
    }
}
