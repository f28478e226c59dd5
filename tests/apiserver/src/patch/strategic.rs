//! Strategic merge patch: a merge patch that merges some lists by key, with directives.

use serde_json::{Map, Value};

use super::lists;
use crate::error::ApiError;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PLAIN: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// The object with the patch laid over it.
pub fn apply(kind: &str, object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let mut path = Vec::new();
    Merge { kind }.merge(object, patch, &mut path)
}

struct Merge<'k> {
    kind: &'k str,
}

impl Merge<'_> {
    fn merge<'p>(
        &self,
        object: &Value,
        patch: &'p Value,
        path: &mut Vec<&'p str>,
    ) -> Result<Value, ApiError> {
        let Value::Object(changes) = patch else { return Ok(patch.clone()) };
        let mut fields = match (object, directive(changes)?) {
            (Value::Object(fields), Directive::Merge) => fields.clone(),
            (_, Directive::Delete) => return Ok(Value::Object(Map::new())),
            _ => Map::new(),
        };
        retain(&mut fields, changes);
        delete_plain(&mut fields, changes);
        for (name, change) in changes.iter().filter(|(name, _)| !name.starts_with('$')) {
            if change.is_null() {
                fields.remove(name);
                continue;
            }
            let before = fields.get(name).cloned().unwrap_or_default();
            path.push(name);
            let after = match change {
                Value::Array(items) => self.list(&before, items, path)?,
                other => self.merge(&before, other, path)?,
            };
            path.pop();
            fields.insert(name.clone(), after);
        }
        self.order(&mut fields, changes, path);
        Ok(Value::Object(fields))
    }

    fn list<'p>(
        &self,
        before: &Value,
        changes: &'p [Value],
        path: &mut Vec<&'p str>,
    ) -> Result<Value, ApiError> {
        let Some(key) = lists::merge_key(self.kind, path) else {
            return Ok(Value::Array(plain(changes)?));
        };
        let replaces = changes.iter().any(|change| change[DIRECTIVE] == "replace");
        let mut items = match before {
            Value::Array(items) if !replaces => items.clone(),
            _ => Vec::new(),
        };
        for change in changes {
            if key.is_empty() {
                if !items.contains(change) {
                    items.push(change.clone());
                }
                continue;
            }
            if change.get(DIRECTIVE).is_some_and(|directive| directive == "replace")
                && change.as_object().is_some_and(|fields| fields.len() == 1)
            {
                continue;
            }
            let Some(wanted) = change.get(key) else {
                let message = format!("map: {change} does not contain declared merge key: {key}");
                return Err(ApiError::bad_request(message));
            };
            let at = items.iter().position(|item| item.get(key) == Some(wanted));
            if change[DIRECTIVE] == "delete" {
                items.retain(|item| item.get(key) != Some(wanted));
                continue;
            }
            match at {
                Some(at) => items[at] = self.merge(&items[at], change, path)?,
                None => items.push(self.merge(&Value::Null, change, path)?),
            }
        }
        Ok(Value::Array(items))
    }

    /// Sorts merged lists as `$setElementOrder` says; items that it does not name go last.
    fn order<'p>(
        &self,
        fields: &mut Map<String, Value>,
        changes: &'p Map<String, Value>,
        path: &mut Vec<&'p str>,
    ) {
        for (name, order) in changes {
            let (Some(name), Some(order)) = (name.strip_prefix(ORDER), order.as_array()) else {
                continue;
            };
            path.push(name);
            let key = lists::merge_key(self.kind, path);
            path.pop();
            let (Some(key), Some(Value::Array(items))) = (key, fields.get_mut(name)) else {
                continue;
            };
            let identity =
                |item: &Value| if key.is_empty() { item.clone() } else { item[key].clone() };
            items.sort_by_key(|item| {
                let place = order.iter().position(|wanted| identity(wanted) == identity(item));
                place.unwrap_or(usize::MAX)
            });
        }
    }
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(changes: &Map<String, Value>) -> Result<Directive, ApiError> {
    match changes.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        Some(other) => Err(ApiError::bad_request(format!("Unknown patch type found: {other}"))),
    }
}

