//! The objects, in memory: one revision counter for all, and a bounded history of events.
//!
//! The state at an older revision is the present one with the events since then undone, so pages
//! of one list agree with each other without copies of the whole.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tokio::sync::watch;

/// An object as it is stored; never changed in place.
pub type Object = Arc<Value>;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What is stored together: `pods`, `deployments.apps`.
    pub resource: String,
    /// Empty for objects of the whole cluster.
    pub namespace: String,
    pub name: String,
}

/// A change of one object. One with no `new` removed it; `last` then carries the revision of the
/// removal.
#[derive(Clone, Debug)]
pub struct Event {
    pub revision: u64,
    pub key: Key,
    pub old: Option<Object>,
    pub new: Option<Object>,
    pub last: Object,
}

/// The history that was asked for is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compacted {
    /// The oldest revision that can still be asked for.
    pub oldest: u64,
}

/// Objects and their recent past.
pub struct Store {
    inner: Mutex<Inner>,
    /// The current revision, for whoever waits for changes.
    revision: watch::Sender<u64>,
}

/// What the lock of the store guards.
pub struct Locked<'s> {
    inner: MutexGuard<'s, Inner>,
    revision: &'s watch::Sender<u64>,
}

struct Inner {
    revision: u64,
    objects: BTreeMap<Key, Object>,
    /// Who names whom as its owner, by the owner's uid.
    owned: BTreeSet<(String, Key)>,
    history: VecDeque<Event>,
    capacity: usize,
    /// States before this revision are not known.
    compacted: u64,
}

impl Store {
    /// An empty store that remembers `capacity` events.
    pub fn new(capacity: usize) -> Self {
        // The first object gets revision 2: 0 and 1 mean something of their own to clients.
        let inner = Inner {
            revision: 1,
            objects: BTreeMap::new(),
            owned: BTreeSet::new(),
            history: VecDeque::new(),
            capacity,
            compacted: 1,
        };
        Self { inner: Mutex::new(inner), revision: watch::Sender::new(1) }
    }

    /// Locks the store: reads and writes until the end of the guard are one transaction.
    pub fn lock(&self) -> Locked<'_> {
        // A panic in one request leaves a state that is whole: every write is one insertion.
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { inner, revision: &self.revision }
    }

    /// Told of every new revision.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

impl Locked<'_> {
    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.inner.revision
    }

    /// The object at `key`.
    pub fn get(&self, key: &Key) -> Option<Object> {
        self.inner.objects.get(key).cloned()
    }

    /// Everything of a resource, in a namespace if one is given, in order.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<(Key, Object)> {
        let start = Key {
            resource: resource.to_owned(),
            namespace: namespace.unwrap_or_default().to_owned(),
            name: String::new(),
        };
        self.inner
            .objects
            .range(start..)
            .take_while(|(key, _)| within(key, resource, namespace))
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    /// What [`Self::list`] would have answered at `revision`.
    pub fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Vec<(Key, Object)>, Compacted> {
        let mut objects: BTreeMap<_, _> = self.list(resource, namespace).into_iter().collect();
        for event in self.events_after(revision)?.rev() {
            if !within(&event.key, resource, namespace) {
                continue;
            }
            match &event.old {
                Some(old) => objects.insert(event.key.clone(), old.clone()),
                None => objects.remove(&event.key),
            };
        }
        Ok(objects.into_iter().collect())
    }

    /// Everything that happened after `revision`, oldest first.
    pub fn events_after(
        &self,
        revision: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &Event>, Compacted> {
        if revision < self.inner.compacted {
            return Err(Compacted { oldest: self.inner.compacted });
        }
        let from = self.inner.history.partition_point(|event| event.revision <= revision);
        Ok(self.inner.history.range(from..))
    }

    /// Everything in a namespace.
    pub fn within(&self, namespace: &str) -> Vec<Key> {
        self.inner.objects.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// The objects that name the one with this uid as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<Key> {
        let start = Key { resource: String::new(), namespace: String::new(), name: String::new() };
        let from = self.inner.owned.range((uid.to_owned(), start)..);
        from.take_while(|(owner, _)| owner == uid).map(|(_, key)| key.clone()).collect()
    }

    /// Stores an object under the next revision, which it then carries.
    pub fn put(&mut self, key: Key, mut object: Value) -> Object {
        let revision = self.next();
        stamp(&mut object, revision);
        let object = Arc::new(object);
        let old = self.inner.objects.insert(key.clone(), object.clone());
        self.disown(&key, old.as_ref());
        for owner in owners(&object) {
            self.inner.owned.insert((owner.to_owned(), key.clone()));
        }
        let new = Some(object.clone());
        self.remember(Event { revision, key, old, new, last: object.clone() });
        object
    }

    /// Removes an object; what it was, with the revision of its end.
    pub fn remove(&mut self, key: &Key) -> Option<Object> {
        let old = self.inner.objects.remove(key)?;
        self.disown(key, Some(&old));
        let revision = self.next();
        let mut last = Value::clone(&old);
        stamp(&mut last, revision);
        let last = Arc::new(last);
        let key = key.clone();
        self.remember(Event { revision, key, old: Some(old), new: None, last: last.clone() });
        Some(last)
    }

    /// Forgets all history: older revisions are answered with 410.
    pub fn compact(&mut self) {
        self.inner.history.clear();
        self.inner.compacted = self.inner.revision;
    }

    fn disown(&mut self, key: &Key, old: Option<&Object>) {
        for owner in old.into_iter().flat_map(|old| owners(old)) {
            self.inner.owned.remove(&(owner.to_owned(), key.clone()));
        }
    }

    fn next(&mut self) -> u64 {
        self.inner.revision += 1;
        self.inner.revision
    }

    fn remember(&mut self, event: Event) {
        let revision = event.revision;
        self.inner.history.push_back(event);
        while self.inner.history.len() > self.inner.capacity {
            if let Some(gone) = self.inner.history.pop_front() {
                self.inner.compacted = gone.revision;
            }
        }
        self.revision.send_replace(revision);
    }
}

