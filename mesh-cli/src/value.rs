//! Parts of Kubernetes objects that are read as they come.

use mesh_common::model::NamespacedName;
use serde_json::Value;

/// The name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("?")
}

/// The namespace of an object; empty, where it is in none.
pub fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// Namespace and name of an object.
pub fn named(object: &Value) -> NamespacedName {
    NamespacedName::new(namespace(object), name(object))
}

/// The items of a list; none, where there is no list.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
