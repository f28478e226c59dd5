//! Fields that a schema does not know go, fields that it has defaults for come.

use serde_json::{Map, Value};

use super::{ANYTHING, OBJECT, of_field};

/// Removes unknown fields of a whole object; their paths.
pub fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    fields(schema, object, &mut String::new(), true, &mut gone);
    gone
}

fn fields(
    schema: &Value,
    value: &mut Value,
    path: &mut String,
    is_object: bool,
    gone: &mut Vec<String>,
) {
    let keeps = schema[ANYTHING] == true;
    let is_object = is_object || schema[OBJECT] == true;
    match value {
        Value::Object(map) => {
            let names: Vec<_> = map.keys().cloned().collect();
            for name in names {
                let of_object = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                if is_object && of_object {
                    continue;
                }
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
                match of_field(schema, &name) {
                    Some(inner) => {
                        if let Some(value) = map.get_mut(&name) {
                            fields(inner, value, path, false, gone);
                        }
                    }
                    None if keeps || schema["additionalProperties"] == true => {}
                    None => {
                        map.remove(&name);
                        gone.push(path.clone());
                    }
                }
                path.truncate(length);
            }
        }
        Value::Array(items) if schema["items"].is_object() => {
            for (at, item) in items.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{at}]"));
                fields(&schema["items"], item, path, false, gone);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Fills in defaults; a null that may not be one counts as absent.
pub fn complete(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let properties = schema["properties"].as_object();
            for (name, inner) in properties.into_iter().flatten() {
                complete_field(map, name, inner);
            }
            let more = &schema["additionalProperties"];
            if more.is_object() {
                map.values_mut().for_each(|value| complete(more, value));
            }
        }
        Value::Array(items) if schema["items"].is_object() => {
            items.iter_mut().for_each(|item| complete(&schema["items"], item));
        }
        _ => {}
    }
}

fn complete_field(map: &mut Map<String, Value>, name: &str, schema: &Value) {
    let is_null = map.get(name).is_some_and(Value::is_null);
    if is_null && schema["nullable"] != true {
        map.remove(name);
    }
    if let Some(default) = schema.get("default")
        && !map.contains_key(name)
    {
        map.insert(name.to_owned(), default.clone());
    }
    if let Some(value) = map.get_mut(name) {
        complete(schema, value);
    }
}
