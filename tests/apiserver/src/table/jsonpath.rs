//! The JSONPath of printer columns: `.spec.a`, `.items[0]`, `.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    /// Items whose field has this value.
    Where(String, String),
}

impl Path {
    /// Reads a path; None where it uses more of JSONPath than is known here.
    pub fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = after.find(']')?;
                steps.push(bracket(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                let after = rest.strip_prefix('.')?;
                let (name, end) = field(after);
                if !name.is_empty() {
                    steps.push(if name == "*" { Step::All } else { Step::Field(name) });
                }
                rest = &after[end..];
            }
        }
        Some(Self(steps))
    }

    /// Every value that the path leads to.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.follow(value)).collect();
        }
        found
    }
}

/// A name up to the next `.` or `[`; a backslash makes the next character part of the name.
fn field(text: &str) -> (String, usize) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, at),
            other => name.push(other),
        }
    }
    (name, text.len())
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (field, value) = condition.split_once("==")?;
        let field = field.trim().strip_prefix("@.")?;
        return Some(Step::Where(field.to_owned(), unquoted(value.trim())?.to_owned()));
    }
    match unquoted(inner) {
        Some(name) => Some(Step::Field(name.to_owned())),
        None => inner.parse().ok().map(Step::Index),
    }
}

fn unquoted(text: &str) -> Option<&str> {
    let quoted = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\''))
}

impl Step {
    fn follow<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => value.get(index).into_iter().collect(),
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Where(field, wanted) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                items.iter().filter(|item| item[field].as_str() == Some(wanted)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let object = json!({
            "metadata": { "annotations": { "a.b/c": "dotted" } },
            "spec": { "rules": [{ "name": "x" }, { "name": "y" }] },
            "status": { "conditions": [
                { "type": "Other", "status": "False" },
                { "type": "Ready", "status": "True" },
            ] },
        });
        for (path, expected) in [
            (".spec.rules[1].name", json!(["y"])),
            (".spec.rules[*].name", json!(["x", "y"])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
            (r".metadata.annotations.a\.b/c", json!(["dotted"])),
            (".metadata.annotations['a.b/c']", json!(["dotted"])),
            (".spec.missing.deep", json!([])),
        ] {
            let found = Path::parse(path).map(|path| json!(path.find(&object)));
            assert_eq!(found, Some(expected), "{path}");
        }
        assert_eq!(Path::parse("spec"), None);
    }
}