/// Items of a list that is replaced: directives have no meaning there.
fn plain(items: &[Value]) -> Result<Vec<Value>, ApiError> {
    Ok(items.iter().filter(|item| item.get(DIRECTIVE).is_none()).cloned().collect())
}

/// Of these fields, only those named may stay.
fn retain(fields: &mut Map<String, Value>, changes: &Map<String, Value>) {
    let Some(Value::Array(names)) = changes.get(RETAIN) else { return };
    fields.retain(|name, _| names.iter().any(|kept| kept == name));
}

fn delete_plain(fields: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (name, gone) in changes {
        let (Some(name), Some(gone)) = (name.strip_prefix(DELETE_PLAIN), gone.as_array()) else {
            continue;
        };
        if let Some(Value::Array(items)) = fields.get_mut(name) {
            items.retain(|item| !gone.contains(item));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_and_directives() {
        let pod = json!({
            "metadata": { "labels": { "a": "1", "b": "2" }, "finalizers": ["x", "y"] },
            "spec": {
                "containers": [{ "name": "one", "image": "1", "args": ["a"] }, { "name": "two" }],
                "tolerations": [{ "key": "k" }],
            },
        });
        for (what, patch, pointer, expected) in [
            (
                "null removes a label",
                json!({ "metadata": { "labels": { "a": null, "c": "3" } } }),
                "/metadata/labels",
                json!({ "b": "2", "c": "3" }),
            ),
            (
                "containers are merged by name",
                json!({ "spec": { "containers": [{ "name": "one", "image": "2" }] } }),
                "/spec/containers",
                json!([{ "name": "one", "image": "2", "args": ["a"] }, { "name": "two" }]),
            ),
            (
                "an item is deleted",
                json!({ "spec": { "containers": [{ "name": "one", "$patch": "delete" }] } }),
                "/spec/containers",
                json!([{ "name": "two" }]),
            ),
            (
                "a list is replaced",
                json!({ "spec": { "containers": [{ "name": "new" }, { "$patch": "replace" }] } }),
                "/spec/containers",
                json!([{ "name": "new" }]),
            ),
            (
                "and put in order",
                json!({ "spec": {
                    "$setElementOrder/containers": [{ "name": "two" }, { "name": "one" }],
                    "containers": [{ "name": "two", "image": "3" }],
                } }),
                "/spec/containers",
                json!([{ "name": "two", "image": "3" }, { "name": "one", "image": "1", "args": ["a"] }]),
            ),
            (
                "a list without a key is replaced",
                json!({ "spec": { "tolerations": [] } }),
                "/spec/tolerations",
                json!([]),
            ),
            (
                "plain values are added",
                json!({ "metadata": { "finalizers": ["z", "x"] } }),
                "/metadata/finalizers",
                json!(["x", "y", "z"]),
            ),
            (
                "and taken out",
                json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["x"] } }),
                "/metadata/finalizers",
                json!(["y"]),
            ),
            (
                "a map is replaced",
                json!({ "metadata": { "labels": { "$patch": "replace", "z": "9" } } }),
                "/metadata/labels",
                json!({ "z": "9" }),
            ),
            (
                "only some keys are retained",
                json!({ "metadata": { "labels": { "$retainKeys": ["b"], "b": "3" } } }),
                "/metadata/labels",
                json!({ "b": "3" }),
            ),
        ] {
            let after = apply("Pod", &pod, &patch).unwrap_or_default();
            assert_eq!(after.pointer(pointer), Some(&expected), "{what}");
        }
        let keyless = json!({ "spec": { "containers": [{ "image": "2" }] } });
        assert!(apply("Pod", &pod, &keyless).is_err());
    }
}
