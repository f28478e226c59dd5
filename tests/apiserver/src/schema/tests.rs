use serde_json::json;

use super::*;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": { "spec": {
            "type": "object",
            "required": ["mode"],
            "properties": {
                "mode": { "type": "string", "enum": ["STRICT", "PERMISSIVE"] },
                "host": { "type": "string", "pattern": "^[a-z]+$", "maxLength": 5, "minLength": 2 },
                "weight": { "type": "integer", "minimum": 0, "maximum": 10, "default": 1 },
                "port": { "x-kubernetes-int-or-string": true },
                "open": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                "rules": {
                    "type": "array", "maxItems": 2,
                    "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": { "type": "object", "properties": { "name": { "type": "string" } } },
                },
            },
        } },
    })
}

#[test]
fn what_is_wrong_is_named() {
    for (spec, field, reason) in [
        (json!({}), "spec.mode", "FieldValueRequired"),
        (json!({ "mode": "OFF" }), "spec.mode", "FieldValueNotSupported"),
        (json!({ "mode": 1 }), "spec.mode", "FieldValueTypeInvalid"),
        (json!({ "mode": "STRICT", "host": "A1" }), "spec.host", "FieldValueInvalid"),
        (json!({ "mode": "STRICT", "host": "a" }), "spec.host", "FieldValueInvalid"),
        (json!({ "mode": "STRICT", "host": "abcdef" }), "spec.host", "FieldValueTooLong"),
        (json!({ "mode": "STRICT", "weight": 11 }), "spec.weight", "FieldValueInvalid"),
        (json!({ "mode": "STRICT", "weight": 1.5 }), "spec.weight", "FieldValueTypeInvalid"),
        (json!({ "mode": "STRICT", "port": true }), "spec.port", "FieldValueTypeInvalid"),
        (
            json!({ "mode": "STRICT", "labels": { "a": 1 } }),
            "spec.labels.a",
            "FieldValueTypeInvalid",
        ),
        (json!({ "mode": "STRICT", "rules": [{}, {}, {}] }), "spec.rules", "FieldValueTooMany"),
        (
            json!({ "mode": "STRICT", "rules": [{ "name": "a" }, { "name": "a" }] }),
            "spec.rules[1]",
            "FieldValueDuplicate",
        ),
    ] {
        let causes = check(&schema(), &json!({ "spec": spec }), None);
        assert!(!causes.is_empty(), "{spec}");
        assert_eq!((causes[0].field.as_str(), causes[0].reason), (field, reason), "{spec}");
    }
    let good = json!({ "mode": "STRICT", "host": "abc", "port": "http", "labels": { "a": "b" } });
    assert_eq!(check(&schema(), &json!({ "spec": good }), None), []);
}

#[test]
fn unknown_fields_go_and_defaults_come() {
    let mut object = json!({
        "apiVersion": "v", "kind": "K", "metadata": { "name": "n" }, "other": 1,
        "spec": {
            "unknown": { "a": 1 }, "open": { "kept": 1 }, "labels": { "kept": "1" },
            "rules": [{ "name": "a", "more": 1 }], "host": null,
        },
    });
    let gone = prune(&schema(), &mut object);
    assert_eq!(gone, ["other", "spec.rules[0].more", "spec.unknown"]);
    complete(&schema(), &mut object);
    assert_eq!(
        object["spec"],
        json!({
            "open": { "kept": 1 }, "labels": { "kept": "1" }, "rules": [{ "name": "a" }],
            "weight": 1,
        })
    );
}

#[test]
fn combinations() {
    let schema = json!({
        "oneOf": [{ "required": ["a"] }, { "required": ["b"] }],
        "not": { "required": ["c"] },
    });
    for (object, wrong) in [
        (json!({ "a": 1 }), 0),
        (json!({ "a": 1, "b": 1 }), 1),
        (json!({}), 1),
        (json!({ "a": 1, "c": 1 }), 1),
    ] {
        assert_eq!(check(&schema, &object, None).len(), wrong, "{object}");
    }
}
