//! Label and field selectors: parsed from a query, asked of an object.

use serde_json::Value;

/// Requirements that all have to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let requirements =
            terms(text)?.iter().map(|term| requirement(term)).collect::<Result<_, _>>()?;
        Ok(Self(requirements))
    }

    /// Whether the labels of `object` are as they have to be.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|requirement| {
            let value = object["metadata"]["labels"][requirement.key.as_str()].as_str();
            match (&requirement.test, value) {
                (Test::Exists, value) => value.is_some(),
                (Test::Absent, value) => value.is_none(),
                (Test::In(among), Some(value)) => among.iter().any(|one| one == value),
                (Test::In(_), None) => false,
                (Test::NotIn(among), Some(value)) => among.iter().all(|one| one != value),
                (Test::NotIn(_), None) => true,
            }
        })
    }
}

/// Whether an object has all of these labels (`matchLabels`).
pub fn has_labels(object: &Value, wanted: &Value) -> bool {
    let mut wanted = wanted.as_object().into_iter().flatten();
    wanted.all(|(key, value)| object["metadata"]["labels"].get(key) == Some(value))
}

/// Splits at commas outside of parentheses.
fn terms(text: &str) -> Result<Vec<&str>, String> {
    let mut terms = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth != 0 {
        return Err(format!("unable to parse requirement: unbalanced parentheses in '{text}'"));
    }
    terms.push(text[start..].trim());
    terms.retain(|term| !term.is_empty());
    Ok(terms)
}

fn requirement(term: &str) -> Result<Requirement, String> {
    let (key, test) = if let Some(key) = term.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some((key, value)) = term.split_once("!=") {
        (key, Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, Test::In(vec![value.trim().to_owned()]))
    } else if let Some((key, values)) = term.split_once(" notin ") {
        (key, Test::NotIn(values_of(values)?))
    } else if let Some((key, values)) = term.split_once(" in ") {
        (key, Test::In(values_of(values)?))
    } else {
        (term, Test::Exists)
    };
    let key = key.trim();
    if key.is_empty() || key.contains([' ', '(', ')', '=']) {
        return Err(format!("unable to parse requirement: '{term}' is not a label selector"));
    }
    Ok(Requirement { key: key.to_owned(), test })
}

fn values_of(text: &str) -> Result<Vec<String>, String> {
    let inner = text.trim().strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let inner = inner
        .ok_or_else(|| format!("unable to parse requirement: found '{text}', expected: '('"))?;
    Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

/// Fields that have to have a value, or must not have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector(Vec<Field>);

#[derive(Clone, Debug, PartialEq)]
struct Field {
    path: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Reads `metadata.name=a,spec.nodeName!=b`; `fields` are those that the resource knows.
    pub fn parse(text: &str, fields: &[String]) -> Result<Self, String> {
        let mut selected = Vec::new();
        for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            let (path, equal, value) = if let Some((path, value)) = term.split_once("!=") {
                (path, false, value)
            } else if let Some((path, value)) =
                term.split_once("==").or_else(|| term.split_once('='))
            {
                (path, true, value)
            } else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            let always = ["metadata.name", "metadata.namespace"];
            if !always.contains(&path) && !fields.iter().any(|field| field == path) {
                return Err(format!("field label not supported: {path}"));
            }
            let (path, value) = (path.to_owned(), value.to_owned());
            selected.push(Field { path, equal, value });
        }
        Ok(Self(selected))
    }

    /// Whether the fields of `object` are as they have to be.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|field| (text_of(object, &field.path) == field.value) == field.equal)
    }
}

/// The name in a field selector that lets only one through: what a list of it is authorized as.
pub fn only_name(text: &str) -> Option<&str> {
    text.split(',')
        .find_map(|term| term.strip_prefix("metadata.name="))
        .map(|name| name.trim_start_matches('='))
}

fn text_of(object: &Value, path: &str) -> String {
    let mut value = object;
    for step in path.split('.') {
        value = &value[step];
    }
    match value {
        Value::String(text) => text.clone(),
        Value::Null if matches!(path, "spec.unschedulable" | "spec.hostNetwork") => "false".into(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels() {
        let object = json!({ "metadata": { "labels": { "app": "web", "tier": "front" } } });
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=web,tier=back", false),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, api)", true),
            ("app notin (web,api)", false),
            ("other notin (web,api)", true),
            ("app", true),
            ("!app", false),
            ("!other,app", true),
        ] {
            let selector = LabelSelector::parse(text);
            assert_eq!(selector.map(|selector| selector.matches(&object)), Ok(expected), "{text}");
        }
        for text in ["app in web", "app in (web", "=web", "a b"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fields() {
        let object = json!({
            "metadata": { "name": "a", "namespace": "shop" },
            "spec": { "nodeName": "node-1" },
        });
        let known = ["spec.nodeName".to_owned(), "spec.hostNetwork".to_owned()];
        for (text, expected) in [
            ("metadata.name=a", true),
            ("metadata.name=a,metadata.namespace!=shop", false),
            ("spec.nodeName==node-1", true),
            ("spec.nodeName=", false),
            ("spec.hostNetwork=false", true),
        ] {
            let selector = FieldSelector::parse(text, &known);
            assert_eq!(selector.map(|selector| selector.matches(&object)), Ok(expected), "{text}");
        }
        assert_eq!(
            FieldSelector::parse("spec.other=1", &known),
            Err("field label not supported: spec.other".to_owned())
        );
    }
}
