//! The four ways to say what should change.

pub mod apply;
mod json;
pub mod lists;
mod merge;
mod strategic;

use serde_json::Value;

use crate::{
    error::ApiError,
    registry::{Origin, Resource},
    request,
};

/// A patch, by its content type.
pub enum Patch {
    /// RFC 6902: a list of operations.
    Json(json_patch::Patch),
    /// RFC 7386: what is null goes, the rest is laid over.
    Merge(Value),
    /// A merge patch that knows which lists are merged by which key.
    Strategic(Value),
    /// Server-side apply: what a manager wants, see [`apply`].
    Apply(Value),
}

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl Patch {
    /// Reads the body of a request.
    pub fn parse(content_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        match content_type {
            JSON => json::parse(body).map(Self::Json),
            MERGE => object(request::json(body)?).map(Self::Merge),
            STRATEGIC => object(request::json(body)?).map(Self::Strategic),
            APPLY => object(request::yaml(body)?).map(Self::Apply),
            _ => {
                let known = [JSON, MERGE, STRATEGIC, APPLY].join(", ");
                Err(ApiError::unsupported_media_type(&known))
            }
        }
    }

    /// The object after the patch.
    pub fn apply(&self, resource: &Resource, object: &Value) -> Result<Value, ApiError> {
        match self {
            Self::Json(patch) => json::apply(patch, object),
            Self::Merge(patch) => Ok(merge::apply(object, patch)),
            // Needs to know who applies: the write does it.
            Self::Apply(wanted) => Ok(wanted.clone()),
            Self::Strategic(_) if resource.origin == Origin::Custom => {
                Err(ApiError::unsupported_media_type(&[JSON, MERGE].join(", ")))
            }
            Self::Strategic(patch) => strategic::apply(&resource.kind, object, patch),
        }
    }
}

fn object(patch: Value) -> Result<Value, ApiError> {
    match patch.is_object() {
        true => Ok(patch),
        false => Err(ApiError::bad_request("the patch is not an object")),
    }
}
