//! Structural schemas: pruning, defaults and validation of custom resources.
//!
//! Not evaluated: formats other than `date-time`.

mod check;
mod prune;

use serde_json::Value;

pub use self::{
    check::check,
    prune::{complete, prune},
};

const ANYTHING: &str = "x-kubernetes-preserve-unknown-fields";
const OBJECT: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// The schema of a field, item or value of a map; None where the schema says nothing.
pub fn of_field<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    let named = schema["properties"].get(name);
    named.or_else(|| Some(&schema["additionalProperties"]).filter(|more| more.is_object()))
}

/// The schema at a path of fields; lists on the way are stepped into.
pub fn at<'s>(schema: &'s Value, path: &[&str]) -> Option<&'s Value> {
    path.iter().try_fold(schema, |schema, name| {
        let schema = if schema["items"].is_object() { &schema["items"] } else { schema };
        of_field(schema, name)
    })
}

/// How a list is merged: None as a whole, no keys as a set, else by its keys.
pub fn list_keys(schema: &Value) -> Option<Vec<String>> {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(Vec::new()),
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            Some(keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
