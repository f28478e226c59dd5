//! Walking objects with their types in mind: which maps and lists are merged, and by what.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{super::lists, fields::Fields};
use crate::{registry::Resource, schema};

/// What is known of the types of a resource: the table of built-in kinds, or a schema.
pub struct Types<'r> {
    kind: &'r str,
    schema: Option<&'r Value>,
}

/// What one state has and the other has not, or has differently.
#[derive(Debug, Default)]
pub struct Changes {
    /// Added or modified.
    pub changed: Fields,
    pub removed: Fields,
}

/// The parts of a value that are owned one by one.
type Parts<'v> = Vec<(String, &'v Value)>;

impl<'r> Types<'r> {
    pub fn of(resource: &'r Resource) -> Self {
        Self { kind: &resource.kind, schema: resource.schema.as_deref() }
    }

    /// How a list is told apart: None if it is owned as a whole, no keys if it is a set.
    fn keys(&self, path: &[&str]) -> Option<Vec<String>> {
        let builtin = || {
            let keys = lists::apply_keys(self.kind, path)?;
            Some(keys.into_iter().map(str::to_owned).collect())
        };
        match self.schema {
            Some(schema) if path.first() != Some(&"metadata") => {
                schema::list_keys(schema::at(schema, path)?)
            }
            _ => builtin(),
        }
    }

    fn is_atomic(&self, path: &[&str]) -> bool {
        match self.schema {
            Some(schema) if path.first() != Some(&"metadata") => schema::at(schema, path)
                .is_some_and(|schema| schema["x-kubernetes-map-type"] == "atomic"),
            _ => lists::is_atomic_map(self.kind, path),
        }
    }

