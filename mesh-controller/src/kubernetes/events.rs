//! What an operator should know, as Events on the object that it is about: pure, but for the clock
//! that is handed in.
//!
//! A notice that goes on is one Event, said again now and then; a flood of new ones is spread over
//! time, so that a mistake in ten thousand pods does not bury a cluster's other Events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use ring::digest::{SHA256, digest};

use super::Resource;
use crate::object::ObjectKey;

/// So many at once.
const BURST: f64 = 25.0;
/// Then one in so long.
const REFILL: Duration = Duration::from_secs(2);
/// What goes on is said again after so long: API servers forget Events after an hour.
const AGAIN: Duration = Duration::from_secs(30 * 60);
/// What comes and goes is said again after so long at the earliest.
const SOON: Duration = Duration::from_secs(5 * 60);
/// A note has this many bytes at most, by the definition of the field.
const NOTE_BYTES: usize = 1024;
/// So much of an object's name is part of its Event's.
const NAME_BYTES: usize = 200;
/// Where Events on objects without a namespace are.
const NAMESPACE: &str = "default";

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// The object.
    pub object: ObjectKey,
    /// Its uid, by which `kubectl describe` finds its Events.
    pub uid: Arc<str>,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, and what to do.
    pub note: String,
}

/// Decides which notices are said when.
#[derive(Debug)]
pub struct Events {
    said: BTreeMap<Notice, Said>,
    left: f64,
    refilled: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    count: i32,
    is_gone: bool,
}

impl Events {
    /// Nothing was said yet.
    pub fn new(now: Instant) -> Self {
        Self { said: BTreeMap::new(), left: BURST, refilled: now }
    }

    /// Which of `notices`, that hold now, are to be said now, and for which time.
    pub fn due(&mut self, notices: &BTreeSet<Notice>, now: Instant) -> Vec<(Notice, i32)> {
        let passed = now.duration_since(self.refilled).as_secs_f64();
        self.left = (self.left + passed / REFILL.as_secs_f64()).min(BURST);
        self.refilled = now;
        self.said.retain(|_, said| now.duration_since(said.at) < 2 * AGAIN);
        for (notice, said) in &mut self.said {
            said.is_gone |= !notices.contains(notice);
        }
        let mut due = Vec::new();
        for notice in notices {
            if self.left < 1.0 {
                break;
            }
            let count = match self.said.get(notice) {
                None => 1,
                Some(said) if now.duration_since(said.at) >= AGAIN => said.count + 1,
                Some(said) if said.is_gone && now.duration_since(said.at) >= SOON => said.count + 1,
                Some(_) => continue,
            };
            self.left -= 1.0;
            due.push((notice.clone(), count));
        }
        due
    }

    /// That `notice` was said for the `count`th time.
    pub fn said(&mut self, notice: Notice, count: i32, now: Instant) {
        self.said.insert(notice, Said { at: now, count, is_gone: false });
    }
}

impl Notice {
    /// The collection that its Event is in.
    pub fn collection(&self) -> Resource {
        Resource::new("events.k8s.io/v1", Some(self.namespace()), "events")
    }

    fn namespace(&self) -> &str {
        match self.object.kind.is_namespaced() {
            true => &self.object.name.namespace,
            false => NAMESPACE,
        }
    }

    /// The name of its Event: the same whoever says it.
    pub fn name(&self) -> String {
        let text = format!("{}\0{}\0{}\0{}", self.object, self.uid, self.reason, self.note);
        let hash = digest(&SHA256, text.as_bytes());
        let hex: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let name = &*self.object.name.name;
        let name = name[..name.floor_char_boundary(NAME_BYTES)].trim_end_matches(['.', '-']);
        format!("{name}.{hex}")
    }

    /// Its Event, said for the first time by the controller called `instance`.
    pub fn event(&self, instance: &str) -> Event {
        let mut note = self.note.clone();
        note.truncate(note.floor_char_boundary(NOTE_BYTES));
        let namespace = self.object.kind.is_namespaced().then(|| self.namespace().to_owned());
        Event {
            metadata: ObjectMeta {
                name: Some(self.name()),
                namespace: Some(self.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            action: Some("Compile".to_owned()),
            reason: Some(self.reason.to_owned()),
            note: Some(note),
            type_: Some("Warning".to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(self.object.kind.api_version().to_owned()),
                kind: Some(self.object.kind.name().to_owned()),
                name: Some(self.object.name.name.to_string()),
                namespace,
                uid: Some(self.uid.to_string()).filter(|uid| !uid.is_empty()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some("nodemesh.dev/controller".to_owned()),
            reporting_instance: Some(instance.chars().take(128).collect()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests;
