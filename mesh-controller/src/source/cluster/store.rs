//! What is known of a cluster, change by change: pure.

use std::collections::{BTreeMap, BTreeSet};

use mesh_common::model::NamespacedName;
use serde_json::Value;

use crate::{
    kubernetes::watch::Change,
    object::{Kind, ObjectKey},
    source::{
        Documents, Merger, Objects, Origin, Parsed, Place,
        decode::{self, Fields},
        node::Node,
    },
};

/// One object as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    key: ObjectKey,
    parsed: Parsed,
}

/// Decodes one object; what the mesh has no use for is dropped first.
pub fn decode(kind: Kind, mut object: Value) -> Served {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(object) = object.as_object_mut() {
        // Items of a list do not say what they are.
        object.entry("kind").or_insert_with(|| kind.name().into());
        object.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        if kind.is_ours() || kind.is_route() {
            // What was written there was written by a controller.
            object.remove("status");
        }
    }
    let text = |field: &str| {
        object.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default()
    };
    let name = NamespacedName::new(text("namespace"), text("name"));
    let key = ObjectKey { kind, name };
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let place = Place::Cluster { uid: text("uid").into(), generation };
    let parsed = decode::of_kind(&Node::from(object), kind, Fields::Served, &|_| place.clone());
    Served { key, parsed }
}

/// The newest version of every object.
#[derive(Debug, Default)]
pub struct Store {
    origins: BTreeMap<Origin, Documents>,
    listed: BTreeSet<Kind>,
    merger: Merger,
}

impl Store {
    /// Takes a change of objects of `kind`; whether it changes anything that matters.
    pub fn apply(&mut self, kind: Kind, change: Change<Served>) -> bool {
        match change {
            Change::Listed(objects) => self.replace(kind, objects),
            Change::Applied(object) => self.insert(object),
            Change::Deleted(object) => {
                self.merger.forget(&object.key);
                self.origins.remove(&Origin::Cluster(object.key)).is_some()
            }
        }
    }

    /// The objects in use, once every kind has been listed.
    pub fn objects(&mut self) -> Option<Objects> {
        let is_complete = Kind::ALL.iter().all(|kind| self.listed.contains(kind));
        is_complete.then(|| self.merger.merge(&self.origins))
    }

    fn replace(&mut self, kind: Kind, objects: Vec<Served>) -> bool {
        let is_first = self.listed.insert(kind);
        let keys: BTreeSet<_> = objects.iter().map(|object| object.key.clone()).collect();
        let before = self.origins.len();
        let merger = &mut self.merger;
        self.origins.retain(|origin, _| match origin {
            Origin::Cluster(key) if key.kind == kind && !keys.contains(key) => {
                merger.forget(key);
                false
            }
            _ => true,
        });
        let mut is_changed = is_first || self.origins.len() != before;
        for object in objects {
            is_changed |= self.insert(object);
        }
        is_changed
    }

    fn insert(&mut self, Served { key, parsed }: Served) -> bool {
        let is_bad = parsed.object.is_err();
        let new = Ok(vec![parsed]);
        let origin = Origin::Cluster(key);
        if self.origins.get(&origin) == Some(&new) {
            return false;
        }
        // Several changes are merged at once: the last good version may be one that no merge saw.
        if let (true, Some(Ok(before))) = (is_bad, self.origins.insert(origin, new)) {
            before.iter().for_each(|parsed| self.merger.note(parsed));
        }
        true
    }
}

#[cfg(test)]
mod tests;
