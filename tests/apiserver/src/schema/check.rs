//! Whether a value is what its schema says.

use kube_cel::Validator;
use regex::Regex;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{INT_OR_STRING, list_keys, of_field};
use crate::error::Cause;

/// Everything that is wrong with an object; rules are asked when its form is right.
pub fn check(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    value(schema, object, "", &mut causes);
    if causes.is_empty() {
        rules(schema, object, old, &mut causes);
    }
    causes
}

/// `x-kubernetes-validations`: CEL.
fn rules(schema: &Value, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let Err(errors) = Validator::new().validate(schema, object, old) else { return };
    for error in errors.into_vec() {
        let path = error.field_path.split('.').filter(|step| !step.is_empty());
        let at = path.fold(object, |value, step| &value[step]);
        causes.push(Cause::invalid(&error.field_path, at, &error.message));
    }
}

fn value(schema: &Value, of: &Value, path: &str, causes: &mut Vec<Cause>) {
    if of.is_null() && schema["nullable"] == true {
        return;
    }
    if !has_type(schema, of) {
        let wanted = schema["type"].as_str().unwrap_or("integer or string");
        let why = format!("{path} in body must be of type {wanted}: {:?}", type_of(of));
        let mut cause = Cause::invalid(path, &type_of(of).into(), why);
        cause.reason = "FieldValueTypeInvalid";
        return causes.push(cause);
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(of)
    {
        causes.push(Cause::unsupported(path, of, allowed));
    }
    match of {
        Value::String(text) => string(schema, text, path, causes),
        Value::Number(_) => number(schema, of, path, causes),
        Value::Array(items) => list(schema, items, path, causes),
        Value::Object(fields) => map(schema, fields, path, causes),
        _ => {}
    }
    combined(schema, of, path, causes);
}

/// A number that some tools write as a float.
fn count(schema: &Value, name: &str) -> Option<u64> {
    schema[name].as_u64().or_else(|| schema[name].as_f64().map(|number| number as u64))
}

fn has_type(schema: &Value, of: &Value) -> bool {
    if schema[INT_OR_STRING] == true {
        return of.is_string() || of.is_i64() || of.is_u64();
    }
    match schema["type"].as_str() {
        Some("object") => of.is_object(),
        Some("array") => of.is_array(),
        Some("string") => of.is_string(),
        Some("boolean") => of.is_boolean(),
        Some("number") => of.is_number(),
        Some("integer") => of.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn string(schema: &Value, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let mut wrong = |why: String| causes.push(Cause::invalid(path, &text.into(), why));
    let length = text.chars().count() as u64;
    if let Some(least) = count(schema, "minLength").filter(|&least| length < least) {
        wrong(format!("{path} in body should be at least {least} chars long"));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        match Regex::new(pattern) {
            Ok(regex) if regex.is_match(text) => {}
            Ok(_) => wrong(format!("{path} in body should match '{pattern}'")),
            Err(_) => wrong(format!("{path}: the pattern '{pattern}' cannot be evaluated here")),
        }
    }
    if schema["format"] == "date-time" && OffsetDateTime::parse(text, &Rfc3339).is_err() {
        wrong(format!("{path} in body must be of type date-time: {text:?}"));
    }
    if let Some(most) = count(schema, "maxLength").filter(|&most| length > most) {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            field: path.to_owned(),
            message: format!("Too long: may not be more than {most} bytes"),
        });
    }
}

fn number(schema: &Value, of: &Value, path: &str, causes: &mut Vec<Cause>) {
    let number = of.as_f64().unwrap_or_default();
    let mut wrong = |why: String| causes.push(Cause::invalid(path, of, why));
    if let Some(least) = schema["minimum"].as_f64() {
        if schema["exclusiveMinimum"] == true && number <= least {
            wrong(format!("{path} in body should be greater than {least}"));
        } else if number < least {
            wrong(format!("{path} in body should be greater than or equal to {least}"));
        }
    }
    if let Some(most) = schema["maximum"].as_f64() {
        if schema["exclusiveMaximum"] == true && number >= most {
            wrong(format!("{path} in body should be less than {most}"));
        } else if number > most {
            wrong(format!("{path} in body should be less than or equal to {most}"));
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64()
        && (number / step).fract() != 0.0
    {
        wrong(format!("{path} in body should be a multiple of {step}"));
    }
}

fn list(schema: &Value, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let length = items.len() as u64;
    if let Some(least) = count(schema, "minItems").filter(|&least| length < least) {
        let why = format!("{path} in body should have at least {least} items");
        causes.push(Cause::invalid(path, &length.into(), why));
    }
    if let Some(most) = count(schema, "maxItems").filter(|&most| length > most) {
        causes.push(too_many(path, length, most));
    }
    for (at, item) in items.iter().enumerate() {
        value(&schema["items"], item, &format!("{path}[{at}]"), causes);
    }
    let Some(keys) = list_keys(schema) else { return };
    let identity = |item: &Value| match &keys[..] {
        [] => item.clone(),
        keys => keys.iter().map(|key| item[key].clone()).collect(),
    };
    for (at, item) in items.iter().enumerate() {
        if items[..at].iter().any(|other| identity(other) == identity(item)) {
            causes.push(Cause {
                reason: "FieldValueDuplicate",
                field: format!("{path}[{at}]"),
                message: format!("Duplicate value: {}", identity(item)),
            });
        }
    }
}

fn too_many(path: &str, length: u64, most: u64) -> Cause {
    Cause {
        reason: "FieldValueTooMany",
        field: path.to_owned(),
        message: format!("Too many: {length}: must have at most {most} items"),
    }
}

fn map(schema: &Value, fields: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            causes.push(Cause::required(below(name), ""));
        }
    }
    let length = fields.len() as u64;
    if let Some(most) = count(schema, "maxProperties").filter(|&most| length > most) {
        causes.push(too_many(path, length, most));
    }
    if let Some(least) = count(schema, "minProperties").filter(|&least| length < least) {
        let why = format!("{path} in body should have at least {least} properties");
        causes.push(Cause::invalid(path, &length.into(), why));
    }
    for (name, of) in fields {
        if let Some(inner) = of_field(schema, name) {
            value(inner, of, &below(name), causes);
        }
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`.
fn combined(schema: &Value, of: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fits = |schema: &Value| {
        let mut inner = Vec::new();
        value(schema, of, path, &mut inner);
        inner.is_empty()
    };
    let schemas = |name: &str| schema[name].as_array().cloned();
    for inner in schemas("allOf").into_iter().flatten() {
        value(&inner, of, path, causes);
    }
    if let Some(any) = schemas("anyOf")
        && !any.iter().any(fits)
    {
        let why = format!("{path} in body must validate at least one schema (anyOf)");
        causes.push(Cause::invalid(path, of, why));
    }
    if let Some(one) = schemas("oneOf")
        && one.iter().filter(|schema| fits(schema)).count() != 1
    {
        let why = format!("{path} in body must validate one and only one schema (oneOf)");
        causes.push(Cause::invalid(path, of, why));
    }
    if schema["not"].is_object() && fits(&schema["not"]) {
        let why = format!("{path} in body must not validate the schema (not)");
        causes.push(Cause::invalid(path, of, why));
    }
}
