//! What an API server asks of an object by its schema, as far as our schemas go.

use regex::Regex;
use serde_json::{Map, Value};

/// The words that [`check`] knows; it would let through what others say.
const KNOWN: [&str; 19] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-validations",
];
const LIST_WORDS: [&str; 2] = ["x-kubernetes-list-type", "x-kubernetes-list-map-keys"];
/// What a schema of an object may say of the fields that all objects have.
const COMMON: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// That a schema is structural and says nothing that this module overlooks.
pub fn check_form(schema: &Value) {
    let schema = schema.as_object().expect("a schema is a map");
    assert!(schema.contains_key("type"), "{schema:?}");
    for word in schema.keys() {
        assert!(KNOWN.contains(&word.as_str()) || LIST_WORDS.contains(&word.as_str()), "{word}");
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        Regex::new(pattern).expect("a pattern that RE2 knows");
    }
    let fields = schema.get("properties").and_then(Value::as_object);
    fields.into_iter().flat_map(Map::values).for_each(check_form);
    schema.get("items").into_iter().for_each(check_form);
    schema.get("additionalProperties").into_iter().for_each(check_form);
}

/// Why `value`, at `path`, is not what `schema` says.
pub fn check(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let says = |word: &str| schema.get(word);
    let number = |word: &str| says(word).and_then(Value::as_u64);
    let wrong = |what: &str| Err(format!("{path}: {what}"));
    let within = |count: usize, least: &str, most: &str| {
        let count = count as u64;
        number(least).is_none_or(|it| count >= it) && number(most).is_none_or(|it| count <= it)
    };
    if says("enum").is_some_and(|values| !values.as_array().is_some_and(|it| it.contains(value))) {
        return wrong("not one of the values");
    }
    match (says("type").and_then(Value::as_str), value) {
        (Some("object"), Value::Object(fields)) => {
            if !within(fields.len(), "minProperties", "maxProperties") {
                return wrong("too few or too many fields");
            }
            let required = says("required").and_then(Value::as_array);
            if required
                .into_iter()
                .flatten()
                .any(|it| value.get(it.as_str().unwrap_or("")).is_none())
            {
                return wrong("a field is missing");
            }
            for (name, field) in fields {
                let known = says("properties").and_then(|it| it.get(name));
                match known.or(says("additionalProperties")) {
                    Some(schema) => check(schema, field, &format!("{path}.{name}"))?,
                    None if path.is_empty() && COMMON.contains(&name.as_str()) => {}
                    None => return wrong(&format!("unknown field {name}")),
                }
            }
            Ok(())
        }
        (Some("array"), Value::Array(items)) => {
            if !within(items.len(), "minItems", "maxItems") {
                return wrong("too few or too many items");
            }
            let keys = says("x-kubernetes-list-map-keys").and_then(Value::as_array);
            if let Some(keys) = keys {
                let of = |item: &Value| -> Vec<Value> {
                    keys.iter().map(|key| item[key.as_str().unwrap_or("")].clone()).collect()
                };
                let mut seen: Vec<Vec<Value>> = Vec::new();
                for item in items {
                    if seen.contains(&of(item)) {
                        return wrong("an item is there twice");
                    }
                    seen.push(of(item));
                }
            }
            let schema = says("items").expect("structural");
            items
                .iter()
                .enumerate()
                .try_for_each(|(at, it)| check(schema, it, &format!("{path}[{at}]")))
        }
        (Some("string"), Value::String(text)) => {
            let pattern = says("pattern").and_then(Value::as_str).unwrap_or_default();
            match within(text.chars().count(), "minLength", "maxLength") {
                false => wrong("too short or too long"),
                true if !Regex::new(pattern).expect("RE2").is_match(text) => wrong("the pattern"),
                true => Ok(()),
            }
        }
        (Some("integer"), Value::Number(it)) => {
            let number = it.as_f64().expect("a number");
            let least = says("minimum").and_then(Value::as_f64).unwrap_or(f64::MIN);
            let most = says("maximum").and_then(Value::as_f64).unwrap_or(f64::MAX);
            if (least..=most).contains(&number) { Ok(()) } else { wrong("too small or too large") }
        }
        (type_, _) => wrong(&format!("no {}", type_.unwrap_or("type"))),
    }
}
