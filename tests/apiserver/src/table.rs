//! Tables: the rows that `kubectl get` prints, made by the server.

pub mod age;
pub mod builtin;
pub mod jsonpath;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::meta;

/// The columns of a kind, after the name.
pub type Columns = Vec<Column>;

/// A column and where its cells come from.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// 0 is always shown, more than that with `-o wide`.
    pub priority: u64,
    pub description: String,
    pub cell: Cell,
}

/// Where a cell comes from.
#[derive(Clone, Debug)]
pub enum Cell {
    Computed(fn(&Value) -> Value),
    Path(jsonpath::Path),
    /// A number that counts as 0 where it is absent.
    Count(jsonpath::Path),
    /// The time since a moment.
    Since(jsonpath::Path),
}

impl Column {
    fn value(&self, object: &Value) -> Value {
        match &self.cell {
            Cell::Computed(of) => of(object),
            Cell::Path(path) => match &path.find(object)[..] {
                [] => Value::Null,
                [one] => self.typed(one),
                many => {
                    let texts: Vec<_> = many.iter().map(|value| text(value)).collect();
                    texts.join(",").into()
                }
            },
            Cell::Count(path) => {
                path.find(object).first().map_or_else(|| 0.into(), |&value| value.clone())
            }
            Cell::Since(path) => match path.find(object).first() {
                Some(moment) => age::since(moment, OffsetDateTime::now_utc()).into(),
                None => Value::Null,
            },
        }
    }

    fn typed(&self, value: &Value) -> Value {
        match (self.kind.as_str(), value) {
            ("integer", Value::Number(_)) | ("number", Value::Number(_)) => value.clone(),
            ("boolean", Value::Bool(_)) => value.clone(),
            ("string", other) => text(other).into(),
            _ => Value::Null,
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How much of each object a row carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

/// The table of some objects; `list` is the metadata of the list that they are from.
pub fn table(columns: &[Column], objects: &[&Value], list: Value, include: Include) -> Value {
    let mut definitions = vec![definition("Name", "string", "name", NAME, 0)];
    for column in columns {
        let Column { name, kind, description, priority, .. } = column;
        definitions.push(definition(name, kind, "", description, *priority));
    }
    let rows: Vec<_> = objects
        .iter()
        .map(|object| {
            let mut cells = vec![object["metadata"]["name"].clone()];
            cells.extend(columns.iter().map(|column| column.value(object)));
            let mut row = json!({ "cells": cells });
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = meta::partial(object),
                Include::Object => row["object"] = Value::clone(object),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

const NAME: &str = "Name must be unique within a namespace.";

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: u64) -> Value {
    json!({
        "name": name,
        "type": kind,
        "format": format,
        "description": description,
        "priority": priority,
    })
}
