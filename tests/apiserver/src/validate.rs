//! What metadata may look like, and what may not change.

use serde_json::Value;

use crate::{error::Cause, meta, registry::Resource};

/// What is wrong with the metadata of an object.
pub fn metadata(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = meta::text(object, "name");
    if !is_path_segment(name) {
        let why = "may not be '.' or '..' and may not contain '/' or '%'";
        causes.push(Cause::invalid("metadata.name", &name.into(), why));
    } else if is_strict(object) && !is_subdomain(name) {
        causes.push(Cause::invalid("metadata.name", &name.into(), SUBDOMAIN));
    }
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            let why = "name part must consist of alphanumeric characters, '-', '_' or '.', and \
                       must start and end with an alphanumeric character";
            causes.push(Cause::invalid("metadata.labels", &key.as_str().into(), why));
        }
        if !value.as_str().is_some_and(is_label_value) {
            let why = "a valid label must be an empty string or consist of alphanumeric \
                       characters, '-', '_' or '.', and must start and end with an alphanumeric \
                       character, and be no more than 63 characters";
            causes.push(Cause::invalid("metadata.labels", value, why));
        }
    }
    for (key, value) in object["metadata"]["annotations"].as_object().into_iter().flatten() {
        if !is_qualified(&key.to_lowercase()) || !value.is_string() {
            let why = "must be a qualified name with a text";
            causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), why));
        }
    }
    causes
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                         characters, '-' or '.', and must start and end with an alphanumeric \
                         character";

/// Fields that stay as they were created.
const IMMUTABLE: [(&str, &str, &[&str]); 8] = [
    ("apps", "deployments", &["spec", "selector"]),
    ("apps", "daemonsets", &["spec", "selector"]),
    ("batch", "jobs", &["spec", "selector"]),
    ("discovery.k8s.io", "endpointslices", &["addressType"]),
    ("rbac.authorization.k8s.io", "rolebindings", &["roleRef"]),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &["roleRef"]),
    ("", "pods", &["spec", "nodeName"]),
    ("", "secrets", &["type"]),
];

/// What an update changes that cannot be changed.
pub fn immutable(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let Some(old) = old else { return Vec::new() };
    let mut causes = Vec::new();
    for (group, plural, path) in IMMUTABLE {
        let at =
            |object: &Value| path.iter().fold(object.clone(), |value, step| value[step].clone());
        let (before, after) = (at(old), at(new));
        // What was never set can be set once: a pod's node.
        if resource.is(group, plural) && !before.is_null() && before != after {
            causes.push(Cause::invalid(path.join("."), &after, "field is immutable"));
        }
    }
    let is_sealed = old["immutable"] == true && old["data"] != new["data"];
    if is_sealed && matches!(&*resource.storage, "secrets" | "configmaps") {
        causes.push(Cause {
            reason: "FieldValueForbidden",
            field: "data".to_owned(),
            message: "Forbidden: field is immutable when `immutable` is set".to_owned(),
        });
    }
    causes
}

/// RBAC's names may have colons: they are path segments and no more.
fn is_strict(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    !version.starts_with("rbac.authorization.k8s.io/")
}

fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}

/// RFC 1123: labels joined by dots, 253 characters at most.
pub fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let ends = !label.starts_with('-') && !label.ends_with('-');
        !label.is_empty() && ends && label.bytes().all(inner)
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && !name.is_empty() && is_label_value(name),
        None => !key.is_empty() && is_label_value(key),
    }
}

fn is_label_value(value: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    value.len() <= 63 && value.bytes().all(inner) && outer(bytes.first()) && outer(bytes.last())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_labels() {
        for (object, wrong) in [
            (json!({ "metadata": { "name": "a-1.b" } }), 0),
            (json!({ "metadata": { "name": "A" } }), 1),
            (json!({ "metadata": { "name": "a/b" } }), 1),
            (json!({ "metadata": { "name": "x".repeat(254) } }), 1),
            (
                json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": { "name": "system:x" } }),
                0,
            ),
            (json!({ "metadata": { "name": "a", "labels": { "a.b/c": "D_1", "e": "" } } }), 0),
            (json!({ "metadata": { "name": "a", "labels": { "a/b/c": "x", "e": "-" } } }), 2),
        ] {
            assert_eq!(metadata(&object).len(), wrong, "{object}");
        }
    }
}
