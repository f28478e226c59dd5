//! Versions of one object: custom ones differ in `apiVersion` alone, events of the two groups in
//! the names of their fields.

use std::borrow::Cow;

use serde_json::Value;

use crate::registry::Resource;

/// What `events.k8s.io` calls the fields of a core event, old names second.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("reportingController", "reportingComponent"),
];

/// A stored object as the resource that was asked for shows it.
pub fn present<'o>(resource: &Resource, object: &'o Value) -> Cow<'o, Value> {
    let version = resource.api_version();
    if object["apiVersion"] == version {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    if resource.group == "events.k8s.io" {
        rename(&mut object, |(new, old)| (old, new));
    }
    object["apiVersion"] = version.into();
    Cow::Owned(object)
}

/// An object as the store has it.
pub fn stored(resource: &Resource, mut object: Value) -> Value {
    if resource.group == "events.k8s.io" {
        rename(&mut object, |(new, old)| (new, old));
        object["apiVersion"] = "v1".into();
    }
    object
}

fn rename(
    object: &mut Value,
    pair: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(fields) = object.as_object_mut() else { return };
    for names in EVENT_FIELDS {
        let (from, to) = pair(names);
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn an_event_is_the_same_in_both_groups() {
        let registry = Registry::new();
        let new = registry.find("events.k8s.io", "v1", "events");
        let new = new.expect("built in");
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n",
            "regarding": { "name": "a" }, "reportingController": "c", "reason": "r",
        });
        let core = stored(&new, event.clone());
        assert_eq!(
            core,
            json!({
                "apiVersion": "v1", "kind": "Event", "message": "n",
                "involvedObject": { "name": "a" }, "reportingComponent": "c", "reason": "r",
            })
        );
        assert_eq!(*present(&new, &core), event);
    }
}
