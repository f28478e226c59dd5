//! A YAML document as a tree that remembers its lines.
//!
//! Kubernetes types are read from this tree and not from the text, because every complaint, about
//! a misspelt field as about a bad address found later, has to name its line, and because the
//! items of a `List` are objects of their own.

use std::{cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

mod read;
#[cfg(test)]
mod tests;

/// A value and the line it starts on, counted from 1 within its document.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The line.
    pub line: u64,
    /// The value.
    pub value: Value,
}

/// What YAML can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~`, or nothing at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a fraction.
    Integer(i64),
    /// A number with one, or beyond 64 bits.
    Float(f64),
    /// A text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The line of the key.
    pub line: u64,
    /// The value.
    pub value: Node,
}

/// What is wrong with a tree, or with the object made of it, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeError {
    /// The field, such as `spec.ports[0].port`; empty for the whole.
    pub path: String,
    /// The line, where known.
    pub line: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

impl Node {
    /// The value of `key`, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The text, where this is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The line of the deepest part of `path` that exists.
    pub fn line_of(&self, path: &str) -> u64 {
        let mut line = self.line;
        let mut at = self;
        for step in path.split(['.', '[']) {
            let next = match (&at.value, step.strip_suffix(']')) {
                (Value::List(items), Some(index)) => {
                    index.parse::<usize>().ok().and_then(|index| items.get(index))
                }
                (Value::Map(entries), _) => {
                    entries.iter().find(|entry| entry.key == step).map(|entry| {
                        line = entry.line;
                        &entry.value
                    })
                }
                _ => None,
            };
            let Some(next) = next else { break };
            if matches!(at.value, Value::List(_)) {
                line = next.line;
            }
            at = next;
        }
        line
    }

    /// Reads a `T`; a field that `T` does not have is an error.
    ///
    /// # Errors
    /// What does not fit first, or the first unknown field.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, TreeError> {
        let unknown = RefCell::new(None);
        let mut report = |path: serde_ignored::Path<'_>| {
            // serde_ignored shows an Option on the way as `?`, which no reader of YAML wrote.
            let path = path.to_string().replace(".?", "").replace("?.", "");
            unknown.borrow_mut().get_or_insert(indexed(&path));
        };
        let wrapped = serde_ignored::Deserializer::new(self, &mut report);
        let value = T::deserialize(wrapped)?;
        match unknown.into_inner() {
            None => Ok(value),
            Some(path) => Err(TreeError {
                line: Some(self.line_of(&path)),
                path,
                reason: "no such field; remove it or correct its name".into(),
            }),
        }
    }
}

/// `a.0.b` as `a[0].b`.
fn indexed(path: &str) -> String {
    let mut text = String::new();
    for step in path.split('.') {
        if !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()) {
            text.push_str(&format!("[{step}]"));
        } else {
            text.push_str(if text.is_empty() { "" } else { "." });
            text.push_str(step);
        }
    }
    text
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

impl std::error::Error for TreeError {}

impl de::Error for TreeError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self { path: String::new(), line: None, reason: reason.to_string() }
    }
}

impl TreeError {
    fn within(mut self, step: &str, line: u64) -> Self {
        let is_joined = step.is_empty() || self.path.is_empty() || self.path.starts_with('[');
        let joint = if is_joined { "" } else { "." };
        self.path = format!("{step}{joint}{}", self.path);
        self.line = self.line.or(Some(line));
        self
    }
}

impl From<serde_json::Value> for Node {
    /// JSON that came over the wire has no lines: every line is 0.
    fn from(json: serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(it) => Value::Bool(it),
            serde_json::Value::Number(it) => match it.as_i64() {
                Some(integer) => Value::Integer(integer),
                None => Value::Float(it.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(it) => Value::Text(it),
            serde_json::Value::Array(it) => Value::List(it.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(it) => {
                let entry = |(key, value)| Entry { key, line: 0, value: Self::from(value) };
                Value::Map(it.into_iter().map(entry).collect())
            }
        };
        Self { line: 0, value }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let value = entries.next_value()?;
            map.push(Entry { line: key.referenced.line(), key: key.value, value });
        }
        Ok(Value::Map(map))
    }
}
