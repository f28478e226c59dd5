//! JSON patch (RFC 6902).

use json_patch::Patch;
use serde_json::Value;

use crate::error::{About, ApiError, Cause};

/// As in the real server: more is a mistake or an attack.
const OPERATIONS: usize = 10_000;

/// Reads a list of operations.
pub fn parse(body: &[u8]) -> Result<Patch, ApiError> {
    let patch: Patch = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    if patch.0.len() > OPERATIONS {
        let message = format!("The allowed maximum operations in a JSON patch is {OPERATIONS}");
        return Err(ApiError::bad_request(message));
    }
    Ok(patch)
}

/// The object after all operations, or an error and nothing has happened.
pub fn apply(patch: &Patch, object: &Value) -> Result<Value, ApiError> {
    let mut object = object.clone();
    json_patch::patch(&mut object, patch).map_err(|error| {
        let about = About { group: "", resource: "", name: "" };
        let cause = Cause {
            reason: "FieldValueInvalid",
            field: "patch".to_owned(),
            message: format!(
                "the server rejected our request due to an error in our request: {error}"
            ),
        };
        ApiError::invalid(about, &[cause])
    })?;
    Ok(object)
}