    /// The parts of a value; None if it is owned as a whole.
    fn parts<'v>(&self, path: &[&str], value: &'v Value) -> Option<Parts<'v>> {
        match value {
            Value::Object(fields) if !fields.is_empty() && !self.is_atomic(path) => {
                Some(fields.iter().map(|(name, value)| (format!("f:{name}"), value)).collect())
            }
            Value::Array(items) if !items.is_empty() => {
                let keys = self.keys(path)?;
                items.iter().map(|item| Some((element(&keys, item)?, item))).collect()
            }
            _ => None,
        }
    }

    /// Every field that a value sets.
    pub fn fields_of(&self, value: &Value) -> Fields {
        let mut fields = self.all(&mut Vec::new(), value);
        fields.here = false;
        fields
    }

    fn all<'v>(&self, path: &mut Vec<&'v str>, value: &'v Value) -> Fields {
        let Some(parts) = self.parts(path, value) else { return Fields::leaf() };
        let mut fields = Fields::default();
        for (name, part) in parts {
            let inner = self.within(path, &name, value, |types, path| types.all(path, part));
            let mut inner = inner;
            inner.here |= !name.starts_with("f:");
            fields.children.insert(name, inner);
        }
        fields
    }

    /// Does something one step deeper; items have the path of their list.
    fn within<'v, T>(
        &self,
        path: &mut Vec<&'v str>,
        name: &str,
        parent: &'v Value,
        run: impl FnOnce(&Self, &mut Vec<&'v str>) -> T,
    ) -> T {
        let field = name.strip_prefix("f:");
        let known = field
            .and_then(|field| parent.as_object().and_then(|fields| fields.get_key_value(field)));
        let Some((field, _)) = known else { return run(self, path) };
        path.push(field);
        let result = run(self, path);
        path.pop();
        result
    }

    /// What differs between two states.
    pub fn compare(&self, old: &Value, new: &Value) -> Changes {
        let mut changes = self.difference(&mut Vec::new(), old, new);
        changes.changed.here = false;
        changes
    }

    fn difference<'v>(&self, path: &mut Vec<&'v str>, old: &'v Value, new: &'v Value) -> Changes {
        let mut changes = Changes::default();
        if old == new {
            return changes;
        }
        let (before, after) = (self.parts(path, old), self.parts(path, new));
        if before.is_none() && after.is_none() {
            changes.changed.here = true;
            return changes;
        }
        let before: BTreeMap<_, _> = before.unwrap_or_default().into_iter().collect();
        let after: BTreeMap<_, _> = after.unwrap_or_default().into_iter().collect();
        if after.is_empty() && !new.is_null() {
            changes.changed.here = true;
        }
        for (name, &was) in &before {
            let inner = match after.get(name) {
                Some(&is) => {
                    let inner =
                        self.within(path, name, old, |types, path| types.difference(path, was, is));
                    changes.changed.children.insert(name.clone(), inner.changed);
                    inner.removed
                }
                None => {
                    let mut all = self.within(path, name, old, |types, path| types.all(path, was));
                    all.here = true;
                    all
                }
            };
            changes.removed.children.insert(name.clone(), inner);
        }
        for (name, &is) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
            let inner = self.within(path, name, new, |types, path| types.all(path, is));
            changes.changed.children.insert(name.clone(), inner);
        }
        changes.changed.children.retain(|_, fields| !fields.is_empty());
        changes.removed.children.retain(|_, fields| !fields.is_empty());
        changes
    }

    /// Lays `wanted` over `live`.
    pub fn merge(&self, live: &Value, wanted: &Value) -> Value {
        self.lay(&mut Vec::new(), live, wanted)
    }

    fn lay<'v>(&self, path: &mut Vec<&'v str>, live: &Value, wanted: &'v Value) -> Value {
        match (live, wanted) {
            (Value::Object(fields), Value::Object(changes)) if !self.is_atomic(path) => {
                let mut fields = fields.clone();
                for (name, change) in changes {
                    path.push(name);
                    let before = fields.get(name).unwrap_or(&Value::Null);
                    let after = self.lay(path, before, change);
                    path.pop();
                    fields.insert(name.clone(), after);
                }
                Value::Object(fields)
            }
            (Value::Array(items), Value::Array(changes)) => {
                let Some(keys) = self.keys(path) else { return wanted.clone() };
                let mut items = items.clone();
                for change in changes {
                    let wanted = element(&keys, change);
                    let at = items.iter().position(|item| element(&keys, item) == wanted);
                    match at {
                        Some(at) => items[at] = self.lay(path, &items[at], change),
                        None => items.push(change.clone()),
                    }
                }
                Value::Array(items)
            }
            _ => wanted.clone(),
        }
    }

    /// Removes fields from a value, and maps and lists that are empty then.
    pub fn remove(&self, value: &mut Value, gone: &Fields) {
        self.cut(&mut Vec::new(), value, gone);
    }

    fn cut(&self, path: &mut Vec<String>, value: &mut Value, gone: &Fields) {
        match value {
            Value::Object(fields) => {
                for (name, inner) in &gone.children {
                    let Some(name) = name.strip_prefix("f:") else { continue };
                    let Some(field) = fields.get_mut(name) else { continue };
                    if !inner.children.is_empty() {
                        path.push(name.to_owned());
                        self.cut(path, field, inner);
                        path.pop();
                    }
                    let is_whole = inner.here && inner.children.is_empty();
                    if is_whole || (!inner.children.is_empty() && is_hollow(field)) {
                        fields.remove(name);
                    }
                }
            }
            Value::Array(items) => {
                let steps: Vec<_> = path.iter().map(String::as_str).collect();
                let Some(keys) = self.keys(&steps) else { return };
                items.retain_mut(|item| {
                    let inner = element(&keys, item).and_then(|name| gone.children.get(&name));
                    match inner {
                        None => true,
                        Some(inner) if inner.here => false,
                        Some(inner) => {
                            self.cut(path, item, inner);
                            true
                        }
                    }
                });
            }
            _ => {}
        }
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// How `fieldsV1` names an item: by its keys, or by its value in a set.
fn element(keys: &[String], item: &Value) -> Option<String> {
    if keys.is_empty() {
        return Some(format!("v:{item}"));
    }
    let mut named: Vec<_> = keys.to_vec();
    named.sort();
    let mut identity = Map::new();
    for key in named {
        let value = match item.get(&key) {
            Some(value) => value.clone(),
            None => match lists::default_of_key(&key) {
                Some(value) => value.into(),
                None => continue,
            },
        };
        identity.insert(key, value);
    }
    (!identity.is_empty()).then(|| format!("k:{}", Value::Object(identity)))
}
