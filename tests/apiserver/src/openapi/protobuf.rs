//! An OpenAPI 2 document as protobuf, with the field numbers of gnostic's `openapi_v2.proto`.
//!
//! Only what our documents use is written.

use serde_json::{Map, Value};

/// The whole document.
pub fn document(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, &document["swagger"]);
    message.nested(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    message.nested(8, |paths| {
        for (name, item) in document["paths"].as_object().into_iter().flatten() {
            paths.nested(2, |entry| {
                entry.bytes(1, name.as_bytes());
                entry.nested(2, |methods| {
                    methods.nested(8, |patch| operation(patch, &item["patch"]));
                });
            });
        }
    });
    message.nested(9, |definitions| named(definitions, 1, &document["definitions"]));
    message.0
}

/// An `Operation`, with parameters of the query alone.
fn operation(message: &mut Message, operation: &Value) {
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        // ParametersItem, Parameter, NonBodyParameter, QueryParameterSubSchema.
        message.nested(8, |item| {
            item.nested(1, |any| {
                any.nested(2, |non_body| {
                    non_body.nested(3, |query| {
                        query.text(2, &parameter["in"]);
                        query.text(4, &parameter["name"]);
                    });
                });
            });
        });
    }
    message.nested(9, |_| {});
    if let Some(fields) = operation.as_object() {
        extensions(message, fields, 13);
    }
}

/// Repeated `NamedSchema`.
fn named(message: &mut Message, field: u64, schemas: &Value) {
    for (name, content) in schemas.as_object().into_iter().flatten() {
        message.nested(field, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.nested(2, |inner| schema(inner, content));
        });
    }
}

fn schema(message: &mut Message, schema_of: &Value) {
    let Some(fields) = schema_of.as_object() else { return };
    let get = |name: &str| fields.get(name).unwrap_or(&Value::Null);
    for (field, name) in [(1, "$ref"), (2, "format"), (4, "description"), (13, "pattern")] {
        message.text(field, get(name));
    }
    for name in get("required").as_array().into_iter().flatten() {
        message.text(19, name);
    }
    match get("additionalProperties") {
        Value::Bool(any) => message.nested(21, |item| item.number(2, u64::from(*any))),
        Value::Null => {}
        content => message.nested(21, |item| item.nested(1, |inner| schema(inner, content))),
    }
    if get("type").is_string() {
        message.nested(22, |item| item.text(1, get("type")));
    }
    if get("items").is_object() {
        message.nested(23, |item| item.nested(1, |inner| schema(inner, get("items"))));
    }
    if get("properties").is_object() {
        message.nested(25, |item| named(item, 1, get("properties")));
    }
    extensions(message, fields, 31);
}

/// `x-...`: values as YAML, of which JSON is a part.
fn extensions(message: &mut Message, fields: &Map<String, Value>, field: u64) {
    for (name, value) in fields.iter().filter(|(name, _)| name.starts_with("x-")) {
        message.nested(field, |extension| {
            extension.bytes(1, name.as_bytes());
            extension.nested(2, |any| any.bytes(2, value.to_string().as_bytes()));
        });
    }
}

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Wire type 2: a length and bytes.
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// Wire type 0.
    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn nested(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lengths_and_numbers() {
        let mut message = Message::default();
        message.number(2, 300);
        message.nested(3, |inner| inner.text(1, &json!("a")));
        assert_eq!(message.0, [0x10, 0xac, 0x02, 0x1a, 3, 0x0a, 1, b'a']);
    }
}
