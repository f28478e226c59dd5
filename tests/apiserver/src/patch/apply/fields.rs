//! A set of fields, in the shape of `fieldsV1`: `f:` fields, `k:` items by key, `v:` plain items.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Some fields of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    /// Whether the place itself belongs to the set, which is written `.`.
    pub here: bool,
    pub children: BTreeMap<String, Fields>,
}

impl Fields {
    /// A single place.
    pub fn leaf() -> Self {
        Self { here: true, children: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.here && self.children.is_empty()
    }

    /// What is in one or the other.
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.here |= other.here;
        for (name, child) in &other.children {
            let entry = all.children.entry(name.clone()).or_default();
            *entry = entry.union(child);
        }
        all
    }

    /// What is in the first and not in the second.
    pub fn difference(&self, other: &Self) -> Self {
        let here = self.here && !other.here;
        self.combine(here, |name, child| match other.children.get(name) {
            Some(others) => child.difference(others),
            None => child.clone(),
        })
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let here = self.here && other.here;
        self.combine(here, |name, child| match other.children.get(name) {
            Some(others) => child.intersection(others),
            None => Self::default(),
        })
    }

    fn combine(&self, here: bool, of: impl Fn(&str, &Self) -> Self) -> Self {
        let children = self.children.iter().map(|(name, child)| (name.clone(), of(name, child)));
        Self { here, children: children.filter(|(_, child)| !child.is_empty()).collect() }
    }

    /// The set as it stands in `managedFields`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        // A place without places below is `{}`, whether it says `.` or not.
        if self.here && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (name, child) in &self.children {
            map.insert(name.clone(), child.to_json());
        }
        Value::Object(map)
    }

    /// The set of an entry of `managedFields`.
    pub fn from_json(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::default() };
        let children: BTreeMap<_, _> = map
            .iter()
            .filter(|(name, _)| *name != ".")
            .map(|(name, child)| (name.clone(), Self::inner(child)))
            .collect();
        Self { here: map.contains_key("."), children }
    }

    fn inner(value: &Value) -> Self {
        match Self::from_json(value) {
            empty if empty.is_empty() => Self::leaf(),
            fields => fields,
        }
    }

    /// Every place as messages name it: `.spec.containers[name="c"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, path: &mut String, paths: &mut Vec<String>) {
        if self.here {
            paths.push(path.clone());
        }
        for (name, child) in &self.children {
            let length = path.len();
            path.push_str(&step(name));
            child.collect(path, paths);
            path.truncate(length);
        }
    }
}

fn step(name: &str) -> String {
    if let Some(field) = name.strip_prefix("f:") {
        return format!(".{field}");
    }
    if let Some(value) = name.strip_prefix("v:") {
        return format!("[={value}]");
    }
    let keys: Map<String, Value> =
        serde_json::from_str(name.trim_start_matches("k:")).unwrap_or_default();
    let keys: Vec<_> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("[{}]", keys.join(","))
}
