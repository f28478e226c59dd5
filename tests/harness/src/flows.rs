//! What `nodemesh flows` tells, and waiting for the flow that a story is about.

use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;

/// One flow, as `nodemesh flows -o json` prints it.
#[derive(Clone, Debug)]
pub struct Flow(Value);

impl Flow {
    /// Reads one line.
    pub fn parse(line: &str) -> Result<Self> {
        Ok(Self(serde_json::from_str(line).with_context(|| format!("not a flow: {line}"))?))
    }

    /// A field by its path, `source/identity`; empty where it is absent.
    pub fn field(&self, path: &str) -> &str {
        self.0.pointer(&format!("/{path}")).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number by its path; 0 where it is absent.
    pub fn number(&self, path: &str) -> u64 {
        self.0.pointer(&format!("/{path}")).and_then(Value::as_u64).unwrap_or_default()
    }

    /// Whether `fields` have these values; a pod is `namespace/name`.
    pub fn has(&self, fields: &[(&str, &str)]) -> bool {
        fields.iter().all(|(path, value)| self.field(path).eq_ignore_ascii_case(value))
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
