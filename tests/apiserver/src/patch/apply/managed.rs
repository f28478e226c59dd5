//! `metadata.managedFields`: the managers and what each owns.

use serde_json::{Value, json};

use super::fields::Fields;
use crate::meta;

/// A manager in one of its roles.
#[derive(Clone, Debug, PartialEq)]
pub struct Who {
    pub name: String,
    /// Whether by apply, or by any other write.
    pub applies: bool,
    pub api_version: String,
    /// Empty: the object itself.
    pub subresource: String,
}

/// What one manager owns.
#[derive(Clone, Debug)]
pub struct Entry {
    pub who: Who,
    pub fields: Fields,
    time: String,
}

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub struct Managed(Vec<Entry>);

impl Entry {
    /// The manager as messages name it.
    pub fn describe(&self) -> String {
        let mut text = format!("{:?}", self.who.name);
        if !self.who.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.who.subresource));
        }
        if !self.who.applies {
            text.push_str(&format!(" using {} at {}", self.who.api_version, self.time));
        }
        text
    }
}

impl Managed {
    /// The managers that an object names.
    pub fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array();
        let entries = entries.into_iter().flatten().map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            Entry {
                who: Who {
                    name: text("manager"),
                    applies: entry["operation"] == "Apply",
                    api_version: text("apiVersion"),
                    subresource: text("subresource"),
                },
                fields: Fields::from_json(&entry["fieldsV1"]),
                time: text("time"),
            }
        });
        Self(entries.collect())
    }

    /// Writes the managers into an object.
    pub fn write(&self, object: &mut Value) {
        let entries: Vec<_> = self
            .0
            .iter()
            .map(|entry| {
                let mut value = json!({
                    "manager": entry.who.name,
                    "operation": if entry.who.applies { "Apply" } else { "Update" },
                    "apiVersion": entry.who.api_version,
                    "time": entry.time,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": entry.fields.to_json(),
                });
                if !entry.who.subresource.is_empty() {
                    value["subresource"] = entry.who.subresource.as_str().into();
                }
                value
            })
            .collect();
        if entries.is_empty() {
            meta::remove(object, "managedFields");
        } else {
            object["metadata"]["managedFields"] = entries.into();
        }
    }

    pub fn entry(&self, who: &Who) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.who == *who)
    }

    /// What a manager owns.
    pub fn fields(&self, who: &Who) -> Fields {
        self.entry(who).map(|entry| entry.fields.clone()).unwrap_or_default()
    }

    /// Everybody else.
    pub fn others<'m>(&'m self, who: &'m Who) -> impl Iterator<Item = &'m Entry> {
        self.0.iter().filter(move |entry| entry.who != *who)
    }

    /// Makes these the fields of a manager.
    pub fn set(&mut self, who: &Who, fields: Fields) {
        match self.0.iter_mut().find(|entry| entry.who == *who) {
            Some(entry) if entry.fields == fields => {}
            Some(entry) => {
                entry.fields = fields;
                entry.time = meta::now();
            }
            None => self.0.push(Entry { who: who.clone(), fields, time: meta::now() }),
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Takes fields away from one manager.
    pub fn take(&mut self, who: &Who, fields: &Fields) {
        for entry in self.0.iter_mut().filter(|entry| entry.who == *who) {
            entry.fields = entry.fields.difference(fields);
        }
    }

    /// Takes fields away from everybody but one manager.
    pub fn take_from_all(&mut self, who: &Who, fields: &Fields) {
        for entry in self.0.iter_mut().filter(|entry| entry.who != *who) {
            entry.fields = entry.fields.difference(fields);
        }
    }
}
