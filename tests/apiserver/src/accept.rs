//! In which form an answer is wanted: the `Accept` header.

use crate::error::ApiError;

/// What objects are turned into before they are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Plain,
    /// Rows as `kubectl get` prints them.
    Table,
    /// Metadata alone.
    Metadata,
    /// Of discovery: all at once.
    Aggregated,
}

const JSON: &str = "application/json";

/// The first of the accepted forms that there is.
pub fn form(accept: Option<&str>) -> Result<Form, ApiError> {
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else {
        return Ok(Form::Plain);
    };
    accept.split(',').find_map(one).ok_or_else(|| ApiError::not_acceptable(JSON))
}

fn one(media: &str) -> Option<Form> {
    let mut parts = media.split(';').map(str::trim);
    let kind = parts.next()?;
    if !matches!(kind, JSON | "application/*" | "*/*") {
        return None;
    }
    let (mut shape, mut group, mut version) = ("", "", "");
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key {
            "as" => shape = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    match (shape, group, version) {
        ("", ..) => Some(Form::Plain),
        ("Table", "meta.k8s.io", "v1") => Some(Form::Table),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
            Some(Form::Metadata)
        }
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(Form::Aggregated),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_form_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let old_table = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
        for (accept, expected) in [
            (None, Some(Form::Plain)),
            (Some("application/json"), Some(Form::Plain)),
            (Some("*/*"), Some(Form::Plain)),
            (Some("application/vnd.kubernetes.protobuf, application/json"), Some(Form::Plain)),
            (Some("application/vnd.kubernetes.protobuf"), None),
            (Some(&*format!("{table},{old_table},application/json")), Some(Form::Table)),
            (Some(&*format!("{old_table},application/json")), Some(Form::Plain)),
            (
                Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
                Some(Form::Aggregated),
            ),
            (
                Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
                Some(Form::Metadata),
            ),
        ] {
            assert_eq!(form(accept).ok(), expected, "{accept:?}");
        }
    }
}
