//! Selectors of pods, as several kinds have them.

use serde::Deserialize;

use super::{FieldError, Labels};

/// `spec.selector`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SelectorField {
    match_labels: Labels,
}

impl SelectorField {
    /// The labels that a Pod must have, at least one.
    pub(super) fn labels(self) -> Result<Labels, FieldError> {
        if self.match_labels.is_empty() {
            return Err(FieldError::new(
                "spec.selector.matchLabels",
                "selects nothing in particular; to select every pod leave out `selector`",
            ));
        }
        Ok(self.match_labels)
    }
}
