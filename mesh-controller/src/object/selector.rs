//! Selectors of pods, as several kinds have them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{FieldError, Labels, fields, limits};

/// The pods that this is for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SelectorField {
    /// Labels that a pod must have, all of them.
    #[schemars(extend("minProperties" = 1, "maxProperties" = limits::LABELS))]
    match_labels: BTreeMap<String, LabelValue>,
}

/// The value of a label.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
struct LabelValue(
    #[schemars(length(max = limits::LABEL_VALUE), regex(pattern = limits::LABEL_VALUE_PATTERN))]
    String,
);

impl SelectorField {
    /// The labels that a Pod must have, at least one.
    pub(super) fn labels(self) -> Result<Labels, FieldError> {
        let error = |reason: String| FieldError::new("spec.selector.matchLabels", reason);
        let count = self.match_labels.len();
        if count == 0 {
            let reason = "selects nothing in particular; to select every pod leave out `selector`";
            return Err(error(reason.to_owned()));
        }
        if count > limits::LABELS {
            return Err(error(format!(
                "{count} labels; at most {} are understood",
                limits::LABELS
            )));
        }
        for (key, LabelValue(value)) in &self.match_labels {
            if !is_label_key(key) {
                return Err(error(format!(
                    "no pod has a label called `{key}`: it is no label key"
                )));
            }
            if !is_label_text(value) && !value.is_empty() {
                return Err(error(format!("no pod has `{key}: {value}`: it is no label value")));
            }
        }
        Ok(self.match_labels.into_iter().map(|(key, LabelValue(value))| (key, value)).collect())
    }
}

/// `name` or `prefix/name`, the prefix a DNS name.
fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => fields::is_name(prefix) && is_label_text(name),
        None => is_label_text(key),
    }
}

/// The value of a label that is not empty, and the name in its key.
fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= limits::LABEL_VALUE
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && edge(bytes.first())
        && edge(bytes.last())
}