fn within(key: &Key, resource: &str, namespace: Option<&str>) -> bool {
    key.resource == resource && namespace.is_none_or(|namespace| key.namespace == namespace)
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.into_iter().flatten().filter_map(|owner| owner["uid"].as_str())
}

fn stamp(object: &mut Value, revision: u64) {
    object["metadata"]["resourceVersion"] = revision.to_string().into();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key { resource: "pods".into(), namespace: "a".into(), name: name.into() }
    }

    fn names(list: Vec<(Key, Object)>) -> Vec<String> {
        list.into_iter().map(|(key, _)| key.name).collect()
    }

    #[test]
    fn an_older_list_is_the_present_one_with_what_came_since_undone() {
        let store = Store::new(10);
        let mut store = store.lock();
        store.put(key("one"), json!({ "v": 1 }));
        store.put(key("two"), json!({ "v": 1 }));
        let then = store.revision();
        store.put(key("one"), json!({ "v": 2 }));
        store.remove(&key("two"));
        store.put(key("three"), json!({ "v": 1 }));

        assert_eq!(names(store.list("pods", Some("a"))), ["one", "three"]);
        let old = store.list_at("pods", Some("a"), then).unwrap_or_default();
        assert_eq!(old[0].1["v"], 1);
        assert_eq!(names(old), ["one", "two"]);
    }

    #[test]
    fn history_is_bounded_and_says_so() {
        let store = Store::new(2);
        let mut store = store.lock();
        for name in ["one", "two", "three"] {
            store.put(key(name), json!({}));
        }
        assert_eq!(store.events_after(2).map(Iterator::count), Ok(2));
        assert_eq!(store.events_after(1).map(Iterator::count), Err(Compacted { oldest: 2 }));
        store.compact();
        assert_eq!(store.events_after(4).map(Iterator::count), Ok(0));
        assert_eq!(store.events_after(3).map(Iterator::count), Err(Compacted { oldest: 4 }));
    }

    #[test]
    fn a_removal_carries_its_own_revision() {
        let store = Store::new(2);
        let mut store = store.lock();
        store.put(key("one"), json!({}));
        let last = store.remove(&key("one")).unwrap_or_default();
        assert_eq!(last["metadata"]["resourceVersion"], "3");
        assert_eq!(store.remove(&key("one")), None);
    }
}
